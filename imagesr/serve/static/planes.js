/* The samples of a frame, 8 bits, 4:2:0, in the memory of a kernel: luma and chroma as they were decoded, where the
   browser gives them so. Other frames (10 bits, turned, on a card that does not give them back) are drawn and read. */

const DRAWN = { primaries: "bt709", transfer: "bt709", matrix: "bt709", fullRange: false };

export class Planes {
  /** Hold planes of frames of `width` × `height`, with the last column and row repeated up to multiples of 4. */
  constructor(kernel, width, height) {
    Object.assign(this, { kernel, size: [width, height] });
    [this.width, this.height] = this.size.map((length) => 4 * Math.ceil(length / 4));
    const room = (samples) => kernel.room(samples);
    [this.luma, this.blue, this.red] = [1, 4, 4].map((part) => room((this.width * this.height) / part));
    this.scratch = room(4 * this.width * this.height);
  }

  /** Return the size of the planes of a frame, [width, height]; one that is drawn has the size at which it is shown. */
  static sizeOf(frame) {
    return Planes.asDecoded(frame) ? [frame.visibleRect.width, frame.visibleRect.height] : [frame.displayWidth, frame.displayHeight];
  }

  static asDecoded(frame) {
    if (!["I420", "NV12"].includes(frame.format) || frame.rotation || frame.flip) return false;
    const { x, y } = frame.visibleRect;
    return x % 2 === 0 && y % 2 === 0;
  }

  /** Fill the planes, and return their colour space. */
  async read(frame) {
    if (!Planes.asDecoded(frame)) return this.draw(frame);
    const { kernel, scratch } = this;
    const [width, height] = this.size;
    const half = [width, height].map((length) => Math.ceil(length / 2));
    const samples = [width * height, half[0] * half[1]];
    const layout = [{ offset: 0, stride: width }, { offset: samples[0], stride: half[0] }, { offset: samples[0] + samples[1], stride: half[0] }];
    if (frame.format === "NV12") layout.splice(1, 2, { offset: samples[0], stride: 2 * half[0] });
    await frame.copyTo(kernel.view(scratch, samples[0] + 2 * samples[1]), { rect: frame.visibleRect, layout });
    let chroma = scratch + samples[0];
    if (frame.format === "NV12") {
      const apart = chroma + 2 * samples[1];
      kernel.exports.separate(chroma, apart, apart + samples[1], samples[1]);
      chroma = apart;
    }
    kernel.exports.extend(scratch, this.luma, width, height, this.width, this.height);
    for (const [at, to] of [[chroma, this.blue], [chroma + samples[1], this.red]])
      kernel.exports.extend(at, to, ...half, this.width / 2, this.height / 2);
    return frame.colorSpace.toJSON();
  }

  draw(frame) {
    const [width, height] = this.size;
    this.context ??= new OffscreenCanvas(this.width, this.height).getContext("2d", { willReadFrequently: true });
    const { context } = this;
    context.drawImage(frame, 0, 0, width, height);
    if (width < this.width) context.drawImage(context.canvas, width - 1, 0, 1, height, width, 0, this.width - width, height);
    if (height < this.height) context.drawImage(context.canvas, 0, height - 1, this.width, 1, 0, height, this.width, this.height - height);
    this.kernel.view(this.scratch).set(context.getImageData(0, 0, this.width, this.height).data);
    this.kernel.exports.planes(this.scratch, this.luma, this.blue, this.red, this.width, this.height);
    return DRAWN;
  }
}

/** Return the size of what becomes of a frame: even numbers, the nearest ones. */
export function grown([width, height], scale) {
  return [width, height].map((length) => 2 * Math.floor((length * scale) / 2 + 0.5));
}

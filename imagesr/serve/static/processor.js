/* Frames upscaled by the processor: luma by the network, chroma by Catmull-Rom, put together as a frame of video again. */

import { Kernel } from "./kernel.js";
import { Network } from "./network.js";
import { Planes, grown } from "./planes.js";

export class Processor {
  constructor(wasm, onnx) {
    Object.assign(this, { wasm, onnx, planes: null });
  }

  async fit(width, height) {
    this.kernel = await Kernel.open(this.wasm);
    const planes = new Planes(this.kernel, width, height);
    this.network = new Network(this.onnx, this.kernel, planes.luma, planes.width, planes.height);
    const [wide, high] = this.network.out.map((length) => length / 2);
    [this.blue, this.red] = [0, 0].map(() => this.kernel.room(wide * high));
    this.row = this.kernel.room(4 * (planes.width + 8));
    this.planes = planes;
  }

  /** Return { image, top, size }: the rows of a frame from `first` to `last` upscaled, a VideoFrame. */
  async run({ frame, first, last }) {
    const size = Planes.sizeOf(frame);
    if (String(size) !== String(this.planes?.size)) await this.fit(...size);
    const { kernel, network, planes } = this;
    const colorSpace = await planes.read(frame);
    const scale = network.factor / 2;
    const whole = grown(size, scale);
    const [top, bottom] = [first * scale, last * scale];
    network.run(first, last);
    // Horizontally a sample of chroma lies on a sample of luma, vertically between two.
    const shifts = [(0.5 / scale - 0.5) / 2, 0.5 / scale - 0.5];
    for (const [from, to] of [[planes.blue, this.blue], [planes.red, this.red]])
      kernel.exports.resize(from, to, this.row, planes.width / 2, planes.height / 2, network.out[0] / 2, top / 2, bottom / 2, 1 / scale, ...shifts);
    const image = new VideoFrame(kernel.view(), {
      format: "I420",
      codedWidth: network.out[0],
      codedHeight: bottom - top,
      visibleRect: { x: 0, y: 0, width: Math.min(whole[0], network.out[0]), height: Math.min(bottom, whole[1]) - top },
      timestamp: frame.timestamp,
      colorSpace,
      layout: [
        { offset: network.result + top * network.out[0], stride: network.out[0] },
        { offset: this.blue, stride: network.out[0] / 2 },
        { offset: this.red, stride: network.out[0] / 2 },
      ],
    });
    return { image, top, size: whole };
  }
}

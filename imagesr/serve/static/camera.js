/* The webcam, as it films. */

import { enlargeFrame } from "./here.js";

const WINDOW = 2000; // ms over which frames are counted

export class Camera {
  static async open(size) {
    const [width, height] = [{ ideal: size.width }, { ideal: size.height }];
    const stream = await navigator.mediaDevices.getUserMedia({ video: { width, height } });
    const video = document.createElement("video");
    Object.assign(video, { srcObject: stream, muted: true, playsInline: true });
    try {
      await video.play();
    } catch (error) {
      for (const track of stream.getTracks()) track.stop();
      throw error;
    }
    return new Camera(stream, video);
  }

  constructor(stream, video) {
    Object.assign(this, { stream, video, running: true, ended: () => {} });
    stream.getVideoTracks()[0].addEventListener("ended", () => this.stop()); // unplugged
  }

  stop() {
    if (!this.running) return;
    this.running = false;
    for (const track of this.stream.getTracks()) track.stop();
    this.ended();
  }

  /** Return the frame that is shown now, a PNG file. */
  async picture() {
    const canvas = new OffscreenCanvas(this.video.videoWidth, this.video.videoHeight);
    canvas.getContext("2d").drawImage(this.video, 0, 0);
    return new File([await canvas.convertToBlob()], "webcam.png", { type: "image/png" });
  }

  /** Enlarge frames until it is stopped, always the newest: `began(canvas)` is told every new size, `counted(fps, canvas, by)` every frame. */
  async enlarge(network, began, counted) {
    const canvas = document.createElement("canvas");
    const context = canvas.getContext("bitmaprenderer");
    const times = [];
    let seen = -1;
    while (this.running) {
      if (this.video.currentTime === seen) {
        await new Promise((resolve) => setTimeout(resolve, 4));
        continue;
      }
      seen = this.video.currentTime;
      const { result, backend } = await enlargeFrame(await createImageBitmap(this.video), network());
      if (!this.running) return result.close();
      const resized = canvas.width !== result.width || canvas.height !== result.height;
      [canvas.width, canvas.height] = [result.width, result.height];
      context.transferFromImageBitmap(result);
      if (resized) began(canvas);
      const now = performance.now();
      times.push(now);
      while (times[0] < now - WINDOW) times.shift();
      if (times.length > 1) counted((1000 * (times.length - 1)) / (now - times[0]), canvas, `in this browser with ${backend}`);
    }
  }
}

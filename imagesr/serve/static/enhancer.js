/* Frames of one film enhanced in workers: by one on the graphics card, or by as many as there are processor cores, each
   of which upscales some rows. Each has a memory of its own, so no header of the server is needed for them. */

import { Planes } from "./planes.js";

const MODEL = "models/fast_x1.5/";
const MOST = 8; // workers
const ROWS = 64; // a worker has at least so many, or it is not worth its messages
const SPENT = 3000; // ms at most until the browser has compiled what runs often
const SOON = 20; // ms for a frame: nothing faster is looked for

export class Enhancer {
  /** Return an Enhancer for frames of a size: `by` is "card", "processor", or "" for the faster one.

      Rejects with an Error that says why there is none. */
  static async open({ by, width, height }) {
    if (!self.VideoFrame) throw new Error("This browser does not give a page the samples of a film (it has no WebCodecs).");
    let [best, failed] = [null, null];
    for (const way of by ? [by] : ["card", "processor"]) {
      const made = new Enhancer(way, way === "card" ? 1 : parts(height));
      try {
        await made.start(width, height, by === "card");
        const [worse, better] = best && best.spent < made.spent ? [made, best] : [best, made];
        worse?.close();
        best = better;
        if (best.spent < SOON) break;
      } catch (error) {
        failed = error;
        made.close();
      }
    }
    if (!best) throw failed;
    return best;
  }

  constructor(way, count) {
    Object.assign(this, { way, waiting: [], size: null, spent: Infinity }); // the size of what it makes; ms for a frame
    this.by = way === "card" ? "on the graphics card" : `on ${count} processor ${count > 1 ? "cores" : "core"}`;
    this.workers = Array.from({ length: count }, (_, i) => {
      const worker = new Worker(new URL("filmworker.js", import.meta.url), { type: "module" });
      worker.onmessage = ({ data }) => this.answered(i, data);
      worker.onerror = (event) => {
        event.preventDefault();
        this.answered(i, { error: event.message || "The browser could not start the network." });
      };
      return worker;
    });
  }

  /* Load the network, and upscale grey until that no longer becomes faster. */
  async start(width, height, forced) {
    const model = new URL(MODEL, import.meta.url).href;
    await Promise.all(this.workers.map((_, i) => this.ask(i, { open: { way: this.way, model, forced } })));
    const canvas = new OffscreenCanvas(width, height);
    canvas.getContext("2d").fillRect(0, 0, width, height);
    const seen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const began = performance.now();
    for (let same = 0; same < 3 && performance.now() < began + SPENT; ) {
      const frame = new VideoFrame(canvas, { timestamp: 0 });
      const before = performance.now();
      for (const { image } of await this.run(frame)) {
        seen.drawImage(image, 0, 0);
        seen.getImageData(0, 0, 1, 1); // a card has only now done its work
        image.close();
      }
      frame.close();
      const spent = performance.now() - before;
      same = spent > 0.8 * this.spent ? same + 1 : 0;
      this.spent = Math.min(this.spent, spent);
    }
  }

  /** Return the parts of an upscaled frame, { image, top }: images that the caller draws and closes. */
  async run(frame) {
    const high = 4 * Math.ceil(Planes.sizeOf(frame)[1] / 4);
    const step = 4 * Math.ceil(high / this.workers.length / 4);
    const bands = this.workers.map((_, i) => ({ first: Math.min(high, i * step), last: Math.min(high, (i + 1) * step) })).filter(({ first, last }) => first < last);
    const parts = await Promise.all(
      bands.map((band, i) => {
        const own = frame.clone();
        return this.ask(i, { frame: own, ...band }, [own]);
      }),
    );
    this.size = parts[0].size;
    return parts;
  }

  ask(i, message, transfer = []) {
    return new Promise((resolve, reject) => {
      this.waiting[i] = { resolve, reject };
      this.workers[i].postMessage(message, transfer);
    });
  }

  answered(i, { error, ...answer }) {
    const { resolve, reject } = this.waiting[i] ?? {};
    if (error === undefined) resolve?.(answer);
    else reject?.(Object.assign(new Error(error), { card: this.way === "card" }));
  }

  close() {
    for (const worker of this.workers) worker.terminate();
  }
}

const parts = (height) => Math.max(1, Math.min(navigator.hardwareConcurrency || 2, MOST, Math.floor(height / ROWS)));

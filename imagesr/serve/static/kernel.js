/* An instance of film.wasm, and its memory. */

export class Kernel {
  static async open(wasm) {
    const memory = new WebAssembly.Memory({ initial: 16 });
    const { exports } = await WebAssembly.instantiate(wasm, { env: { memory } });
    return new Kernel(memory, exports);
  }

  constructor(memory, exports) {
    Object.assign(this, { memory, exports, end: 2 ** 16 }); // what lies before is its own
  }

  /** Return the address of `bytes` of memory, which are zero. Views of the memory made before may be void. */
  room(bytes) {
    const at = this.end;
    this.end = 16 * Math.ceil((at + bytes) / 16);
    const missing = this.end - this.memory.buffer.byteLength;
    if (missing > 0) this.memory.grow(Math.ceil(missing / 2 ** 16));
    return at;
  }

  view(at = 0, length = undefined) {
    return new Uint8Array(this.memory.buffer, at, length);
  }
}

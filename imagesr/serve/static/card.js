/* Frames upscaled by a graphics card: the shader that mpv takes (model.glsl), on WebGL 2. */

import { Kernel } from "./kernel.js";
import { Planes, grown } from "./planes.js";

// By the matrix of a film: how much red and blue count in luma.
const MATRICES = { smpte170m: [0.299, 0.114], bt470bg: [0.299, 0.114], "bt2020-ncl": [0.2627, 0.0593], bt709: [0.2126, 0.0722] };
const CORNERS = `#version 300 es
void main() { gl_Position = vec4(gl_VertexID == 1 ? 3 : -1, gl_VertexID == 2 ? 3 : -1, 0, 1); }`;
const HEAD = "#version 300 es\nprecision highp float;\nprecision highp int;\nprecision highp sampler2D;\nout vec4 color;\n";
const COLOURS = `${HEAD}
uniform sampler2D luma, blue, red;
uniform vec2 size, ratio; // of the chroma planes; of LR luma to SR
uniform vec4 weights; // red of V, green of U and V, blue of U
uniform vec4 range; // black, white minus black, and the same for chroma
uniform float rows;
void main() {
  vec2 p = vec2(gl_FragCoord.x, rows - gl_FragCoord.y); // a canvas has its first row at the bottom
  float y = (floor(texelFetch(luma, ivec2(p), 0).x * 255.0 + 0.5) - range.x) / range.y;
  vec2 at = p * ratio; // horizontally a sample of chroma lies on a sample of luma, vertically between two
  at = (vec2(at.x + 0.5, at.y) * 0.5) / size;
  float u = (texture(blue, at).x * 255.0 - range.z) / range.w, v = (texture(red, at).x * 255.0 - range.z) / range.w;
  color = vec4(y + weights.x * v, y + weights.y * u + weights.z * v, y + weights.w * u, 1);
}`;

export class Card {
  constructor(wasm, text, { forced }) {
    this.wasm = wasm;
    this.canvas = new OffscreenCanvas(16, 16);
    // Without `forced` a card that is none, which the processor plays, is left alone.
    const gl = (this.gl = this.canvas.getContext("webgl2", { failIfMajorPerformanceCaveat: !forced, alpha: false, antialias: false, depth: false }));
    if (!gl) throw new Error("This browser has no graphics card for WebGL 2.");
    if (!gl.getExtension("EXT_color_buffer_float") && !gl.getExtension("EXT_color_buffer_half_float"))
      throw new Error("This graphics card cannot draw numbers of 16 bits.");
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    this.passes = text.split("//!HOOK ").slice(1).map((part) => this.pass(part));
    this.colours = this.program(COLOURS);
    this.planes = null;
  }

  /* One pass of the shader: what it reads, what it writes and how large, and the program. */
  pass(part) {
    const lines = part.split("\n");
    const told = (name) => lines.filter((line) => line.startsWith(`//!${name} `)).map((line) => line.slice(name.length + 4));
    const body = lines.slice(1).filter((line) => !line.startsWith("//!")).join("\n");
    const bound = told("BIND");
    const given = bound.map((name) => `uniform sampler2D ${name}_raw;\nuniform vec2 ${name}_size;\n#define ${name}_mul 1.0\n`).join("");
    const program = this.program(`${HEAD}${given}${body}\nvoid main() { color = hook(); }`);
    return { program, bound, save: told("SAVE")[0] ?? "RESULT", size: [told("WIDTH")[0], told("HEIGHT")[0]] };
  }

  program(text) {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, CORNERS], [gl.FRAGMENT_SHADER, text]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    return program; // asked whether it is good only later: cards compile several at a time
  }

  async fit(width, height) {
    const { gl } = this;
    for (const pass of [...this.passes, { program: this.colours }])
      if (!gl.getProgramParameter(pass.program, gl.LINK_STATUS)) throw new Error(`This graphics card does not take the shader. ${gl.getProgramInfoLog(pass.program) ?? ""}`);
    for (const { texture } of this.textures?.values() ?? []) gl.deleteTexture(texture);
    const planes = new Planes(await Kernel.open(this.wasm), width, height);
    this.textures = new Map();
    this.texture("LUMA", gl.R8, planes.width, planes.height);
    for (const name of ["BLUE", "RED"]) this.texture(name, gl.R8, planes.width / 2, planes.height / 2, gl.LINEAR);
    for (const pass of this.passes) {
      const [wide, high] = pass.size.map((sum) => calculated(sum, planes));
      pass.target = this.texture(pass.save, gl.RGBA16F, wide, high);
      pass.target.frame = gl.createFramebuffer();
      gl.bindFramebuffer(gl.FRAMEBUFFER, pass.target.frame);
      gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, pass.target.texture, 0);
      if (gl.checkFramebufferStatus(gl.FRAMEBUFFER) !== gl.FRAMEBUFFER_COMPLETE) throw new Error("This graphics card cannot draw numbers of 16 bits.");
    }
    this.planes = planes;
  }

  texture(name, format, width, height, filter = this.gl.NEAREST) {
    const { gl } = this;
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texStorage2D(gl.TEXTURE_2D, 1, format, width, height);
    for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, side, filter);
    for (const axis of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, axis, gl.CLAMP_TO_EDGE);
    this.textures.set(name, { texture, size: [width, height] });
    return this.textures.get(name);
  }

  /** Return { image, top, size }: a whole frame upscaled, an ImageBitmap. */
  async run({ frame }) {
    const { gl } = this;
    const size = Planes.sizeOf(frame);
    if (String(size) !== String(this.planes?.size)) await this.fit(...size);
    const { planes } = this;
    const colours = await planes.read(frame);
    for (const [name, at] of [["LUMA", planes.luma], ["BLUE", planes.blue], ["RED", planes.red]]) {
      const { texture, size: [width, height] } = this.textures.get(name);
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, width, height, gl.RED, gl.UNSIGNED_BYTE, planes.kernel.view(at, width * height));
    }
    for (const { program, bound, target } of this.passes) {
      gl.useProgram(program);
      bound.forEach((name, unit) => {
        this.bind(program, `${name}_raw`, unit, name);
        gl.uniform2f(gl.getUniformLocation(program, `${name}_size`), ...this.textures.get(name).size);
      });
      this.cover(target.frame, target.size);
    }
    const whole = this.show(size, colours);
    if (gl.isContextLost()) throw new Error("The graphics card has stopped.");
    return { image: this.canvas.transferToImageBitmap(), top: 0, size: whole };
  }

  show(size, { matrix, fullRange }) {
    const { gl, colours, planes } = this;
    const { size: result } = this.textures.get("RESULT");
    const whole = grown(size, result[0] / planes.width).map((length, i) => Math.min(length, result[i]));
    if (String([this.canvas.width, this.canvas.height]) !== String(whole)) [this.canvas.width, this.canvas.height] = whole;
    const [red, blue] = MATRICES[matrix] ?? MATRICES.bt709;
    const green = 1 - red - blue;
    const [v, u] = [2 * (1 - red), 2 * (1 - blue)];
    const set = (name, ...values) => gl[`uniform${values.length}f`](gl.getUniformLocation(colours, name), ...values);
    gl.useProgram(colours);
    ["luma", "blue", "red"].forEach((name, unit) => this.bind(colours, name, unit, { luma: "RESULT" }[name] ?? name.toUpperCase()));
    set("size", planes.width / 2, planes.height / 2);
    set("ratio", planes.width / result[0], planes.height / result[1]);
    set("weights", v, (-blue * u) / green, (-red * v) / green, u);
    set("range", ...(fullRange ? [0, 255, 128, 255] : [16, 219, 128, 224]));
    set("rows", whole[1]);
    this.cover(null, whole);
    return whole;
  }

  bind(program, uniform, unit, name) {
    const { gl } = this;
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, this.textures.get(name).texture);
    gl.uniform1i(gl.getUniformLocation(program, uniform), unit);
  }

  cover(frame, size) {
    const { gl } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
    gl.viewport(0, 0, ...size);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }
}

/* What mpv's postfix notation comes to: "LUMA.w 2 / 2 +". */
function calculated(sum, { width, height }) {
  const operations = { "+": (a, b) => a + b, "-": (a, b) => a - b, "*": (a, b) => a * b, "/": (a, b) => a / b };
  const stack = [];
  for (const word of sum.split(" ")) {
    if (word in operations) stack.push(operations[word](...stack.splice(-2)));
    else stack.push({ "LUMA.w": width, "LUMA.h": height }[word] ?? +word);
  }
  return stack[0];
}

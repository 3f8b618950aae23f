/* The real-time luma networks (models/realtime.py), run on film.wasm row by row: a row of a layer is computed when the
   next layer needs it, so that what is computed stays in the cache. The weights are those of the ONNX file. */

/** Run a luma network on planes of `width` × `height`, multiples of 4. Lengths of layers are in its half-size pixels. */
export class Network {
  /** Take the network of an ONNX file, and luma at an address of the kernel's memory; throw an Error where it cannot be run. */
  constructor(onnx, kernel, luma, width, height) {
    const { offset, factor, head, body, tail, anchor, skip } = layersOf(onnx);
    Object.assign(this, { kernel, luma, width, height, factor, offset });
    [this.wide, this.high] = [width / 2, height / 2];
    this.out = [(width * factor) / 2, (height * factor) / 2];
    this.result = kernel.room(this.out[0] * this.out[1]);
    this.zeros = kernel.room(4 * 16 * (this.wide + 16));
    this.pointers = kernel.room(4 * 5);

    const kept = body.length + 8; // rows: the first maps are read again when the last layer is reached
    this.source = this.map(4, anchor.side >> 1, kept);
    let last = this.source;
    const layers = [head, ...body].map((layer, i) => (last = this.layer(layer, last, i ? 5 : kept)));
    if (skip) layers.at(-1).added = layers[0];
    this.tail = this.layer(tail, last, 1);
    this.anchor = this.layer(anchor, this.source, 1);
    this.tail.added = this.anchor;
    this.maps = [this.source, ...layers, this.tail, this.anchor];
    if (this.tail.margin || this.anchor.margin) throw new Error("Expected a network whose result has the picture's size.");
  }

  /* A feature map that reaches `margin` pixels beyond the picture, of which the last `kept` rows are kept. */
  map(channels, margin, kept) {
    const bytes = 4 * channels * (this.wide + 2 * margin + 8); // a pixel of zeros before, and what a kernel writes beyond
    return { channels, margin, kept, bytes, at: this.kernel.room(kept * bytes), rows: new Int32Array(kept).fill(-1000) };
  }

  layer({ side, same, relu, outputs, weights, bias }, source, kept) {
    const stored = Math.ceil(outputs / 4) * 4;
    const made = this.map(stored, source.margin - (same ? 0 : side >> 1), kept);
    const convolve = this.kernel.exports[`conv_${source.channels}_${side}_${stored}`];
    if (!convolve) throw new Error(`Expected convolutions that film.wasm has. Received: ${source.channels}, ${side}, ${outputs}.`);
    const [w, b] = [4 * side * side * source.channels * stored, 4 * stored].map((bytes) => this.kernel.room(bytes));
    const floats = new Float32Array(this.kernel.memory.buffer);
    floats.set(bias, b / 4);
    for (let output = 0, from = 0; output < outputs; output++) // from outputs, inputs, rows, columns
      for (let input = 0; input < source.channels; input++)
        for (let tap = 0; tap < side * side; tap++, from++)
          floats[w / 4 + (tap * source.channels + input) * stored + output] = weights[from];
    return Object.assign(made, { source, side, relu: +relu, convolve, weights: w, bias: b, added: null });
  }

  /* The address of the first pixel of a row, which is computed if it has not been. */
  row(map, y) {
    const slot = (y + map.margin) % map.kept;
    const at = map.at + slot * map.bytes + 4 * map.channels;
    if (map.rows[slot] === y) return at;
    map.rows[slot] = y;
    const width = this.wide + 2 * map.margin;
    if (!map.source) this.kernel.exports.unshuffle(this.luma, at, this.width, this.height, 2 * y, 2 * map.margin, this.offset);
    else {
      const { source, side } = map;
      const beside = source.margin - map.margin - (side >> 1); // -1 where a pixel of zeros lies before the first
      const added = map.added ? this.row(map.added, y) + 4 * map.channels * (map.added.margin - map.margin) : 0;
      const rows = [];
      for (let from = y - (side >> 1); from <= y + (side >> 1); from++) {
        const inside = from >= -source.margin && from < this.high + source.margin;
        rows.push((inside ? this.row(source, from) : this.zeros + 4 * source.channels) + 4 * source.channels * beside);
      }
      new Uint32Array(this.kernel.memory.buffer, this.pointers, side).set(rows);
      map.convolve(this.pointers, at, map.weights, map.bias, added, width, map.relu);
    }
    // The kernels write some pixels beyond the row.
    new Float32Array(this.kernel.memory.buffer, at + 4 * map.channels * width, 3 * map.channels).fill(0);
    return at;
  }

  /** Upscale the rows from `first` to `last` of luma, multiples of 2, into their rows of `result`. */
  run(first, last) {
    for (const map of this.maps) map.rows.fill(-1000);
    for (let y = first / 2; y < last / 2; y++)
      this.kernel.exports.shuffle(this.row(this.tail, y), this.result + y * this.factor * this.out[0], this.wide, this.factor, this.tail.channels);
  }
}

/* The layers of a network of models/realtime.py; an Error for any other. */
function layersOf(bytes) {
  const { nodes, tensors } = readOnnx(bytes);
  const known = new Set("Cast Sub Pad Unsqueeze Reshape SpaceToDepth Conv Relu Add DepthToSpace Squeeze Round Min Max".split(" "));
  const strange = nodes.find(({ op }) => !known.has(op));
  if (strange) throw new Error(`Expected a network without ${strange.op}, which film.wasm does not have.`);
  const the = (op) => nodes.find((node) => node.op === op);
  const maker = new Map(nodes.map((node) => [node.outputs[0], node]));
  const convolutions = nodes.filter(({ op }) => op === "Conv").map((node) => {
    const { dims, floats } = tensors.get(node.inputs[1]);
    const relu = nodes.some(({ op, inputs }) => op === "Relu" && inputs[0] === node.outputs[0]);
    const same = node.attributes.get("auto_pad") === "SAME_UPPER";
    const bias = node.inputs[2] ? tensors.get(node.inputs[2]).floats : new Float32Array(dims[0]);
    return { node, side: dims[2], outputs: dims[0], weights: floats, bias, relu, same };
  });
  const onPicture = ({ node }) => node.inputs[0] === the("SpaceToDepth").outputs[0];
  const anchor = convolutions.find((one) => onPicture(one) && !one.node.inputs[2]);
  const head = convolutions.find((one) => onPicture(one) && one !== anchor);
  const [tail, ...rest] = convolutions.filter((one) => !onPicture(one)).reverse();
  if (!anchor || !head || !tail) throw new Error("Expected a network with head, tail and anchor.");
  const skip = maker.get(tail.node.inputs[0])?.op === "Add";
  const offset = tensors.get(the("Sub").inputs[1]).floats[0];
  return { offset, factor: the("DepthToSpace").attributes.get("blocksize"), head, body: rest.reverse(), tail, anchor, skip };
}

/* The nodes and tensors of an ONNX file, a protocol buffer: the few fields that networks of convolutions need. */
function readOnnx(bytes) {
  const graph = fields(fields(bytes).get(7)[0]);
  const tensors = new Map();
  for (const tensor of (graph.get(5) ?? []).map(fields)) {
    const raw = tensor.get(9)?.[0] ?? new Uint8Array();
    const dims = (tensor.get(1) ?? []).flatMap((dim) => (dim instanceof Uint8Array ? varints(dim) : [dim]));
    const floats = tensor.get(2)[0] === 1 ? new Float32Array(raw.slice().buffer) : null;
    tensors.set(text(tensor.get(8)[0]), { dims, floats });
  }
  const nodes = graph.get(1).map(fields).map((node) => ({
    op: text(node.get(4)[0]),
    inputs: (node.get(1) ?? []).map(text),
    outputs: (node.get(2) ?? []).map(text),
    attributes: new Map((node.get(5) ?? []).map(fields).map((one) => [text(one.get(1)[0]), one.has(4) ? text(one.get(4)[0]) : one.get(3)?.[0]])),
  }));
  return { nodes, tensors };
}

const text = (bytes) => new TextDecoder().decode(bytes);

/* The values of a message by the fields' numbers: numbers, or bytes. */
function fields(bytes) {
  const found = new Map();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let unit = 1; ; unit *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * unit;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint();
    let value;
    if (key % 8 === 0) value = varint();
    else if (key % 8 === 5) value = view.getFloat32((at += 4) - 4, true);
    else if (key % 8 === 1) value = view.getFloat64((at += 8) - 8, true);
    else {
      const length = varint();
      value = bytes.subarray(at, (at += length));
    }
    const number = Math.floor(key / 8);
    found.set(number, [...(found.get(number) ?? []), value]);
  }
  return found;
}

function varints(bytes) {
  const values = [];
  for (let at = 0, value = 0, unit = 1; at < bytes.length; at++, unit *= 128) {
    value += (bytes[at] & 127) * unit;
    if (bytes[at] < 128) [value, unit] = (values.push(value), [0, 1 / 128]);
  }
  return values;
}

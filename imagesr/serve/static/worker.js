/* Enlarges pictures with the shipped networks on ONNX Runtime, away from the page's own thread.

   Asked { id, model, bitmap, type, quality }, it answers { id, share } on the way and at last { id, result, backend },
   a Blob of `type`, or an ImageBitmap where there is none, or { id, error }.
   `model` is { url, runtime, up, down, multiple, reach, detail, clean }, lengths in LR pixels; `detail` and `clean` are for networks that take them. */

const PATIENCE = 5000; // ms that WebGPU has for an answer
const TILE = 384; // LR pixels a side
const MOST = 80e6; // pixels of a result: four bytes each, twice, in the worker alone
const GREY = 128;

let card = true; // until WebGPU has failed
const sessions = new Map(); // by the network's address: promises of { ort, session, backend }

let queue = Promise.resolve(); // a session runs one picture at a time

self.onmessage = ({ data }) => (queue = queue.then(() => answer(data)));

async function answer(data) {
  const { id, model } = data;
  try {
    const result = await enlarge(data, (share) => self.postMessage({ id, share }));
    const { backend } = await open(model);
    self.postMessage({ id, result, backend }, result instanceof ImageBitmap ? [result] : []);
  } catch (error) {
    self.postMessage({ id, error: error.message ?? String(error) });
  } finally {
    data.bitmap.close();
  }
}

function open(model) {
  if (!sessions.has(model.url)) {
    const opened = create(model);
    opened.catch(() => sessions.delete(model.url));
    sessions.set(model.url, opened);
  }
  return sessions.get(model.url);
}

/* WebGPU where there is a graphics card, and it has answered for this network in time, else WebAssembly. */
async function create(model) {
  const bytes = await download(model.url);
  try {
    if (card) return await onCard(bytes, model.runtime);
  } catch {
    card = false;
  }
  const ort = await load(model.runtime, "wasm", "");
  return { ort, session: await ort.InferenceSession.create(bytes, options("wasm")), backend: "WebAssembly" };
}

async function onCard(bytes, folder) {
  const adapter = await within(PATIENCE, navigator.gpu?.requestAdapter());
  if (!adapter || adapter.info.isFallbackAdapter) throw new Error("no graphics card");
  const ort = await load(folder, "webgpu", "asyncify");
  const trial = async () => {
    const session = await ort.InferenceSession.create(bytes, options("webgpu"));
    const opened = { ort, session, backend: "WebGPU" };
    await run(opened, 0, new Uint8Array(64 * 64).fill(GREY), 64, 64);
    return opened;
  };
  return within(PATIENCE, trial());
}

const options = (provider) => ({ executionProviders: [provider], logSeverityLevel: 3 });

async function download(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`The server does not give ${url} (${response.status}).`);
  return new Uint8Array(await response.arrayBuffer());
}

async function load(folder, name, kind) {
  const file = ["ort-wasm-simd-threaded", kind].filter(Boolean).join(".");
  const ort = await import(`${folder}ort.${name}.min.mjs`); // the same one for every network
  ort.env.wasm.wasmPaths = { mjs: `${folder}${file}.mjs` };
  ort.env.wasm.wasmBinary ??= await download(`${folder}${file}.wasm`);
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 8) : 1;
  return ort;
}

function within(time, promise) {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error("no answer")), time)));
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/* A graphics card may fail later, too: with a larger tile, or because it is gone. */
async function superResolve(model, ...lr) {
  const opened = await open(model);
  try {
    return await run(opened, model, ...lr);
  } catch (error) {
    if (opened.backend !== "WebGPU") throw error;
    card = false;
    sessions.clear();
    return run(await open(model), model, ...lr);
  }
}

async function run({ ort, session }, numbers, luma, width, height) {
  const lr = new ort.Tensor("uint8", luma, [1, height, width, 1]);
  const feeds = { [session.inputNames[0]]: lr };
  // A network may take a detail, of which 0 is the faithful picture, and a clean, of which 0 leaves all as it is.
  for (const name of session.inputNames.slice(1)) feeds[name] = new ort.Tensor("float32", [numbers[name] ?? 0], [1]);
  const results = await session.run(feeds);
  const sr = results[session.outputNames[0]];
  const data = await sr.getData();
  sr.dispose();
  lr.dispose();
  return data;
}

/* As imagesr.enlarge: the network's luma, in the colours of an ordinary enlargement. In YCbCr a change of luma alone
   moves red, green and blue by the same amount. Where the picture is transparent, it is seen on grey. */
async function enlarge({ model, bitmap, type, quality }, progress) {
  const { width, height } = bitmap;
  const { up, down } = model;
  const grow = (length) => Math.floor((2 * length * up + down) / (2 * down));
  const size = [grow(width), grow(height)];
  if (size[0] * size[1] > MOST || Math.max(...size) > 16384)
    throw new Error(`Expected a result of at most ${MOST / 1e6} megapixels and 16384 pixels a side. Received: ${size.join("×")}; choose a smaller scale.`);
  const source = surface(width, height);
  source.drawImage(bitmap, 0, 0);
  const target = surface(...size);
  target.imageSmoothingQuality = "high";
  target.drawImage(bitmap, 0, 0, ...size);

  const unit = leastCommonMultiple(model.multiple, down);
  const wide = divided(width, unit);
  const high = divided(height, unit);
  const [columns, rows] = [width / wide, height / high].map(Math.ceil);
  // Along its edges a network sees zeros, which costs a code or two: nobody sees it in a film, where time is short.
  const margin = !type && rows * columns === 1 ? 0 : upTo(model.reach, unit);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) {
      const [left, top] = [column * wide, row * high];
      const luma = lumaAround(source, left - margin, top - margin, wide + 2 * margin, high + 2 * margin);
      const sr = await superResolve(model, luma, wide + 2 * margin, high + 2 * margin);
      const stride = grow(wide + 2 * margin);
      const part = [grow(left), grow(top), Math.min(grow(wide), size[0] - grow(left)), Math.min(grow(high), size[1] - grow(top))];
      const pixels = target.getImageData(...part);
      withLuma(pixels, sr.subarray(grow(margin) * stride + grow(margin)), stride);
      target.putImageData(pixels, part[0], part[1]);
      progress((row * columns + column + 1) / (rows * columns));
    }
  if (!type) return target.canvas.transferToImageBitmap();
  if (type === "image/jpeg") {
    target.globalCompositeOperation = "destination-over";
    target.fillStyle = "white";
    target.fillRect(0, 0, ...size);
  }
  return target.canvas.convertToBlob({ type, quality });
}

const surface = (width, height) => new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
const upTo = (length, unit) => Math.ceil(length / unit) * unit;
const divided = (length, unit) => upTo(Math.ceil(length / Math.ceil(length / TILE)), unit);

function leastCommonMultiple(a, b) {
  let multiple = a;
  while (multiple % b) multiple += a;
  return multiple;
}

/* Studio luma of BT.601, 16 to 235, of the pixel at `at`, on grey where it is transparent. */
function lumaOf(data, at) {
  const luma = 16 + (65.481 * data[at] + 128.553 * data[at + 1] + 24.966 * data[at + 2]) / 255;
  return data[at + 3] === 255 ? luma : GREY + ((luma - GREY) * data[at + 3]) / 255;
}

/* The luma of a part of a picture, which is mirrored beyond its edges. */
function lumaAround(context, left, top, width, height) {
  const { canvas } = context;
  const mirror = (at, length) => {
    at = ((at % (2 * length)) + 2 * length) % (2 * length);
    return at < length ? at : 2 * length - 1 - at;
  };
  const columns = Array.from({ length: width }, (_, x) => mirror(left + x, canvas.width));
  const rows = Array.from({ length: height }, (_, y) => mirror(top + y, canvas.height));
  const [x0, y0] = [Math.min(...columns), Math.min(...rows)];
  const { data, width: across } = context.getImageData(x0, y0, Math.max(...columns) - x0 + 1, Math.max(...rows) - y0 + 1);
  const luma = new Uint8Array(width * height);
  let at = 0;
  for (const y of rows) for (const x of columns) luma[at++] = lumaOf(data, 4 * ((y - y0) * across + x - x0)) + 0.5;
  return luma;
}

function withLuma({ data, width, height }, luma, stride) {
  for (let y = 0, at = 0; y < height; y++)
    for (let x = 0; x < width; x++, at += 4) {
      const change = ((luma[y * stride + x] - lumaOf(data, at)) * data[at + 3]) / 219;
      for (let band = at; band < at + 3; band++) data[band] += change;
    }
}

/* Upscales frames of a film, away from the page's own thread.

   Asked { open: { way, model, forced } } it answers {}; asked { frame, first, last } it answers { image, top, size }: an
   image of the upscaled rows from `first` to `last`, where they begin in the result, and the result's size. `way` is
   "card" or "processor". Where it fails it answers { error }. */

let path = null;

self.onmessage = async ({ data }) => {
  try {
    if (data.open) {
      path = await open(data.open);
      self.postMessage({});
    } else {
      const answer = await path.run(data);
      self.postMessage(answer, [answer.image]);
    }
  } catch (error) {
    self.postMessage({ error: error.message ?? String(error) });
  } finally {
    data.frame?.close();
  }
};

async function open({ way, model, forced }) {
  const wasm = await WebAssembly.compileStreaming(download("film.wasm")).catch((error) => {
    if (!(error instanceof WebAssembly.CompileError)) throw error;
    throw new Error("This browser's WebAssembly is too old: it has no SIMD.");
  });
  if (way === "processor") {
    const { Processor } = await import("./processor.js");
    return new Processor(wasm, new Uint8Array(await (await download(`${model}model.onnx`)).arrayBuffer()));
  }
  const { Card } = await import("./card.js");
  return new Card(wasm, await (await download(`${model}model.glsl`)).text(), { forced });
}

async function download(url) {
  const response = await fetch(new URL(url, import.meta.url));
  if (!response.ok) throw new Error(`The server does not give ${url} (${response.status}).`);
  return response;
}

/* Pictures enlarged by this browser, in a worker. */

let worker;
let last = 0;
const waiting = new Map();

function ask(message, transfer) {
  worker ??= begin();
  const id = ++last;
  worker.postMessage({ id, ...message }, transfer);
  return { id, answer: new Promise((resolve, reject) => waiting.set(id, { resolve, reject, progress: () => {} })) };
}

function begin() {
  const made = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  made.onmessage = ({ data: { id, share, error, ...answer } }) => {
    const asker = waiting.get(id);
    if (!asker) return;
    if (share !== undefined) return asker.progress(share);
    waiting.delete(id);
    if (error === undefined) asker.resolve(answer);
    else asker.reject(new Error(error));
  };
  made.onerror = (event) => {
    event.preventDefault();
    end(new Error(event.message || "The browser could not start the network."));
  };
  return made;
}

function end(error) {
  worker.terminate();
  worker = undefined;
  for (const { reject } of waiting.values()) reject(error);
  waiting.clear();
}

/** Enlarge an ImageBitmap, which is used up, and return { result, backend }: an ImageBitmap. */
export function enlargeFrame(bitmap, model) {
  return ask({ bitmap, model }, [bitmap]).answer;
}

/** Enlarge a file, and return { blob, by }. */
export async function enlargeHere(file, model, { type, signal, progress }) {
  progress("Starting the network", null);
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error("This browser cannot read that picture.");
  });
  signal.throwIfAborted();
  const { id, answer } = ask({ bitmap, model, type, quality: 0.95 }, [bitmap]);
  const asker = waiting.get(id);
  asker.progress = (share) => signal.aborted || progress("Enlarging it here", share);
  // A tile takes seconds on a slow machine, and for ever on a card that hangs: the worker is ended with its picture.
  signal.addEventListener("abort", () => waiting.has(id) && end(signal.reason));
  const { result, backend } = await answer;
  return { blob: result, by: `in this browser with ${backend}` };
}

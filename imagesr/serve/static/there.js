/* Pictures enlarged by the server. */

/** What a server answered instead of a picture: its status (0: nothing came) and its sentence. */
export class Refusal extends Error {
  constructor(status, message = "", seconds = 0) {
    super(message);
    Object.assign(this, { status, seconds });
  }
}

/** Send a file, and return { blob, by, request }, the last one for votes; rejects with a Refusal. A request reports the progress of its upload; fetch cannot. */
export function enlargeThere(file, query, { max, signal, progress }) {
  // A refusal that comes before the whole upload went out is lost in some browsers.
  if (file.size > max) {
    const [is, most] = [file.size, max].map((count) => count.toLocaleString("en"));
    return Promise.reject(new Refusal(413, `Expected at most ${most} bytes. Received: ${is}.`));
  }
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `supersizeme?${new URLSearchParams(query)}`);
    request.responseType = "blob";
    request.setRequestHeader("Content-Type", file.type || "application/octet-stream");
    signal.addEventListener("abort", () => request.abort());
    request.upload.onprogress = ({ loaded, total }) => progress("Uploading", loaded / total);
    request.upload.onload = () => progress("The server is enlarging it", null);
    request.onload = async () => {
      if (request.status === 200) return resolve({ blob: request.response, by: "by the server", request: request.getResponseHeader("Imagesr-Request") });
      const sentence = await request.response.text().then(JSON.parse).then((body) => body.error).catch(() => "");
      reject(new Refusal(request.status, sentence, +request.getResponseHeader("Retry-After") || 0));
    };
    request.onerror = request.ontimeout = () => reject(new Refusal(0));
    request.onabort = () => reject(signal.reason);
    request.send(file);
  });
}

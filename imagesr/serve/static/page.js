/* The page of the service: takes a picture, has it enlarged by the server or by this browser, and shows both. */

import { Viewer } from "./viewer.js";
import { Camera } from "./camera.js";
import { enlargeHere } from "./here.js";
import { takeFiles } from "./taking.js";
import { enlargeThere, Refusal } from "./there.js";
import { offerVote } from "./vote.js";

const SCALES = ["1.5", "2", "3", "4", "6", "8"]; // the server composes them
const TAKEN = ".png,.jpg,.jpeg,.jfif,.jpe,image/png,image/jpeg"; // by the server; this browser may read more
const $ = (id) => document.getElementById(id);
const viewer = new Viewer($("stage"), (scale, fitted) => {
  $("zoom").value = `${Math.round(scale * 100)} %`;
  const pressed = { fit: fitted, full: !fitted && Math.abs(scale - 1) < 0.001, double: !fitted && Math.abs(scale - 2) < 0.001 };
  for (const [id, on] of Object.entries(pressed)) $(id).ariaPressed = on;
});

let service = { models: [] }; // what GET /models tells
let picture = null; // the File to enlarge
let work = null; // the AbortController of what is under way
let camera = null;
const moved = new Set(); // the sliders that the reader has moved
let urls = []; // of what the stage shows

const here = () => $("browser").checked;
const say = (text) => ($("status").textContent = text);
const bytes = (count) => count < 1e6 ? `${Math.ceil(count / 1e3)} kB` : `${(count / 1e6).toFixed(1)} MB`;

/* What can be chosen */

async function start() {
  try {
    const answer = await fetch(document.documentElement.dataset.models ?? "models");
    if (!answer.ok) throw new Refusal(answer.status, (await answer.json()).error);
    service = await answer.json();
  } catch (error) {
    return explain(error instanceof Refusal ? error : new Refusal(0), start);
  }
  hide("message");
  const cost = ({ scales }) => Math.max(...scales.map((scale) => scale.multiply_accumulates));
  service.models.sort((a, b) => cost(b) - cost(a));
  $("model").replaceChildren(...service.models.map(({ name, also: [short = name] }) => new Option(short, name)));
  $("model").value = service.models.find(({ name, also }) => [name, ...also].includes(service.default)).name;
  $("model").disabled = $("scale").disabled = false;
  $("browser").disabled = !service.runtime;
  if (service.only_here) [$("browser").checked, document.querySelector("[value=server]").disabled] = [true, true]; // a copy of the page
  $("limits").textContent = `PNG or JPEG, up to ${bytes(service.max_bytes)} and ${service.max_pixels / 1e6} Mpx`;
  choices();
  enlarge(); // what was dropped before
}

const model = () => service.models.find(({ name }) => name === $("model").value);
const scales = () => model().scales;

function choices() {
  if (!service.models.length) return;
  const own = scales().filter(({ channels }) => channels === 1 || !here()).map(({ scale }) => scale);
  const more = model().clean === null ? SCALES : ["1", ...SCALES];
  const offered = here() ? own : [...new Set([...own, ...more])].sort((a, b) => a - b);
  const chosen = [$("scale").value, "2"].find((scale) => offered.includes(scale)) ?? offered[0];
  $("file").accept = here() ? "image/*" : TAKEN;
  $("scale").replaceChildren(...offered.map((scale) => new Option(scale === "1" ? "× 1, cleaned" : `× ${scale}`, scale, false, scale === chosen)));
  offerNumbers();
  $("where").textContent = here()
    ? "The picture stays on this device; the network comes from the server once." +
      (self.crossOriginIsolated ? "" : " Only one processor core can be used: the server does not send the headers that isolate the page.")
    : (service.feedback ? "The picture goes to the server, which keeps it only if you tick that below the result." : "The picture goes to the server, which keeps nothing.") +
      (service.runtime ? "" : " “In my browser” needs more files on the server: imagesr serve.web fetches them.");
  $("enlarge").disabled = !picture;
}

const native = () => scales().find(({ scale }) => scale === $("scale").value);

/* The detail that is chosen; undefined where the network takes none. */
const detail = () => ($("ends").hidden ? undefined : $("detail").valueAsNumber);

/* How much is cleaned: a number or "auto"; undefined where the network takes no such number. */
const clean = () => ($("lost").hidden ? undefined : $("clean").disabled ? "auto" : $("clean").valueAsNumber);

/* Show the sliders where the network at the chosen scale takes them, at its defaults unless the reader has moved them.
   The server may have a network that cleans before those that do not. */
function offerNumbers() {
  const before = { clean: here() ? null : model().clean };
  for (const [id, label] of [["detail", "ends"], ["clean", "lost"]]) {
    const own = native()?.[id] ?? before[id] ?? null;
    $(label).hidden = own === null;
    if (own !== null && !moved.has(id)) $(id).value = own;
  }
  $("guess").hidden = $("lost").hidden || here(); // the server looks at the picture, this browser cannot
  $("clean").disabled = !$("guess").hidden && $("auto").checked;
  showNumbers();
}

function showNumbers() {
  for (const id of ["detail", "clean"]) $(`${id}-value`).value = $(id).disabled ? "" : (+$(id).value).toFixed(1);
}

/* Those of the numbers that are given. */
const given = (numbers) => Object.fromEntries(Object.entries(numbers).filter(([, number]) => number !== undefined));

/* What the worker must know of the network that is chosen. */
function network() {
  const { multiple, receptive_field, files } = native();
  let [up, down] = [+$("scale").value, 1];
  while (up % 1) [up, down] = [2 * up, 2 * down];
  const reach = Math.max(4, Math.ceil(receptive_field / 2) + multiple);
  const [url, runtime] = [files["model.onnx"], service.runtime].map((path) => new URL(path, location).href);
  return { url, runtime, up, down, multiple, reach, detail: detail(), clean: clean() };
}

/* One picture */

async function take(file) {
  if (!file) return;
  if (file.type.startsWith("video/")) return explain(new Refusal(415, "Videos have a page of their own: “A video”, at the top."));
  picture = file;
  $("enlarge").disabled = !service.models.length;
  await enlarge();
}

async function enlarge() {
  if (!picture || !service.models.length) return;
  camera?.stop();
  work?.abort();
  const mine = (work = new AbortController());
  const began = performance.now();
  const [file, scale, format] = [picture, $("scale").value, $("format").value];
  hide("message", "result");
  show("job");
  reveal("job");
  try {
    const options = { signal: mine.signal, progress: showProgress };
    const result = here()
      ? await enlargeHere(file, network(), { type: `image/${format}`, ...options })
      : await enlargeThere(file, { scale, model: $("model").value, format, ...given({ detail: detail(), clean: clean() }) }, { max: service.max_bytes, ...options });
    const took = `${((performance.now() - began) / 1000).toFixed(1)} s`;
    await present(result, { file, scale, took, signal: mine.signal });
  } catch (error) {
    if (mine.signal.aborted) {
      if (work === mine) say("Cancelled.");
    } else explain(error, enlarge);
  } finally {
    if (work === mine) {
      work = null;
      hide("job");
    }
  }
}

function showProgress(what, share) {
  $("doing").textContent = share == null ? `${what} …` : `${what}, ${Math.round(share * 100)} %`;
  if (share == null) $("progress").removeAttribute("value");
  else $("progress").value = share;
}

async function present({ blob, by, request }, { file, scale, took, signal }) {
  urls.forEach(URL.revokeObjectURL);
  urls = [file, blob].map((shown) => URL.createObjectURL(shown));
  const [before, after] = await Promise.all(urls.map(load));
  signal.throwIfAborted(); // another picture was taken meanwhile
  before.alt = "The picture before";
  after.alt = "The picture enlarged";
  const [width, height] = [after.naturalWidth, after.naturalHeight];
  const stem = file.name.replace(/\.[^.]*$/, "") || "picture";
  $("download").href = urls[1];
  $("download").download = `${stem}_x${scale.replace("/", "-")}.${blob.type.split("/")[1].replace("jpeg", "jpg")}`;
  $("facts").textContent = `${before.naturalWidth} × ${before.naturalHeight} → ${width} × ${height} · ${bytes(blob.size)} · ${took}, ${by}`;
  offerVote(request, file, service.feedback);
  show("result", "download");
  document.body.classList.add("busy");
  viewer.divide(50);
  viewer.show(before, after, width, height);
  reveal("result");
  say(`Enlarged to ${width} by ${height} pixels in ${took}.`);
}

function reveal(id) {
  $(id).scrollIntoView({ block: "nearest" });
}

async function load(url) {
  const image = new Image();
  image.src = url;
  await image.decode().catch(() => {
    throw new Refusal(400, "This browser cannot show the picture.");
  });
  return image;
}

/* What went wrong */

const REASONS = {
  0: "The server does not answer. Is it running, and are you online?",
  400: "The server could not read this picture.",
  408: "The upload took too long.",
  413: "This picture is too large for the server.",
  415: "The server takes PNG and JPEG alone.",
  422: "The server cannot make that.",
  429: "The server is busy.",
  503: "The server is not ready.",
};

let countdown = 0;

/* Show why it failed, with a button that calls `again` where that may help, and by itself after Retry-After. */
function explain(error, again) {
  clearInterval(countdown);
  const { status = null, seconds = 0 } = error;
  const title = status === null ? "It did not work." : REASONS[status] ?? `The server failed (${status}).`;
  const parts = [element("strong", title)];
  if (error.message) parts.push(element("p", error.message));
  const buttons = [];
  if (![400, 413, 415, 422].includes(status)) buttons.push(button("Try again", again));
  if (![null, 400, 422].includes(status) && service.runtime && picture && !here())
    buttons.push(button("Do it in my browser", () => ($("browser").click(), enlarge())));
  if (seconds) {
    const left = element("p", "");
    left.setAttribute("aria-live", "off"); // read once, not at every second
    parts.push(left);
    const until = performance.now() + seconds * 1000;
    const tick = () => {
      const rest = Math.ceil((until - performance.now()) / 1000);
      left.textContent = `Trying again in ${Math.max(0, rest)} s`;
      if (rest <= 0) (hide("message"), again());
    };
    tick();
    countdown = setInterval(tick, 250);
    buttons.push(button("Leave it", () => {}));
  }
  const row = element("div", "");
  row.className = "row";
  row.append(...buttons);
  $("message").replaceChildren(...parts, row);
  show("message");
  reveal("message");
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function button(text, pressed) {
  const made = element("button", text);
  made.type = "button";
  made.addEventListener("click", () => {
    hide("message");
    $("enlarge").focus(); // the button is gone
    pressed();
  });
  return made;
}

function show(...ids) {
  for (const id of ids) $(id).hidden = false;
}

function hide(...ids) {
  if (ids.includes("message")) clearInterval(countdown);
  for (const id of ids) $(id).hidden = true;
}

/* The webcam */

async function film() {
  hide("message");
  $("webcam").disabled = true; // the browser may ask for permission, and a second click would open a second stream
  try {
    camera = await Camera.open(here() ? { width: 320, height: 240 } : { width: 1280, height: 720 });
  } catch (error) {
    $("webcam").disabled = false;
    const reasons = {
      NotAllowedError: "The browser was not allowed to use the webcam.",
      NotFoundError: "There is no webcam.",
      NotReadableError: "Another program uses the webcam.",
    };
    return explain({ message: reasons[error.name] ?? "This browser gives no webcam to this page; it must come from this machine or by https." }, film);
  }
  work?.abort();
  const mine = camera;
  mine.ended = () => {
    hide("snap", "stop", "result");
    $("webcam").disabled = false;
    camera = null;
  };
  hide("download", "vote");
  show("result", "snap", "stop");
  document.body.classList.add("busy");
  const { video } = mine;
  if (here()) {
    try {
      await mine.enlarge(network, (canvas) => (viewer.show(video, canvas, canvas.width, canvas.height), reveal("result")), facts);
    } catch (error) {
      if (camera !== mine) return; // it was stopped
      mine.stop();
      explain(error, film);
    }
  } else {
    $("facts").textContent = `${video.videoWidth} × ${video.videoHeight}`;
    viewer.show(video, null, video.videoWidth, video.videoHeight);
    reveal("result");
  }
}

function facts(fps, canvas, by) {
  $("facts").textContent = `${canvas.width} × ${canvas.height} · ${fps.toFixed(0)} fps, ${by}`;
}

/* What the reader does */

takeFiles(take, "image/");
$("webcam").addEventListener("click", film);
$("stop").addEventListener("click", () => (camera?.stop(), $("webcam").focus()));
$("snap").addEventListener("click", async () => take(await camera.picture()));
$("cancel").addEventListener("click", () => (work?.abort(), $("enlarge").focus()));
$("settings").addEventListener("submit", (event) => (event.preventDefault(), enlarge()));
$("settings").addEventListener("input", showNumbers);
$("settings").addEventListener("change", (event) => {
  if (event.target.type === "range") moved.add(event.target.id);
  choices();
  if (camera && event.target.name === "place") (camera.stop(), film());
});
$("fit").addEventListener("click", () => viewer.fit());
$("full").addEventListener("click", () => viewer.zoom(1 / devicePixelRatio));
$("double").addEventListener("click", () => viewer.zoom(2 / devicePixelRatio));

start();

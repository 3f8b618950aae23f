/* The page that sends a video to the service, shows how far it is, and plays it before and after, in step. */

import { takeFiles } from "./taking.js";
import { Refusal } from "./there.js";
import { Twins } from "./twins.js";
import { Viewer } from "./viewer.js";

const $ = (id) => document.getElementById(id);
const viewer = new Viewer($("stage"), (scale) => ($("zoom").value = `${Math.round(scale * 100)} %`));
const say = (text) => ($("status").textContent = text);
const bytes = (count) => count < 1e9 ? `${(count / 1e6).toFixed(1)} MB` : `${(count / 1e9).toFixed(2)} GB`;
const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

const NUMBERS = ["detail", "clean"];

let limits = null; // what GET /models says of videos
let file = null; // the File to upscale
let work = null; // the AbortController of what is under way
let twins = null;
let urls = [];

/* What the service takes */

async function start() {
  hide("message");
  try {
    const answer = await fetch("models");
    if (!answer.ok) throw new Refusal(answer.status, (await answer.json()).error);
    limits = (await answer.json()).videos;
  } catch (error) {
    return explain(error instanceof Refusal ? error : new Refusal(0), start);
  }
  if (!limits) return explain(new Refusal(404, "It was started with --videos 0."));
  $("model").replaceChildren(...limits.models.map((name) => new Option(name, name, false, name === limits.default)));
  $("model").disabled = false;
  offerNumbers();
  $("limits").textContent = `Up to ${bytes(limits.max_bytes)}`;
  if (file) return upscale(); // it was dropped before
  const kept = new URLSearchParams(location.hash.slice(1)).get("id");
  if (kept) await follow(kept, (work = new AbortController())); // the page was loaded again
}

/* Models that take no detail and no clean leave nothing to choose. */
function offerNumbers() {
  for (const id of NUMBERS) $(id).disabled = !limits.tuned.includes($("model").value);
}

/* What is chosen of them, as a part of a query; nothing stands for the defaults. */
const numbers = () => NUMBERS.filter((id) => !$(id).disabled && $(id).value).map((id) => `&${id}=${$(id).value}`).join("");

/* One video */

async function take(taken) {
  if (!taken) return;
  file = taken;
  $("enlarge").disabled = !limits;
  if (limits) await upscale();
}

async function upscale() {
  if (!file) return;
  work?.abort();
  const mine = (work = new AbortController());
  clear();
  show("job");
  progress("Uploading", 0);
  try {
    if (file.size > limits.max_bytes)
      throw new Refusal(413, `Expected at most ${limits.max_bytes.toLocaleString("en")} bytes. Received: ${file.size.toLocaleString("en")}.`);
    const { id } = await send(`video?model=${$("model").value}&${$("size").value}${numbers()}`, mine.signal);
    history.replaceState(null, "", `#id=${id}`);
    await follow(id, mine);
  } catch (error) {
    failed(error, mine, upscale);
  }
}

/** Post the file, and return the answer. A request reports the progress of its upload; fetch cannot. */
function send(url, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", url);
    request.setRequestHeader("Content-Type", file.type || "application/octet-stream");
    signal.addEventListener("abort", () => request.abort());
    request.upload.onprogress = ({ loaded, total }) => progress("Uploading", loaded / total);
    request.upload.onload = () => progress("The server looks at it", null);
    request.onload = () => {
      let told = {};
      try {
        told = JSON.parse(request.responseText);
      } catch {}
      if (request.status === 202) resolve(told);
      else reject(new Refusal(request.status, told.error, +request.getResponseHeader("Retry-After") || 0));
    };
    request.onerror = request.ontimeout = () => reject(new Refusal(0));
    request.onabort = () => reject(signal.reason);
    request.send(file);
  });
}

/** Show how far a video is until it has ended, and then the result. */
async function follow(id, mine) {
  show("job");
  progress("Asking the server", null);
  mine.id = id;
  try {
    const told = await ended(id, mine.signal);
    if (told.state === "failed") {
      const answer = await fetch(`video/${id}/result`, { signal: mine.signal });
      throw new Refusal(answer.status, told.error);
    }
    await present(id, told, mine.signal);
    hide("job");
    work = null;
  } catch (error) {
    failed(error, mine, file ? upscale : () => follow(id, (work = new AbortController())));
  }
}

/** Wait for the event that says that a video is done or has failed; an EventSource connects again by itself. */
function ended(id, signal) {
  return new Promise((resolve, reject) => {
    const events = new EventSource(`video/${id}/events`);
    const close = (then, value) => (events.close(), then(value));
    signal.addEventListener("abort", () => close(reject, signal.reason));
    events.onmessage = ({ data }) => {
      const told = JSON.parse(data);
      if (["done", "failed"].includes(told.state)) return close(resolve, told);
      tell(told);
    };
    events.onerror = async () => {
      const answer = await fetch(`video/${id}`).catch(() => null);
      if (answer?.status === 404) close(reject, new Refusal(404, (await answer.json()).error));
      else if (events.readyState === EventSource.CLOSED) close(reject, new Refusal(answer?.status ?? 0));
      else if (!answer) progress("The server does not answer; waiting for it", null);
    };
  });
}

function tell({ state, frames, expected, fps, left_s }) {
  if (state === "waiting") return progress("Waiting for its turn", null);
  const parts = [expected ? `${frames} of ${expected} frames` : `${frames} frames`];
  if (fps) parts.push(`${fps.toFixed(1)} fps`);
  if (left_s !== null && frames) parts.push(`${clock(left_s)} left`);
  progress(parts.join(" · "), expected ? frames / expected : null);
}

function progress(what, share) {
  $("doing").textContent = share === null ? `${what} …` : what;
  if (share === null) $("progress").removeAttribute("value");
  else $("progress").value = share;
}

async function present(id, told, signal) {
  const url = `video/${id}/result`;
  const after = await opened(url).catch(() => null);
  const before = file && after && (await opened(URL.createObjectURL(file)).catch(() => null));
  signal.throwIfAborted();
  const name = (file?.name ?? "video").replace(/\.[^.]*$/, "");
  $("download").href = url;
  $("download").download = `${name}_upscaled.mp4`;
  const size = after ? ` → ${after.videoWidth} × ${after.videoHeight}` : "";
  const facts = [`${told.size.join(" × ")}${size}`, `${told.frames} frames`, bytes(told.bytes)];
  if (told.fps) facts.push(`${told.fps.toFixed(1)} fps`);
  if (told.missing) facts.push(`the video is damaged: ${told.missing}`);
  if (!after) facts.push("this browser cannot play it");
  $("facts").textContent = facts.join(" · ");
  show("result");
  for (const part of ["stage", "play", "time", "clock", "mute"]) $(part).hidden = !after;
  document.body.classList.add("busy");
  if (after) {
    twins = new Twins(after, before, (time) => {
      $("time").value = time;
      $("clock").value = `${clock(time)} / ${clock(after.duration)}`;
      $("play").textContent = after.paused ? "Play" : "Pause";
    });
    $("time").max = after.duration;
    viewer.divide(50);
    // Without a picture of before, of a format that this browser cannot play, there is nothing to divide.
    viewer.show(before || after, before && after, after.videoWidth, after.videoHeight);
    twins.toggle();
  }
  $("result").scrollIntoView({ block: "nearest" });
  say(`Upscaled: ${$("facts").textContent}`);
}

/** Return a video element that knows its size; rejects where this browser cannot play the file. */
function opened(url) {
  if (url.startsWith("blob:")) urls.push(url);
  return new Promise((resolve, reject) => {
    const video = document.createElement("video");
    Object.assign(video, { src: url, preload: "auto", playsInline: true, loop: true, muted: $("mute").ariaPressed === "true" });
    video.addEventListener("loadeddata", () => (video.videoWidth ? resolve(video) : reject(new Error("no picture"))));
    video.addEventListener("error", () => reject(video.error));
  });
}

function clear() {
  hide("message", "result", "job");
  twins?.end();
  twins = null;
  urls.forEach(URL.revokeObjectURL);
  urls = [];
}

function forget() {
  history.replaceState(null, "", location.pathname);
}

/* What went wrong */

const REASONS = {
  0: "The server does not answer. Is it running, and are you online?",
  400: "The server could not read this video.",
  404: "The server does not have this video.",
  408: "The upload took too long.",
  413: "This video is too large for the server.",
  415: "This is no video that the server knows.",
  422: "The server cannot make that.",
  429: "The server is busy.",
  503: "The server is not ready, or has no room.",
};

function failed(error, mine, again) {
  if (work !== mine) return; // another video was taken
  work = null;
  hide("job");
  if (mine.signal.aborted) return say("Cancelled.");
  if (error.status === 404) forget();
  explain(error, [400, 404, 413, 415, 422].includes(error.status) ? null : again);
}

function explain(error, again) {
  const { status = null, message } = error;
  const parts = [element("strong", REASONS[status] ?? (status === null ? "It did not work." : `The server failed (${status}).`))];
  if (message) parts.push(element("p", message));
  if (again) {
    const button = element("button", "Try again");
    button.type = "button";
    button.addEventListener("click", () => (hide("message"), again()));
    parts.push(button);
  }
  $("message").replaceChildren(...parts);
  show("message");
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function show(...ids) {
  for (const id of ids) $(id).hidden = false;
}

function hide(...ids) {
  for (const id of ids) $(id).hidden = true;
}

/* What the reader does */

async function remove() {
  const id = new URLSearchParams(location.hash.slice(1)).get("id");
  forget();
  if (id) await fetch(`video/${id}`, { method: "DELETE" }).catch(() => {});
}

takeFiles(take, "video/");
$("model").addEventListener("change", offerNumbers);
$("settings").addEventListener("submit", (event) => (event.preventDefault(), upscale()));
$("cancel").addEventListener("click", () => {
  work?.abort();
  remove();
  $("file").focus();
});
$("delete").addEventListener("click", async () => {
  clear();
  await remove();
  say("Deleted.");
  $("file").focus();
});
$("play").addEventListener("click", () => twins?.toggle());
$("time").addEventListener("input", () => twins?.seek($("time").valueAsNumber));
$("mute").addEventListener("click", () => {
  const muted = $("mute").ariaPressed !== "true";
  $("mute").ariaPressed = muted;
  if (twins) twins.lead.muted = muted;
});

start();

/* The page that plays a film from the reader's disk, enhanced while it plays. The film's own element has the sound and
   the clock. Frames that come while the one before is still being enhanced are dropped, so sound and picture stay together. */

import { Enhancer } from "./enhancer.js";
import { takeFiles } from "./taking.js";
import { Viewer } from "./viewer.js";

const WINDOW = 2000; // ms over which frames are counted
const JUDGED = 4000; // ms of play after which a film may be found too large
const ENOUGH = 0.6; // of the frames: with fewer of them enhanced, plain is better
const $ = (id) => document.getElementById(id);
const viewer = new Viewer($("stage"), () => {});

const video = document.createElement("video");
Object.assign(video, { playsInline: true, preload: "auto", id: "video" });
const plain = document.createElement("canvas"); // what the enhanced picture was made of, so that both move together
const enhanced = document.createElement("canvas");
const both = document.createElement("div");
both.append(video, plain);

let url = null;
let enhancer = null; // null: plain
let made = 0; // counts the enhancers, so that a late one is known
let waiting = null; // the newest frame while another one is enhanced
let busy = false;
let insists = false; // the reader wants a film that is too large
let counts = {};

/* A film */

function take(file) {
  if (!file) return;
  close();
  hide("message", "result");
  if (url) URL.revokeObjectURL(url);
  url = URL.createObjectURL(file);
  insists = false;
  video.src = url;
}

video.addEventListener("loadeddata", () => {
  if (!video.videoWidth) return explain("This file has sound, but no picture that this browser can show.");
  document.body.classList.add("busy");
  show("result");
  $("play").focus();
  begin();
});

video.addEventListener("error", () => {
  if (!video.getAttribute("src")) return;
  close();
  hide("result");
  explain(`This browser cannot play this file. MP4 with H.264 and WebM play everywhere. (${video.error.message || `error ${video.error.code}`})`);
});

/* Show the film, enhanced where that can be. */
async function begin() {
  close();
  const mine = ++made;
  bare(true);
  hide("message");
  viewer.show(both, null, video.videoWidth, video.videoHeight);
  if ($("by").value === "none") return;
  $("facts").textContent = `${video.videoWidth} × ${video.videoHeight} · preparing …`;
  try {
    const opened = await Enhancer.open({ by: $("by").value, width: video.videoWidth, height: video.videoHeight });
    if (mine !== made) return opened.close();
    enhancer = opened;
  } catch (error) {
    if (mine === made) explain(`${error.message} The film plays as it is.`);
    return;
  }
  if (!busy) enhance(new VideoFrame(video), video.currentTime); // the film may stand still
}

function close() {
  made++;
  waiting?.frame.close();
  waiting = null;
  enhancer?.close();
  enhancer = null;
  busy = false;
  reset();
  $("facts").textContent = "";
}

/* Without the divider: the plain film alone. */
function bare(on) {
  $("stage").classList.toggle("bare", on);
  plain.hidden = on;
}

/* Frames */

function watch() {
  video.requestVideoFrameCallback((now, { presentedFrames, mediaTime }) => {
    watch();
    if (!enhancer) return;
    if (counts.presented && !document.hidden) counts.seen += presentedFrames - counts.presented;
    if (counts.presented === presentedFrames - 1 && mediaTime > counts.at) counts.interval = 1000 * (mediaTime - counts.at);
    [counts.presented, counts.at] = [presentedFrames, mediaTime];
    let frame;
    try {
      frame = new VideoFrame(video);
    } catch {
      return; // the film has just ended, or is being replaced
    }
    if (!busy) return enhance(frame, mediaTime);
    waiting?.frame.close();
    waiting = { frame, time: mediaTime };
  });
}

async function enhance(frame, time) {
  const mine = enhancer;
  if (!mine) return;
  busy = true;
  const began = performance.now();
  try {
    const parts = await mine.run(frame);
    if (mine !== enhancer) return parts.forEach(({ image }) => image.close());
    draw(frame, parts, mine);
    count(performance.now() - began, time);
  } catch (error) {
    if (mine === enhancer) fail(error);
  } finally {
    frame.close();
    if (mine === enhancer) next();
  }
}

function next() {
  busy = false;
  if (!waiting) return;
  const { frame, time } = waiting;
  waiting = null;
  enhance(frame, time);
}

function draw(frame, parts, { size }) {
  const [width, height] = [video.videoWidth, video.videoHeight];
  if (plain.width !== width || plain.height !== height) [plain.width, plain.height] = [width, height];
  plain.getContext("2d").drawImage(frame, 0, 0, width, height);
  if (enhanced.width !== size[0] || enhanced.height !== size[1]) [enhanced.width, enhanced.height] = size;
  const context = enhanced.getContext("2d");
  for (const { image, top } of parts) {
    context.drawImage(image, 0, top);
    image.close();
  }
  if (!plain.hidden) return;
  const scale = enhanced.height / height;
  viewer.show(both, enhanced, width * scale, height * scale); // its pixels may be wider than high
  bare(false);
}

function fail(error) {
  close();
  if ($("by").value === "" && error.card) return void (($("by").value = "processor"), begin());
  bare(true);
  viewer.show(both, null, video.videoWidth, video.videoHeight);
  explain(`${error.message} The film goes on as it is.`);
}

/* Figures */

function reset() {
  counts = { presented: 0, at: -1, seen: 0, enhanced: 0, interval: 0, times: [], spent: [], since: 0, lost: video.getVideoPlaybackQuality().droppedVideoFrames };
}

function count(ms, time) {
  const now = performance.now();
  counts.enhanced++;
  counts.spent.push(ms);
  if (counts.spent.length > 48) counts.spent.shift();
  counts.times.push(now);
  while (counts.times[0] < now - WINDOW) counts.times.shift();
  if (video.paused) [counts.since, counts.times] = [0, []];
  else counts.since ||= now;
  const fps = counts.times.length > 1 ? (1000 * (counts.times.length - 1)) / (now - counts.times[0]) : 0;
  const dropped = Math.max(0, counts.seen + 1 - counts.enhanced - !!waiting) + video.getVideoPlaybackQuality().droppedVideoFrames - counts.lost;
  const spent = [...counts.spent].sort((a, b) => a - b)[counts.spent.length >> 1];
  $("facts").textContent =
    `${video.videoWidth} × ${video.videoHeight} → ${enhanced.width} × ${enhanced.height} · ${fps.toFixed(1)} fps · ` +
    `${dropped} of ${counts.enhanced + dropped} frames dropped · ${spent.toFixed(0)} ms a frame, ${enhancer.by}`;
  Object.assign($("facts").dataset, { fps: fps.toFixed(2), dropped, enhanced: counts.enhanced, spent: spent.toFixed(2), time });
  judge(now, dropped, spent);
}

/* A film that is too large for this machine goes on plain, unless the reader insists. */
function judge(now, dropped, spent) {
  if (insists || document.hidden || !counts.since || now < counts.since + JUDGED) return;
  if (counts.enhanced >= ENOUGH * (counts.enhanced + dropped)) return;
  const share = Math.sqrt((0.9 * (counts.interval || 1000 / 24)) / spent);
  const [width, height] = [video.videoWidth, video.videoHeight].map((length) => 4 * Math.floor((length * Math.min(1, share)) / 4));
  close();
  bare(true);
  viewer.show(both, null, video.videoWidth, video.videoHeight);
  explain(
    `This film, ${video.videoWidth} × ${video.videoHeight}, is too large to be enhanced here in time: a frame took ${spent.toFixed(0)} ms. ` +
      `About ${width} × ${height} would do. The film goes on as it is.`,
    ["Enhance it anyway", () => ((insists = true), begin())],
  );
}

document.addEventListener("visibilitychange", () => {
  reset(); // a hidden page is given no frames
});
for (const event of ["seeking", "ratechange"]) video.addEventListener(event, reset);

/* Controls */

const clock = (seconds) => {
  const whole = Math.floor(seconds || 0);
  const parts = whole < 3600 ? [Math.floor(whole / 60), whole % 60] : [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return parts.map((part, i) => (i ? String(part).padStart(2, "0") : part)).join(":");
};

function tell() {
  $("play").textContent = video.paused ? "Play" : "Pause";
  $("time").value = `${clock(video.currentTime)} / ${clock(video.duration)}`;
  $("seek").max = video.duration || 1;
  $("seek").value = video.currentTime;
  $("mute").ariaPressed = video.muted;
}

for (const event of ["play", "pause", "ended", "timeupdate", "durationchange", "volumechange", "seeked"]) video.addEventListener(event, tell);
video.addEventListener("play", () => ([counts.since, counts.times] = [0, []]));

async function toggle() {
  if (!video.paused) return video.pause();
  await video.play().catch((error) => error.name === "AbortError" || explain(`This browser did not start the film: ${error.message}`));
}

$("play").addEventListener("click", toggle);
$("seek").addEventListener("input", () => (video.currentTime = $("seek").valueAsNumber));
$("mute").addEventListener("click", () => (video.muted = !video.muted));
$("volume").addEventListener("input", () => (video.volume = $("volume").valueAsNumber));
$("full").addEventListener("click", () => (document.fullscreenElement ? document.exitFullscreen() : $("stage").requestFullscreen()));
$("by").addEventListener("change", () => video.videoWidth && begin());
$("stage").addEventListener("keydown", (event) => event.key === " " && event.target === $("stage") && (event.preventDefault(), toggle()));
takeFiles(take, "video/");

/* Messages */

function explain(sentence, [label, pressed] = []) {
  const text = document.createElement("p");
  text.textContent = sentence;
  $("message").replaceChildren(text);
  if (label) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: label });
    button.addEventListener("click", () => (hide("message"), pressed()));
    $("message").append(button);
  }
  show("message");
}

function show(...ids) {
  for (const id of ids) $(id).hidden = false;
}

function hide(...ids) {
  for (const id of ids) $(id).hidden = true;
}

reset();
if ("requestVideoFrameCallback" in video) watch();
else explain("This browser does not give a page the frames of a film. Current versions of Chrome, Edge, Firefox and Safari do.");

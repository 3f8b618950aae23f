/* Two videos of the same length that play in step: the one leads, with its sound, and the other follows. */

const NEAR = 0.015; // seconds that nobody sees
const FAR = 0.25; // seconds from which on the follower jumps; else it runs a little faster or slower

export class Twins {
  /** Hold a leading video, and one that follows it or none; `shown(time)` is called as the time goes on. */
  constructor(lead, follow, shown) {
    Object.assign(this, { lead, follow, shown });
    if (follow) follow.muted = true;
    for (const what of ["play", "pause", "seeked", "seeking", "waiting", "playing", "ended"])
      lead.addEventListener(what, () => this.match());
    follow?.addEventListener("canplay", () => this.match());
    this.tick();
  }

  /** Look at every picture that is shown until `end` is called. */
  tick() {
    this.match();
    this.shown(this.lead.currentTime);
    this.next = requestAnimationFrame(() => this.tick());
  }

  /** How far the follower is behind, in seconds. */
  get apart() {
    return this.follow ? this.lead.currentTime - this.follow.currentTime : 0;
  }

  match() {
    const { lead, follow, apart } = this;
    if (!follow || follow.seeking || follow.readyState < 1) return;
    const going = !lead.paused && !lead.seeking && !lead.ended && lead.readyState > 2;
    if (going === follow.paused && !(going && follow.ended)) going ? follow.play().catch(() => {}) : follow.pause();
    if (!going || Math.abs(apart) > FAR) {
      // Both show the same frame at the same time: timestamps are kept.
      if (Math.abs(apart) > (going ? FAR : 0.0005)) follow.currentTime = lead.currentTime;
      follow.playbackRate = 1;
    } else follow.playbackRate = Math.abs(apart) < NEAR ? 1 : Math.min(1.5, Math.max(0.5, 1 + 2 * apart));
  }

  async toggle() {
    if (this.lead.paused) await this.lead.play().catch(() => {});
    else this.lead.pause();
  }

  seek(time) {
    this.lead.currentTime = time;
  }

  end() {
    cancelAnimationFrame(this.next);
    for (const video of [this.lead, this.follow]) {
      video?.pause();
      video?.removeAttribute("src");
      video?.load();
    }
  }
}

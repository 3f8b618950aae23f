/* Two pictures of one place, one above the other: a divider, zoom and pan. */

const MOST = 16; // screen pixels a side per pixel of the result

export class Viewer {
  /** Show pictures in `stage`; `zoomed(scale, fitted)` is called with screen pixels per pixel at every change. */
  constructor(stage, zoomed) {
    this.stage = stage;
    this.zoomed = zoomed;
    this.slider = stage.querySelector(".split");
    this.pointers = new Map();
    this.size = null;
    this.slider.addEventListener("input", () => this.divide(+this.slider.value));
    stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    stage.addEventListener("pointerdown", (event) => this.press(event));
    stage.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"])
      stage.addEventListener(end, (event) => this.pointers.delete(event.pointerId));
    stage.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.fitted ? this.fit() : this.place()).observe(stage);
    this.divide(50);
  }

  /** Put two elements (img, video, canvas) of one picture on the stage, `width` × `height` pixels when enlarged.

      Without `after` there is nothing to divide. */
  show(before, after, width, height) {
    this.size = { width, height };
    for (const [name, element] of [["before", before], ["after", after]]) {
      this.stage.querySelector(`.${name}`).replaceChildren(...(element ? [element] : []));
      if (element) Object.assign(element.style, { width: `${width}px`, height: `${height}px` });
    }
    this.stage.classList.toggle("single", !after);
    this.stage.style.setProperty("--shape", width / height);
    this.fit();
  }

  /** Move the divider to a share of the width, from 0 to 100. */
  divide(percent) {
    percent = Math.min(100, Math.max(0, percent));
    this.slider.value = percent;
    this.slider.setAttribute("aria-valuetext", `${Math.round(percent)} % before`);
    this.stage.style.setProperty("--split", `${percent}%`);
  }

  fit() {
    if (!this.size) return;
    this.fitted = true;
    this.scale = this.smallest();
    this.x = this.y = 0;
    this.place();
  }

  smallest() {
    return Math.min(this.stage.clientWidth / this.size.width, this.stage.clientHeight / this.size.height);
  }

  /** Show a pixel of the result as `scale` pixels of the page, and keep what is at (x, y) of the stage there. */
  zoom(scale, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    if (!this.size) return;
    const smallest = this.smallest();
    scale = Math.max(Math.min(scale, MOST / devicePixelRatio), Math.min(smallest, 1 / devicePixelRatio));
    this.fitted = Math.abs(scale / smallest - 1) < 0.001;
    this.x = x - ((x - this.x) * scale) / this.scale;
    this.y = y - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.place();
  }

  place() {
    if (!this.size) return;
    const inside = (at, room, length) => length <= room ? (room - length) / 2 : Math.min(0, Math.max(room - length, at));
    this.x = inside(this.x, this.stage.clientWidth, this.size.width * this.scale);
    this.y = inside(this.y, this.stage.clientHeight, this.size.height * this.scale);
    for (const element of this.stage.querySelectorAll(".layer > *"))
      element.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    this.stage.classList.toggle("large", this.movable());
    this.zoomed(this.scale * devicePixelRatio, this.fitted);
  }

  movable() {
    const { width, height } = this.size;
    return width * this.scale > this.stage.clientWidth + 1 || height * this.scale > this.stage.clientHeight + 1;
  }

  at(event) {
    const box = this.stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode ? 30 : 1;
    this.zoom(this.scale * Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.002)), ...this.at(event));
  }

  press(event) {
    if (event.target === this.slider || event.button) return;
    this.stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.at(event));
    if (this.pointers.size === 1 && !this.movable()) this.slide(event);
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before || !this.size) return;
    const now = this.at(event);
    this.pointers.set(event.pointerId, now);
    if (this.pointers.size === 2) {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
      const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
      this.zoom((this.scale * apart(now)) / apart(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else if (this.movable()) {
      this.x += now[0] - before[0];
      this.y += now[1] - before[1];
      this.place();
    } else this.slide(event);
  }

  slide(event) {
    this.divide((100 * this.at(event)[0]) / this.stage.clientWidth);
  }

  key(event) {
    if (event.target === this.slider || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = 60;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (event.key in moves) {
      this.x += moves[event.key][0];
      this.y += moves[event.key][1];
      this.place();
    } else if (event.key === "+" || event.key === "=") this.zoom(this.scale * 1.25);
    else if (event.key === "-") this.zoom(this.scale / 1.25);
    else if (event.key === "0") this.fit();
    else return;
    event.preventDefault();
  }
}

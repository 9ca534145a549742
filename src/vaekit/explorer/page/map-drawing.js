// Drawing the map: points, the rings and the lasso above them, and decoded pictures behind them.
import { meta } from "./blobs.js";
import { D, data, free, moved } from "./data.js";
import { decode } from "./engine.js";
import { draw } from "./picture.js";
import { scatter } from "./scatter.js";
import { state } from "./state.js";
import { debounced, h } from "./ui.js";

const TILES = 13;
export const frames = { count: 0, ms: 0 };

const ring = (kind, ...name) => h("span", { class: kind, "aria-hidden": "true" }, name.map((text) => h("b", {}, text)));

/** The elements of the map, from the back to the front. */
export function layers() {
  const [back, points, top] = ["back", "points", "top"].map((name) => h("canvas", { class: name }));
  return { back, points, top, a: ring("ring", "A"), b: ring("ring", "B"), here: ring("ring here") };
}

export class Drawing {
  lasso = null; // positions on the screen while the reader draws around points
  #waiting = false;
  #stale = true;

  constructor(plane, parts) {
    this.plane = plane;
    this.parts = parts;
    this.scatter = scatter(parts.points);
  }

  /** Canvas pixels per CSS pixel. */
  get density() {
    return this.parts.points.width / Math.max(1, this.plane.field.clientWidth);
  }

  /** Give the canvases the size of the field. */
  fit() {
    const density = Math.min(2, devicePixelRatio || 1), { clientWidth, clientHeight } = this.plane.field;
    for (const canvas of [this.parts.back, this.parts.points, this.parts.top]) {
      canvas.width = Math.round(clientWidth * density);
      canvas.height = Math.round(clientHeight * density);
    }
    this.refresh();
  }

  /** Redraw the whole map after the view has changed. */
  refresh() {
    this.render();
    this.tiles();
  }

  /** Draw at the next frame: the points if they have changed, and the marks above them. */
  render(points = true) {
    this.#stale ||= points;
    if (this.#waiting) return;
    this.#waiting = true;
    requestAnimationFrame(() => {
      this.#waiting = false;
      const start = performance.now();
      if (!this.#stale) return this.#drawMarks();
      this.#stale = false;
      this.scatter.draw({ ...this.plane.transform(), size: this.#pointSize() });
      this.#drawMarks();
      frames.count++;
      frames.ms += performance.now() - start;
    });
  }

  #pointSize() {
    const base = data.n > 20000 ? 2.4 : data.n > 4000 ? 3.4 : 5;
    return Math.max(2.2, Math.min(9, base * Math.sqrt(this.plane.zoom))) * this.density;
  }

  /** The rings are small elements, so that moving them redraws nothing else. */
  #drawMarks() {
    const { plane, parts } = this;
    const put = (element, point) => {
      element.hidden = !point;
      if (!point) return;
      const [x, y] = plane.toScreen(...point);
      element.style.transform = `translate(${x.toFixed(1)}px, ${y.toFixed(1)}px)`;
    };
    put(parts.here, plane.here());
    put(parts.a, state.a && plane.placeOf(state.a));
    put(parts.b, state.b && plane.placeOf(state.b));
    parts.top.hidden = !this.lasso;
    if (this.lasso) this.#drawLasso(parts.top.getContext("2d"));
  }

  #drawLasso(context) {
    const { clientWidth, clientHeight } = this.plane.field;
    context.setTransform(this.density, 0, 0, this.density, 0, 0);
    context.clearRect(0, 0, clientWidth, clientHeight);
    context.beginPath();
    for (const [x, y] of this.lasso) context.lineTo(x, y);
    context.closePath();
    context.lineWidth = 1.5;
    context.strokeStyle = context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
    context.stroke();
    context.globalAlpha = 0.12;
    context.fill();
    context.globalAlpha = 1;
  }

  /** With two latents, decoded pictures from the whole plane are drawn behind the points. */
  tiles = debounced(async () => {
    const { plane, parts: { back } } = this, { clientWidth, clientHeight } = plane.field;
    back.getContext("2d").clearRect(0, 0, back.width, back.height);
    back.hidden = state.map !== "pair" || free !== 2;
    if (back.hidden || meta.event.kind !== "image") return;
    const codes = new Float32Array(TILES * TILES * D);
    for (let k = 0; k < TILES * TILES; k++) {
      const x = (((k % TILES) + 0.5) / TILES) * clientWidth, y = ((Math.floor(k / TILES) + 0.5) / TILES) * clientHeight;
      codes.set(moved(state.z, "pair", state.pair, ...plane.toMap(x, y)), k * D);
    }
    const x = await decode("manifold", codes, TILES * TILES);
    if (!x) return;
    const width = back.width / TILES, height = back.height / TILES;
    for (let k = 0; k < TILES * TILES; k++) draw(back, x, k, [(k % TILES) * width, Math.floor(k / TILES) * height, width, height]);
  }, 120);
}

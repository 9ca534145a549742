// The plane of the map: the positions of the data, the part of the plane in view, and its coordinates in pixels.
import { data, places, project } from "./data.js";
import { quantile } from "./maths.js";
import { finder } from "./scatter.js";
import { state } from "./state.js";

export const CLICK = 14; // pixels; a click selects the nearest point within this distance

/** The middle and half the length of an axis that leaves out a few outliers. */
function extent(values) {
  const sorted = values.sort((a, b) => a - b), low = quantile(sorted, 0.003), high = quantile(sorted, 0.997);
  return [(low + high) / 2, Math.max(1e-3, (high - low) / 2) * 1.12];
}

/** Coordinates (u, v) are the map's own, (x, y) are CSS pixels from the upper left corner of `field`. */
export class Plane {
  places = new Float32Array(0); // u and v of each datum
  hidden = new Set(); // labels whose points are not shown
  near = () => -1; // the shown point nearest to (u, v) within a reach, or -1
  #view = { u: 0, v: 0, zoom: 1 };
  #half = { u: 1, v: 1 };

  constructor(field, canvas) {
    this.field = field;
    this.canvas = canvas;
  }

  get n() {
    return this.places.length / 2;
  }

  get zoom() {
    return this.#view.zoom;
  }

  /** Take the positions on the chosen map, and bring all of them into view. */
  survey() {
    this.places = places(state.map, state.pair);
    const us = [], vs = [], step = Math.max(1, Math.floor(this.n / 5000));
    for (let i = 0; i < this.n; i += step) {
      us.push(this.places[2 * i]);
      vs.push(this.places[2 * i + 1]);
    }
    const [u, halfU] = extent(us), [v, halfV] = extent(vs);
    this.#half = { u: halfU, v: halfV };
    this.#view = { u, v, zoom: 1 };
    this.near = finder(this.places, (i) => this.shows(i));
  }

  shows(i) {
    return !(state.colour === "label" && data.label && this.hidden.has(data.label[i]));
  }

  /** Clip space per unit of the map, on both axes. */
  scale() {
    const ratio = this.canvas.width / this.canvas.height || 1, unit = Math.max(this.#half.u / ratio, this.#half.v);
    return [this.#view.zoom / (unit * ratio), this.#view.zoom / unit];
  }

  /** The transformation from the map's coordinates to clip space. */
  transform() {
    const [su, sv] = this.scale();
    return { scale: [su, sv], shift: [-this.#view.u * su, -this.#view.v * sv] };
  }

  toScreen(u, v) {
    const [su, sv] = this.scale(), { clientWidth, clientHeight } = this.field;
    return [(((u - this.#view.u) * su + 1) / 2) * clientWidth, ((1 - (v - this.#view.v) * sv) / 2) * clientHeight];
  }

  toMap(x, y) {
    const [su, sv] = this.scale(), { clientWidth, clientHeight } = this.field;
    return [((2 * x) / clientWidth - 1) / su + this.#view.u, (1 - (2 * y) / clientHeight) / sv + this.#view.v];
  }

  /** The length of `pixels` along u and v. */
  reach(pixels) {
    const [su, sv] = this.scale();
    return [(2 * pixels) / this.field.clientWidth / su, (2 * pixels) / this.field.clientHeight / sv];
  }

  /** The shown point within `pixels` of (x, y), or -1. */
  pick(x, y, pixels) {
    return this.near(...this.toMap(x, y), ...this.reach(pixels));
  }

  /** Shift the view as if the map were dragged between two positions on the screen. */
  pan(from, to) {
    const [u0, v0] = this.toMap(...from), [u1, v1] = this.toMap(...to);
    this.#view.u += u0 - u1;
    this.#view.v += v0 - v1;
  }

  /** Zoom about a position on the screen, by default the centre. */
  zoomBy(factor, x = this.field.clientWidth / 2, y = this.field.clientHeight / 2) {
    const [u0, v0] = this.toMap(x, y);
    this.#view.zoom = Math.min(200, Math.max(0.5, this.#view.zoom * factor));
    const [u1, v1] = this.toMap(x, y);
    this.#view.u += u0 - u1;
    this.#view.v += v0 - v1;
  }

  /** The position of a code on the map; null if the map cannot show new codes. */
  placeOf(z) {
    if (state.map === "pair") return [z[state.pair[0]], z[state.pair[1]]];
    return state.map === "pca" ? project(z) : null;
  }

  /** The position of the current code on the map; null if it is unknown. */
  here() {
    const i = state.anchor, known = i >= 0 && i < this.n;
    return this.placeOf(state.z) ?? (known ? [this.places[2 * i], this.places[2 * i + 1]] : null);
  }
}

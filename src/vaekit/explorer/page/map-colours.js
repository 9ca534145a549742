// The colours of the points, and the legend that explains them.
import { meta } from "./blobs.js";
import { category, css, dark, sequence } from "./colours.js";
import { data, labelName, NONE } from "./data.js";
import { quantile, shareBelow } from "./maths.js";
import { groups, state } from "./state.js";
import { fixed, h } from "./ui.js";

const GROUP_COLOURS = { a: [213, 94, 0], b: [0, 114, 178] };
const { points, logpx } = meta.limits;
const UNITS = {
  logpx: `nats, a lower bound${logpx < points ? `, of the first ${logpx.toLocaleString("en")} examples` : ""}; colours show ranks`,
  error: "RMS error of the reconstruction, in the data's units; colours show ranks",
};

const scores = () => ({ logpx: data.logpx, error: data.error })[state.colour] ?? null;

/** 101 quantiles of the scores that colour the points; null if no score does. */
export function scoreQuantiles() {
  if (!scores()) return null;
  const sorted = Float32Array.from(scores()).filter(Number.isFinite).sort();
  return Array.from({ length: 101 }, (_, i) => quantile(sorted, i / 100));
}

/** A function that returns the colour of point i, apart from groups. */
function colouring(quantiles) {
  const grey = dark() ? [150, 160, 170] : [110, 120, 130], values = scores();
  if (state.colour === "label" && data.label) return (i) => (data.label[i] === NONE ? grey : category(data.label[i]));
  if (values) return (i) => sequence(Number.isFinite(values[i]) ? shareBelow(quantiles, values[i]) : NaN);
  return () => grey;
}

/** RGBA bytes of all points. */
export function pointColours(plane, quantiles) {
  const out = new Uint8Array(4 * plane.n), colour = colouring(quantiles), alpha = plane.n > 20000 ? 150 : 215;
  for (let i = 0; i < plane.n; i++) {
    const group = groups.b.has(i) ? GROUP_COLOURS.b : groups.a.has(i) ? GROUP_COLOURS.a : null;
    out.set(group ?? colour(i), 4 * i);
    out[4 * i + 3] = group ? 255 : plane.shows(i) ? alpha : 0;
  }
  return out;
}

/** Buttons that show and hide the points of each class. */
function classButtons(plane, repaint) {
  const present = new Set(data.label), indices = [...meta.labels.names.keys()].filter((i) => present.has(i));
  return indices.map((i) => h("button", {
    type: "button", class: "chip", "aria-pressed": String(!plane.hidden.has(i)), title: "show or hide this class",
    onclick: () => {
      if (!plane.hidden.delete(i)) plane.hidden.add(i);
      repaint();
    },
  }, h("i", { style: `background:${css(category(i))}` }), labelName(i)));
}

function ramp(quantiles) {
  const stops = Array.from({ length: 9 }, (_, i) => css(sequence(i / 8))).join(",");
  const digits = Math.abs(quantiles[50]) < 10 ? 3 : 0, end = (value) => h("span", { class: "muted" }, fixed(value, digits));
  return [end(quantiles[1]), h("span", { class: "ramp", style: `background:linear-gradient(90deg,${stops})` }),
    end(quantiles[99]), h("span", { class: "muted" }, UNITS[state.colour])];
}

/** The content of the legend for the current colours; `repaint` is called after a class was shown or hidden. */
export function legendOf(plane, quantiles, repaint) {
  if (state.colour === "label" && meta.labels) return classButtons(plane, repaint);
  return quantiles ? ramp(quantiles) : [];
}

// One datum on a canvas: an image as its pixels, a signal as lines, a vector as bars with their names.
import { meta } from "./blobs.js";
import { diverging } from "./colours.js";
import { fixed, h } from "./ui.js";

const { kind, height: H, width: W, channels: C, low, high, columns, usual } = meta.event;
export const SIZE = meta.event.shape.reduce((a, b) => a * b, 1);
export const isImage = kind === "image";
const byte = (v) => (255 * (v - low)) / (high - low);

/** Pixels (H, W, 4) of x (C, H, W) at an offset. */
export function pixels(x, at = 0) {
  const out = new Uint8ClampedArray(4 * H * W), plane = H * W;
  for (let i = 0; i < plane; i++) {
    for (let k = 0; k < 3; k++) out[4 * i + k] = byte(x[at + (C >= 3 ? k : 0) * plane + i]);
    out[4 * i + 3] = 255;
  }
  return new ImageData(out, W, H);
}

let small = null;
function stamp(context, data, left, top, width, height) {
  if (width === W && height === H) return context.putImageData(data, left, top);
  small ??= h("canvas", { width: W, height: H });
  small.getContext("2d").putImageData(data, 0, 0);
  context.imageSmoothingEnabled = width < W;
  context.imageSmoothingQuality = "high";
  context.drawImage(small, left, top, width, height);
}

/** Draw datum number `at` of x into a box of the canvas; by default all of it. */
export function draw(canvas, x, at = 0, box = [0, 0, canvas.width, canvas.height]) {
  const context = canvas.getContext("2d"), [left, top, width, height] = box;
  context.clearRect(left, top, width, height);
  if (isImage) stamp(context, pixels(x, at * SIZE), left, top, width, height);
  else bars(context, x.subarray(at * SIZE, (at + 1) * SIZE), box);
}

/** Draw the difference of x from y in each element: blue where x is smaller, orange where it is larger. */
export function drawDifference(canvas, x, y) {
  const context = canvas.getContext("2d"), span = high - low || 1, plane = H * W;
  if (!isImage) {
    const from = kind === "vector" ? usual[0] : 0; // bars start at the mean, and a difference has none
    return bars(context, Float32Array.from(x, (v, i) => v - y[i] + (from ? from[i] : 0)), [0, 0, canvas.width, canvas.height]);
  }
  const out = new Uint8ClampedArray(4 * plane);
  for (let i = 0; i < plane; i++) {
    let sum = 0;
    for (let k = 0; k < C; k++) sum += (x[k * plane + i] - y[k * plane + i]) / (span * C);
    out.set(diverging(sum), 4 * i);
    out[4 * i + 3] = 255;
  }
  stamp(context, new ImageData(out, W, H), 0, 0, canvas.width, canvas.height);
}

/** A signal as lines on one scale; a vector as bars from the mean of each element, in its standard deviations. */
function bars(context, x, box) {
  const style = getComputedStyle(document.documentElement);
  context.fillStyle = context.strokeStyle = style.getPropertyValue("--accent");
  (kind === "signal" ? lines : deviations)(context, x, box, style);
}

function lines(context, x, [left, top, width, height]) {
  const least = Math.min(...x), most = Math.max(0, ...x, least + 1e-9);
  const y = (v) => top + height - (height * (v - least)) / (most - least);
  for (let k = 0; k < C; k++) {
    context.beginPath();
    for (let i = 0; i < W; i++) context.lineTo(left + (width * (i + 0.5)) / W, y(x[k * W + i]));
    context.globalAlpha = 1 - (0.6 * k) / Math.max(C, 1);
    context.stroke();
  }
  context.globalAlpha = 1;
}

const REACH = 3; // standard deviations at the edge

function deviations(context, x, [left, top, width, height], style) {
  const n = x.length, middle = top + height / 2, [mean, spread] = usual;
  for (let i = 0; i < n; i++) {
    const t = Math.max(-1, Math.min(1, (x[i] - mean[i]) / ((spread[i] || 1) * REACH))), tall = (height / 2) * Math.abs(t);
    context.fillRect(left + (width * (i + 0.1)) / n, t > 0 ? middle - tall : middle, Math.max(1, (0.8 * width) / n), Math.max(1, tall));
  }
  context.fillStyle = style.getPropertyValue("--muted");
  context.fillRect(left, middle - 0.5, width, 1);
}

const ratio = isImage ? H / W : kind === "signal" ? 0.5 : 0.7;
function framed(width, height, attributes) {
  const made = h("canvas", { role: "img", ...attributes, width, height });
  made.style.aspectRatio = `${1 / ratio}`;
  return made;
}

/** A canvas for a datum, `edge` CSS pixels wide, at the resolution of the screen. */
export function canvas(edge, attributes = {}) {
  const dense = Math.min(2, devicePixelRatio || 1);
  return framed(Math.round(edge * dense), Math.round(edge * ratio * dense), attributes);
}

/** A canvas for n data side by side, each `edge` CSS pixels wide: the browser takes time for each canvas at each frame. */
export function sheet(n, edge, attributes = {}) {
  const { width, height } = canvas(edge);
  return h("canvas", { ...attributes, width: n * width, height });
}

/** Draw the first n data of x side by side, with a gap of so many pixels between them. */
export function drawRow(canvas, x, n, gap = 0) {
  const width = canvas.width / n;
  for (let k = 0; k < n; k++) draw(canvas, x, k, [k * width + gap / 2, 0, width - gap, canvas.height]);
}

/** A canvas that is drawn again at every frame: small images keep their own size, and the style enlarges their pixels. */
export const liveCanvas = (edge, attributes) => (isImage && W < edge ? framed(W, H, attributes) : canvas(edge, attributes));

/** A table of a vector's values by name; null for images and signals. */
export function table(x) {
  if (kind !== "vector" || x.length > 200) return null;
  const rows = Array.from(x, (v, i) => h("tr", {}, h("th", { scope: "row" }, columns?.[i] ?? `x${i + 1}`), h("td", {}, fixed(v, Math.abs(v) < 100 ? 3 : 1))));
  const scale = `bars show the difference from the mean of the data, up to ${REACH} standard deviations`;
  return h("table", { class: "values" }, h("caption", { class: "muted" }, scale), h("tbody", {}, rows));
}

/** x (C, H, W) in the data's own units from pixels (H, W, 4): grey by the luma of Rec. 601. */
export function fromPixels({ data }) {
  const x = new Float32Array(SIZE), plane = H * W, unit = (v) => low + ((high - low) * v) / 255;
  for (let i = 0; i < plane; i++) {
    if (C === 1) x[i] = unit(0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]);
    else for (let k = 0; k < C; k++) x[k * plane + i] = unit(k < 3 ? data[4 * i + k] : 255);
  }
  return x;
}

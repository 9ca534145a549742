// A picture of the reader's own: prepared as the run's data are, encoded, decoded, scored, and set beside the data.
import { meta } from "./blobs.js";
import { D, data, describe, hasThumb, labelName, NONE, thumb } from "./data.js";
import { decode, has, request } from "./engine.js";
import { effective, logMeanExp, nearest, quantile, shareBelow, uniforms } from "./maths.js";
import { canvas as picture, draw, drawDifference, fromPixels, isImage, SIZE } from "./picture.js";
import { change, state } from "./state.js";
import { button, h, said, tell } from "./ui.js";

const { height: H, width: W, columns, missing } = meta.event;
const DRAWS = 64, OF_DATA = 8, MOST = 40_000_000;

const quantiles = (sorted) => Array.from({ length: 101 }, (_, i) => quantile(sorted, i / 100));

export function build(place) {
  const results = h("div", { class: "own-results", "aria-live": "polite" });
  let source = null, invert = false;

  // --- how it comes in --------------------------------------------------------------------------------------------

  const pad = h("canvas", { class: "pad", width: 280, height: Math.round((280 * H) / W), role: "img", "aria-label": "Draw here" });
  async function take(blob) {
    if (!blob || !blob.type.startsWith("image/")) return tell("That is not an image.");
    if (blob.size > MOST) return tell("That image is too large (40 MB at most).");
    try {
      source = await createImageBitmap(blob);
    } catch {
      return tell("That image cannot be read.");
    }
    prepare();
  }
  function prepare() {
    if (!source) return;
    const face = h("canvas", { width: W, height: H }), c = face.getContext("2d", { willReadFrequently: true }), s = Math.min(W / source.width, H / source.height);
    const w = source.width * s, t = source.height * s;
    const big = h("canvas", { width: source.width, height: source.height }).getContext("2d", { willReadFrequently: true });
    big.fillStyle = "#fff";
    big.fillRect(0, 0, source.width, source.height);
    big.drawImage(source, 0, 0);
    const [r, g, b] = big.getImageData(0, 0, 1, 1).data; // what stays free is filled with the corner's colour
    c.fillStyle = `rgb(${r} ${g} ${b})`;
    c.fillRect(0, 0, W, H);
    c.imageSmoothingQuality = "high";
    c.drawImage(big.canvas, (W - w) / 2, (H - t) / 2, w, t);
    const image = c.getImageData(0, 0, W, H);
    if (invert) for (let i = 0; i < image.data.length; i++) if (i % 4 < 3) image.data[i] = 255 - image.data[i];
    look(fromPixels(image)).catch((e) => tell(e.message));
  }

  if (isImage) {
    const zone = h("label", { class: "drop" }, "Drop an image here, paste one, or ", h("u", {}, "choose a file"), h("input", { type: "file", accept: "image/*", class: "off-screen", onchange: (e) => take(e.target.files[0]) }));
    for (const name of ["dragover", "dragenter"]) zone.addEventListener(name, (e) => (e.preventDefault(), zone.classList.add("over")));
    zone.addEventListener("dragleave", () => zone.classList.remove("over"));
    zone.addEventListener("drop", (e) => {
      e.preventDefault();
      zone.classList.remove("over");
      take(e.dataTransfer.files[0]);
    });
    addEventListener("dragover", (e) => e.preventDefault());
    addEventListener("drop", (e) => e.preventDefault());
    addEventListener("paste", (e) => {
      const file = [...(e.clipboardData?.files ?? [])][0];
      if (file) change({ tab: "own" }), take(file);
    });
    const c = pad.getContext("2d"), wipe = () => {
      c.fillStyle = "#000";
      c.fillRect(0, 0, pad.width, pad.height);
    };
    wipe();
    let last = null;
    const at = (e) => {
      const r = pad.getBoundingClientRect();
      return [((e.clientX - r.left) / r.width) * pad.width, ((e.clientY - r.top) / r.height) * pad.height];
    };
    pad.addEventListener("pointerdown", (e) => (pad.setPointerCapture(e.pointerId), (last = at(e)), stroke(e)));
    pad.addEventListener("pointermove", (e) => last && stroke(e));
    pad.addEventListener("pointerup", async () => {
      last = null;
      source = await createImageBitmap(pad);
      prepare();
    });
    const width = h("input", { type: "range", min: "4", max: "60", value: "22", "aria-label": "Width of the brush" });
    const stroke = (e) => {
      const [x, y] = at(e);
      c.strokeStyle = "#fff";
      c.lineWidth = Number(width.value);
      c.lineCap = c.lineJoin = "round";
      c.beginPath();
      c.moveTo(...last);
      c.lineTo(x, y);
      c.stroke();
      last = [x, y];
    };
    place.append(zone, h("div", { class: "own-in" }, h("div", {}, pad, h("div", { class: "bar" }, h("label", { class: "inline" }, "Brush ", width), button("Clear", wipe)))),
      h("label", { class: "inline" }, h("input", { type: "checkbox", onchange: (e) => ((invert = e.target.checked), prepare()) }), " invert light and dark"));
  } else {
    const area = h("textarea", { rows: 5, "aria-label": "Numbers of one datum", placeholder: `${SIZE} numbers, separated by spaces or commas${missing ? "; nan is missing" : ""}` });
    const example = Array.from({ length: Math.min(6, SIZE) }, (_, i) => columns?.[i] ?? `x${i + 1}`).join(", ");
    place.append(h("p", { class: "muted" }, `In the order of the data: ${example}${SIZE > 6 ? ", ..." : ""}`), area, button("Look", () => {
      const values = area.value.trim().split(/[\s,;]+/).map(Number);
      if (values.length !== SIZE || (!missing && !values.every(Number.isFinite))) return tell(`This run takes ${SIZE} numbers a datum.`);
      look(Float32Array.from(values)).catch((e) => tell(e.message));
    }));
  }
  place.append(h("p", { class: "muted" }, meta.graphs.encode?.says ?? ""), results);

  // --- what is said of it -----------------------------------------------------------------------------------------

  async function look(x) {
    const c = state.z.slice(D - meta.latent.condition), found = await request("own", "encode", { x, c }, 1);
    if (!found) return;
    const z = found.z, back = await decode("own picture", z);
    if (!back) return;
    const faces = [picture(150, { "aria-label": "Your datum, prepared" }), picture(150, { "aria-label": "Its reconstruction" }), picture(150, { "aria-label": "The error" })];
    draw(faces[0], x);
    draw(faces[1], back);
    drawDifference(faces[2], back, x);
    const titles = ["Yours, prepared", "Reconstruction", "Error: blue too dark, orange too bright"];
    const score = h("p", {}, "log p(x) ..."), neighbours = h("div", { class: "neighbours" });
    results.replaceChildren(h("div", { class: "faces" }, faces.map((f, i) => h("figure", {}, f, h("figcaption", {}, titles[i])))), score, h("h3", {}, "Nearest data, by their codes"), neighbours);
    const own = byError(x, back);
    change({ z, anchor: -1, own });
    for (const { index, distance } of nearest(data.z, D, z, meta.latent.scale, 6)) {
      const figure = h("figure", {});
      if (hasThumb(index)) {
        const image = thumb(index), face = h("canvas", { width: image.width, height: image.height, class: "thumb" });
        face.getContext("2d").putImageData(image, 0, 0);
        figure.append(face);
      } else {
        const face = picture(72), rebuilt = await decode("neighbours", data.z.slice(index * D, (index + 1) * D));
        if (rebuilt) draw(face, rebuilt);
        figure.append(face);
      }
      const name = data.label && data.label[index] !== NONE ? labelName(data.label[index]) : describe(index);
      figure.append(h("figcaption", {}, `${name} · ${said(distance, 1)}`));
      neighbours.append(h("button", { type: "button", title: describe(index), onclick: () => change({ z: data.z.slice(index * D, (index + 1) * D), anchor: index }) }, figure));
    }
    await estimate(x, c, score, own);
  }

  /** What share of the data have a larger error of reconstruction, by which a model without a density is judged. */
  function byError(x, y) {
    const known = data.error ? Float32Array.from(data.error).filter(Number.isFinite).sort() : null;
    if (has("weights") || !known?.length) return { share: null };
    let sum = 0, there = 0;
    for (let i = 0; i < SIZE; i++) if (Number.isFinite(x[i])) (sum += (x[i] - y[i]) ** 2), there++;
    return { share: 1 - shareBelow(quantiles(known), Math.sqrt(sum / Math.max(there, 1))), by: "reconstruction" };
  }

  async function estimate(x, c, score, own) {
    if (!has("weights")) return void (score.textContent = `No log p(x): ${meta.graphs.weights?.why ?? "this model has no density."}`);
    const { low, high, drawn } = meta.event, next = uniforms(1), weights = [];
    // data that are modelled as binarised are scored as one draw of their pixels, and so is this datum
    const seen = drawn ? x.map((v) => (Number.isNaN(v) ? v : next() * (high - low) < v - low ? high : low)) : x;
    for (let first = 0; first < DRAWS; first += 16) {
      const many = new Float32Array(16 * SIZE), given = new Float32Array(16 * c.length);
      for (let k = 0; k < 16; k++) {
        many.set(seen, k * SIZE);
        given.set(c, k * c.length);
      }
      const found = await request("weights", "weights", { x: many, c: given }, 16, 17 + first);
      if (!found) return;
      for (let k = 0; k < 16; k++) weights.push(found.log_px[k] + found.log_pz[k] - found.log_qz[k]);
    }
    const value = logMeanExp(weights), known = data.logpx ? Float32Array.from(data.logpx).filter(Number.isFinite).sort() : null;
    const parts = [`${drawn ? "Of one binary draw of it: " : ""}log p(x) ≥ ${said(value, 1)} nats, from ${DRAWS} draws of q(z|x) of which ${said(effective(weights), 1)} count.`];
    if (known?.length) {
      let like = 0; // with as many draws for each estimate as the data have
      for (let i = 0; i < DRAWS; i += OF_DATA) like += (logMeanExp(weights.slice(i, i + OF_DATA)) * OF_DATA) / DRAWS;
      const share = shareBelow(quantiles(known), like);
      if (own && state.own === own) change({ own: { share, by: "log p(x)" } }); // unless another code is shown by now
      parts.push(share < 0.005 ? "Lower than all but a few of the data here: strange to this model." : `${Math.round(100 * share)} % of the data here score lower.`);
    }
    score.textContent = parts.join(" ");
  }
}

// The reader's own example: encoded, decoded, scored, and shown with the examples that have the nearest codes.
import { meta } from "./blobs.js";
import { code, D, data, describe, hasThumb, labelName, NONE, thumb } from "./data.js";
import { decode, has, request } from "./engine.js";
import { effective, logMeanExp, nearest, quantile, shareBelow, uniforms } from "./maths.js";
import { imageInput, numbersInput } from "./own-input.js";
import { draw, drawDifference, isImage, canvas as picture, SIZE } from "./picture.js";
import { change, state } from "./state.js";
import { announce, fixed, h } from "./ui.js";

const SAMPLES = 64, SAMPLES_OF_DATA = 8, AT_ONCE = 16, NEIGHBOURS = 6;
const FACES = [
  ["Your input", "Your example as the model sees it"],
  ["Reconstruction", "Its reconstruction"],
  ["Error: blue is too dark, orange too bright", "The error of the reconstruction"],
];

/** 101 quantiles of the scores that are known; null if none is known. */
function quantiles(scores) {
  const sorted = scores && Float32Array.from(scores).filter(Number.isFinite).sort();
  return sorted?.length ? Array.from({ length: 101 }, (_, i) => quantile(sorted, i / 100)) : null;
}

/** The share of the data with a larger reconstruction error, which judges x under a model without a density. */
function shareByError(x, reconstruction) {
  const known = quantiles(data.error);
  if (has("weights") || !known) return { share: null };
  let sum = 0, count = 0;
  for (let i = 0; i < SIZE; i++) {
    if (!Number.isFinite(x[i])) continue;
    sum += (x[i] - reconstruction[i]) ** 2;
    count++;
  }
  return { share: 1 - shareBelow(known, Math.sqrt(sum / Math.max(count, 1))), by: "reconstruction" };
}

/** x as the model scores it: one random binarisation of x if the data are modelled as binarised, else x. */
function scored(x) {
  const { low, high, drawn } = meta.event, next = uniforms(1);
  return drawn ? x.map((v) => (Number.isNaN(v) ? v : next() * (high - low) < v - low ? high : low)) : x;
}

/** Logarithms of SAMPLES importance weights of x under the condition c; null if a newer request replaced this one. */
async function logWeights(x, c) {
  const weights = [], repeated = (row) => Float32Array.from({ length: AT_ONCE * row.length }, (_, i) => row[i % row.length]);
  const inputs = { x: repeated(x), c: repeated(c) };
  for (let first = 0; first < SAMPLES; first += AT_ONCE) {
    const result = await request("weights", "weights", inputs, AT_ONCE, 17 + first);
    if (!result) return null;
    for (let k = 0; k < AT_ONCE; k++) weights.push(result.log_px[k] + result.log_pz[k] - result.log_qz[k]);
  }
  return weights;
}

/** The share of the data with a lower log p(x), estimated from as many samples as for the data; null if unknown. */
function shareByDensity(weights) {
  const known = quantiles(data.logpx);
  if (!known) return null;
  let mean = 0;
  for (let i = 0; i < SAMPLES; i += SAMPLES_OF_DATA) mean += (logMeanExp(weights.slice(i, i + SAMPLES_OF_DATA)) * SAMPLES_OF_DATA) / SAMPLES;
  return shareBelow(known, mean);
}

/** Show log p(x) in `words`, and judge `own` by it. */
async function showDensity(x, c, words, own) {
  if (!has("weights")) {
    words.textContent = `No log p(x): ${meta.graphs.weights?.why ?? "this model has no density."}`;
    return;
  }
  const weights = await logWeights(scored(x), c);
  if (!weights) return;
  const share = shareByDensity(weights), estimate = `log p(x) ≥ ${fixed(logMeanExp(weights), 1)} nats`;
  const samples = `from ${SAMPLES} samples of q(z|x) (effective sample size ${fixed(effective(weights), 1)})`;
  const parts = [`${meta.event.drawn ? "After random binarisation: " : ""}${estimate}, ${samples}.`];
  if (share !== null) {
    if (state.own === own) change({ own: { share, by: "log p(x)" } }); // unless another code is shown meanwhile
    const unusual = "Almost all examples here score higher: this one is unusual for the model.";
    parts.push(share < 0.005 ? unusual : `${Math.round(100 * share)} % of the examples here score lower.`);
  }
  words.textContent = parts.join(" ");
}

async function neighbour({ index, distance }) {
  const figure = h("figure", {});
  if (hasThumb(index)) {
    const image = thumb(index), face = h("canvas", { width: image.width, height: image.height, class: "thumb" });
    face.getContext("2d").putImageData(image, 0, 0);
    figure.append(face);
  } else {
    const face = picture(72), x = await decode("neighbours", code(index));
    if (x) draw(face, x);
    figure.append(face);
  }
  const name = data.label && data.label[index] !== NONE ? labelName(data.label[index]) : describe(index);
  figure.append(h("figcaption", {}, `${name} · ${fixed(distance, 1)}`));
  return h("button", { type: "button", title: describe(index), onclick: () => change({ z: code(index), anchor: index }) }, figure);
}

/** Show the reconstruction, the score and the nearest examples of x in `place`. */
async function show(x, place) {
  const c = state.z.slice(D - meta.latent.condition), encoded = await request("own", "encode", { x, c }, 1);
  const reconstruction = encoded && (await decode("own picture", encoded.z));
  if (!reconstruction) return;
  const faces = FACES.map(([, label]) => picture(150, { "aria-label": label }));
  draw(faces[0], x);
  draw(faces[1], reconstruction);
  drawDifference(faces[2], reconstruction, x);
  const score = h("p", {}, "log p(x) ..."), neighbours = h("div", { class: "neighbours" });
  place.replaceChildren(h("div", { class: "faces" }, faces.map((face, i) => h("figure", {}, face, h("figcaption", {}, FACES[i][0])))),
    score, h("h3", {}, "Examples with the nearest codes"), neighbours);
  const own = shareByError(x, reconstruction);
  change({ z: encoded.z, anchor: -1, own });
  for (const near of nearest(data.z, D, encoded.z, meta.latent.scale, NEIGHBOURS)) neighbours.append(await neighbour(near));
  await showDensity(x, c, score, own);
}

export function build(place) {
  const results = h("div", { class: "own-results", "aria-live": "polite" });
  const use = (x) => show(x, results).catch((error) => announce(error.message));
  place.append(...(isImage ? imageInput : numbersInput)(use), h("p", { class: "muted" }, meta.graphs.encode?.says ?? ""), results);
}

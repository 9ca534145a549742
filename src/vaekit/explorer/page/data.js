// The run's data in this page: codes, labels, scores, thumbnails, and the positions of the data on each map.
import { meta, numbers } from "./blobs.js";
import { dot, quantile, shareBelow } from "./maths.js";
import { SIZE } from "./picture.js";

export const D = meta.latent.dims, NONE = 65535;
export const free = D - meta.latent.condition; // entries of a code that are not a condition
const { low, high, channels: C } = meta.event;

export const data = { n: 0, z: null, label: null, row: null, logpx: null, error: null, thumbs: null, tsne: null, prior: null, fitted: null, hist: null, first: null };

export async function load() {
  const names = { z: "points.z", label: "points.label", row: "points.row", logpx: "points.logpx", error: "points.error", thumbs: "thumbs", tsne: "map.tsne", prior: "prior", fitted: "fitted", hist: "hist", first: "first" };
  await Promise.all(Object.entries(names).map(async ([name, blob]) => (data[name] = await numbers(blob))));
  data.n = data.z.length / D;
}

export const code = (i) => data.z.slice(i * D, (i + 1) * D);
export const hasThumb = (i) => data.thumbs !== null && i >= 0 && i < meta.blobs.thumbs.shape[0];

/** Whether the thumbnails are the data at full size. */
const wholeThumbs = () => data.thumbs !== null && meta.blobs.thumbs.shape.slice(1).reduce((a, b) => a * b, 1) === SIZE;

/** x (C, H, W) of a datum; null if its thumbnail is missing or reduced. */
export function datum(i) {
  if (!hasThumb(i) || !wholeThumbs()) return null;
  const [, h, w] = meta.blobs.thumbs.shape, x = new Float32Array(SIZE);
  for (let p = 0; p < h * w; p++) for (let k = 0; k < C; k++) x[k * h * w + p] = low + ((high - low) * data.thumbs[(i * h * w + p) * C + k]) / 255;
  return x;
}

/** The thumbnail of a datum as pixels. */
export function thumb(i) {
  const [, h, w, c] = meta.blobs.thumbs.shape, out = new Uint8ClampedArray(4 * h * w);
  for (let p = 0; p < h * w; p++) {
    for (let k = 0; k < 3; k++) out[4 * p + k] = data.thumbs[(i * h * w + p) * c + (c >= 3 ? k : 0)];
    out[4 * p + 3] = 255;
  }
  return new ImageData(out, w, h);
}

export const labelName = (l) => (l === NONE ? "no label" : meta.labels?.names[l] ?? `class ${l}`);

export function describe(i) {
  const split = i < meta.points.test ? "test" : "training", label = data.label && data.label[i] !== NONE ? `, ${labelName(data.label[i])}` : "";
  return `${split} example ${data.row ? data.row[i] : i}${label}`;
}

/** Positions (2n) of the data on a map, in the map's own units. */
export function places(map, [i, j]) {
  if (map === "tsne") return data.tsne;
  const out = new Float32Array(2 * data.n);
  if (map === "pair") {
    for (let r = 0; r < data.n; r++) {
      out[2 * r] = data.z[r * D + i];
      out[2 * r + 1] = data.z[r * D + j];
    }
    return out;
  }
  for (let r = 0; r < data.n; r++) {
    const [u, v] = project(data.z.subarray(r * D, (r + 1) * D));
    out[2 * r] = u;
    out[2 * r + 1] = v;
  }
  return out;
}

const pca = meta.maps.find((m) => m.id === "pca");
export function project(z) {
  return pca.components.map((c) => dot(c, z) - dot(c, pca.mean));
}

/** z changed so that it lies at (u, v) on the map: two latents set, or a shift within the plane. Null if the map cannot be inverted. */
export function moved(z, map, [i, j], u, v) {
  const out = Float32Array.from(z);
  if (map === "pair") {
    out[i] = u;
    out[j] = v;
    return out;
  }
  if (map !== "pca") return null;
  const [a, b] = project(z);
  return out.map((value, k) => value + (u - a) * pca.components[0][k] + (v - b) * pca.components[1][k]);
}

// --- distance from the data --------------------------------------------------------------------------------------

const off = meta.off;
export function distance(z) {
  let sum = 0;
  for (let k = 0; k < D; k++) if (off.sd[k] > 1e-6) sum += ((z[k] - off.mean[k]) / off.sd[k]) ** 2;
  return Math.sqrt(sum);
}

const logNormal = (z) => {
  let sum = 0;
  for (let k = 0; k < free; k++) sum += z[k] * z[k];
  return -0.5 * sum - 0.5 * free * Math.log(2 * Math.PI);
};

let usual = null;
/** How typical z is: {share: share of the data closer to the mean, density: log p(z), range: range of 98 % of prior samples, away: whether z is unusual}. */
export function whereabouts(z) {
  const share = shareBelow(off.distance_quantiles, distance(z));
  const result = { distance: distance(z), share, away: share >= 0.995, density: null, range: null };
  if (meta.latent.gaussian_prior && data.prior) {
    usual ??= Float64Array.from({ length: data.prior.length / D }, (_, r) => logNormal(data.prior.subarray(r * D, (r + 1) * D))).sort();
    result.density = logNormal(z);
    result.range = [quantile(usual, 0.01), quantile(usual, 0.99)];
    result.away ||= result.density < result.range[0];
  }
  return result;
}

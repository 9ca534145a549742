// The state of the page in one place. The address encodes it, so that a link opens the same view.
import { meta } from "./blobs.js";

const D = meta.latent.dims;

export const state = {
  z: Float32Array.from(meta.latent.centre),
  anchor: -1, // index of the datum whose code z is; -1 if there is none
  map: "pca",
  pair: [meta.latent.order[0] ?? 0, meta.latent.order[1] ?? 0],
  colour: meta.labels ? "label" : "error",
  drawn: false, // whether to show a sample of p(x|z) instead of its mean
  seed: 1,
  tab: "sliders",
  a: null, // codes to interpolate between and to subtract
  b: null,
  own: null, // {share, by} while z is the code of the reader's own datum: the share of the data with a worse score
};

export const groups = { a: new Set(), b: new Set() }; // indices of the points that the reader drew around

const subscribers = new Set();
export const subscribe = (f) => subscribers.add(f);

/** Change parts of the state; each subscriber is called with the set of their names. */
export function change(parts) {
  const changed = "z" in parts ? { own: null, ...parts } : parts, names = new Set(Object.keys(changed));
  Object.assign(state, changed);
  for (const f of subscribers) f(names);
}

const pack = (z) => {
  const raw = new Uint8Array(Float32Array.from(z).buffer);
  let text = "";
  for (const b of raw) text += String.fromCharCode(b);
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
};

const unpack = (text) => {
  const raw = atob(text.replaceAll("-", "+").replaceAll("_", "/")), bytes = Uint8Array.from(raw, (c) => c.charCodeAt(0));
  const z = bytes.length === 4 * D ? new Float32Array(bytes.buffer) : null;
  return z?.every(Number.isFinite) ? z : null;
};

/** The state as the text behind the # of the address. */
export function hash() {
  const s = state, parts = { z: pack(s.z), at: s.anchor, map: s.map, pair: s.pair.join("."), colour: s.colour, drawn: +s.drawn, seed: s.seed, tab: s.tab };
  if (s.a) parts.a = pack(s.a);
  if (s.b) parts.b = pack(s.b);
  return new URLSearchParams(parts).toString();
}

/** The state that an address describes, without the parts that cannot be read. */
export function fromHash(text) {
  const query = new URLSearchParams(text.replace(/^#/, "")), parts = {};
  const code = (name) => {
    try {
      return query.has(name) ? unpack(query.get(name)) : null;
    } catch {
      return null;
    }
  };
  for (const name of ["z", "a", "b"]) {
    const z = code(name);
    if (z) parts[name] = z;
  }
  const whole = (name, low, high) => {
    const v = Number(query.get(name));
    if (query.has(name) && Number.isInteger(v) && v >= low && v < high) parts[name === "at" ? "anchor" : name] = v;
  };
  whole("at", -1, meta.limits.points);
  whole("seed", 0, 2 ** 31);
  if (meta.maps.some((m) => m.id === query.get("map"))) parts.map = query.get("map");
  if (["label", "logpx", "error", "none"].includes(query.get("colour"))) parts.colour = query.get("colour");
  if (query.has("drawn")) parts.drawn = query.get("drawn") === "1";
  if (["sliders", "between", "edit", "own", "numbers"].includes(query.get("tab"))) parts.tab = query.get("tab");
  const pair = (query.get("pair") ?? "").split(".").map(Number);
  if (pair.length === 2 && pair.every((i) => Number.isInteger(i) && i >= 0 && i < D)) parts.pair = pair;
  return parts;
}

// What the page shows, in one place, and in the address: whoever opens the link sees the same.
import { meta } from "./blobs.js";

const D = meta.latent.dims;

export const state = {
  z: Float32Array.from(meta.latent.centre),
  anchor: -1, // the datum that z was taken from, a point's index
  map: "pca",
  pair: [meta.latent.order[0] ?? 0, meta.latent.order[1] ?? 0],
  colour: meta.labels ? "label" : "error",
  drawn: false, // a draw from p(x|z) rather than its mean
  seed: 1,
  tab: "sliders",
  a: null, // codes kept by the reader
  b: null,
  own: null, // {share, by} of the reader's own datum that z was taken from: the share of the data with a worse score
};

const hearers = new Set();
export const hear = (f) => hearers.add(f);

/** Change some of the state; everyone who hears is told the names of what changed. */
export function change(some) {
  if ("z" in some && !("own" in some)) some = { ...some, own: null };
  Object.assign(state, some);
  const names = new Set(Object.keys(some));
  for (const f of hearers) f(names);
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
  return z && z.every(Number.isFinite) ? z : null;
};

/** The state as the text behind the # of the address. */
export function hash() {
  const s = state, parts = { z: pack(s.z), at: s.anchor, map: s.map, pair: s.pair.join("."), colour: s.colour, drawn: +s.drawn, seed: s.seed, tab: s.tab };
  if (s.a) parts.a = pack(s.a);
  if (s.b) parts.b = pack(s.b);
  return new URLSearchParams(parts).toString();
}

/** The state that an address describes; what is damaged in it is left out. */
export function fromHash(text) {
  const given = new URLSearchParams(text.replace(/^#/, "")), found = {};
  const code = (name) => {
    try {
      return given.has(name) ? unpack(given.get(name)) : null;
    } catch {
      return null;
    }
  };
  for (const name of ["z", "a", "b"]) {
    const z = code(name);
    if (z) found[name] = z;
  }
  const whole = (name, low, high) => {
    const v = Number(given.get(name));
    if (given.has(name) && Number.isInteger(v) && v >= low && v < high) found[name === "at" ? "anchor" : name] = v;
  };
  whole("at", -1, meta.limits.points);
  whole("seed", 0, 2 ** 31);
  if (meta.maps.some((m) => m.id === given.get("map"))) found.map = given.get("map");
  if (["label", "logpx", "error", "none"].includes(given.get("colour"))) found.colour = given.get("colour");
  if (given.has("drawn")) found.drawn = given.get("drawn") === "1";
  if (["sliders", "between", "edit", "own", "numbers"].includes(given.get("tab"))) found.tab = given.get("tab");
  const pair = (given.get("pair") ?? "").split(".").map(Number);
  if (pair.length === 2 && pair.every((i) => Number.isInteger(i) && i >= 0 && i < D)) found.pair = pair;
  return found;
}

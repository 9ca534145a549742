// One slider per latent, the most informative first, each with a histogram of the data and a strip of its traversal.
import { meta } from "./blobs.js";
import { conditions } from "./conditions.js";
import { D, data, free } from "./data.js";
import { decode } from "./engine.js";
import { drawRow, sheet } from "./picture.js";
import { change, state, subscribe } from "./state.js";
import { button, CALM, debounced, fixed, h, paced } from "./ui.js";

const STOPS = 7, REACH = 3.2, FIRST = 12, BINS = 41, BIN_REACH = 4.1; // reaches in standard deviations
const L = meta.latent;
const spread = (i) => Math.max(L.scale[i], 0.05), low = (i) => L.centre[i] - REACH * spread(i), high = (i) => L.centre[i] + REACH * spread(i);
const stop = (i, k) => low(i) + ((k + 0.5) / STOPS) * (high(i) - low(i));

function set(i, value) {
  const z = Float32Array.from(state.z);
  z[i] = value;
  change({ z });
}

function histogram(i) {
  const counts = data.hist ? data.hist.subarray(i * BINS, (i + 1) * BINS) : [], most = Math.max(1, ...counts);
  const bars = Array.from(counts, (n, k) => {
    const u = ((k + 0.5) / BINS) * 2 * BIN_REACH - BIN_REACH, left = ((u + REACH) / (2 * REACH)) * 246 - 3;
    return Math.abs(u) <= REACH ? `M${left.toFixed(2)} 28v${((-27 * n) / most).toFixed(2)}h5.5V28z` : "";
  });
  const [svg, path] = ["svg", "path"].map((name) => document.createElementNS("http://www.w3.org/2000/svg", name));
  const attributes = { class: "hist", viewBox: "0 0 246 28", preserveAspectRatio: "none", role: "img", "aria-label": `histogram of ${L.names[i]} over the data` };
  for (const [name, value] of Object.entries(attributes)) svg.setAttribute(name, value);
  path.setAttribute("d", bars.join(""));
  svg.append(path);
  return svg;
}

const STEP = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 };

function slider(i) {
  const label = `${L.names[i]}${L.kl ? `, KL ${fixed(L.kl[i])} nats` : ""}`;
  const range = h("input", {
    type: "range", min: String(low(i)), max: String(high(i)), step: "any", "aria-label": label,
    oninput: (e) => set(i, Number(e.target.value)),
  });
  range.addEventListener("keydown", (event) => {
    const step = STEP[event.key];
    if (!step) return;
    event.preventDefault();
    set(i, Math.min(high(i), Math.max(low(i), state.z[i] + 0.1 * step * spread(i))));
  });
  return range;
}

function row(i, quiet) {
  const value = h("output", {}), range = slider(i), strip = h("div", { class: "strip joined" });
  const most = Math.max(...(L.kl ?? L.scale)), worth = (L.kl ?? L.scale)[i];
  const title = L.kl ? `KL ${fixed(worth)} nats` : `standard deviation ${fixed(worth)}`;
  const meter = h("span", { class: "meter", title }, h("i", { style: `width:${(100 * worth) / most}%` }));
  const name = h("div", { class: "name" }, h("b", {}, L.names[i]), meter, h("small", {}, L.kl ? `${fixed(worth)} nats` : `sd ${fixed(worth)}`), value);
  const element = h("div", { class: quiet ? "latent quiet" : "latent" }, name, h("div", { class: "track" }, histogram(i), range), strip);
  const sync = () => {
    range.value = String(state.z[i]);
    value.textContent = fixed(state.z[i]);
  };
  return { element, strip, sync, seen: false };
}

/** Decode the traversal of latent i from the current code into its strip; false if another code is shown meanwhile. */
async function paintStrip(i, strip) {
  const codes = new Float32Array(STOPS * D), { z } = state;
  for (let k = 0; k < STOPS; k++) {
    codes.set(z, k * D);
    codes[k * D + i] = stop(i, k);
  }
  const x = await decode("films", codes, STOPS);
  if (!x || z !== state.z) return false;
  if (!strip.firstChild) {
    const above = (_, k) => h("button", {
      type: "button", style: `grid-area: 1 / ${k + 1}`, "aria-label": `set ${L.names[i]} to ${fixed(stop(i, k))}`,
      onclick: () => set(i, stop(i, k)),
    });
    strip.append(sheet(STOPS, 48, { "aria-hidden": "true" }), ...Array.from({ length: STOPS }, above));
  }
  drawRow(strip.firstChild, x, STOPS, 2 * Math.min(2, devicePixelRatio || 1));
  return true;
}

/** Rows by latent, `.add(list, latents)`, and the strips of the rows in view, decoded after the code stops changing. */
function rowsIn(place) {
  const rows = new Map(), byElement = new Map();
  const strips = debounced(async () => {
    if (place.closest("[hidden]")) return;
    for (const [i, r] of rows) if (r.seen && !(await paintStrip(i, r.strip))) return;
  }, 160);
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const r = byElement.get(entry.target);
      r.seen = entry.isIntersecting;
      if (r.seen) r.sync();
    }
    strips();
  }, { rootMargin: "40px" });
  function add(list, latents, quiet) {
    for (const i of latents) {
      const made = row(i, quiet);
      rows.set(i, made);
      byElement.set(made.element, made);
      watcher.observe(made.element);
      list.append(made.element);
      made.sync();
    }
  }
  return { rows, add, strips };
}

/** A list of latents that starts with FIRST and a button that shows more. */
function growing(latents, add) {
  const list = h("div", { class: "latents" }), more = button("", grow);
  let count = 0;
  function grow() {
    add(list, latents.slice(count, count + FIRST), false);
    count = Math.min(latents.length, count + FIRST);
    const left = latents.length - count;
    more.hidden = left === 0;
    more.textContent = left > FIRST ? `Show ${FIRST} more of ${left}` : `Show the other ${left}`;
  }
  grow();
  return [list, more];
}

/** The latents that the model does not use, folded away. */
function unused(latents, add) {
  const list = h("div", { class: "latents" });
  const title = `${latents.length} unused latent${latents.length > 1 ? "s" : ""} (variance of the posterior mean at most ${L.active})`;
  return h("details", { ontoggle: () => list.children.length || add(list, latents.slice(0, 100), true) }, h("summary", {}, title), list);
}

export function build(place) {
  const latents = L.order.filter((i) => i < free && i >= L.classes), active = latents.filter((i) => !L.dead[i]);
  const { rows, add, strips } = rowsIn(place), chosen = conditions(), order = L.kl ? "KL, the information per latent in nats" : "the spread of the codes";
  if (chosen.length) place.append(h("div", { class: "bar" }, chosen.map((c) => c.element)));
  place.append(h("p", { class: "muted" }, `Sorted by ${order}. The histogram behind each slider shows the codes of the data.`),
    ...growing(active.length ? active : latents, add)); // a model that uses no latent yet shows all of them
  if (active.length && active.length < latents.length) place.append(unused(latents.filter((i) => L.dead[i]), add));
  const sync = paced(() => {
    for (const r of rows.values()) if (r.seen) r.sync(); // the others when they come into view
    for (const control of chosen) control.sync();
    strips();
  }, CALM);
  sync();
  subscribe((names) => {
    if (names.has("z") || names.has("tab")) sync();
  });
}

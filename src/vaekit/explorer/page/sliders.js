// One slider a latent, those that say most first, each with what its traversal shows and where the data lie.
import { meta } from "./blobs.js";
import { D, data, free } from "./data.js";
import { decode } from "./engine.js";
import { canvas as picture, draw } from "./picture.js";
import { change, hear, state } from "./state.js";
import { button, h, said, settled } from "./ui.js";

const STOPS = 7, REACH = 3.2, FIRST = 12;
const L = meta.latent;

export function build(place) {
  const rows = new Map(), latents = L.order.filter((i) => i < free && i >= L.classes), active = latents.filter((i) => !L.dead[i]);
  // of a model that uses none yet, all are shown
  const told = active.length ? active : latents, silent = active.length ? latents.filter((i) => L.dead[i]) : [];
  const low = (i) => L.centre[i] - REACH * Math.max(L.scale[i], 0.05), high = (i) => L.centre[i] + REACH * Math.max(L.scale[i], 0.05);
  const set = (i, v) => {
    const z = Float32Array.from(state.z);
    z[i] = v;
    change({ z });
  };

  function histogram(i) {
    const c = h("canvas", { class: "hist", width: 246, height: 28, role: "img", "aria-label": `where the data lie along ${L.names[i]}` }), context = c.getContext("2d");
    const counts = data.hist ? data.hist.subarray(i * 41, (i + 1) * 41) : [], most = Math.max(1, ...counts);
    c.paint = () => {
      context.clearRect(0, 0, 246, 28);
      context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--bar");
      counts.forEach((n, k) => {
        const u = ((k + 0.5) / 41) * 8.2 - 4.1; // in deviations; the slider reaches REACH of them
        if (Math.abs(u) <= REACH) context.fillRect(((u + REACH) / (2 * REACH)) * 246 - 3, 28 - (27 * n) / most, 5.5, (27 * n) / most);
      });
    };
    c.paint();
    return c;
  }

  function row(i, quiet) {
    const value = h("output", {}), range = h("input", { type: "range", min: String(low(i)), max: String(high(i)), step: "any", "aria-label": `${L.names[i]}${L.kl ? `, KL ${said(L.kl[i])} nats` : ""}`, oninput: (e) => set(i, Number(e.target.value)) });
    range.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      set(i, Math.min(high(i), Math.max(low(i), state.z[i] + 0.1 * step * Math.max(L.scale[i], 0.05))));
    });
    const strip = h("div", { class: "strip" }), hist = histogram(i);
    const most = Math.max(...(L.kl ?? L.scale)), worth = L.kl ? L.kl[i] : L.scale[i];
    const meter = h("span", { class: "meter", title: L.kl ? `${said(L.kl[i])} nats of KL` : `deviation ${said(L.scale[i])}` }, h("i", { style: `width:${(100 * worth) / most}%` }));
    const element = h("div", { class: quiet ? "latent quiet" : "latent" }, h("div", { class: "name" }, h("b", {}, L.names[i]), meter, h("small", {}, L.kl ? `${said(L.kl[i])} nats` : `sd ${said(L.scale[i])}`), value), h("div", { class: "track" }, hist, range), strip);
    rows.set(i, { range, value, strip, hist, element, seen: false });
    return element;
  }

  const sync = () => {
    for (const [i, r] of rows) {
      r.range.value = String(state.z[i]);
      r.value.textContent = said(state.z[i]);
    }
  };

  /** The film strips of the rows in sight, decoded once the code has come to rest. */
  const films = settled(async () => {
    if (place.closest("[hidden]")) return;
    for (const [i, r] of rows) {
      if (!r.seen) continue;
      const codes = new Float32Array(STOPS * D), z = state.z;
      for (let k = 0; k < STOPS; k++) {
        codes.set(z, k * D);
        codes[k * D + i] = low(i) + ((k + 0.5) / STOPS) * (high(i) - low(i));
      }
      const x = await decode("films", codes, STOPS);
      if (!x || z !== state.z) return;
      while (r.strip.children.length < STOPS) {
        const k = r.strip.children.length;
        r.strip.append(h("button", { type: "button", "aria-label": `set ${L.names[i]} to ${said(low(i) + ((k + 0.5) / STOPS) * (high(i) - low(i)))}`, onclick: () => set(i, low(i) + ((k + 0.5) / STOPS) * (high(i) - low(i))) }, picture(48, { "aria-hidden": "true" })));
      }
      for (let k = 0; k < STOPS; k++) draw(r.strip.children[k].firstChild, x, k);
    }
  }, 160);
  const watcher = new IntersectionObserver((entries) => {
    for (const e of entries) for (const r of rows.values()) if (r.element === e.target) r.seen = e.isIntersecting;
    films();
  }, { rootMargin: "40px" });
  const watch = (element) => (watcher.observe(element), element);

  // --- classes and conditions: parts of a code that are chosen, not slid ------------------------------------------

  const one = (name, first, n) => {
    const menu = h("select", { onchange: (e) => {
      const z = Float32Array.from(state.z).fill(0, first, first + n);
      z[first + Number(e.target.value)] = 1;
      change({ z });
    } }, Array.from({ length: n }, (_, k) => h("option", { value: String(k) }, L.names[first + k])));
    menu.sync = () => {
      let best = 0;
      for (let k = 1; k < n; k++) if (state.z[first + k] > state.z[first + best]) best = k;
      menu.value = String(best);
    };
    chosen.push(menu);
    return h("label", { class: "inline condition" }, `${name} `, menu);
  };
  const chosen = [];
  const given = h("div", { class: "bar" });
  if (L.classes) given.append(one("Class", 0, L.classes));
  if (L.condition && L.condition_kind === "label") given.append(one("Told the class", D - L.condition, L.condition));
  else for (let i = free; i < D; i++) {
    const box = h("input", { type: "range", min: "0", max: "1", step: "any", oninput: (e) => set(i, Number(e.target.value)) });
    box.sync = () => (box.value = String(state.z[i]));
    chosen.push(box);
    given.append(h("label", { class: "inline condition" }, `${L.names[i]} `, box));
  }
  if (given.children.length) place.append(given);

  const list = h("div", { class: "latents" });
  let count = 0;
  const more = button("", () => grow());
  function grow() {
    for (const i of told.slice(count, count + FIRST)) list.append(watch(row(i, false)));
    count = Math.min(told.length, count + FIRST);
    more.hidden = count >= told.length;
    more.textContent = `Show ${Math.min(FIRST, told.length - count)} more of ${told.length - count}`;
    sync();
  }
  place.append(h("p", { class: "muted" }, L.kl ? "Sorted by KL, the nats a latent tells of a datum; behind each slider where the data lie." : "Sorted by how far the codes spread; behind each slider where the data lie."), list, more);
  grow();
  if (silent.length) {
    const quiet = h("div", { class: "latents" });
    place.append(h("details", { ontoggle: () => {
      if (!quiet.children.length) for (const i of silent.slice(0, 100)) quiet.append(watch(row(i, true)));
      sync();
    } }, h("summary", {}, `${silent.length} unused latent${silent.length > 1 ? "s" : ""} (variance of the posterior mean at most ${L.active})`), quiet));
  }
  const all = () => {
    sync();
    chosen.forEach((c) => c.sync());
    films();
  };
  all();
  hear((names) => {
    if (names.has("z") || names.has("tab")) all();
    if (names.has("theme")) for (const r of rows.values()) r.hist.paint();
  });
}

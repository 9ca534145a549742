// Directions: from one group of data to another, applied to the present code; and A - B + C.
import { meta } from "./blobs.js";
import { D, data, free } from "./data.js";
import { decode } from "./engine.js";
import { brushes } from "./map.js";
import { meanCode } from "./maths.js";
import { canvas as picture, draw } from "./picture.js";
import { change, hear, state } from "./state.js";
import { button, h, said, settled, tell } from "./ui.js";

const STOPS = 7;

export function build(place) {
  let base = Float32Array.from(state.z), direction = null, own = false;
  const slider = h("input", { type: "range", min: "-2", max: "2", step: "any", value: "0", "aria-label": "Strength of the edit", oninput: (e) => apply(Number(e.target.value)) });
  const words = h("p", { class: "muted" }), strip = h("div", { class: "strip wide" }), value = h("output", {}, "0.00");

  const along = (t) => Float32Array.from(base, (v, k) => v + t * direction[k]);
  function apply(t) {
    if (!direction) return tell("Choose a direction first.");
    value.textContent = said(t);
    own = true;
    change({ z: along(t) });
    own = false;
  }
  function use(vector, text) {
    direction = vector.map((v, k) => (k >= free ? 0 : v)); // a condition is told, not found
    base = Float32Array.from(state.z);
    slider.value = "0";
    value.textContent = "0.00";
    words.textContent = text;
    film();
  }
  const film = settled(async () => {
    if (!direction || place.closest("[hidden]")) return;
    const codes = new Float32Array(STOPS * D), at = (k) => -1.5 + (3 * k) / (STOPS - 1);
    for (let k = 0; k < STOPS; k++) codes.set(along(at(k)), k * D);
    const x = await decode("edit", codes, STOPS);
    if (!x) return;
    while (strip.children.length < STOPS) {
      const k = strip.children.length;
      strip.append(h("button", { type: "button", "aria-label": `strength ${said(at(k))}`, onclick: () => {
        slider.value = String(at(k));
        apply(at(k));
      } }, picture(72, { "aria-hidden": "true" }), h("small", {}, said(at(k), 1))));
    }
    for (let k = 0; k < STOPS; k++) draw(strip.children[k].firstChild, x, k);
  }, 60);

  const between = (to, from, text) => {
    if (!to.count || !from.count) return tell("Both groups need data.");
    use(Float32Array.from(to.mean, (v, k) => v - from.mean[k]), `${text}: the mean code of ${to.count.toLocaleString("en")} data minus that of ${from.count.toLocaleString("en")}.`);
  };

  if (meta.labels) {
    const names = meta.labels.names, everything = "all others";
    const menu = (label, rest) => h("select", { "aria-label": label }, rest ? h("option", { value: "-1" }, everything) : null, names.map((n, i) => h("option", { value: String(i) }, n)));
    const from = menu("From class", true), to = menu("To class", false);
    place.append(h("h3", {}, "From class to class"), h("div", { class: "bar" }, h("label", { class: "inline" }, "from ", from), h("label", { class: "inline" }, "to ", to), button("Use", () => {
      const a = Number(to.value), b = Number(from.value);
      between(meanCode(data.z, D, (i) => data.label[i] === a), meanCode(data.z, D, (i) => (b < 0 ? data.label[i] !== a : data.label[i] === b)), `${b < 0 ? everything : names[b]} → ${names[a]}`);
    })));
  }
  if (meta.directions.length) {
    const menu = h("select", { "aria-label": "Attribute" }, meta.directions.map((d, i) => h("option", { value: String(i) }, d.name)));
    place.append(h("h3", {}, "An attribute"), h("div", { class: "bar" }, menu, button("Use", () => {
      const d = meta.directions[Number(menu.value)];
      use(Float32Array.from(d.vector), `${d.name}: ${d.n_with.toLocaleString("en")} data with it minus ${d.n_without.toLocaleString("en")} without.`);
    })));
  }
  place.append(
    h("h3", {}, "Two groups of your own"), h("p", { class: "muted" }, "Choose Brush A and Brush B under the map and draw a line around some points."),
    h("div", { class: "bar" }, button("Use A → B", () => between(meanCode(data.z, D, (i) => brushes.b.has(i)), meanCode(data.z, D, (i) => brushes.a.has(i)), "Group A → group B"))),
    h("h3", {}, "A − B + present"), h("p", { class: "muted" }, "A and B are those kept under Between."),
    h("div", { class: "bar" }, button("Use A − B", () => {
      if (!state.a || !state.b) return tell("Keep an A and a B first (under Between).");
      use(Float32Array.from(state.a, (v, k) => v - state.b[k]), "The code of A minus the code of B, added to the present code.");
    })),
    h("hr", {}), words, h("div", { class: "bar" }, slider, value), strip);
  words.textContent = "No direction chosen yet.";
  hear((names) => {
    if (names.has("z") && !own) {
      base = Float32Array.from(state.z);
      slider.value = "0";
      value.textContent = "0.00";
      film();
    }
    if (names.has("tab")) film();
  });
}

// Edits of the code along a direction: from one group of data to another, or A - B.
import { meta } from "./blobs.js";
import { D, data, free } from "./data.js";
import { decode } from "./engine.js";
import { meanCode } from "./maths.js";
import { draw, canvas as picture } from "./picture.js";
import { change, groups, state, subscribe } from "./state.js";
import { announce, button, debounced, fixed, h } from "./ui.js";

const STOPS = 7, REACH = 1.5;
const strength = (k) => -REACH + (2 * REACH * k) / (STOPS - 1);

/** A slider and a strip along a direction from the current code, and `.use(direction, text)`. */
function editor(place) {
  let base = Float32Array.from(state.z), direction = null, own = false;
  const slider = h("input", {
    type: "range", min: "-2", max: "2", step: "any", value: "0", "aria-label": "Strength of the edit",
    oninput: (e) => apply(Number(e.target.value)),
  });
  const words = h("p", { class: "muted" }, "No direction is chosen yet."), strip = h("div", { class: "strip wide" }), value = h("output", {}, "0.00");
  const along = (t) => Float32Array.from(base, (v, k) => v + t * direction[k]);
  function apply(t) {
    if (!direction) return announce("Choose a direction first.");
    value.textContent = fixed(t);
    own = true;
    change({ z: along(t) });
    own = false;
  }
  function restart() {
    base = Float32Array.from(state.z);
    slider.value = "0";
    value.textContent = "0.00";
    paint();
  }
  function use(vector, text) {
    direction = vector.map((v, k) => (k >= free ? 0 : v)); // a condition is given, not inferred
    words.textContent = text;
    restart();
  }
  const paint = debounced(async () => {
    if (!direction || place.closest("[hidden]")) return;
    const codes = new Float32Array(STOPS * D);
    for (let k = 0; k < STOPS; k++) codes.set(along(strength(k)), k * D);
    const x = await decode("edit", codes, STOPS);
    if (!x) return;
    for (let k = strip.children.length; k < STOPS; k++) {
      const choose = () => {
        slider.value = String(strength(k));
        apply(strength(k));
      };
      strip.append(h("button", { type: "button", "aria-label": `strength ${fixed(strength(k))}`, onclick: choose },
        picture(72, { "aria-hidden": "true" }), h("small", {}, fixed(strength(k), 1))));
    }
    for (let k = 0; k < STOPS; k++) draw(strip.children[k].firstChild, x, k);
  }, 60);
  subscribe((names) => {
    if (names.has("z") && !own) restart();
    if (names.has("tab")) paint();
  });
  return { use, elements: [h("hr", {}), words, h("div", { class: "bar" }, slider, value), strip] };
}

const examples = (n) => `${n.toLocaleString("en")} example${n === 1 ? "" : "s"}`;

/** Use the difference between the mean codes of two groups; each group is a predicate of a datum's index. */
function useDifference(use, inTo, inFrom, text) {
  const to = meanCode(data.z, D, inTo), from = meanCode(data.z, D, inFrom);
  if (!to.count || !from.count) return announce("Each group must contain at least one example.");
  use(Float32Array.from(to.mean, (v, k) => v - from.mean[k]), `${text}: mean code of ${examples(to.count)} minus mean code of ${examples(from.count)}.`);
}

const OTHERS = "all others";

function byClass(use) {
  const { names } = meta.labels, options = names.map((n, i) => h("option", { value: String(i) }, n));
  const from = h("select", { "aria-label": "From class" }, h("option", { value: "-1" }, OTHERS), options.map((o) => o.cloneNode(true)));
  const to = h("select", { "aria-label": "To class" }, options);
  const choose = () => {
    const a = Number(to.value), b = Number(from.value);
    useDifference(use, (i) => data.label[i] === a, (i) => (b < 0 ? data.label[i] !== a : data.label[i] === b), `${names[b] ?? OTHERS} → ${names[a]}`);
  };
  const labelled = (name, menu) => h("label", { class: "inline" }, `${name} `, menu);
  return [h("h3", {}, "From class to class"), h("div", { class: "bar" }, labelled("from", from), labelled("to", to), button("Use", choose))];
}

function byAttribute(use) {
  const menu = h("select", { "aria-label": "Attribute" }, meta.directions.map((d, i) => h("option", { value: String(i) }, d.name)));
  const choose = () => {
    const d = meta.directions[Number(menu.value)];
    use(Float32Array.from(d.vector), `${d.name}: direction from ${examples(d.n_without)} without it to ${examples(d.n_with)} with it, other attributes held equal.`);
  };
  return [h("h3", {}, "Attribute"), h("div", { class: "bar" }, menu, button("Use", choose))];
}

export function build(place) {
  const { use, elements } = editor(place);
  const byGroup = () => useDifference(use, (i) => groups.b.has(i), (i) => groups.a.has(i), "Group A → group B");
  const byCodes = () => {
    if (!state.a || !state.b) return announce("Choose A and B under Interpolate first.");
    use(Float32Array.from(state.a, (v, k) => v - state.b[k]), "The code of A minus the code of B, added to the current code.");
  };
  place.append(
    ...(meta.labels ? byClass(use) : []), ...(meta.directions.length ? byAttribute(use) : []),
    h("h3", {}, "Two groups of points"),
    h("p", { class: "muted" }, "Press Select A below the map and draw around some points; then do the same with Select B."),
    h("div", { class: "bar" }, button("Use A → B", byGroup)),
    h("h3", {}, "A − B + current code"), h("p", { class: "muted" }, "A and B are the codes chosen under Interpolate."),
    h("div", { class: "bar" }, button("Use A − B", byCodes)),
    ...elements);
}

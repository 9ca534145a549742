// Controls for the entries of a code that are given rather than inferred: class latents and the condition.
import { meta } from "./blobs.js";
import { D, free } from "./data.js";
import { change, state } from "./state.js";
import { h } from "./ui.js";

const L = meta.latent;

/** A menu for the n entries from `first` on, one of which is 1 and the others 0. */
function classMenu(name, first, n) {
  const choose = (event) => {
    const z = Float32Array.from(state.z).fill(0, first, first + n);
    z[first + Number(event.target.value)] = 1;
    change({ z });
  };
  const menu = h("select", { onchange: choose }, Array.from({ length: n }, (_, k) => h("option", { value: String(k) }, L.names[first + k])));
  const sync = () => {
    let best = 0;
    for (let k = 1; k < n; k++) if (state.z[first + k] > state.z[first + best]) best = k;
    menu.value = String(best);
  };
  return { sync, element: h("label", { class: "inline condition" }, `${name} `, menu) };
}

/** A slider for one entry of a condition that is a vector. */
function conditionSlider(i) {
  const choose = (event) => {
    const z = Float32Array.from(state.z);
    z[i] = Number(event.target.value);
    change({ z });
  };
  const slider = h("input", { type: "range", min: "0", max: "1", step: "any", oninput: choose });
  const sync = () => {
    slider.value = String(state.z[i]);
  };
  return { sync, element: h("label", { class: "inline condition" }, `${L.names[i]} `, slider) };
}

/** The controls of this model, each with `.element` and `.sync()`. */
export function conditions() {
  const controls = L.classes ? [classMenu("Class", 0, L.classes)] : [];
  if (!L.condition) return controls;
  if (L.condition_kind === "label") return [...controls, classMenu("Condition", D - L.condition, L.condition)];
  return [...controls, ...Array.from({ length: L.condition }, (_, k) => conditionSlider(free + k))];
}

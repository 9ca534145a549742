// A grid of codes between four corners: A, B and two random examples.
import { code, D, data } from "./data.js";
import { decode } from "./engine.js";
import { lerp } from "./maths.js";
import { draw, canvas as picture } from "./picture.js";
import { change, state } from "./state.js";
import { announce, button, h } from "./ui.js";

const SIDE = 7;

/** Codes (SIDE * SIDE * D) between new corners, each row along `path(from, to, t)`. */
function codesBetween(path) {
  const random = () => code(Math.floor(Math.random() * data.n)), out = new Float32Array(SIDE * SIDE * D);
  const [a, b, c, d] = [state.a ?? random(), state.b ?? random(), random(), random()];
  for (let k = 0; k < SIDE * SIDE; k++) {
    const across = (k % SIDE) / (SIDE - 1), down = Math.floor(k / SIDE) / (SIDE - 1);
    out.set(lerp(path(a, b, across), path(c, d, across), down), k * D);
  }
  return out;
}

export function corners(path) {
  const grid = h("div", { class: "grid", style: `grid-template-columns: repeat(${SIDE}, 1fr)` });
  async function fill() {
    const codes = codesBetween(path), x = await decode("grid", codes, SIDE * SIDE);
    if (!x) return;
    grid.replaceChildren(...Array.from({ length: SIDE * SIDE }, (_, k) => {
      const face = picture(64, { "aria-hidden": "true" }), label = `row ${Math.floor(k / SIDE) + 1}, column ${(k % SIDE) + 1}`;
      draw(face, x, k);
      return h("button", { type: "button", "aria-label": label, onclick: () => change({ z: codes.slice(k * D, (k + 1) * D), anchor: -1 }) }, face);
    }));
  }
  return [h("h3", {}, "Four corners"),
    h("p", { class: "muted" }, "The upper corners are A and B, the lower ones two random examples. Click a picture to use its code."),
    button("New corners", () => fill().catch((e) => announce(e.message))), grid];
}

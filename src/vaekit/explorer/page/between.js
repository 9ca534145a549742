// From A to B: along a line or an arc, as a film, and a grid between four corners.
import { meta } from "./blobs.js";
import { D, code, data, describe } from "./data.js";
import { decode } from "./engine.js";
import { gif } from "./gif.js";
import { lerp, slerp } from "./maths.js";
import { canvas as picture, draw, isImage } from "./picture.js";
import { change, hear, state } from "./state.js";
import { button, choices, h, save, settled, tell } from "./ui.js";

const STEPS = 11, GRID = 7, FRAMES = 24;

export function build(place) {
  let way = meta.latent.gaussian_prior ? "slerp" : "lerp", playing = 0, corners = [];
  const path = (a, b, t) => (way === "slerp" ? slerp(a, b, t) : lerp(a, b, t));
  const slots = {}, still = () => {
    cancelAnimationFrame(playing);
    playing = 0;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  };

  function slot(name) {
    const face = picture(112, { "aria-label": `${name}` }), words = h("p", { class: "muted" }, "the present code");
    slots[name] = { face, words };
    return h("div", { class: "slot" }, h("b", {}, name.toUpperCase()), face, words, h("div", { class: "bar" },
      button("Keep present", () => keep(name, state.z, state.anchor), { "aria-label": `Keep the present code as ${name.toUpperCase()}` }),
      button("Random datum", () => {
        const i = Math.floor(Math.random() * data.n);
        keep(name, code(i), i);
      }, { "aria-label": `A random datum as ${name.toUpperCase()}` })));
  }
  function keep(name, z, anchor) {
    change({ [name]: Float32Array.from(z) });
    slots[name].words.textContent = anchor >= 0 ? describe(anchor) : "a code of your own";
  }

  const scrub = h("input", { type: "range", min: "0", max: "1", step: "any", value: "0", "aria-label": "Place between A and B", oninput: (e) => go(Number(e.target.value)) });
  const strip = h("div", { class: "strip wide" }), play = button("Play", toggle, { "aria-pressed": "false" });
  const ways = choices("Way", [["lerp", "Straight (lerp)"], ["slerp", "Arc (slerp)"]], way, (v) => {
    way = v;
    film();
  });
  function go(t) {
    scrub.value = String(t);
    if (state.a && state.b) change({ z: path(state.a, state.b, t), anchor: -1 });
  }
  function toggle() {
    if (playing) return still();
    if (!state.a || !state.b) return tell("Keep an A and a B first.");
    const start = performance.now();
    play.textContent = "Stop";
    play.setAttribute("aria-pressed", "true");
    const tick = (now) => {
      const t = ((now - start) / 2500) % 2;
      go(t < 1 ? t : 2 - t);
      playing = requestAnimationFrame(tick);
    };
    playing = requestAnimationFrame(tick);
  }
  addEventListener("keydown", (event) => event.key === "Escape" && playing && still());

  async function frames(n) {
    const codes = new Float32Array(n * D);
    for (let k = 0; k < n; k++) codes.set(path(state.a, state.b, k / (n - 1)), k * D);
    const x = await decode("film", codes, n);
    return x;
  }
  const film = settled(async () => {
    for (const name of ["a", "b"]) {
      if (!state[name]) continue;
      const x = await decode(`slot ${name}`, state[name]);
      if (x) draw(slots[name].face, x);
    }
    if (!state.a || !state.b || place.closest("[hidden]")) return;
    const x = await frames(STEPS);
    if (!x) return;
    while (strip.children.length < STEPS) {
      const k = strip.children.length;
      strip.append(h("button", { type: "button", "aria-label": `${Math.round((100 * k) / (STEPS - 1))} % of the way`, onclick: () => go(k / (STEPS - 1)) }, picture(72, { "aria-hidden": "true" })));
    }
    for (let k = 0; k < STEPS; k++) draw(strip.children[k].firstChild, x, k);
  }, 60);

  async function saveStrip() {
    if (!state.a || !state.b) return tell("Keep an A and a B first.");
    const x = await frames(STEPS), edge = 112, one = picture(edge), sheet = h("canvas", { width: STEPS * one.width, height: one.height });
    if (!x) return;
    for (let k = 0; k < STEPS; k++) draw(sheet, x, k, [k * one.width, 0, one.width, one.height]);
    sheet.toBlob((blob) => save("between.png", blob));
  }
  async function saveGif() {
    if (!state.a || !state.b) return tell("Keep an A and a B first.");
    const x = await frames(FRAMES), one = picture(112), context = one.getContext("2d", { willReadFrequently: true }), found = [];
    if (!x) return;
    for (let k = 0; k < FRAMES; k++) {
      draw(one, x, k);
      if (!isImage) {
        context.globalCompositeOperation = "destination-over"; // bars stand on nothing, and a GIF has no such colour
        context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--card");
        context.fillRect(0, 0, one.width, one.height);
        context.globalCompositeOperation = "source-over";
      }
      found.push(context.getImageData(0, 0, one.width, one.height));
    }
    save("between.gif", gif([...found, ...found.slice(1, -1).reverse()]));
  }

  // --- four corners -----------------------------------------------------------------------------------------------

  const grid = h("div", { class: "grid", style: `grid-template-columns: repeat(${GRID}, 1fr)` });
  async function square(fresh) {
    if (fresh || corners.length < 4) {
      const random = () => code(Math.floor(Math.random() * data.n));
      corners = [state.a ?? random(), state.b ?? random(), random(), random()];
    }
    const codes = new Float32Array(GRID * GRID * D), at = (r, q) => lerp(path(corners[0], corners[1], q), path(corners[2], corners[3], q), r);
    for (let r = 0; r < GRID; r++) for (let q = 0; q < GRID; q++) codes.set(at(r / (GRID - 1), q / (GRID - 1)), (r * GRID + q) * D);
    const x = await decode("grid", codes, GRID * GRID);
    if (!x) return;
    grid.replaceChildren(...Array.from({ length: GRID * GRID }, (_, k) => {
      const face = picture(64, { "aria-hidden": "true" });
      draw(face, x, k);
      return h("button", { type: "button", "aria-label": `row ${Math.floor(k / GRID) + 1}, column ${(k % GRID) + 1}`, onclick: () => change({ z: codes.slice(k * D, (k + 1) * D), anchor: -1 }) }, face);
    }));
  }

  place.append(h("div", { class: "slots" }, slot("a"), slot("b")), ways, h("div", { class: "bar" }, scrub, play), strip,
    h("div", { class: "bar" }, button("Save GIF", () => saveGif().catch((e) => tell(e.message))), button("Save strip (PNG)", () => saveStrip().catch((e) => tell(e.message)))),
    h("h3", {}, "Four corners"), h("p", { class: "muted" }, "A and B above, two data below; pick any."), button("New corners", () => square(true).catch((e) => tell(e.message))), grid);
  hear((names) => {
    if (names.has("a") || names.has("b") || names.has("tab")) film();
    if (names.has("z") && !state.a) film();
    if (names.has("tab") && state.tab !== "between") still();
  });
  film();
}

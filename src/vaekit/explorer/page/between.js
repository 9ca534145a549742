// Interpolation from A to B along a line or an arc, as a strip and as a film.
import { meta } from "./blobs.js";
import { corners } from "./corners.js";
import { code, D, data, describe } from "./data.js";
import { decode } from "./engine.js";
import { gif } from "./gif.js";
import { lerp, slerp } from "./maths.js";
import { draw, drawRow, isImage, canvas as picture, sheet } from "./picture.js";
import { change, state, subscribe } from "./state.js";
import { announce, button, choices, debounced, h, save } from "./ui.js";

const STEPS = 11, FRAMES = 24, PERIOD = 2500; // milliseconds of the film from A to B

let kind = meta.latent.gaussian_prior ? "slerp" : "lerp";
const path = (a, b, t) => (kind === "slerp" ? slerp(a, b, t) : lerp(a, b, t));

/** The decoded path from A to B in n steps; null, with a message, if A or B is missing. */
async function decodePath(n) {
  if (!state.a || !state.b) {
    announce("Choose A and B first.");
    return null;
  }
  const codes = new Float32Array(n * D);
  for (let k = 0; k < n; k++) codes.set(path(state.a, state.b, k / (n - 1)), k * D);
  return decode("film", codes, n);
}

async function saveStrip() {
  const x = await decodePath(STEPS);
  if (!x) return;
  const row = sheet(STEPS, 112);
  drawRow(row, x, STEPS);
  row.toBlob((blob) => save("between.png", blob));
}

async function saveGif() {
  const x = await decodePath(FRAMES);
  if (!x) return;
  const face = picture(112), context = face.getContext("2d", { willReadFrequently: true }), frames = [];
  for (let k = 0; k < FRAMES; k++) {
    draw(face, x, k);
    if (!isImage) {
      context.globalCompositeOperation = "destination-over"; // bars have no background, and a GIF needs one
      context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--card");
      context.fillRect(0, 0, face.width, face.height);
      context.globalCompositeOperation = "source-over";
    }
    frames.push(context.getImageData(0, 0, face.width, face.height));
  }
  save("between.gif", gif([...frames, ...frames.slice(1, -1).reverse()]));
}

/** A random example whose code differs from z, if there is one: between equal ends there is no path. */
function exampleApart(z) {
  const first = Math.floor(Math.random() * data.n), apart = (i) => !z || z.some((v, k) => v !== data.z[i * D + k]);
  for (let i = first; i < first + data.n; i++) if (apart(i % data.n)) return i % data.n;
  return first;
}

/** One end of the path: its picture, its name, and buttons that choose it. */
function slot(name) {
  const face = picture(112, { "aria-label": name.toUpperCase() }), words = h("p", { class: "muted" }, "current code");
  const use = (z, anchor) => {
    change({ [name]: Float32Array.from(z) });
    words.textContent = anchor >= 0 ? describe(anchor) : "custom code";
  };
  const element = h("div", { class: "slot" }, h("b", {}, name.toUpperCase()), face, words, h("div", { class: "bar" },
    button("Use current", () => use(state.z, state.anchor), { "aria-label": `Use the current code as ${name.toUpperCase()}` }),
    button("Use random", () => {
      const i = exampleApart(state[name === "a" ? "b" : "a"]);
      use(code(i), i);
    }, { "aria-label": `Use a random example as ${name.toUpperCase()}` })));
  async function paint() {
    const x = state[name] && (await decode(`slot ${name}`, state[name]));
    if (x) draw(face, x);
  }
  return { element, paint };
}

/** A slider along the path and a button that plays it as a film. */
function player() {
  let frame = 0;
  const go = (t) => {
    slider.value = String(t);
    if (state.a && state.b) change({ z: path(state.a, state.b, t), anchor: -1 });
  };
  const show = (playing) => {
    play.textContent = playing ? "Stop" : "Play";
    play.setAttribute("aria-pressed", String(playing));
  };
  const stop = () => {
    cancelAnimationFrame(frame);
    frame = 0;
    show(false);
  };
  const toggle = () => {
    if (frame) return stop();
    if (!state.a || !state.b) return announce("Choose A and B first.");
    const start = performance.now();
    show(true);
    const tick = (now) => {
      const t = ((now - start) / PERIOD) % 2;
      go(t < 1 ? t : 2 - t);
      frame = requestAnimationFrame(tick);
    };
    frame = requestAnimationFrame(tick);
  };
  const slider = h("input", {
    type: "range", min: "0", max: "1", step: "any", value: "0", "aria-label": "Position between A and B",
    oninput: (e) => go(Number(e.target.value)),
  });
  const play = button("Play", toggle, { "aria-pressed": "false" });
  addEventListener("keydown", (event) => event.key === "Escape" && frame && stop());
  return { element: h("div", { class: "bar" }, slider, play), go, stop };
}

export function build(place) {
  const ends = [slot("a"), slot("b")], film = player(), strip = h("div", { class: "strip wide" });
  const paint = debounced(async () => {
    for (const end of ends) await end.paint();
    if (!state.a || !state.b || place.closest("[hidden]")) return;
    const x = await decodePath(STEPS);
    if (!x) return;
    for (let k = strip.children.length; k < STEPS; k++) {
      const t = k / (STEPS - 1), label = `${Math.round(100 * t)} % of the way`;
      strip.append(h("button", { type: "button", "aria-label": label, onclick: () => film.go(t) }, picture(72, { "aria-hidden": "true" })));
    }
    for (let k = 0; k < STEPS; k++) draw(strip.children[k].firstChild, x, k);
  }, 60);
  const paths = choices("Path", [["lerp", "Straight (lerp)"], ["slerp", "Arc (slerp)"]], kind, (chosen) => {
    kind = chosen;
    paint();
  });
  const saving = (text, f) => button(text, () => f().catch((e) => announce(e.message)));
  place.append(h("div", { class: "slots" }, ends.map((end) => end.element)), paths, film.element, strip,
    h("div", { class: "bar" }, saving("Save GIF", saveGif), saving("Save strip (PNG)", saveStrip)), ...corners(path));
  subscribe((names) => {
    if (names.has("a") || names.has("b") || names.has("tab")) paint();
    if (names.has("tab") && state.tab !== "between") film.stop();
  });
  paint();
}

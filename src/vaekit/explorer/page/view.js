// The decoded picture of the current code, the example that it comes from, and the buttons that choose another code.
import { meta } from "./blobs.js";
import { code, D, data, datum, describe, hasThumb, thumb } from "./data.js";
import { decode, has, request, timing } from "./engine.js";
import { draw, liveCanvas, table } from "./picture.js";
import { change, state, subscribe } from "./state.js";
import { announce, button, CALM, choices, framed, h, paced } from "./ui.js";
import { verdict } from "./verdict.js";

export const shown = { x: null };

/** The picture, and the values of a vector as a table, with `.paint()`. */
function output() {
  const face = liveCanvas(420, { class: "face", "aria-label": "Decoder output" }), values = h("div", { class: "table-wrap" });
  const stored = () => data.first && state.anchor === 0 && !state.drawn && shown.x === null && state.z.every((v, k) => v === data.z[k]);
  const tabulate = paced(() => values.replaceChildren(...[table(shown.x)].filter(Boolean)), CALM);
  async function paint() {
    if (stored()) draw(face, data.first); // until the decoder runs
    const x = await decode("main", state.z, 1, state.drawn, state.seed);
    if (!x) return;
    shown.x = x;
    draw(face, x);
    timing.pictures++;
    tabulate();
  }
  return { face, values, paint };
}

/** The caption of the picture: the thumbnail and the name of the example whose code is shown. */
function source() {
  if (state.anchor < 0) return [h("figcaption", { class: "muted" }, state.own ? "Your example." : "Custom code, not that of an example.")];
  const name = h("figcaption", {}, describe(state.anchor));
  if (!hasThumb(state.anchor)) return [name];
  const image = thumb(state.anchor);
  const face = h("canvas", { width: image.width, height: image.height, class: "thumb", role: "img", "aria-label": "The original example" });
  face.getContext("2d").putImageData(image, 0, 0);
  return [face, name];
}

/** Take one of the stored samples of z. */
function sampleFrom(codes) {
  const i = Math.floor(Math.random() * (codes.length / D));
  change({ z: codes.slice(i * D, (i + 1) * D), anchor: -1 });
}

/** Sample z as `vaekit sample` does: from the density fitted to the codes if the run has one, else from the prior. */
const sampleCode = () => sampleFrom(data.fitted ?? data.prior);

function randomExample() {
  const i = Math.floor(Math.random() * data.n);
  change({ z: code(i), anchor: i });
}

/** Sample the posterior of the current example, or of its reconstruction if the page has only a reduced picture. */
async function samplePosterior() {
  const i = state.anchor, seed = 1 + Math.floor(Math.random() * 2 ** 30), x = datum(i) ?? (await decode("posterior", code(i)));
  const c = code(i).slice(D - meta.latent.condition), sample = await request("posterior", "weights", { x, c }, 1, seed);
  if (!sample) return;
  change({ z: sample.z });
  if (!datum(i)) announce("This page does not contain the full example; the sample is from the posterior of its reconstruction.");
}

const reset = () => change({ z: state.anchor >= 0 ? code(state.anchor) : Float32Array.from(meta.latent.centre) });

/** The buttons that choose a code, with `.sync()`. */
function codeButtons() {
  const key = (own) => (own ? " (key R)" : "");
  const prior = button("Sample prior", () => sampleFrom(data.prior), { title: `a sample of z from the prior${key(!data.fitted)}`, disabled: !data.prior });
  const fitted = meta.fitted && button(`Sample ${meta.fitted.name}`, sampleCode, { title: `a sample of z from ${meta.fitted.called} fitted to the codes${key(true)}` });
  const posterior = button("Sample posterior", () => samplePosterior().catch((e) => announce(e.message)), { title: "a sample from q(z|x) of this example" });
  const element = h("div", { class: "bar" }, prior, fitted, button("Random example", randomExample), posterior,
    button("Reset", reset, { title: "back to the code of the example, or to the mean code" }));
  const sync = () => {
    posterior.disabled = state.anchor < 0 || !has("weights");
  };
  return { element, sync };
}

/** The choice between the mean of p(x|z) and a sample, with `.sync()`. */
function kindButtons() {
  const current = () => (state.drawn ? "drawn" : "mean");
  const kind = choices("What is decoded", [["mean", "Mean"], ["drawn", "Sample"]], current(), (v) => change({ drawn: v === "drawn" }));
  const again = button("Resample", () => change({ seed: (state.seed + 1) % 2 ** 31 }), { title: "another sample from p(x|z)" });
  if (!has("draw")) kind.lastChild.disabled = true;
  const sync = () => {
    again.disabled = !state.drawn || !has("draw");
    kind.set(current());
  };
  return { element: h("div", { class: "bar" }, kind, again), sync };
}

export function build(place) {
  const { face, values, paint } = output(), original = h("figure", { class: "original" }), judged = h("p", { class: "where", role: "status" });
  const bars = [kindButtons(), codeButtons()], sync = () => bars.forEach((bar) => void bar.sync());
  place.replaceChildren(h("div", { class: "stage" }, face, h("div", { class: "side" }, original, judged, bars.map((bar) => bar.element))), values);
  // dragging changes the code at every frame: the source is rewritten only if it changes, and the verdict less often;
  // codes are sent to the decoder at frames, since pictures asked for between two frames would come in pairs
  const title = h("b"), words = document.createTextNode("");
  judged.append(title, words);
  let named = null;
  const identify = () => {
    const name = `${state.anchor} ${Boolean(state.own)}`;
    if (name !== named) original.replaceChildren(...source());
    named = name;
  };
  const judge = paced(() => {
    const found = verdict();
    judged.classList.toggle("away", found.away);
    title.textContent = `${found.title} `;
    words.data = found.text;
  }, CALM);
  const repaint = framed(() => paint().catch((e) => announce(e.message)));
  subscribe((names) => {
    if (names.has("z") || names.has("drawn") || names.has("seed")) repaint();
    if (names.has("z") || names.has("own")) judge();
    if (names.has("anchor")) identify();
    if (names.has("anchor") || names.has("drawn")) sync();
  });
  addEventListener("keydown", (event) => {
    const typing = /input|textarea|select/i.test(event.target.tagName);
    if (event.key.toLowerCase() === "r" && !event.ctrlKey && !event.metaKey && !typing && data.prior) sampleCode();
  });
  judge();
  identify();
  sync();
  return paint();
}

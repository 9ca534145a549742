// The decoded picture of the current code, and how typical this code is of the data.
import { meta } from "./blobs.js";
import { D, code, data, datum, describe, hasThumb, thumb, whereabouts } from "./data.js";
import { decode, has, request } from "./engine.js";
import { draw, canvas as picture, table } from "./picture.js";
import { change, state, subscribe } from "./state.js";
import { announce, button, choices, fixed, h } from "./ui.js";

export const shown = { x: null };

export function build(place) {
  const face = picture(420, { class: "face", "aria-label": "Decoder output" }), values = h("div", { class: "table-wrap" });
  const original = h("figure", { class: "original" }), warning = h("p", { class: "where", role: "status" });
  const redraw = button("Resample", () => change({ seed: (state.seed + 1) % 2 ** 31 }), { title: "another sample from p(x|z)" });
  const kind = choices("What is decoded", [["mean", "Mean"], ["drawn", "Sample"]], state.drawn ? "drawn" : "mean", (v) => change({ drawn: v === "drawn" }));
  if (!has("draw")) kind.querySelectorAll("button")[1].disabled = true;

  async function paint() {
    if (data.first && state.anchor === 0 && !state.drawn && shown.x === null && state.z.every((v, k) => v === data.z[k])) draw(face, data.first);
    const x = await decode("main", state.z, 1, state.drawn, state.seed);
    if (!x) return;
    shown.x = x;
    draw(face, x);
    const numbers = table(x);
    values.replaceChildren(...(numbers ? [numbers] : []));
    for (const f of afterwards) f(x);
  }

  /** [unusual?, verdict, start of the sentence] on the reader's own datum: its code may be typical though it is unlike the data. */
  function ofOwn({ share, by }, away) {
    if (share === null) return [away, "Your example. ", away ? "Its code is far from the codes of the data: " : "Its code is among the codes of the data: "];
    if (share < 0.01) return [true, "Unlike the data. ", `Its ${by} is worse than that of ${share > 0 ? "99 % of the" : "all"} examples here. Its code: `];
    return [away, away ? "Far from the data. " : "Like the data. ", `${Math.round(100 * share)} % of the examples here have a worse ${by}. Its code: `];
  }

  function where() {
    const w = whereabouts(state.z), share = Math.round(100 * w.share);
    const [away, verdict, before] = state.own ? ofOwn(state.own, w.away) : [w.away, w.away ? "Far from the data. " : "Typical code. ", ""];
    const near = w.share >= 0.995 ? "farther from the mean code than 99.5 % of the examples" : `${share} % of the examples are closer to the mean code`;
    const density = w.density === null ? "" : `; log p(z) = ${fixed(w.density, 1)} nats (98 % of prior samples: ${fixed(w.range[0], 0)} to ${fixed(w.range[1], 0)})`;
    warning.className = away ? "where away" : "where";
    warning.replaceChildren(h("b", {}, verdict), `${before}${near}${density}.`);
  }

  function beside() {
    original.replaceChildren();
    if (state.anchor < 0) return void original.append(h("figcaption", { class: "muted" }, state.own ? "Your example." : "Custom code, of no example."));
    if (hasThumb(state.anchor)) {
      const image = thumb(state.anchor), c = h("canvas", { width: image.width, height: image.height, class: "thumb", role: "img", "aria-label": "The original example" });
      c.getContext("2d").putImageData(image, 0, 0);
      original.append(c);
    }
    original.append(h("figcaption", {}, describe(state.anchor)));
  }

  /** A sample of the prior, or of the posterior of the current datum. */
  const fromPrior = () => {
    const n = data.prior.length / D, i = Math.floor(Math.random() * n);
    change({ z: data.prior.slice(i * D, (i + 1) * D), anchor: -1 });
  };
  async function fromPosterior() {
    const i = state.anchor, seed = 1 + Math.floor(Math.random() * 2 ** 30), x = datum(i) ?? (await decode("posterior", code(i)));
    const c = code(i).slice(D - meta.latent.condition), found = await request("posterior", "weights", { x, c }, 1, seed);
    if (found) change({ z: found.z });
    if (found && !datum(i)) announce("This page does not hold the full example: sampled from the posterior of its reconstruction.");
  }
  const posterior = button("Sample posterior", () => fromPosterior().catch((e) => announce(e.message)), { title: "a sample from q(z|x) of this example" });
  const actions = h("div", { class: "bar" },
    button("Sample prior", fromPrior, { title: "a sample of z from the prior (key R)" }),
    button("Random example", () => {
      const i = Math.floor(Math.random() * data.n);
      change({ z: code(i), anchor: i });
    }), posterior,
    button("Reset", () => change({ z: state.anchor >= 0 ? code(state.anchor) : Float32Array.from(meta.latent.centre) }), { title: "back to the code of the example, or to the mean code" }));
  if (!data.prior) actions.firstChild.disabled = true;

  place.replaceChildren(h("div", { class: "stage" }, face, h("div", { class: "side" }, original, warning, h("div", { class: "bar" }, kind, redraw), actions)), values);
  const sync = () => {
    redraw.disabled = !state.drawn || !has("draw");
    posterior.disabled = state.anchor < 0 || !has("weights");
    kind.set(state.drawn ? "drawn" : "mean");
  };
  subscribe((names) => {
    if (names.has("z") || names.has("own")) where();
    if (names.has("anchor")) beside();
    if (names.has("z") || names.has("drawn") || names.has("seed")) paint().catch((e) => announce(e.message));
    sync();
  });
  addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() === "r" && !event.ctrlKey && !event.metaKey && !/input|textarea|select/i.test(event.target.tagName)) fromPrior();
  });
  where();
  beside();
  sync();
  return paint();
}

/** Functions that are called with x each time a new picture is shown. */
export const afterwards = new Set();

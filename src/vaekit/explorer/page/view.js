// The picture of the present code, and what must be known of it.
import { meta } from "./blobs.js";
import { D, code, data, datum, describe, hasThumb, thumb, whereabouts } from "./data.js";
import { decode, has, request } from "./engine.js";
import { canvas as picture, draw, table } from "./picture.js";
import { change, hear, state } from "./state.js";
import { button, choices, h, said, tell } from "./ui.js";

export const shown = { x: null };

export function build(place) {
  const face = picture(420, { class: "face", "aria-label": "The decoded datum" }), values = h("div", { class: "table-wrap" });
  const original = h("figure", { class: "original" }), warning = h("p", { class: "where", role: "status" });
  const redraw = button("Draw again", () => change({ seed: (state.seed + 1) % 2 ** 31 }), { title: "another draw from p(x|z)" });
  const kind = choices("What is decoded", [["mean", "Mean"], ["drawn", "Draw"]], state.drawn ? "drawn" : "mean", (v) => change({ drawn: v === "drawn" }));
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

  /** What is said of a reader's own datum: its code may be a usual one while the datum is like none of the data. */
  function ofOwn({ share, by }, away) {
    if (share === null) return [away, "Your own. ", away ? "Its code lies off those of the data: " : "Its code lies among those of the data: "];
    if (share < 0.01) return [true, "Unlike the data. ", `Its ${by} is worse than that of ${share > 0 ? "99 %" : "all"} of the data here. Its code: `];
    return [away, away ? "Off the data. " : "Like the data. ", `${Math.round(100 * share)} % of the data here have a worse ${by}. Its code: `];
  }

  function where() {
    const w = whereabouts(state.z), share = Math.round(100 * w.share);
    const [away, verdict, before] = state.own ? ofOwn(state.own, w.away) : [w.away, w.away ? "Off the data. " : "A usual code. ", ""];
    const near = w.share >= 0.995 ? "farther from the centre of the data than 99.5 % of them" : `${share} % of the data lie nearer to their centre`;
    const density = w.density === null ? "" : `; log p(z) = ${said(w.density, 1)} nats, draws of the prior ${said(w.range[0], 0)} to ${said(w.range[1], 0)}`;
    warning.className = away ? "where away" : "where";
    warning.replaceChildren(h("b", {}, verdict), `${before}${near}${density}.`);
  }

  function beside() {
    original.replaceChildren();
    if (state.anchor < 0) return void original.append(h("figcaption", { class: "muted" }, state.own ? "A datum of your own." : "No datum: a code of your own."));
    if (hasThumb(state.anchor)) {
      const image = thumb(state.anchor), c = h("canvas", { width: image.width, height: image.height, class: "thumb", role: "img", "aria-label": "The datum itself" });
      c.getContext("2d").putImageData(image, 0, 0);
      original.append(c);
    }
    original.append(h("figcaption", {}, describe(state.anchor)));
  }

  /** A draw of the prior, or of the posterior of the datum that is shown. */
  const fromPrior = () => {
    const n = data.prior.length / D, i = Math.floor(Math.random() * n);
    change({ z: data.prior.slice(i * D, (i + 1) * D), anchor: -1 });
  };
  async function fromPosterior() {
    const i = state.anchor, seed = 1 + Math.floor(Math.random() * 2 ** 30), x = datum(i) ?? (await decode("posterior", code(i)));
    const c = code(i).slice(D - meta.latent.condition), found = await request("posterior", "weights", { x, c }, 1, seed);
    if (found) change({ z: found.z });
    if (found && !datum(i)) tell("Its full picture is not in this page: drawn for the reconstruction.");
  }
  const posterior = button("Posterior draw", () => fromPosterior().catch((e) => tell(e.message)), { title: "a draw from q(z|x) of this datum" });
  const actions = h("div", { class: "bar" },
    button("Prior draw", fromPrior, { title: "a draw of z from the prior (key R)" }),
    button("Random datum", () => {
      const i = Math.floor(Math.random() * data.n);
      change({ z: code(i), anchor: i });
    }), posterior,
    button("Reset", () => change({ z: state.anchor >= 0 ? code(state.anchor) : Float32Array.from(meta.latent.centre) }), { title: "back to the datum's code, or to the centre" }));
  if (!data.prior) actions.firstChild.disabled = true;

  place.replaceChildren(h("div", { class: "stage" }, face, h("div", { class: "side" }, original, warning, h("div", { class: "bar" }, kind, redraw), actions)), values);
  const sync = () => {
    redraw.disabled = !state.drawn || !has("draw");
    posterior.disabled = state.anchor < 0 || !has("weights");
    kind.set(state.drawn ? "drawn" : "mean");
  };
  hear((names) => {
    if (names.has("z") || names.has("own")) where();
    if (names.has("anchor")) beside();
    if (names.has("z") || names.has("drawn") || names.has("seed")) paint().catch((e) => tell(e.message));
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

/** Called with x each time a new picture is shown. */
export const afterwards = new Set();

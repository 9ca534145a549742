// The card that shows the datum under the pointer.
import { code, data, describe, hasThumb, thumb } from "./data.js";
import { decode } from "./engine.js";
import { CLICK } from "./map-plane.js";
import { canvas as picture, draw } from "./picture.js";
import { fixed, h } from "./ui.js";

function scores(i) {
  const lines = [];
  if (Number.isFinite(data.logpx?.[i])) lines.push(`log p(x) ≥ ${fixed(data.logpx[i], 1)}`);
  if (Number.isFinite(data.error?.[i])) lines.push(`RMS error ${data.error[i].toPrecision(3)}`);
  return lines.map((line) => h("span", {}, line));
}

function drawThumb(face, image) {
  const small = h("canvas", { width: image.width, height: image.height }), context = face.getContext("2d");
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, face.width, face.height);
}

/** A card with `.element`, `.show(x, y)` for the point near a position on the screen, and `.hide()`. */
export function hoverCard(plane) {
  const face = picture(112), words = h("p", {}), element = h("div", { class: "hover", hidden: true }, face, words);
  let hovered = -1;

  function place(x, y) {
    const { clientWidth, clientHeight } = plane.field;
    const left = x + 150 > clientWidth ? x - 146 : x + 16, up = y + 190 > clientHeight ? y - 180 : y + 16;
    element.style.transform = `translate(${Math.max(2, left)}px, ${Math.max(2, up)}px)`;
  }
  async function show(x, y) {
    const i = plane.pick(x, y, CLICK), before = hovered;
    plane.field.classList.toggle("on-point", i >= 0);
    element.hidden = i < 0;
    hovered = i;
    if (i < 0) return;
    place(x, y);
    if (i === before) return;
    const kind = hasThumb(i) ? "original" : "reconstruction";
    words.replaceChildren(h("b", {}, describe(i)), ...scores(i), h("span", { class: "muted" }, kind));
    if (hasThumb(i)) return drawThumb(face, thumb(i));
    const decoded = await decode("hover", code(i));
    if (decoded && hovered === i) draw(face, decoded);
  }
  const hide = () => {
    element.hidden = true;
  };
  return { element, show, hide };
}

// Input of the reader's own example: an image file, a dropped, pasted or drawn image, or numbers.
import { meta } from "./blobs.js";
import { fromPixels, SIZE } from "./picture.js";
import { change } from "./state.js";
import { announce, button, h } from "./ui.js";

const { height: H, width: W, columns, missing } = meta.event;
const LIMIT = 40_000_000; // bytes of an image file

/** The image fitted into the shape of the data; the rest is filled with the colour of the image's corner. */
function fitted(source) {
  const context = h("canvas", { width: W, height: H }).getContext("2d", { willReadFrequently: true });
  const whole = h("canvas", { width: source.width, height: source.height }).getContext("2d", { willReadFrequently: true });
  whole.fillStyle = "#fff";
  whole.fillRect(0, 0, source.width, source.height);
  whole.drawImage(source, 0, 0);
  const [r, g, b] = whole.getImageData(0, 0, 1, 1).data;
  context.fillStyle = `rgb(${r} ${g} ${b})`;
  context.fillRect(0, 0, W, H);
  context.imageSmoothingQuality = "high";
  const scale = Math.min(W / source.width, H / source.height), width = source.width * scale, height = source.height * scale;
  context.drawImage(whole.canvas, (W - width) / 2, (H - height) / 2, width, height);
  return context.getImageData(0, 0, W, H);
}

function invertLight({ data }) {
  for (let i = 0; i < data.length; i++) if (i % 4 < 3) data[i] = 255 - data[i];
}

/** A place for a file, which may also be dropped on it or pasted anywhere. */
function dropZone(take) {
  const chooser = h("input", { type: "file", accept: "image/*", class: "off-screen", onchange: (e) => take(e.target.files[0]) });
  const zone = h("label", { class: "drop" }, "Drop an image here, paste one, or ", h("u", {}, "choose a file"), chooser);
  const over = (yes) => (event) => {
    event.preventDefault();
    zone.classList.toggle("over", yes);
  };
  for (const name of ["dragover", "dragenter"]) zone.addEventListener(name, over(true));
  zone.addEventListener("dragleave", over(false));
  zone.addEventListener("drop", (event) => {
    over(false)(event);
    take(event.dataTransfer.files[0]);
  });
  for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault()); // else the browser opens the file
  addEventListener("paste", (event) => {
    const [file] = event.clipboardData?.files ?? [];
    if (!file) return;
    change({ tab: "own" });
    take(file);
  });
  return zone;
}

/** A canvas to draw on, white on black, with the width of the brush and a button that clears it. */
function drawingPad(drawn) {
  const pad = h("canvas", { class: "pad", width: 280, height: Math.round((280 * H) / W), role: "img", "aria-label": "Draw here" });
  const width = h("input", { type: "range", min: "4", max: "60", value: "22", "aria-label": "Brush width" }), context = pad.getContext("2d");
  let last = null;
  const clear = () => {
    context.fillStyle = "#000";
    context.fillRect(0, 0, pad.width, pad.height);
  };
  const place = (event) => {
    const box = pad.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * pad.width, ((event.clientY - box.top) / box.height) * pad.height];
  };
  const stroke = (event) => {
    const to = place(event);
    context.strokeStyle = "#fff";
    context.lineWidth = Number(width.value);
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(...last);
    context.lineTo(...to);
    context.stroke();
    last = to;
  };
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    last = place(event);
    stroke(event);
  });
  pad.addEventListener("pointermove", (event) => last && stroke(event));
  pad.addEventListener("pointerup", () => {
    last = null;
    drawn(pad);
  });
  clear();
  return h("div", { class: "own-in" }, h("div", {}, pad, h("div", { class: "bar" }, h("label", { class: "inline" }, "Brush ", width), button("Clear", clear))));
}

/** Controls that call `use(x)` with an image in the data's own units. */
export function imageInput(use) {
  let source = null, invert = false;
  function prepare() {
    if (!source) return;
    const image = fitted(source);
    if (invert) invertLight(image);
    use(fromPixels(image));
  }
  async function take(blob) {
    if (!blob?.type.startsWith("image/")) return announce("This file is not an image.");
    if (blob.size > LIMIT) return announce("The image file is too large (the limit is 40 MB).");
    try {
      source = await createImageBitmap(blob);
    } catch {
      return announce("The image cannot be read.");
    }
    prepare();
  }
  const pad = drawingPad(async (canvas) => {
    source = await createImageBitmap(canvas);
    prepare();
  });
  const toggle = (event) => {
    invert = event.target.checked;
    prepare();
  };
  return [dropZone(take), pad, h("label", { class: "inline" }, h("input", { type: "checkbox", onchange: toggle }), " Invert light and dark")];
}

/** Controls that call `use(x)` with numbers that the reader enters. */
export function numbersInput(use) {
  const placeholder = `${SIZE} numbers, separated by spaces or commas${missing ? "; nan marks a missing value" : ""}`;
  const area = h("textarea", { rows: 5, "aria-label": "Values of one example", placeholder });
  const names = Array.from({ length: Math.min(6, SIZE) }, (_, i) => columns?.[i] ?? `x${i + 1}`).join(", ");
  const read = () => {
    const values = area.value.trim().split(/[\s,;]+/).map(Number);
    if (values.length !== SIZE) return announce(`Enter ${SIZE} numbers; you entered ${values.length}.`);
    const wrong = missing ? -1 : values.findIndex((v) => !Number.isFinite(v));
    if (wrong >= 0) return announce(`Value ${wrong + 1} is not a number.`);
    use(Float32Array.from(values));
  };
  return [h("p", { class: "muted" }, `Order of the values: ${names}${SIZE > 6 ? ", ..." : ""}`), area, button("Encode", read)];
}

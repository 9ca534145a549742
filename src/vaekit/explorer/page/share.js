// Sharing: the link, the picture, the code as JSON, and the lines of Python that decode the same picture.
import { meta } from "./blobs.js";
import { draw, canvas as picture } from "./picture.js";
import { hash, state } from "./state.js";
import { announce, button, copy, h, save } from "./ui.js";
import { shown } from "./view.js";

const digits = (z) => Array.from(z, (v) => Number(v.toPrecision(8)));

export function python() {
  const lines = ["import numpy as np", "import vaekit as vk", "", meta.python, `z = np.array([${JSON.stringify(digits(state.z))}], np.float32)`];
  const drawn = `x = run.decode(z, noise=True, seed=${state.seed})  # not the page's sample: the random number generators differ`;
  lines.push(state.drawn ? drawn : "x = run.decode(z)");
  return `${lines.join("\n")}\n`;
}

export function build(place) {
  const lines = h("pre", { class: "python", tabIndex: 0 });
  const dialog = h("dialog", { "aria-label": "Share" }, h("h2", {}, "Share"),
    h("p", { class: "muted" }, "The link encodes the current view; it opens the same view for anyone who has this file."),
    h("div", { class: "bar" },
      // a frame in a notebook has no address of its own
      ...(location.protocol === "about:" ? [] : [button("Copy link", () => copy(`${location.href.split("#")[0]}#${hash()}`))]),
      button("Save picture (PNG)", () => {
        if (!shown.x) return announce("Nothing has been decoded yet.");
        const face = picture(512);
        draw(face, shown.x);
        face.toBlob((blob) => save("vaekit.png", blob));
      }),
      button("Save z (JSON)", () => {
        const content = { run: meta.run.path, names: meta.latent.names, z: digits(state.z) };
        save("z.json", new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }));
      })),
    h("h3", {}, "The same in Python"), lines, h("div", { class: "bar" }, button("Copy Python", () => copy(python())), button("Close", () => dialog.close())));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  place.append(button("Share", () => {
    lines.textContent = python();
    dialog.showModal();
  }, { class: "primary" }));
}

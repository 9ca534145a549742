// Assembles the page: first the parts that need no decoder, then, when the graphs are ready, the decoded parts.
import { meta } from "./blobs.js";
import { build as between } from "./between.js";
import { code, load } from "./data.js";
import { build as edit } from "./edit.js";
import { decode, request, start, timing } from "./engine.js";
import { build as map } from "./map.js";
import { frames } from "./map-drawing.js";
import { build as numbers } from "./numbers.js";
import { build as own } from "./own.js";
import { build as share } from "./share.js";
import { build as sliders } from "./sliders.js";
import { change, fromHash, hash, state, subscribe } from "./state.js";
import { announce, button, debounced, h } from "./ui.js";
import { build as view } from "./view.js";

const $ = (id) => document.getElementById(id);
const TABS = { sliders: ["Latents", sliders], between: ["Interpolate", between], edit: ["Edit", edit], own: ["Your data", own], numbers: ["Details", numbers] };

function tabs() {
  const list = h("div", { class: "tabs", role: "tablist", "aria-label": "Tools" }), panels = {};
  for (const [name, [title, build]] of Object.entries(TABS)) {
    const panel = h("section", { role: "tabpanel", id: `panel-${name}`, "aria-labelledby": `tab-${name}`, tabIndex: -1 });
    panels[name] = panel;
    list.append(h("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`, onclick: () => change({ tab: name }) }, title));
    panel.build = build;
  }
  const sync = () => {
    for (const [name, panel] of Object.entries(panels)) {
      const open = name === state.tab, tab = list.querySelector(`#tab-${name}`);
      panel.hidden = !open;
      tab.setAttribute("aria-selected", String(open));
      tab.tabIndex = open ? 0 : -1;
      if (open && panel.build) {
        const { build } = panel;
        panel.build = null;
        build(panel);
      }
    }
  };
  list.addEventListener("keydown", (event) => {
    const names = Object.keys(TABS), step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    change({ tab: names[(names.indexOf(state.tab) + step + names.length) % names.length] });
    list.querySelector("[aria-selected=true]").focus();
  });
  $("work").append(list, ...Object.values(panels));
  subscribe((changed) => changed.has("tab") && sync());
  return sync;
}

function theme() {
  const system = matchMedia("(prefers-color-scheme: dark)"), now = () => document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light");
  const toggle = button("", () => {
    document.documentElement.dataset.theme = now() === "dark" ? "light" : "dark";
    name();
    change({ theme: now() });
  });
  const name = () => {
    toggle.textContent = now() === "dark" ? "Light" : "Dark";
  };
  system.addEventListener("change", () => {
    name();
    change({ theme: now() });
  });
  name();
  $("actions").append(toggle);
}

async function open() {
  const begun = performance.now();
  const { dims, condition, classes } = meta.latent, steps = (meta.run.steps ?? 0).toLocaleString("en");
  $("facts").textContent = `${meta.run.name} · ${steps} steps · ${dims - condition - classes} latents`;
  const linked = fromHash(location.hash), ready = start();
  await load();
  Object.assign(state, { z: code(0), anchor: 0 }, linked);
  if (linked.z && !("anchor" in linked)) state.anchor = -1;
  theme();
  share($("actions"));
  const plot = map($("map")), sync = tabs(), painted = view($("view"));
  $("loading").textContent = "Starting the decoder ...";
  await ready;
  await painted;
  timing.first = performance.now() - begun;
  $("loading").remove();
  document.body.dataset.ready = "1";
  sync();
  // a frame without an address of its own, as in a notebook, has no place for the link
  const remember = debounced(() => location.protocol === "about:" || history.replaceState(null, "", `#${hash()}`), 250);
  subscribe((names) => ["z", "anchor", "map", "pair", "colour", "drawn", "seed", "tab", "a", "b"].some((n) => names.has(n)) && remember());
  addEventListener("hashchange", () => {
    const linked = fromHash(location.hash);
    if (Object.keys(linked).length) change(linked);
  });
  globalThis.vaekit = { state, change, decode, request, timing, frames, plot, meta, hash }; // for the console and for tests
}

addEventListener("unhandledrejection", (event) => announce(String(event.reason?.message ?? event.reason)));
open().catch((error) => {
  $("loading").textContent = `This page cannot run in this browser: ${error.message}`;
  console.error(error);
});

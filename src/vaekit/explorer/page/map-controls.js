// The controls around the map: which map and colours, what dragging does, zoom, and a note on the map.
import { meta } from "./blobs.js";
import { data, free } from "./data.js";
import { change, state } from "./state.js";
import { button, choices, fixed, h } from "./ui.js";

const MAPS = { pair: "Two latents", pca: "PCA", tsne: "t-SNE" };
const COLOURS = { label: "class", logpx: "log p(x)", error: "error", none: "none" };
const TOOLS = [["move", "Move"], ["pan", "Pan"], ["a", "Select A"], ["b", "Select B"]];

function latentMenu(k) {
  const latents = meta.latent.order.filter((i) => i < free).slice(0, 200);
  const choose = (event) => change({ pair: state.pair.map((latent, axis) => (axis === k ? Number(event.target.value) : latent)) });
  return h("select", { "aria-label": `Latent on the ${k ? "vertical" : "horizontal"} axis`, onchange: choose },
    latents.map((i) => h("option", { value: String(i), selected: state.pair[k] === i }, meta.latent.names[i])));
}

function colourMenu() {
  const available = (name) => (name === "label" ? meta.labels : name === "none" || data[name]?.some(Number.isFinite));
  const options = Object.entries(COLOURS).filter(([name]) => available(name));
  return h("select", { "aria-label": "Colour of the points", onchange: (e) => change({ colour: e.target.value }) },
    options.map(([name, text]) => h("option", { value: name, selected: state.colour === name }, text)));
}

function noteOn(plane) {
  const map = meta.maps.find((m) => m.id === state.map);
  const about = {
    pca: () => `This plane explains ${fixed(100 * (map.explained[0] + map.explained[1]), 0)} % of the codes' variance; dragging moves the code in it.`,
    pair: () => "Dragging sets these two latents and keeps the others.",
    tsne: () => `t-SNE${map.how ? ` (${map.how})` : ""} cannot be inverted: dragging selects the nearest example. Distances between groups mean little.`,
  }[state.map]();
  return `${about} ${plane.n.toLocaleString("en")} examples.`;
}

/** The rows above and below the map's field, and `.sync()` that follows the state. */
export function controls(chart) {
  const maps = choices("Map", meta.maps.map((m) => [m.id, MAPS[m.id] ?? m.title]), state.map, (map) => change({ map }));
  const axes = h("span", { class: "axes" }, latentMenu(0), " × ", latentMenu(1)), colours = colourMenu();
  const tools = choices("What dragging does", TOOLS, chart.tool, (tool) => {
    chart.tool = tool;
  });
  const zoom = h("span", { class: "zoom" },
    button("−", () => chart.zoom(1 / 1.4), { "aria-label": "Zoom out" }),
    button("+", () => chart.zoom(1.4), { "aria-label": "Zoom in" }),
    button("Show all", chart.showAll));
  const legend = h("div", { class: "legend" }), note = h("p", { class: "note muted" });
  const above = h("div", { class: "bar" }, maps, axes, h("label", { class: "inline" }, "Colour ", colours));
  function sync() {
    maps.set(state.map);
    colours.value = state.colour;
    note.textContent = noteOn(chart.plane);
    axes.hidden = state.map !== "pair";
  }
  return { above, below: [h("div", { class: "bar" }, tools, zoom), legend, note], legend, sync };
}

// The map: the codes of all data as points in a plane. Dragging on it moves the code that is decoded.
import { legendOf, pointColours, scoreQuantiles } from "./map-colours.js";
import { controls } from "./map-controls.js";
import { Drawing, layers } from "./map-drawing.js";
import { onKey, onPointer, onWheel } from "./map-gestures.js";
import { hoverCard } from "./map-hover.js";
import { Plane } from "./map-plane.js";
import { h } from "./ui.js";
import { subscribe } from "./state.js";

const HELP = "Map of the codes. Arrow keys move the code, plus and minus zoom, 0 shows all points.";

export function build(place) {
  const parts = layers(), field = h("div", { class: "field", tabIndex: 0, role: "application", "aria-label": HELP }, Object.values(parts));
  const plane = new Plane(field, parts.points), hover = hoverCard(plane), drawing = new Drawing(plane, parts);
  field.append(hover.element);

  const chart = { plane, drawing, hover, tool: "move", repaint, showAll, zoom }, { above, below, legend, sync } = controls(chart);
  function repaint() {
    const quantiles = scoreQuantiles();
    drawing.scatter.colours(pointColours(plane, quantiles));
    legend.replaceChildren(...legendOf(plane, quantiles, repaint));
    drawing.render();
  }
  function showAll() {
    plane.survey();
    drawing.scatter.points(plane.places);
    repaint();
    drawing.tiles();
  }
  function zoom(...by) {
    plane.zoomBy(...by);
    drawing.refresh();
  }

  place.append(above, field, ...below);
  onPointer(field, chart);
  onWheel(field, chart);
  onKey(field, chart);
  showAll();
  sync();
  new ResizeObserver(() => drawing.fit()).observe(field);
  subscribe((names) => {
    const changed = (...some) => some.some((name) => names.has(name));
    if (changed("map", "pair")) showAll();
    if (changed("colour", "theme", "group")) repaint();
    if (changed("map", "pair", "colour")) sync();
    if (changed("z", "a", "b")) drawing.render(false);
  });
  return { drawing: drawing.scatter, zoom };
}

// Actions of the pointer, the wheel and the keyboard on the map.
import { code, moved } from "./data.js";
import { CLICK } from "./map-plane.js";
import { change, groups, state } from "./state.js";
import { announce } from "./ui.js";

const DRAG = 60; // pixels; if the map cannot show new codes, dragging selects the nearest point within this distance

/** Move the current code to a position on the screen, or to the datum nearest to it. */
function moveCode(plane, x, y) {
  const z = moved(state.z, state.map, state.pair, ...plane.toMap(x, y));
  if (z) return change({ z, anchor: -1 });
  const i = plane.pick(x, y, DRAG);
  if (i >= 0 && i !== state.anchor) change({ z: code(i), anchor: i });
}

/** The points inside the lasso become a group. */
function select(name, { plane, drawing }) {
  const group = groups[name], context = drawing.parts.top.getContext("2d"), path = new Path2D();
  for (const [x, y] of drawing.lasso) path.lineTo(x, y);
  group.clear();
  context.setTransform(1, 0, 0, 1, 0, 0);
  for (let i = 0; i < plane.n; i++) {
    const [x, y] = plane.toScreen(plane.places[2 * i], plane.places[2 * i + 1]);
    if (plane.shows(i) && context.isPointInPath(path, x, y)) group.add(i);
  }
  announce(`Group ${name.toUpperCase()}: ${group.size.toLocaleString("en")} examples.`);
  change({ group: name });
}

const local = (field, event) => {
  const box = field.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};

/** Moving the code, panning, pinching and selecting; `chart` is the chart of map.js. */
export function onPointer(field, chart) {
  const { plane, drawing, hover } = chart, touches = new Map();
  let travelled = 0, start = null;

  field.addEventListener("pointerdown", (event) => {
    field.setPointerCapture(event.pointerId);
    start = local(field, event);
    touches.set(event.pointerId, start);
    travelled = 0;
    hover.hide();
    const pan = chart.tool === "pan" || event.shiftKey || event.button > 0 || touches.size > 1;
    field.dataset.doing = pan ? "pan" : chart.tool;
    if (!pan && chart.tool in groups) drawing.lasso = [start];
  });

  function pinch(id, last, point) {
    const [, other] = [...touches].find(([key]) => key !== id), span = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]);
    chart.zoom(span(point) / Math.max(1, span(last)), (point[0] + other[0]) / 2, (point[1] + other[1]) / 2);
  }
  function drag(last, point) {
    if (field.dataset.doing === "pan") {
      plane.pan(last, point);
      drawing.refresh();
    } else if (drawing.lasso) {
      drawing.lasso.push(point);
      drawing.render(false);
    } else if (travelled > 3) moveCode(plane, ...point);
  }
  field.addEventListener("pointermove", (event) => {
    const point = local(field, event), last = touches.get(event.pointerId);
    if (!last) return void hover.show(...point);
    travelled += Math.abs(point[0] - last[0]) + Math.abs(point[1] - last[1]);
    touches.set(event.pointerId, point);
    if (touches.size === 2) pinch(event.pointerId, last, point);
    else drag(last, point);
  });

  function click() {
    const i = plane.pick(...start, CLICK);
    if (i >= 0) change({ z: code(i), anchor: i });
    else moveCode(plane, ...start);
  }
  function end(event) {
    if (!touches.delete(event.pointerId) || touches.size) return;
    const { doing } = field.dataset;
    delete field.dataset.doing;
    if (drawing.lasso) {
      select(doing, chart);
      drawing.lasso = null;
      chart.repaint();
    } else if (event.type === "pointerup" && travelled <= 3 && doing !== "pan") click();
  }
  field.addEventListener("pointerup", end);
  field.addEventListener("pointercancel", end);
  field.addEventListener("pointerleave", () => hover.hide());
  field.addEventListener("contextmenu", (event) => event.preventDefault());
}

export function onWheel(field, chart) {
  field.addEventListener("wheel", (event) => {
    event.preventDefault();
    chart.zoom(Math.exp(-event.deltaY * 0.0015), ...local(field, event));
  }, { passive: false });
}

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

export function onKey(field, chart) {
  const { plane } = chart, keys = { "+": () => chart.zoom(1.3), "=": () => chart.zoom(1.3), "-": () => chart.zoom(1 / 1.3), 0: chart.showAll };
  field.addEventListener("keydown", (event) => {
    const step = STEPS[event.key], point = step && plane.placeOf(state.z);
    if (point) {
      event.preventDefault();
      const [u, v] = point, [ru, rv] = plane.reach(event.shiftKey ? 40 : 10);
      change({ z: moved(state.z, state.map, state.pair, u + step[0] * ru, v + step[1] * rv), anchor: -1 });
    } else keys[event.key]?.();
  });
}

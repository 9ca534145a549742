// The map: all codes in a plane; walking on it moves the code that is decoded.
import { meta } from "./blobs.js";
import { category, css, dark, sequence } from "./colours.js";
import { D, NONE, code, data, describe, free, hasThumb, labelName, moved, places, project, thumb } from "./data.js";
import { decode } from "./engine.js";
import { quantile, shareBelow } from "./maths.js";
import { canvas as picture, draw } from "./picture.js";
import { finder, scatter } from "./scatter.js";
import { change, hear, state } from "./state.js";
import { button, choices, h, said, settled, tell } from "./ui.js";

const TILES = 13;
const live = Array.from({ length: D }, (_, i) => i).filter((i) => i < free);
export const brushes = { a: new Set(), b: new Set() };
export const frames = { count: 0, ms: 0 };

export function build(place) {
  const back = h("canvas", { class: "back" }), front = h("canvas", { class: "points" }), top = h("canvas", { class: "top" });
  const card = h("div", { class: "hover", hidden: true }), face = picture(112), words = h("p", {});
  card.append(face, words);
  const rings = { a: h("span", { class: "ring", "aria-hidden": "true" }, h("b", {}, "A")), b: h("span", { class: "ring", "aria-hidden": "true" }, h("b", {}, "B")), here: h("span", { class: "ring here", "aria-hidden": "true" }) };
  const field = h("div", { class: "field", tabIndex: 0, role: "application", "aria-label": "Map of the codes. Arrow keys walk, plus and minus zoom, 0 shows all." }, back, front, top, Object.values(rings), card);
  const drawing = scatter(front), hidden = new Set();
  let at = null, near = () => -1, view = { x: 0, y: 0, zoom: 1 }, box = null, tool = "walk", waiting = false, stale = true, lasso = null;

  // --- places, colours, view ------------------------------------------------------------------------------------

  const shown = (i) => !(state.colour === "label" && data.label && hidden.has(data.label[i]));

  function survey() {
    at = places(state.map, state.pair);
    const u = [], v = [], step = Math.max(1, Math.floor(at.length / 2 / 5000));
    for (let i = 0; i < at.length / 2; i += step) {
      u.push(at[2 * i]);
      v.push(at[2 * i + 1]);
    }
    u.sort((a, b) => a - b);
    v.sort((a, b) => a - b);
    const middle = (s) => (quantile(s, 0.003) + quantile(s, 0.997)) / 2, reach = (s) => Math.max(1e-3, (quantile(s, 0.997) - quantile(s, 0.003)) / 2) * 1.12;
    box = { u: middle(u), v: middle(v), ru: reach(u), rv: reach(v) };
    view = { x: box.u, y: box.v, zoom: 1 };
    near = finder(at, shown);
    drawing.points(at);
    paintPoints();
  }

  function paintPoints() {
    const n = at.length / 2, tints = new Uint8Array(4 * n), scores = state.colour === "logpx" ? data.logpx : state.colour === "error" ? data.error : null;
    let steps = null;
    if (scores) {
      const sorted = Float32Array.from(scores).filter(Number.isFinite).sort();
      steps = Array.from({ length: 101 }, (_, i) => quantile(sorted, i / 100));
    }
    const faint = dark() ? [150, 160, 170] : [110, 120, 130], dense = n > 20000 ? 150 : 215;
    for (let i = 0; i < n; i++) {
      let tint = faint, alpha = dense;
      if (state.colour === "label" && data.label) {
        if (data.label[i] !== NONE) tint = category(data.label[i]);
        if (hidden.has(data.label[i])) alpha = 0;
      } else if (steps) tint = sequence(Number.isFinite(scores[i]) ? shareBelow(steps, scores[i]) : NaN);
      if (brushes.a.has(i)) [tint, alpha] = [[213, 94, 0], 255];
      if (brushes.b.has(i)) [tint, alpha] = [[0, 114, 178], 255];
      tints[4 * i] = tint[0]; tints[4 * i + 1] = tint[1]; tints[4 * i + 2] = tint[2]; tints[4 * i + 3] = alpha;
    }
    drawing.colours(tints);
    describeColours(steps);
    render();
  }

  const scale = () => {
    const ratio = front.width / front.height || 1, unit = Math.max(box.ru / ratio, box.rv); // both axes in one unit
    return [view.zoom / (unit * ratio), view.zoom / unit];
  };
  const toScreen = (u, v) => {
    const [sx, sy] = scale();
    return [(((u - view.x) * sx + 1) / 2) * field.clientWidth, ((1 - (v - view.y) * sy) / 2) * field.clientHeight];
  };
  const toMap = (x, y) => {
    const [sx, sy] = scale();
    return [((2 * x) / field.clientWidth - 1) / sx + view.x, (1 - (2 * y) / field.clientHeight) / sy + view.y];
  };
  const reach = (px) => {
    const [sx, sy] = scale();
    return [(2 * px) / field.clientWidth / sx, (2 * px) / field.clientHeight / sy];
  };

  /** Where the present code lies on the map; null where the map cannot say. */
  const here = () => {
    if (state.map === "pair") return [state.z[state.pair[0]], state.z[state.pair[1]]];
    if (state.map === "pca") return project(state.z);
    return state.anchor >= 0 && 2 * state.anchor < at.length ? [at[2 * state.anchor], at[2 * state.anchor + 1]] : null;
  };

  // --- drawing --------------------------------------------------------------------------------------------------

  /** At the next frame: the points where they have moved, and the marks above them. */
  function render(points = true) {
    stale ||= points;
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      const start = performance.now(), [sx, sy] = scale(), dense = front.width / Math.max(1, field.clientWidth);
      if (!stale) return mark(dense);
      stale = false;
      const size = Math.max(2.2, Math.min(9, (data.n > 20000 ? 2.4 : data.n > 4000 ? 3.4 : 5) * Math.sqrt(view.zoom))) * dense;
      drawing.draw({ scale: [sx, sy], shift: [-view.x * sx, -view.y * sy], size });
      mark(dense);
      frames.count++;
      frames.ms += performance.now() - start;
    });
  }

  /** The rings of the present code, A and B: small elements, so that moving them draws nothing else anew. */
  function mark(dense) {
    const of = (z) => (state.map === "pair" ? [z[state.pair[0]], z[state.pair[1]]] : state.map === "pca" ? project(z) : null);
    const put = (ring, place) => {
      ring.hidden = !place;
      if (!place) return;
      const [x, y] = toScreen(...place);
      ring.style.transform = `translate(${x.toFixed(1)}px, ${y.toFixed(1)}px)`;
    };
    put(rings.here, here());
    put(rings.a, state.a && of(state.a));
    put(rings.b, state.b && of(state.b));
    top.hidden = !lasso;
    if (!lasso) return;
    const c = top.getContext("2d");
    c.setTransform(dense, 0, 0, dense, 0, 0);
    c.clearRect(0, 0, field.clientWidth, field.clientHeight);
    c.beginPath();
    for (const [x, y] of lasso) c.lineTo(x, y);
    c.closePath();
    c.lineWidth = 1.5;
    c.strokeStyle = c.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
    c.stroke();
    c.globalAlpha = 0.12;
    c.fill();
    c.globalAlpha = 1;
  }

  /** With two latents all that can be decoded lies behind the points. */
  const manifold = settled(async () => {
    const context = back.getContext("2d");
    context.clearRect(0, 0, back.width, back.height);
    back.hidden = state.map !== "pair" || live.length !== 2;
    if (state.map !== "pair" || live.length !== 2 || meta.event.kind !== "image") return;
    const codes = new Float32Array(TILES * TILES * D);
    for (let r = 0; r < TILES; r++) for (let q = 0; q < TILES; q++) {
      const [u, v] = toMap(((q + 0.5) / TILES) * field.clientWidth, ((r + 0.5) / TILES) * field.clientHeight);
      codes.set(moved(state.z, "pair", state.pair, u, v), (r * TILES + q) * D);
    }
    const x = await decode("manifold", codes, TILES * TILES);
    if (!x) return;
    const w = back.width / TILES, t = back.height / TILES;
    for (let k = 0; k < TILES * TILES; k++) draw(back, x, k, [(k % TILES) * w, Math.floor(k / TILES) * t, w, t]);
  }, 120);

  // --- walking, panning, brushing -------------------------------------------------------------------------------

  function walk(x, y) {
    const [u, v] = toMap(x, y), z = moved(state.z, state.map, state.pair, u, v);
    if (z) return change({ z, anchor: -1 });
    const i = near(u, v, ...reach(60));
    if (i >= 0 && i !== state.anchor) change({ z: code(i), anchor: i });
  }

  function zoom(factor, x = field.clientWidth / 2, y = field.clientHeight / 2) {
    const before = toMap(x, y);
    view.zoom = Math.min(200, Math.max(0.5, view.zoom * factor));
    const after = toMap(x, y);
    view.x += before[0] - after[0];
    view.y += before[1] - after[1];
    render();
    manifold();
  }

  const touches = new Map();
  let moves = 0, from = null;
  const local = (event) => {
    const r = field.getBoundingClientRect();
    return [event.clientX - r.left, event.clientY - r.top];
  };
  field.addEventListener("pointerdown", (event) => {
    field.setPointerCapture(event.pointerId);
    touches.set(event.pointerId, local(event));
    moves = 0;
    from = local(event);
    card.hidden = true;
    const pan = tool === "pan" || event.shiftKey || event.button > 0 || touches.size > 1;
    field.dataset.doing = pan ? "pan" : tool;
    if (!pan && (tool === "a" || tool === "b")) lasso = [from];
  });
  field.addEventListener("pointermove", (event) => {
    const place = local(event);
    if (!touches.has(event.pointerId)) return void hover(...place);
    const last = touches.get(event.pointerId);
    moves += Math.abs(place[0] - last[0]) + Math.abs(place[1] - last[1]);
    if (touches.size === 2) {
      const other = [...touches.entries()].find(([id]) => id !== event.pointerId)[1], span = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]);
      touches.set(event.pointerId, place);
      zoom(span(place) / Math.max(1, span(last)), (place[0] + other[0]) / 2, (place[1] + other[1]) / 2);
      return;
    }
    touches.set(event.pointerId, place);
    if (field.dataset.doing === "pan") {
      const a = toMap(...last), b = toMap(...place);
      view.x += a[0] - b[0];
      view.y += a[1] - b[1];
      render();
      manifold();
    } else if (lasso) {
      lasso.push(place);
      render(false);
    } else if (moves > 3) walk(...place);
  });
  const end = (event) => {
    if (!touches.delete(event.pointerId)) return;
    const doing = field.dataset.doing;
    if (touches.size) return;
    delete field.dataset.doing;
    if (lasso) {
      brush(doing);
      lasso = null;
      paintPoints();
    } else if (event.type === "pointerup" && moves <= 3 && doing !== "pan") {
      const [u, v] = toMap(...from), i = near(u, v, ...reach(14));
      if (i >= 0) change({ z: code(i), anchor: i });
      else walk(...from);
    }
  };
  field.addEventListener("pointerup", end);
  field.addEventListener("pointercancel", end);
  field.addEventListener("contextmenu", (event) => event.preventDefault());
  field.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * 0.0015), ...local(event));
  }, { passive: false });
  field.addEventListener("pointerleave", () => (card.hidden = true));
  field.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (step && here() && state.map !== "tsne") {
      event.preventDefault();
      const [u, v] = here(), [ru, rv] = reach(event.shiftKey ? 40 : 10);
      change({ z: moved(state.z, state.map, state.pair, u + step[0] * ru, v + step[1] * rv), anchor: -1 });
    } else if (event.key === "+" || event.key === "=") zoom(1.3);
    else if (event.key === "-") zoom(1 / 1.3);
    else if (event.key === "0") (survey(), manifold());
  });

  /** The points within the line that was drawn become a group. */
  function brush(which) {
    const chosen = brushes[which], c = top.getContext("2d"), path = new Path2D();
    for (const [x, y] of lasso) path.lineTo(x, y);
    chosen.clear();
    c.setTransform(1, 0, 0, 1, 0, 0);
    for (let i = 0; i < at.length / 2; i++) if (shown(i) && c.isPointInPath(path, ...toScreen(at[2 * i], at[2 * i + 1]))) chosen.add(i);
    tell(`Group ${which.toUpperCase()}: ${chosen.size.toLocaleString("en")} data.`);
    change({ brushed: which });
  }

  // --- hover ----------------------------------------------------------------------------------------------------

  let hovered = -1;
  async function hover(x, y) {
    const [u, v] = toMap(x, y), i = near(u, v, ...reach(14));
    field.classList.toggle("on-point", i >= 0);
    card.hidden = i < 0;
    if (i < 0) return void (hovered = -1);
    const left = x + 150 > field.clientWidth ? x - 146 : x + 16, up = y + 190 > field.clientHeight ? y - 180 : y + 16;
    card.style.transform = `translate(${Math.max(2, left)}px, ${Math.max(2, up)}px)`;
    if (i === hovered) return;
    hovered = i;
    const scores = [];
    if (data.logpx && Number.isFinite(data.logpx[i])) scores.push(`log p(x) ≥ ${said(data.logpx[i], 1)}`);
    if (data.error && Number.isFinite(data.error[i])) scores.push(`error ${data.error[i].toPrecision(3)} (rms)`);
    const seen = hasThumb(i);
    words.replaceChildren(h("b", {}, describe(i)), ...scores.map((s) => h("span", {}, s)), h("span", { class: "muted" }, seen ? "the datum itself" : "its reconstruction"));
    if (seen) {
      const image = thumb(i), small = h("canvas", { width: image.width, height: image.height });
      small.getContext("2d").putImageData(image, 0, 0);
      const c = face.getContext("2d");
      c.imageSmoothingEnabled = false;
      c.drawImage(small, 0, 0, face.width, face.height);
      return;
    }
    const found = await decode("hover", code(i));
    if (found && hovered === i) draw(face, found);
  }

  // --- controls -------------------------------------------------------------------------------------------------

  const latentMenu = (k) => h("select", { "aria-label": k ? "Latent on the vertical axis" : "Latent on the horizontal axis", onchange: (e) => {
    const pair = [...state.pair];
    pair[k] = Number(e.target.value);
    change({ pair });
  } }, meta.latent.order.filter((i) => i < free).slice(0, 200).map((i) => h("option", { value: String(i), selected: state.pair[k] === i }, meta.latent.names[i])));
  const axes = h("span", { class: "axes" }, latentMenu(0), " × ", latentMenu(1));
  const mapNames = { pair: "Two latents", pca: "PCA", tsne: "t-SNE" };
  const maps = choices("Map", meta.maps.map((m) => [m.id, mapNames[m.id] ?? m.title]), state.map, (map) => change({ map }));
  const colourings = [["label", "class"], ["logpx", "log p(x)"], ["error", "error"], ["none", "plain"]].filter(([v]) =>
    v === "label" ? meta.labels : v === "none" || (data[v] && data[v].some(Number.isFinite)));
  const colouring = h("select", { "aria-label": "Colour of the points", onchange: (e) => change({ colour: e.target.value }) }, colourings.map(([v, t]) => h("option", { value: v, selected: state.colour === v }, t)));
  const tools = choices("What dragging does", [["walk", "Walk"], ["pan", "Pan"], ["a", "Brush A"], ["b", "Brush B"]], tool, (v) => (tool = v));
  const legend = h("div", { class: "legend" }), note = h("p", { class: "note muted" });

  function describeColours(steps) {
    legend.replaceChildren();
    if (state.colour === "label" && meta.labels) {
      const seen = new Set(data.label);
      meta.labels.names.forEach((name, i) => {
        if (!seen.has(i)) return;
        const chip = h("button", { type: "button", class: "chip", "aria-pressed": String(!hidden.has(i)), title: "show or hide this class", onclick: () => {
          if (!hidden.delete(i)) hidden.add(i);
          paintPoints();
        } }, h("i", { style: `background:${css(category(i))}` }), labelName(i));
        legend.append(chip);
      });
    } else if (steps) {
      const bar = h("span", { class: "ramp", style: `background:linear-gradient(90deg,${Array.from({ length: 9 }, (_, i) => css(sequence(i / 8))).join(",")})` });
      const digits = Math.abs(steps[50]) < 10 ? 3 : 0;
      legend.append(h("span", { class: "muted" }, said(steps[1], digits)), bar, h("span", { class: "muted" }, said(steps[99], digits)), h("span", { class: "muted" }, state.colour === "logpx" ? "nats, a bound from few samples; colours by rank" : "root mean squared error of the reconstruction, in the data's units; colours by rank"));
    }
  }

  function notes() {
    const map = meta.maps.find((m) => m.id === state.map), parts = [];
    if (state.map === "pca") parts.push(`The plane holds ${said(100 * (map.explained[0] + map.explained[1]), 0)} % of the codes' variance; walking shifts the code within it.`);
    if (state.map === "pair") parts.push("Walking sets these two latents and leaves the others.");
    if (state.map === "tsne") parts.push("t-SNE has no way back: walking goes from datum to datum. Distances between groups mean little.");
    parts.push(`${(at.length / 2).toLocaleString("en")} data.`);
    note.textContent = parts.join(" ");
    axes.hidden = state.map !== "pair";
    manifold();
  }

  place.append(
    h("div", { class: "bar" }, maps, axes, h("label", { class: "inline" }, "Colour ", colouring)),
    field,
    h("div", { class: "bar" }, tools, h("span", { class: "zoom" }, button("−", () => zoom(1 / 1.4), { "aria-label": "Zoom out" }), button("+", () => zoom(1.4), { "aria-label": "Zoom in" }), button("Show all", () => (survey(), manifold())))),
    legend, note,
  );

  const size = () => {
    const dense = Math.min(2, devicePixelRatio || 1);
    for (const c of [back, front, top]) {
      c.width = Math.round(field.clientWidth * dense);
      c.height = Math.round(field.clientHeight * dense);
    }
    render();
    manifold();
  };
  survey();
  notes();
  new ResizeObserver(size).observe(field);
  hear((names) => {
    if (names.has("map") || names.has("pair")) {
      maps.set(state.map);
      survey();
      notes();
    }
    if (names.has("colour") || names.has("theme") || names.has("brushed")) {
      colouring.value = state.colour;
      near = finder(at, shown);
      paintPoints();
    }
    if (names.has("z") || names.has("a") || names.has("b")) render(false);
  });
  return { render, drawing, zoom };
}

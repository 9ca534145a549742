// Draws many points quickly: with WebGL2 on a graphics card, else on a plain canvas.

const VERTEX = `#version 300 es
in vec2 place; in vec4 colour; uniform vec2 scale, shift; uniform float size; out vec4 tint;
void main() { gl_Position = vec4(place * scale + shift, 0.0, 1.0); gl_PointSize = size; tint = colour; }`;
const FRAGMENT = `#version 300 es
precision mediump float; in vec4 tint; out vec4 shown;
void main() { float r = length(gl_PointCoord - 0.5); float a = tint.a * smoothstep(0.5, 0.36, r); if (a < 0.01) discard; shown = vec4(tint.rgb * a, a); }`;

/** A drawing of points on a canvas: `.points(places)`, `.colours(rgba bytes)`, `.draw({scale, shift, size})` in clip space. */
export function scatter(canvas) {
  const wanted = new URLSearchParams(location.search).get("points"); // page.html?points=webgl2 or 2d chooses one
  const gl = wanted === "2d" ? null : canvas.getContext("webgl2", { antialias: false, premultipliedAlpha: true, failIfMajorPerformanceCaveat: wanted !== "webgl2" });
  return gl ? webgl(canvas, gl) : plain(canvas);
}

function webgl(canvas, gl) {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  const attribute = (name, size, type, normal) => {
    const buffer = gl.createBuffer(), at = gl.getAttribLocation(program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, size, type, normal, 0, 0);
    return (values) => {
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    };
  };
  const places = attribute("place", 2, gl.FLOAT, false), tints = attribute("colour", 4, gl.UNSIGNED_BYTE, true);
  const uniform = Object.fromEntries(["scale", "shift", "size"].map((n) => [n, gl.getUniformLocation(program, n)]));
  let n = 0;
  return {
    kind: "webgl2",
    points(values) { n = values.length / 2; places(values); },
    colours: tints,
    draw({ scale, shift, size }) {
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.uniform2f(uniform.scale, ...scale);
      gl.uniform2f(uniform.shift, ...shift);
      gl.uniform1f(uniform.size, size);
      gl.drawArrays(gl.POINTS, 0, n);
    },
  };
}

function square({ data, width }, left, top, side, rgba) {
  for (let y = top; y < top + side; y++) for (let x = left; x < left + side; x++) data.set(rgba, 4 * (y * width + x));
}

function plain(canvas) {
  const context = canvas.getContext("2d");
  let places = new Float32Array(0), tints = new Uint8Array(0);
  return {
    kind: "2d",
    points(values) { places = values; },
    colours(values) { tints = values; },
    draw({ scale, shift, size }) {
      const { width, height } = canvas, s = Math.max(1, Math.round(size * 0.7)), image = context.createImageData(width, height);
      for (let i = 0; i < places.length / 2; i++) {
        if (!tints[4 * i + 3]) continue;
        const x = Math.round(((places[2 * i] * scale[0] + shift[0] + 1) / 2) * width - s / 2);
        const y = Math.round(((1 - (places[2 * i + 1] * scale[1] + shift[1])) / 2) * height - s / 2);
        if (x < 0 || y < 0 || x + s > width || y + s > height) continue;
        square(image, x, y, s, tints.subarray(4 * i, 4 * i + 4));
      }
      context.putImageData(image, 0, 0);
    },
  };
}

/** Finds the nearest of points (2n) by buckets: `near(u, v, reach in u, reach in v)` returns an index or -1. */
export function finder(places, shown) {
  const n = places.length / 2, side = Math.max(1, Math.min(256, Math.round(Math.sqrt(n / 2))));
  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  for (let i = 0; i < n; i++) {
    left = Math.min(left, places[2 * i]); right = Math.max(right, places[2 * i]);
    low = Math.min(low, places[2 * i + 1]); high = Math.max(high, places[2 * i + 1]);
  }
  const column = (u) => Math.min(side - 1, Math.max(0, Math.floor(((u - left) / (right - left || 1)) * side)));
  const line = (v) => Math.min(side - 1, Math.max(0, Math.floor(((v - low) / (high - low || 1)) * side)));
  const start = new Int32Array(side * side + 1), order = new Int32Array(n), cell = (i) => line(places[2 * i + 1]) * side + column(places[2 * i]);
  for (let i = 0; i < n; i++) start[cell(i) + 1]++;
  for (let c = 0; c < side * side; c++) start[c + 1] += start[c];
  const next = start.slice();
  for (let i = 0; i < n; i++) order[next[cell(i)]++] = i;
  return (u, v, reachU, reachV) => {
    let best = -1, least = 1;
    for (let b = line(v - reachV); b <= line(v + reachV); b++) {
      for (let a = column(u - reachU); a <= column(u + reachU); a++) {
        for (let at = start[b * side + a]; at < start[b * side + a + 1]; at++) {
          const i = order[at], d = ((places[2 * i] - u) / reachU) ** 2 + ((places[2 * i + 1] - v) / reachV) ** 2;
          if (d < least && shown(i)) [best, least] = [i, d];
        }
      }
    }
    return best;
  };
}

// Requests to the worker. Each channel keeps only its newest waiting request, so that dragging builds up no queue.
import { bytes, meta } from "./blobs.js";
import { normals, uniforms } from "./maths.js";

let worker = null, count = 0, ready;
const begun = new Promise((done) => (ready = done)); // requests made before the graphs are ready wait for them
const open = new Map(), channels = new Map();
export const timing = { decodes: 0, ms: 0, pictures: 0, first: null }; // decoded and drawn pictures of the current code

function ask(message, transfer = []) {
  const id = ++count;
  return new Promise((done, failed) => {
    open.set(id, { done, failed });
    worker.postMessage({ id, ...message }, transfer);
  });
}

export async function start() {
  const [code, wasm, weights] = await Promise.all(["ort.mjs", "ort.wasm", "weights.bin"].map(bytes)), graphs = {};
  for (const name of Object.keys(meta.graphs)) {
    const raw = await bytes(`${name}.onnx`);
    if (raw) graphs[name] = raw;
  }
  worker = new Worker(globalThis.vaekitModules["worker.js"]);
  worker.onmessage = ({ data }) => {
    const { done, failed } = open.get(data.id);
    open.delete(data.id);
    if (data.error) failed(new Error(data.error));
    else done(data);
  };
  worker.onerror = (event) => {
    for (const { failed } of open.values()) failed(new Error(event.message || "the worker could not be started"));
    open.clear();
  };
  // a page opened from a file may import into a worker from data: addresses only, not from blob: ones
  const ort = await new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(new Blob([code], { type: "text/javascript" }));
  });
  await ask({ kind: "start", ort, wasm, graphs, weights }, [wasm.buffer, weights.buffer]);
  ready();
}

/** Whether the page has this graph; if not, `meta.graphs[name].why` gives the reason. */
export const has = (name) => Boolean(meta.graphs[name]?.inputs);

/** Run a graph on n rows. `inputs` has x, z or c as (n * size) numbers; noise is drawn by the seed. */
async function run(graph, inputs, n, seed) {
  await begun;
  const feeds = {};
  for (const { name, shape, kind } of meta.graphs[graph].inputs) {
    const size = shape.reduce((a, b) => a * b, 1);
    let values = inputs[kind];
    if (kind === "uniform" || kind === "normal") {
      const next = (kind === "uniform" ? uniforms : normals)(seed * 7919 + name.length * 31 + Number(name.replace(/\D/g, "") || 0) + 1);
      values = new Float32Array(n * size);
      for (let i = 0; i < values.length; i++) values[i] = next();
    }
    feeds[name] = { values: Float32Array.from(values), shape: [n, ...shape] };
  }
  const { result, ms } = await ask({ kind: "run", graph, feeds });
  return { result, ms };
}

/** Run a graph on a channel; null if a newer request has replaced this one. */
export function request(channel, graph, inputs, n, seed = 1) {
  const line = channels.get(channel) ?? { busy: false, next: null };
  channels.set(channel, line);
  return new Promise((done, failed) => {
    line.next?.done(null);
    line.next = { graph, inputs, n, seed, done, failed };
    if (!line.busy) drain(line);
  });
}

async function drain(line) {
  line.busy = true;
  while (line.next) {
    const { graph, inputs, n, seed, done, failed } = line.next;
    line.next = null;
    try {
      const { result, ms } = await run(graph, inputs, n, seed);
      if (graph === "decode" && n === 1) {
        timing.decodes++;
        timing.ms += ms;
      }
      done(result);
    } catch (error) {
      failed(error);
    }
  }
  line.busy = false;
}

/** x of codes (n, D) flat: the mean of p(x|z), or a sample from it. */
export async function decode(channel, z, n = 1, drawn = false, seed = 1) {
  const graph = drawn && has("draw") ? "draw" : "decode";
  const result = await request(channel, graph, { z }, n, seed);
  return result?.x ?? null;
}

// Runs the model's graphs in a thread of its own, so that the page stays responsive.

let ort = null, graphs = {}, sessions = {}, weights = null;

async function session(name) {
  sessions[name] ??= ort.InferenceSession.create(graphs[name], {
    executionProviders: ["wasm"],
    graphOptimizationLevel: "all",
    externalData: [{ path: "weights.bin", data: weights }],
  });
  return sessions[name];
}

self.onmessage = async ({ data }) => {
  const { id, kind } = data;
  try {
    if (kind === "start") {
      ort = await import(data.ort);
      ort.env.wasm.numThreads = 1;
      ort.env.wasm.wasmBinary = data.wasm;
      ort.env.logLevel = "error";
      ({ graphs, weights } = data);
      await session("decode");
      postMessage({ id });
      return;
    }
    const ready = await session(data.graph), feeds = {}, result = {}, start = performance.now();
    for (const [name, { values, shape }] of Object.entries(data.feeds)) feeds[name] = new ort.Tensor("float32", values, shape);
    const outputs = await ready.run(feeds);
    for (const [name, tensor] of Object.entries(outputs)) result[name] = Float32Array.from(tensor.data);
    postMessage({ id, result, ms: performance.now() - start }, Object.values(result).map((r) => r.buffer));
  } catch (error) {
    postMessage({ id, error: String(error?.message ?? error) });
  }
};

// The page's mathematics: seeded random numbers, paths between codes, averages in log space, nearest codes.

/** Uniform numbers in (0, 1) from a seed: mulberry32. */
export function uniforms(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = a;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
  };
}

/** Standard normal numbers from a seed, by Box and Muller. */
export function normals(seed) {
  const u = uniforms(seed);
  let kept = null;
  return () => {
    if (kept !== null) {
      const second = kept;
      kept = null;
      return second;
    }
    const r = Math.sqrt(-2 * Math.log(u())), angle = 2 * Math.PI * u();
    kept = r * Math.sin(angle);
    return r * Math.cos(angle);
  };
}

export function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

export function lerp(a, b, t) {
  return Float32Array.from(a, (v, i) => v + t * (b[i] - v));
}

/** Along the great circle in direction, linearly in length (Shoemake 1985): z of a Gaussian prior lie near a sphere. */
export function slerp(a, b, t) {
  const ra = Math.sqrt(dot(a, a)), rb = Math.sqrt(dot(b, b));
  if (ra < 1e-9 || rb < 1e-9) return lerp(a, b, t);
  const cosine = Math.min(1, Math.max(-1, dot(a, b) / (ra * rb))), angle = Math.acos(cosine), s = Math.sin(angle);
  if (s < 1e-6) return lerp(a, b, t);
  const r = ra + t * (rb - ra), u = (Math.sin((1 - t) * angle) / s) * (r / ra), v = (Math.sin(t * angle) / s) * (r / rb);
  return Float32Array.from(a, (x, i) => u * x + v * b[i]);
}

/** log of the mean of exponentials. */
export function logMeanExp(values) {
  const top = Math.max(...values);
  if (!Number.isFinite(top)) return top;
  let sum = 0;
  for (const v of values) sum += Math.exp(v - top);
  return top + Math.log(sum / values.length);
}

/** Effective sample size (sum w)^2 / sum w^2 of weights given by their logarithms. */
export function effective(values) {
  const top = Math.max(...values);
  let sum = 0, squares = 0;
  for (const v of values) {
    const w = Math.exp(v - top);
    sum += w;
    squares += w * w;
  }
  return (sum * sum) / squares;
}

/** The share of the data below a value, 0 to 1, from 101 quantiles. */
export function shareBelow(quantiles, value) {
  let i = 0;
  while (i < quantiles.length && quantiles[i] <= value) i++;
  if (i === 0) return 0;
  if (i === quantiles.length) return 1;
  const low = quantiles[i - 1], high = quantiles[i];
  return (i - 1 + (high > low ? (value - low) / (high - low) : 0)) / (quantiles.length - 1);
}

export function quantile(sorted, p) {
  if (!sorted.length) return NaN;
  const at = p * (sorted.length - 1), i = Math.floor(at), j = Math.min(i + 1, sorted.length - 1);
  return sorted[i] + (at - i) * (sorted[j] - sorted[i]);
}

/** The k rows of codes (n, D) nearest to z, each latent in units of its standard deviation: [{index, distance}]. */
export function nearest(codes, dims, z, scale, k, count) {
  const inverse = Float32Array.from(scale, (s) => (s > 1e-6 ? 1 / s : 0)), best = [];
  const n = count ?? codes.length / dims;
  for (let i = 0; i < n; i++) {
    const limit = best.length < k ? Infinity : best[best.length - 1].distance;
    let sum = 0;
    for (let j = 0, at = i * dims; j < dims && sum < limit; j++) {
      const d = (codes[at + j] - z[j]) * inverse[j];
      sum += d * d;
    }
    if (sum >= limit) continue;
    best.push({ index: i, distance: sum });
    best.sort((a, b) => a.distance - b.distance);
    if (best.length > k) best.pop();
  }
  return best.map((b) => ({ index: b.index, distance: Math.sqrt(b.distance) }));
}

/** The mean and the number of those rows i of codes (n, D) for which chosen(i) holds. */
export function meanCode(codes, dims, chosen) {
  const sum = new Float64Array(dims);
  let count = 0;
  for (let i = 0; i < codes.length / dims; i++) {
    if (!chosen(i)) continue;
    count++;
    for (let j = 0; j < dims; j++) sum[j] += codes[i * dims + j];
  }
  return { mean: Float32Array.from(sum, (v) => (count ? v / count : 0)), count };
}

/** float16 bits to float32 numbers. */
export function fromHalf(bits) {
  const table = new Float32Array(65536);
  for (let h = 0; h < 65536; h++) {
    const sign = h & 0x8000 ? -1 : 1, e = (h >> 10) & 31, f = h & 1023;
    table[h] = e === 0 ? sign * 2 ** -24 * f : e === 31 ? (f ? NaN : sign * Infinity) : sign * 2 ** (e - 15) * (1 + f / 1024);
  }
  return Float32Array.from(bits, (h) => table[h]);
}

// GIF89a with one palette for all frames: median cut (Heckbert 1982) and LZW (Welch 1984).

/** @param frames ImageData of one size. @param delay hundredths of a second. */
export function gif(frames, delay = 8) {
  const { width, height } = frames[0], palette = medianCut(frames, 256), find = finder(palette), out = [];
  const word = (v) => out.push(v & 255, v >> 8), text = (s) => { for (const c of s) out.push(c.charCodeAt(0)); };
  text("GIF89a");
  word(width);
  word(height);
  out.push(0xf7, 0, 0);
  for (let i = 0; i < 256; i++) out.push(...(palette[i] ?? [0, 0, 0]));
  out.push(0x21, 0xff, 11);
  text("NETSCAPE2.0");
  out.push(3, 1, 0, 0, 0);
  for (const { data } of frames) {
    out.push(0x21, 0xf9, 4, 4);
    word(delay);
    out.push(0, 0, 0x2c);
    for (const v of [0, 0, width, height]) word(v);
    out.push(0, 8);
    const indices = new Uint8Array(width * height);
    for (let i = 0; i < indices.length; i++) indices[i] = find(data[4 * i], data[4 * i + 1], data[4 * i + 2]);
    const packed = lzw(indices);
    for (let i = 0; i < packed.length; i += 255) {
      const block = packed.slice(i, i + 255);
      out.push(block.length, ...block);
    }
    out.push(0);
  }
  out.push(0x3b);
  return new Blob([new Uint8Array(out)], { type: "image/gif" });
}

function medianCut(frames, most) {
  const seen = new Map();
  for (const { data } of frames) for (let i = 0; i < data.length; i += 4) {
    const key = (data[i] << 16) | (data[i + 1] << 8) | data[i + 2];
    seen.set(key, (seen.get(key) ?? 0) + 1);
  }
  const colour = ([key]) => [key >> 16, (key >> 8) & 255, key & 255];
  const boxes = [[...seen]];
  const span = (box) => [0, 1, 2].map((k) => {
    let low = 255, high = 0;
    for (const entry of box) {
      const v = colour(entry)[k];
      low = Math.min(low, v);
      high = Math.max(high, v);
    }
    return high - low;
  });
  while (boxes.length < most) {
    let best = -1, widest = 0, axis = 0;
    boxes.forEach((box, i) => {
      if (box.length < 2) return;
      const s = span(box), w = Math.max(...s) * Math.sqrt(box.length);
      if (w > widest) [best, widest, axis] = [i, w, s.indexOf(Math.max(...s))];
    });
    if (best < 0) break;
    const box = boxes[best].sort((a, b) => colour(a)[axis] - colour(b)[axis]), half = box.length >> 1;
    boxes.splice(best, 1, box.slice(0, half), box.slice(half));
  }
  return boxes.map((box) => {
    let total = 0;
    const sum = [0, 0, 0];
    for (const entry of box) {
      total += entry[1];
      for (const [k, v] of colour(entry).entries()) sum[k] += v * entry[1];
    }
    return sum.map((v) => Math.round(v / total));
  });
}

function finder(palette) {
  const known = new Map();
  return (r, g, b) => {
    const key = (r << 16) | (g << 8) | b;
    let at = known.get(key);
    if (at === undefined) {
      let least = Infinity;
      palette.forEach((p, i) => {
        const d = (p[0] - r) ** 2 + (p[1] - g) ** 2 + (p[2] - b) ** 2;
        if (d < least) [least, at] = [d, i];
      });
      known.set(key, at);
    }
    return at;
  };
}

function lzw(indices) {
  const out = [], CLEAR = 256, END = 257;
  let bits = 0, held = 0, size = 9, next = 258, table = new Map();
  const put = (code) => {
    held |= code << bits;
    bits += size;
    while (bits >= 8) {
      out.push(held & 255);
      held >>>= 8;
      bits -= 8;
    }
  };
  put(CLEAR);
  let prefix = indices[0];
  for (let i = 1; i < indices.length; i++) {
    const key = prefix * 256 + indices[i], code = table.get(key);
    if (code !== undefined) {
      prefix = code;
      continue;
    }
    put(prefix);
    if (next < 4096) {
      table.set(key, next++);
      if (next - 1 === 1 << size && size < 12) size++;
    } else {
      put(CLEAR);
      table = new Map();
      size = 9;
      next = 258;
    }
    prefix = indices[i];
  }
  put(prefix);
  put(END);
  if (bits) out.push(held & 255);
  return out;
}

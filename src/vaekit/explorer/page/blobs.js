// The numbers and bytes packed into this page: gzip in base64, one script element each.
import { fromHalf } from "./maths.js";

export const meta = JSON.parse(document.getElementById("meta").textContent);

function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text), out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}

/** The unpacked bytes of a blob. Its text is removed from the page, so it can be read only once. */
export async function bytes(name) {
  const element = document.querySelector(`script[data-blob="${CSS.escape(name)}"]`);
  if (!element) return null;
  const packed = bytesOf(element.textContent.trim());
  element.textContent = "";
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** A blob as numbers; float16 becomes float32. Null if the page has no such blob or it is empty. */
export async function numbers(name) {
  const about = meta.blobs[name];
  if (!about || about.shape.some((n) => n === 0)) return null;
  const { buffer } = await bytes(name);
  if (about.dtype === "float16") return fromHalf(new Uint16Array(buffer));
  return new { float32: Float32Array, uint8: Uint8Array, uint16: Uint16Array, int32: Int32Array }[about.dtype](buffer);
}

export async function text(name) {
  const raw = await bytes(name);
  return raw ? new TextDecoder().decode(raw) : "";
}

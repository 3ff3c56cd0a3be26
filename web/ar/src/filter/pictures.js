/** Pictures of filters: checked by their headers before they are decoded. */
import shared from "../shared.json";
import { Invalid } from "./schema.js";

const { bytes: MAX_BYTES, pixels: MAX_PIXELS, side: MAX_SIDE, pictures: SUFFIXES } = shared.limits;

/**
 * @param {Uint8Array} b
 * @returns {[number, number] | null} Width and height of a PNG, JPEG or WebP; none where it is no
 *   such picture.
 */
export function sizeOf(b) {
  const view = new DataView(b.buffer, b.byteOffset, b.byteLength);
  const text = (/** @type {number} */ at, /** @type {number} */ n) =>
    String.fromCharCode(...b.subarray(at, at + n));
  if (b.length > 24 && text(1, 3) === "PNG") return [view.getUint32(16), view.getUint32(20)];
  if (b.length > 30 && text(0, 4) === "RIFF" && text(8, 4) === "WEBP") {
    if (text(12, 4) === "VP8X") {
      const u24 = (/** @type {number} */ at) => b[at] | (b[at + 1] << 8) | (b[at + 2] << 16);
      return [1 + u24(24), 1 + u24(27)];
    }
    if (text(12, 4) === "VP8L") {
      const bits = view.getUint32(21, true);
      return [1 + (bits & 0x3fff), 1 + ((bits >> 14) & 0x3fff)];
    }
    return [view.getUint16(26, true) & 0x3fff, view.getUint16(28, true) & 0x3fff];
  }
  if (b[0] !== 0xff || b[1] !== 0xd8) return null;
  for (let at = 2; at + 9 < b.length; ) {
    if (b[at] !== 0xff) return null;
    const kind = b[at + 1];
    const frame = kind >= 0xc0 && kind <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(kind);
    if (frame) return [view.getUint16(at + 7), view.getUint16(at + 5)];
    at += 2 + view.getUint16(at + 2);
  }
  return null;
}

/**
 * @param {string} name For messages.
 * @param {Uint8Array} bytes
 * @throws {Invalid} It is no picture, or too large.
 */
export function checkPicture(name, bytes) {
  if (bytes.length > MAX_BYTES) throw new Invalid(name, "it is too large");
  const size = sizeOf(bytes);
  if (!size) throw new Invalid(name, "it is no PNG, JPEG or WebP; save it again");
  if (!size[0] || !size[1] || size[0] * size[1] > MAX_PIXELS) {
    throw new Invalid(name, `${size[0]} x ${size[1]} pixels are too many; make it smaller`);
  }
}

/**
 * @param {import("./files.js").Files} files
 * @param {string} name
 * @param {boolean} premultiplied Whether colours are multiplied by alpha.
 * @returns {Promise<ImageBitmap>} At most `MAX_SIDE` a side.
 * @throws {Invalid}
 */
export async function readPicture(files, name, premultiplied) {
  if (!SUFFIXES.some((suffix) => name.toLowerCase().endsWith(suffix))) {
    throw new Invalid(name, `it is of the wrong type; ${SUFFIXES.join(", ")} are read`);
  }
  const bytes = await files.read(name);
  checkPicture(name, bytes);
  const size = /** @type {[number, number]} */ (sizeOf(bytes));
  /** @type {ImageBitmapOptions} */
  const options = {
    premultiplyAlpha: premultiplied ? "premultiply" : "none",
    colorSpaceConversion: "none",
  };
  if (Math.max(...size) > MAX_SIDE) {
    options[size[0] >= size[1] ? "resizeWidth" : "resizeHeight"] = MAX_SIDE;
    options.resizeQuality = "high";
  }
  try {
    return await createImageBitmap(new Blob([/** @type {BlobPart} */ (bytes)]), options);
  } catch {
    throw new Invalid(name, "it cannot be decoded; save it again");
  }
}

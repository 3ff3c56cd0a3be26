/** Reads FlexBuffers, in which custom operators of .tflite files have their options. */

const NULL = 0, INT = 1, UINT = 2, FLOAT = 3, KEY = 4, STRING = 5;
const INDIRECT_INT = 6, INDIRECT_UINT = 7, INDIRECT_FLOAT = 8, MAP = 9, VECTOR = 10;
const VECTOR_INT = 11, VECTOR_KEY = 14, BOOL = 26;

/** @typedef {any} Value A number, a text, a list, a table by name, or nothing. */

/**
 * @param {Uint8Array} bytes
 * @returns {Value}
 * @throws {Error} It is damaged, or of a type that options do not have.
 */
export function read(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const width = bytes[bytes.length - 1];
  return valueAt(view, bytes.length - 2 - width, width, bytes[bytes.length - 2]);
}

/** @param {DataView} view @param {number} at @param {number} width @returns {number} */
function unsigned(view, at, width) {
  if (width === 1) return view.getUint8(at);
  if (width === 2) return view.getUint16(at, true);
  return width === 4 ? view.getUint32(at, true) : Number(view.getBigUint64(at, true));
}

/** @param {DataView} view @param {number} at @param {number} width @returns {number} */
function signed(view, at, width) {
  if (width === 1) return view.getInt8(at);
  if (width === 2) return view.getInt16(at, true);
  return width === 4 ? view.getInt32(at, true) : Number(view.getBigInt64(at, true));
}

/** @param {DataView} view @param {number} at @param {number} width @returns {number} */
function float(view, at, width) {
  if (width === 4) return view.getFloat32(at, true);
  if (width === 8) return view.getFloat64(at, true);
  throw new Error(`a float of ${width} bytes`);
}

/** @param {DataView} view @param {number} at @returns {string} */
function key(view, at) {
  let text = "";
  for (let code = view.getUint8(at); code; code = view.getUint8(++at)) {
    text += String.fromCharCode(code);
  }
  return text;
}

/**
 * @param {DataView} view
 * @param {number} at
 * @param {number} width Bytes of what is there: a value, or the offset back to one.
 * @param {number} packed Its type, and the width of what it leads to.
 * @returns {Value}
 */
function valueAt(view, at, width, packed) {
  const type = packed >> 2;
  const inner = 1 << (packed & 3);
  if (type === NULL) return null;
  if (type === INT) return signed(view, at, width);
  if (type === UINT) return unsigned(view, at, width);
  if (type === FLOAT) return float(view, at, width);
  if (type === BOOL) return unsigned(view, at, width) !== 0;
  const to = at - unsigned(view, at, width);
  if (to < 0 || to >= at) throw new Error("an offset leads out of the options");
  if (type === KEY) return key(view, to);
  if (type === INDIRECT_INT) return signed(view, to, inner);
  if (type === INDIRECT_UINT) return unsigned(view, to, inner);
  if (type === INDIRECT_FLOAT) return float(view, to, inner);
  const size = unsigned(view, to - inner, inner);
  const places = Array.from({ length: size }, (_, i) => to + i * inner);
  if (type >= VECTOR_INT && type <= VECTOR_KEY) {
    const each = type - VECTOR_INT + INT;
    return places.map((place) => valueAt(view, place, inner, each << 2));
  }
  if (type === STRING) return places.map((p) => String.fromCharCode(view.getUint8(p))).join("");
  if (type !== VECTOR && type !== MAP) throw new Error(`a value of type ${type}`);
  const values = places.map((place, i) =>
    valueAt(view, place, inner, view.getUint8(to + size * inner + i)),
  );
  if (type === VECTOR) return values;
  const keysAt = to - 3 * inner;
  const keys = keysAt - unsigned(view, keysAt, inner);
  const keyWidth = unsigned(view, to - 2 * inner, inner);
  return Object.fromEntries(
    values.map((value, i) => {
      const place = keys + i * keyWidth;
      return [key(view, place - unsigned(view, place, keyWidth)), value];
    }),
  );
}


/**
 * glTF files as one .glb in memory: buffers and pictures that are files or `data:` come inside, so
 * that nothing is ever fetched for a model, and what is wrong is told before three.js reads it.
 */
import shared from "../shared.json";
import { checkPicture } from "./pictures.js";
import { Invalid } from "./schema.js";

const MAGIC = 0x46546c67, JSON_CHUNK = 0x4e4f534a, BIN_CHUNK = 0x004e4942;
const KNOWN = ["KHR_materials_unlit", "KHR_texture_transform", "KHR_mesh_quantization"];
const MAX_NODES = 4096;

/** @typedef {import("./files.js").Files} Files */

/**
 * @param {Files} files
 * @param {string} name Of a .glb or .gltf.
 * @returns {Promise<ArrayBuffer>} A .glb with one buffer.
 * @throws {Invalid}
 */
export async function readModel(files, name) {
  if (!shared.limits.models.some((suffix) => name.toLowerCase().endsWith(suffix))) {
    throw new Invalid(name, `it is of the wrong type; ${shared.limits.models.join(", ")} are read`);
  }
  const bytes = await files.read(name);
  const { document, binary } = parse(name, bytes);
  check(name, document);
  const buffers = [];
  for (const [i, buffer] of (document.buffers ?? []).entries()) {
    const found = buffer.uri === undefined && i === 0 ? binary : null;
    const content = found ?? (await resource(files, name, buffer.uri));
    if (content.length < buffer.byteLength) throw new Invalid(name, `buffer ${i} is cut off`);
    buffers.push(content.subarray(0, buffer.byteLength));
  }
  /** @type {{ at: number, part: Uint8Array }[]} */
  const starts = [];
  let length = 0;
  const add = (/** @type {Uint8Array} */ part) => {
    starts.push({ at: length, part });
    const at = length;
    length += Math.ceil(part.length / 8) * 8;
    return at;
  };
  const places = buffers.map(add);
  for (const view of document.bufferViews ?? []) {
    if (places[view.buffer] === undefined) throw new Invalid(name, "a buffer is missing");
    if ((view.byteOffset ?? 0) + view.byteLength > buffers[view.buffer].length) {
      throw new Invalid(name, "a view leads out of its buffer");
    }
    view.byteOffset = (view.byteOffset ?? 0) + places[view.buffer];
    view.buffer = 0;
  }
  await addPictures(files, name, document, add, buffers, places);
  document.buffers = length ? [{ byteLength: length }] : [];
  if (length > shared.limits.bytes) throw new Invalid(name, "it is too large");
  const whole = new Uint8Array(length);
  for (const { at, part } of starts) whole.set(part, at);
  return pack(document, whole);
}

/** @param {string} name @param {Uint8Array} bytes @returns {{ document: any, binary: Uint8Array | null }} */
function parse(name, bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const binary = bytes.length >= 20 && view.getUint32(0, true) === MAGIC;
  try {
    if (!binary) {
      return { document: JSON.parse(new TextDecoder().decode(bytes)), binary: null };
    }
    const size = view.getUint32(12, true);
    const document = JSON.parse(new TextDecoder().decode(bytes.subarray(20, 20 + size)));
    const next = 20 + size;
    if (next + 8 > bytes.length) return { document, binary: null };
    const length = view.getUint32(next, true);
    return { document, binary: bytes.subarray(next + 8, next + 8 + length) };
  } catch {
    throw new Invalid(name, "it is no glTF; export it again");
  }
}

/** @param {string} name @param {any} document */
function check(name, document) {
  if (!String(document?.asset?.version ?? "").startsWith("2")) {
    throw new Invalid(name, "it is not glTF 2.0; export it again");
  }
  const unknown = (document.extensionsRequired ?? []).filter(
    (/** @type {string} */ each) => !KNOWN.includes(each),
  );
  if (unknown.length) throw new Invalid(name, `it needs ${unknown.join(", ")}, which is not read`);
  const nodes = document.nodes ?? [];
  if (nodes.length > MAX_NODES) throw new Invalid(name, "it has too many nodes");
  const parents = new Int32Array(nodes.length).fill(-1);
  nodes.forEach((/** @type {any} */ node, /** @type {number} */ i) => {
    for (const child of node.children ?? []) {
      if (!(child in nodes) || parents[child] >= 0) {
        throw new Invalid(name, `node ${child} is missing or has two parents`);
      }
      parents[child] = i;
    }
  });
  nodes.forEach((/** @type {any} */ _, /** @type {number} */ i) => {
    let steps = 0;
    for (let at = i; at >= 0; at = parents[at]) {
      if (++steps > nodes.length) throw new Invalid(name, "its nodes go round in a circle");
    }
  });
}

/** @param {Files} files @param {string} name @param {unknown} uri @returns {Promise<Uint8Array>} */
async function resource(files, name, uri) {
  if (typeof uri !== "string") throw new Invalid(name, "a buffer is missing");
  const inline = /^data:[^,]*;base64,/.exec(uri);
  if (inline) {
    try {
      return Uint8Array.from(atob(uri.slice(inline[0].length)), (c) => c.charCodeAt(0));
    } catch {
      throw new Invalid(name, "a buffer's text is damaged");
    }
  }
  const folder = name.includes("/") ? name.slice(0, name.lastIndexOf("/") + 1) : "";
  return files.read(folder + decodeURIComponent(uri));
}

/**
 * @param {Files} files @param {string} name @param {any} document
 * @param {(part: Uint8Array) => number} add
 * @param {Uint8Array[]} buffers @param {number[]} places
 */
async function addPictures(files, name, document, add, buffers, places) {
  for (const image of document.images ?? []) {
    if (image.bufferView !== undefined) {
      const view = document.bufferViews?.[image.bufferView];
      const which = view ? places.findLastIndex((place) => place <= view.byteOffset) : -1;
      if (which < 0) throw new Invalid(name, "a picture is missing");
      const from = view.byteOffset - places[which];
      checkPicture(name, buffers[which].subarray(from, from + view.byteLength));
      continue;
    }
    const bytes = await resource(files, name, image.uri);
    checkPicture(name, bytes);
    document.bufferViews ??= [];
    document.bufferViews.push({ buffer: 0, byteOffset: add(bytes), byteLength: bytes.length });
    image.bufferView = document.bufferViews.length - 1;
    image.mimeType = bytes[0] === 0xff ? "image/jpeg" : bytes[1] === 0x50 ? "image/png" : "image/webp";
    delete image.uri;
  }
}

/** @param {any} document @param {Uint8Array} binary @returns {ArrayBuffer} */
function pack(document, binary) {
  const text = new TextEncoder().encode(JSON.stringify(document));
  const padded = Math.ceil(text.length / 4) * 4;
  const out = new Uint8Array(20 + padded + 8 + binary.length).fill(0x20);
  const view = new DataView(out.buffer);
  const words = [MAGIC, 2, out.length, padded, JSON_CHUNK];
  words.forEach((word, i) => view.setUint32(4 * i, word, true));
  out.set(text, 20);
  view.setUint32(20 + padded, binary.length, true);
  view.setUint32(24 + padded, BIN_CHUNK, true);
  out.set(binary, 28 + padded);
  return out.buffer;
}

/**
 * The files of a filter: from the server, from a folder or a .zip of the person's own. What is
 * dropped here is read here, and sent nowhere.
 */
import { unzip } from "fflate";
import shared from "../shared.json";
import { Invalid } from "./schema.js";
import { FILE } from "./spec.js";

const { bytes: MAX_BYTES } = shared.limits;
const MAX_ALL = 8 * MAX_BYTES;
const MAX_FILES = 256;

/** @typedef {{ read(name: string): Promise<Uint8Array> }} Files */

/**
 * @param {string} name
 * @returns {string}
 * @throws {Invalid} It leads out of the filter's folder.
 */
export function inside(name) {
  const parts = name.split("/");
  if (!name || /[\\:\0]/.test(name) || name.startsWith("/") || parts.includes("..")) {
    throw new Invalid(name, "this leads out of the filter's folder; name a file inside it");
  }
  return parts.filter((part) => part && part !== ".").join("/");
}

/**
 * @param {(path: string) => Promise<Response>} get
 * @param {string} address Of the folder.
 * @returns {Files}
 */
export function filesOfServer(get, address) {
  return {
    async read(name) {
      const path = inside(name).split("/").map(encodeURIComponent).join("/");
      const answer = await get(`${address}/${path}`);
      return new Uint8Array(await answer.arrayBuffer());
    },
  };
}

/**
 * @param {Map<string, { size: number, read: () => Promise<Uint8Array> }>} all By path.
 * @returns {Files}
 * @throws {Invalid} There is no filter among them.
 */
function filesOf(all) {
  const found = [...all.keys()].filter((path) => path.split("/").at(-1) === FILE);
  found.sort((a, b) => a.split("/").length - b.split("/").length);
  if (!found.length) throw new Invalid("", `there is no ${FILE} in it; give a filter's folder`);
  const root = found[0].slice(0, -FILE.length);
  return {
    async read(name) {
      const file = all.get(root + inside(name));
      if (!file) throw new Invalid(name, "there is no such file; add it to the folder");
      if (file.size > MAX_BYTES) throw new Invalid(name, "it is too large");
      return file.read();
    },
  };
}

/**
 * @param {{ path: string, file: File }[]} given Of a folder, or one .zip.
 * @returns {Promise<Files>}
 * @throws {Invalid}
 */
export async function filesGiven(given) {
  if (given.length === 1 && /\.zip$/i.test(given[0].path)) return filesOfZip(given[0].file);
  if (given.length > MAX_FILES) {
    throw new Invalid("", `it has more than ${MAX_FILES} files; give the filter's folder alone`);
  }
  return filesOf(
    new Map(
      given.map(({ path, file }) => [
        path,
        { size: file.size, read: async () => new Uint8Array(await file.arrayBuffer()) },
      ]),
    ),
  );
}

/** @param {File} file @returns {Promise<Files>} */
async function filesOfZip(file) {
  if (file.size > MAX_ALL) throw new Invalid(file.name, "it is too large");
  const packed = new Uint8Array(await file.arrayBuffer());
  let total = 0, count = 0;
  /** @type {Record<string, Uint8Array>} */
  const entries = await new Promise((resolve, reject) => {
    const filter = (/** @type {import("fflate").UnzipFileInfo} */ { name, originalSize }) => {
      total += originalSize;
      count += 1;
      const fits = total <= MAX_ALL && originalSize <= MAX_BYTES && count <= MAX_FILES;
      return fits && !name.endsWith("/");
    };
    unzip(packed, { filter }, (error, found) =>
      error ? reject(new Invalid(file.name, `it is no .zip that can be read`)) : resolve(found),
    );
  });
  if (total > MAX_ALL || count > MAX_FILES) throw new Invalid(file.name, "it unpacks to too much");
  return filesOf(
    new Map(
      Object.entries(entries).map(([path, content]) => [
        path,
        { size: content.length, read: async () => content },
      ]),
    ),
  );
}

/**
 * @param {DataTransfer} transfer What was dropped.
 * @returns {Promise<{ path: string, file: File }[]>} Its files, those of folders with their paths.
 */
export async function filesDropped(transfer) {
  const entries = [...transfer.items]
    .filter((item) => item.kind === "file")
    .map((item) => ({ entry: item.webkitGetAsEntry?.() ?? null, file: item.getAsFile() }));
  /** @type {{ path: string, file: File }[]} */
  const found = [];
  for (const { entry, file } of entries) {
    if (entry?.isDirectory) await walk(/** @type {FileSystemDirectoryEntry} */ (entry), found);
    else if (file) found.push({ path: file.name, file });
  }
  return found;
}

/** @param {FileSystemDirectoryEntry} folder @param {{ path: string, file: File }[]} found */
async function walk(folder, found) {
  const reader = folder.createReader();
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length || found.length > MAX_FILES) return;
    for (const entry of some) {
      if (entry.isDirectory) {
        await walk(/** @type {FileSystemDirectoryEntry} */ (entry), found);
      } else {
        /** @type {File} */
        const file = await new Promise((resolve, reject) =>
          /** @type {FileSystemFileEntry} */ (entry).file(resolve, reject),
        );
        found.push({ path: entry.fullPath.replace(/^\//, ""), file });
      }
    }
  }
}

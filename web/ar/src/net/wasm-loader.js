/**
 * What LiteRT.js loads its WebAssembly with, in place of `@litertjs/wasm-utils`: that one adds a
 * script to the page, which the page's policy does not allow; here the module is in the bundle.
 */
import factory from "litert-module";

/** @type {string} */
let address = "";

/** @param {string} url Of the .wasm file. */
export function setWasmUrl(url) {
  address = url;
}

/**
 * @template T
 * @param {new (module: unknown) => T} Library
 * @returns {Promise<T>}
 */
export async function createWasmLib(Library) {
  const quiet = () => undefined;
  const module = await factory({ locateFile: () => address, print: quiet, printErr: quiet });
  return new Library(module);
}

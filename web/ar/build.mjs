// Builds the page's static files into the package: node build.mjs [--out FOLDER] [--debug]
import { createHash } from "node:crypto";
import { readFile, readdir, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { join, relative } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = fileURLToPath(new URL(".", import.meta.url));
const at = process.argv.indexOf("--out");
const out =
  at > 0 ? process.argv[at + 1] : join(here, "../../src/retinue/apps/ar/console");
const debug = process.argv.includes("--debug");

// The variant without relaxed SIMD and threads: the smallest, and every browser runs it.
const WASM = "litert_wasm_compat_internal";
const litert = join(here, "node_modules/@litertjs/core/wasm");

/** A digest of all that the bundle is made of, so that a test can tell whether it is current. */
async function digestOfSources() {
  const digest = createHash("sha256");
  const files = await readdir(join(here, "src"), { recursive: true, withFileTypes: true });
  const paths = files
    .filter((file) => file.isFile())
    .map((file) => relative(here, join(file.parentPath, file.name)));
  for (const path of [...paths, "build.mjs", "package-lock.json"].sort()) {
    digest.update(`${path}\n`).update(await readFile(join(here, path)));
  }
  return digest.digest("hex").slice(0, 16);
}

const sources = await digestOfSources();

/** Emscripten's script, which sets a global, as a module; and the console's own, by its address. */
const modules = {
  name: "modules",
  setup(bundler) {
    const filter = /^litert-module$/;
    bundler.onResolve({ filter }, ({ path }) => ({ path, namespace: "litert" }));
    bundler.onResolve({ filter: /^retinue-console$/ }, () => ({
      path: "/static/app.js",
      external: true,
    }));
    bundler.onLoad({ filter, namespace: "litert" }, async () => {
      const script = await readFile(join(litert, `${WASM}.js`), "utf8");
      return { contents: `${script}\nexport default ModuleFactory;\n` };
    });
  },
};

await build({
  entryPoints: [join(here, "src/page/main.js")],
  outfile: join(out, "ar.js"),
  bundle: true,
  format: "esm",
  target: ["es2022"],
  minify: !debug,
  sourcemap: debug ? "inline" : false,
  legalComments: "none",
  banner: { js: `// Built from ${sources} by web/ar/build.mjs; see THIRD-PARTY.txt.` },
  loader: { ".json": "json" },
  alias: {
    // Theirs puts a <script> of a given address into the page; ours has the module in the bundle.
    "@litertjs/wasm-utils": join(here, "src/net/wasm-loader.js"),
  },
  plugins: [modules],
  external: ["node:fs", "node:crypto", "node:tty", "node:path", "node:url"],
  logLevel: "warning",
  // Emscripten's script asks what kind of module it is in.
  logOverride: { "commonjs-variable-in-esm": "silent" },
});

const wasm = await readFile(join(litert, `${WASM}.wasm`));
await writeFile(join(out, "litert.wasm.gz"), gzipSync(wasm, { level: 9 }));

const parts = ["@litertjs/core", "@litertjs/wasm-utils", "three", "fflate", "smol-toml"];
const apache = await readFile(join(here, "../../LICENSE"), "utf8");
const texts = [
  "The files beside this one contain these works, unchanged but for bundling and compression.\n",
];
for (const name of parts) {
  const folder = join(here, "node_modules", name);
  const about = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const license =
    about.license === "Apache-2.0" ? apache : await readFile(join(folder, "LICENSE"), "utf8");
  texts.push(`${"=".repeat(80)}\n${name} ${about.version} (${about.license})\n\n${license}`);
}
await writeFile(join(out, "THIRD-PARTY.txt"), texts.join("\n"));

for (const name of ["ar.js", "litert.wasm.gz"]) {
  const body = await readFile(join(out, name));
  const digest = createHash("sha256").update(body).digest("hex").slice(0, 12);
  console.log(`${name} ${body.length.toLocaleString("en")} bytes ${digest}`);
}

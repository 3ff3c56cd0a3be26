// Runs a TFJS graph-model with the real TensorFlow.js on the patterns that `patterns.py` makes too.
//
//   node tfjs_run.mjs model.json out.bin [--normalise nanodet] [--shape name=1,256,256,3]...
//                     [--value name=1.0]... [--backend wasm|cpu]
//
// Writes out.bin: for each output, in the order of the sorted names, one line of JSON
// {"name", "shape"} and then its float32 values, little endian.
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";

const require = createRequire(path.join(process.cwd(), "package.json"));
const tf = require("@tensorflow/tfjs");
const [modelFile, outFile, ...rest] = process.argv.slice(2);
const options = { shape: {}, value: {}, backend: "cpu", normalise: "" };
for (let i = 0; i < rest.length; i += 2) {
  const key = rest[i].slice(2);
  if (key === "shape" || key === "value") {
    const [name, text] = rest[i + 1].split("=");
    options[key][name] = key === "shape" ? text.split(",").map(Number) : Number(text);
  } else options[key] = rest[i + 1];
}

// The same bytes as patterns.pattern(height, width, channels): integers only.
function pattern(y, x, c) {
  return ((x * (3 + c) + y * (5 + 2 * c)) ^ ((x * y) >> 4)) & 255;
}

const MEAN = [103.53, 116.28, 123.675];
const STD = [57.375, 57.12, 58.395];

function value(p, k, dtype) {
  if (dtype === "int32") return p;
  return options.normalise === "nanodet" ? (p - MEAN[k]) / STD[k] : p / 255;
}

function picture(shape, nchw, dtype) {
  const [n, h, w, c] = nchw ? [shape[0], shape[2], shape[3], shape[1]] : shape;
  const data = new Float32Array(n * h * w * c);
  for (let at = 0; at < data.length; at++) {
    const k = nchw ? Math.floor(at / (h * w)) % c : at % c;
    const cell = nchw ? at % (h * w) : Math.floor(at / c) % (h * w);
    data[at] = value(pattern(Math.floor(cell / w), cell % w, k), k, dtype);
  }
  return tf.tensor(data, shape, "float32").cast(dtype);
}

function feed(input) {
  const name = input.name.replace(/:0$/, "");
  if (name in options.value) return tf.scalar(options.value[name]);
  const shape = (options.shape[name] ?? input.shape).map((s, i) => (s < 0 && i === 0 ? 1 : s));
  const last = [1, 3, 4].includes(shape[3]);
  const image = shape.length === 4 && (last || [1, 3, 4].includes(shape[1]));
  return image ? picture(shape, !last, input.dtype) : tf.zeros(shape, input.dtype);
}

async function main() {
  if (options.backend === "wasm") {
    const wasm = require("@tensorflow/tfjs-backend-wasm");
    wasm.setWasmPaths(path.join(process.cwd(), "node_modules/@tensorflow/tfjs-backend-wasm/dist/"));
    wasm.setThreadsCount?.(1);
  }
  await tf.setBackend(options.backend);
  await tf.ready();
  const folder = path.dirname(modelFile);
  const document = JSON.parse(fs.readFileSync(modelFile, "utf8"));
  const specs = document.weightsManifest.flatMap((group) => group.weights);
  const shards = document.weightsManifest.flatMap((group) => group.paths);
  const bytes = Buffer.concat(shards.map((name) => fs.readFileSync(path.join(folder, name))));
  const weightData = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  const { modelTopology, signature, userDefinedMetadata } = document;
  const model = await tf.loadGraphModel({
    load: async () => ({ modelTopology, weightSpecs: specs, weightData, signature, userDefinedMetadata }),
  });
  const table = signature ?? userDefinedMetadata?.signature ?? {};
  const keys = Object.keys(table.outputs ?? {});
  const wanted = keys.length
    ? keys.map((key) => [key.replace(/:0$/, ""), table.outputs[key].name ?? key])
    : model.outputs.map((o) => [o.name.replace(/:0$/, ""), o.name]);
  wanted.sort((a, b) => (a[0] < b[0] ? -1 : 1));
  const feeds = Object.fromEntries(model.inputs.map((input) => [input.name, feed(input)]));
  const found = await model.executeAsync(feeds, wanted.map(([, name]) => name));
  const tensors = Array.isArray(found) ? found : [found];
  const out = fs.openSync(outFile, "w");
  for (const [i, tensor] of tensors.entries()) {
    fs.writeSync(out, JSON.stringify({ name: wanted[i][0], shape: tensor.shape }) + "\n");
    const values = Float32Array.from(await tensor.data());
    fs.writeSync(out, Buffer.from(values.buffer));
  }
  fs.closeSync(out);
  console.log(`${path.basename(modelFile)}: ${options.backend}, ${tensors.length} outputs`);
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});

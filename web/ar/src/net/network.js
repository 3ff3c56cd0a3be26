/** A .tflite network that is run by LiteRT in this page, on the CPU. */
import { Environment, Tensor, loadAndCompile, loadLiteRt } from "@litertjs/core";
import { Trouble } from "../trouble.js";
import { NAMES, customOperator } from "./custom.js";
import { cut } from "./tflite.js";
import { setWasmUrl } from "./wasm-loader.js";

/** @typedef {import("./custom.js").Compute} Compute */
/** @typedef {import("@litertjs/core").CompiledModel} CompiledModel */
/**
 * @typedef {{ compiled: CompiledModel, inputs: number[], outputs: number[] } |
 *   { compute: Compute, inputs: number[], outputs: number[] }} Step
 */

// Without this it asks for a WebGPU device first, warns where there is none, and keeps it busy.
const create = Environment.create;
Environment.create = () => create({ webGpuDevice: null });

/** @type {Promise<unknown> | null} */
let started = null;

/**
 * Load LiteRT; once, and again where that failed.
 *
 * @param {string} url Of its .wasm file.
 * @throws {Trouble}
 */
export async function startLiteRt(url) {
  if (typeof WebAssembly === "undefined") {
    throw new Trouble(
      "This browser runs no WebAssembly, which finds the faces. Allow it in the browser's settings, or use another browser.",
    );
  }
  setWasmUrl(url);
  started ??= loadLiteRt(url.replace(/\.wasm$/, ".js"));
  try {
    await started;
  } catch (cause) {
    started = null;
    throw new Trouble(
      `What finds the faces (${url}) cannot be loaded. See that the server runs and Retinue is installed whole, then try again.`,
      { cause },
    );
  }
}

export class Network {
  /**
   * @param {Step[]} steps
   * @param {import("./tflite.js").Plan} plan
   */
  constructor(steps, plan) {
    this.steps = steps;
    this.plan = plan;
  }

  /**
   * @param {Uint8Array} file Of a network with one input.
   * @returns {Promise<Network>}
   * @throws {Error} LiteRT cannot run it.
   */
  static async load(file) {
    const plan = cut(file, NAMES);
    /** @type {Step[]} */
    const steps = [];
    for (const stage of plan.stages) {
      if (stage.kind === "custom") {
        const { custom, options, inputs, outputs } = stage.operator;
        steps.push({ compute: customOperator(custom, options), inputs, outputs });
      } else {
        const compiled = await loadAndCompile(stage.bytes, { accelerator: "wasm" });
        steps.push({ compiled, inputs: stage.inputs, outputs: stage.outputs });
      }
    }
    return new Network(steps, plan);
  }

  /** @returns {number[]} The shape of its input. */
  get shape() {
    return this.plan.tensors[this.plan.inputs[0]].shape;
  }

  /**
   * @param {Float32Array} input
   * @returns {Promise<Map<string, Float32Array>>} Outputs, by their names.
   */
  async run(input) {
    const { tensors } = this.plan;
    /** @type {Map<number, Float32Array>} */
    const values = new Map([[this.plan.inputs[0], input]]);
    const get = (/** @type {number} */ i) => /** @type {Float32Array} */ (values.get(i));
    for (const step of this.steps) {
      if ("compute" in step) {
        const given = step.inputs.map((i) => ({ data: get(i), shape: tensors[i].shape }));
        values.set(step.outputs[0], step.compute(given, tensors[step.outputs[0]].shape));
        continue;
      }
      const given = step.inputs.map((i) => new Tensor(get(i), tensors[i].shape));
      const made = await step.compiled.run(given);
      given.forEach((tensor) => tensor.delete());
      made.forEach((tensor, i) => {
        values.set(step.outputs[i], /** @type {Float32Array} */ (tensor.toTypedArray()));
        tensor.delete();
      });
    }
    return new Map(this.plan.outputs.map((i) => [tensors[i].name, get(i)]));
  }
}

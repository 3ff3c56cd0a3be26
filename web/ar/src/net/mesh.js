/** Face Mesh: 468 landmarks, or 478 with attention; see `retinue.models.face_mesh`. */
import shared from "../shared.json";
import { COUNT } from "../face/canonical.js";

const IRIS = 5;
const iris = (/** @type {number} */ side) =>
  Array.from({ length: IRIS }, (_, i) => COUNT + side * IRIS + i);
const { parts } = shared;
/** Outputs of the attention model, the landmarks that they give again, and whose depth these get.
 * @type {[string, number[], number[] | null][]} */
const PARTS = [
  ["output_lips", parts.LIPS, null],
  ["output_left_eye", parts.LEFT_EYE, null],
  ["output_right_eye", parts.RIGHT_EYE, null],
  ["output_left_iris", iris(0), parts.LEFT_CONTOUR],
  ["output_right_iris", iris(1), parts.RIGHT_CONTOUR],
];

export class FaceMesh {
  /** @param {import("./network.js").Network} network */
  constructor(network) {
    this.network = network;
    this.size = network.shape[1];
    this.input = new Float32Array(3 * this.size * this.size);
  }

  /**
   * @param {Uint8Array} crop RGBA of `size` a side.
   * @returns {Promise<{ landmarks: Float32Array, score: number }>} (N, 3) in the crop's pixels.
   */
  async read(crop) {
    const { input } = this;
    for (let i = 0, j = 0; i < input.length; i++, j++) {
      if (j % 4 === 3) j++;
      input[i] = crop[j] / 255;
    }
    const outputs = await this.network.run(input);
    const all = [...outputs.values()];
    const mesh = /** @type {Float32Array} */ (all.find((each) => each.length === 3 * COUNT));
    const flag = /** @type {Float32Array} */ (all.find((each) => each.length === 1));
    const score = 1 / (1 + Math.exp(-flag[0]));
    if (!outputs.has(PARTS[0][0])) return { landmarks: mesh, score };
    const landmarks = new Float32Array(mesh.length + 3 * 2 * IRIS);
    landmarks.set(mesh);
    for (const [name, places, around] of PARTS) {
      const found = /** @type {Float32Array} */ (outputs.get(name));
      const depth = around
        ? around.reduce((sum, i) => sum + mesh[3 * i + 2], 0) / around.length
        : 0;
      places.forEach((place, i) => {
        landmarks[3 * place] = found[2 * i];
        landmarks[3 * place + 1] = found[2 * i + 1];
        if (around) landmarks[3 * place + 2] = depth;
      });
    }
    return { landmarks, score };
  }
}

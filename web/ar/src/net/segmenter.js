/** Tells people from the background; see `retinue.models.segmentation`. */
export class Segmenter {
  /** @param {import("./network.js").Network} network */
  constructor(network) {
    this.network = network;
    this.size = network.shape[1];
    this.input = new Float32Array(3 * this.size * this.size);
  }

  /**
   * @param {Uint8Array} pixels RGBA, the whole frame stretched to `size` a side.
   * @returns {Promise<Float32Array>} (size, size) in [0, 1], 1 for people.
   */
  async mask(pixels) {
    const { input } = this;
    for (let i = 0, j = 0; i < input.length; i++, j++) {
      if (j % 4 === 3) j++;
      input[i] = pixels[j] / 255;
    }
    const [mask] = (await this.network.run(input)).values();
    return mask;
  }
}

/**
 * BlazeFace: faces in a whole frame; see `retinue.models.blazeface`.
 *
 * @typedef {{ x1: number, y1: number, x2: number, y2: number, score: number, points: number[][] }}
 *   Box Pixels of the frame; points are the eye on the picture's left, the other one, nose, mouth
 *   and the tragions.
 */
import shared from "../shared.json";

const { MIN_SCORE, MAX_CANDIDATES } = shared.detector;
const FLOOR = Math.log(MIN_SCORE / (1 - MIN_SCORE));
const NMS_IOU = 0.3;

/**
 * @param {number} size Of the network's input.
 * @param {number[]} strides One a layer; equal ones that follow each other share a grid.
 * @param {number} each Anchors a layer and cell.
 * @returns {Float32Array} (A, 2): their centres, in pixels.
 */
export function anchorsOf(size, strides, each) {
  const out = [];
  for (let i = 0; i < strides.length; ) {
    let layers = 1;
    while (strides[i + layers] === strides[i]) layers++;
    const cells = Math.ceil(size / strides[i]);
    for (let cell = 0; cell < cells * cells; cell++) {
      const x = (((cell % cells) + 0.5) / cells) * size;
      const y = ((Math.floor(cell / cells) + 0.5) / cells) * size;
      for (let k = 0; k < layers * each; k++) out.push(x, y);
    }
    i += layers;
  }
  return Float32Array.from(out);
}

/** @typedef {{ values: Float64Array, score: number }} Candidate x1 y1 x2 y2, then the points. */

/**
 * MediaPipe's weighted non-maximum suppression.
 *
 * @param {Candidate[]} candidates Best first.
 * @returns {Candidate[]}
 */
export function blend(candidates) {
  const found = [];
  let left = candidates;
  while (left.length) {
    const [best] = left;
    const group = left.filter((other) => other === best || overlap(best, other) > NMS_IOU);
    left = left.filter((other) => !group.includes(other));
    const total = group.reduce((sum, { score }) => sum + score, 0);
    const values = best.values.map((_, i) =>
      group.reduce((sum, each) => sum + (each.score / total) * each.values[i], 0),
    );
    found.push({ values, score: best.score });
  }
  return found;
}

/** @param {Candidate} one @param {Candidate} other @returns {number} Intersection over union. */
function overlap({ values: a }, { values: b }) {
  const area = (/** @type {Float64Array} */ v) =>
    Math.max(v[2] - v[0], 0) * Math.max(v[3] - v[1], 0);
  const wide = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const high = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  const both = Math.max(wide, 0) * Math.max(high, 0);
  return both / Math.max(area(a) + area(b) - both, 1e-12);
}

export class BlazeFace {
  /**
   * @param {import("./network.js").Network} network
   * @param {number[]} strides
   */
  constructor(network, strides) {
    this.network = network;
    this.size = network.shape[1];
    const cells = anchorsOf(this.size, strides, 1).length / 2;
    this.strides = strides;
    this.cells = cells;
    this.input = new Float32Array(3 * this.size * this.size);
    /** @type {Float32Array | null} */
    this.anchors = null;
  }

  /** @param {import("../face/tracker.js").FrameReader} frame @returns {Promise<Box[]>} */
  async find(frame) {
    const { size, input } = this;
    const pixels = frame.letterbox(size);
    for (let i = 0, j = 0; i < input.length; i++, j++) {
      if (j % 4 === 3) j++;
      input[i] = pixels[j] / 127.5 - 1;
    }
    const outputs = [...(await this.network.run(input)).values()];
    const [few, many] = outputs.sort((a, b) => a.length - b.length);
    this.anchors ??= anchorsOf(size, this.strides, few.length / this.cells);
    const best = blend(this.#candidates(few, many, this.anchors));
    const scale = Math.max(frame.width, frame.height) / size;
    // The picture lies in the middle of the square.
    const across = (size - frame.width / scale) / 2, down = (size - frame.height / scale) / 2;
    return best.map(({ values, score }) => {
      const v = values.map((value, i) => (value - (i % 2 ? down : across)) * scale);
      const points = [];
      for (let i = 4; i < v.length; i += 2) points.push([v[i], v[i + 1]]);
      return { x1: v[0], y1: v[1], x2: v[2], y2: v[3], score, points };
    });
  }

  /** @param {Float32Array} scores @param {Float32Array} values @param {Float32Array} anchors */
  #candidates(scores, values, anchors) {
    const each = values.length / scores.length;
    /** @type {Candidate[]} */
    const found = [];
    scores.forEach((logit, i) => {
      if (logit < FLOOR) return;
      const v = Float64Array.from(values.subarray(i * each, (i + 1) * each));
      const x = v[0] + anchors[2 * i], y = v[1] + anchors[2 * i + 1];
      const wide = v[2] / 2, high = v[3] / 2;
      for (let k = 4; k < each; k += 2) {
        v[k] += anchors[2 * i];
        v[k + 1] += anchors[2 * i + 1];
      }
      v.set([x - wide, y - high, x + wide, y + high]);
      found.push({ values: v, score: 1 / (1 + Math.exp(-logit)) });
    });
    return found.sort((a, b) => b.score - a.score).slice(0, MAX_CANDIDATES);
  }
}

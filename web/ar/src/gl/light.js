/** How light the skin is around each vertex; see `skin_light` in the program's face paint. */
import shared from "../shared.json";
import { COUNT } from "../face/canonical.js";

const { CELLS, DARKEST, LIGHTEST } = shared.paint;
const SIGMA = CELLS / 14;

/**
 * @param {import("./canvas.js").Canvas} canvas With a frame.
 * @param {ArrayLike<number>} landmarks (N, 3)
 * @returns {Float32Array} (468,): 1 for the face's mean.
 */
export function skinLight(canvas, landmarks) {
  const levels = new Float32Array(COUNT).fill(1);
  const rect = canvas.around(Array.from(landmarks).slice(0, 3 * COUNT), 0, 3);
  if (!rect || rect.width < 4 || rect.height < 4) return levels;
  const pixels = canvas.part(rect, CELLS);
  const gray = new Float32Array(CELLS * CELLS);
  for (let i = 0; i < gray.length; i++) {
    gray[i] = 0.299 * pixels[4 * i] + 0.587 * pixels[4 * i + 1] + 0.114 * pixels[4 * i + 2];
  }
  const smooth = blurred(gray, CELLS);
  const cell = (/** @type {number} */ share) =>
    Math.min(Math.max(Math.round(share * CELLS - 0.5), 0), CELLS - 1);
  let mean = 0;
  for (let i = 0; i < COUNT; i++) {
    const column = cell((landmarks[3 * i] - rect.x) / rect.width);
    const row = cell((landmarks[3 * i + 1] - rect.y) / rect.height);
    levels[i] = smooth[row * CELLS + column];
    mean += levels[i] / COUNT;
  }
  return levels.map((value) => Math.min(Math.max(value / Math.max(mean, 1), DARKEST), LIGHTEST));
}

/** @param {Float32Array} plane @param {number} size @returns {Float32Array} */
function blurred(plane, size) {
  const reach = Math.ceil(3 * SIGMA);
  const weights = Array.from({ length: reach + 1 }, (_, i) => Math.exp((-i * i) / (2 * SIGMA ** 2)));
  let from = plane;
  for (const [step, next] of [[1, size], [size, 1]]) {
    const to = new Float32Array(plane.length);
    for (let row = 0; row < size; row++) {
      for (let i = 0; i < size; i++) {
        let sum = 0, all = 0;
        for (let k = -reach; k <= reach; k++) {
          const at = Math.min(Math.max(i + k, 0), size - 1);
          const share = weights[Math.abs(k)];
          sum += share * from[row * next + at * step];
          all += share;
        }
        to[row * next + i * step] = sum / all;
      }
    }
    from = to;
  }
  return from;
}

/**
 * The custom operators by which MediaPipe's networks look at a part of a face again: version 2 of
 * each, as in MediaPipe 0.10 (`util/tflite/operations`, Apache-2.0).
 *
 * @typedef {{ data: Float32Array, shape: number[] }} Array_
 * @typedef {(inputs: Array_[], shape: number[]) => Float32Array} Compute Of the output's shape.
 */
import { read } from "./flex.js";

/** @type {Record<string, (options: Uint8Array) => Compute>} */
const MAKERS = {
  Landmarks2TransformMatrix: landmarksToTransform,
  TransformTensorBilinear: () => transformTensor,
  TransformLandmarks: () => transformLandmarks,
};

export const NAMES = Object.keys(MAKERS);

/**
 * @param {string} name One of `NAMES`.
 * @param {Uint8Array} options As the file has them.
 * @returns {Compute}
 */
export function customOperator(name, options) {
  return MAKERS[name](options);
}

/**
 * (1, L, 3) -> (1, 4, 4): the box around some landmarks, turned so that the line between two of
 * them has a wanted angle, scaled; from a part's pixels to the feature map's.
 *
 * @param {Uint8Array} bytes
 * @returns {Compute}
 */
function landmarksToTransform(bytes) {
  const options = /** @type {Record<string, number>} */ (read(bytes));
  const subset = /** @type {number[]} */ (/** @type {unknown} */ (options.subset_idxs)).flat();
  const { output_width: width, output_height: height, scale_x: across, scale_y: down } = options;
  const { left_rotation_idx: left, right_rotation_idx: right } = options;
  return ([{ data: p }]) => {
    const line = Math.atan2(p[3 * right + 1] - p[3 * left + 1], p[3 * right] - p[3 * left]);
    const angle = options.target_rotation_radians - line;
    const c = Math.cos(angle), s = Math.sin(angle);
    let [x1, y1, x2, y2] = [Infinity, Infinity, -Infinity, -Infinity];
    for (const i of subset) {
      const x = c * p[3 * i] - s * p[3 * i + 1];
      const y = s * p[3 * i] + c * p[3 * i + 1];
      x1 = Math.min(x1, x); x2 = Math.max(x2, x);
      y1 = Math.min(y1, y); y2 = Math.max(y2, y);
    }
    const mx = (x1 + x2) / 2, my = (y1 + y2) / 2;
    const sx = ((x2 - x1) * across) / width, sy = ((y2 - y1) * down) / height;
    // Shift to the middle, turned back; scale; from the part's middle.
    const a = c * sx, b = s * sy, d = -s * sx, e = c * sy;
    const x = c * mx + s * my - (a * width + b * height) / 2;
    const y = -s * mx + c * my - (d * width + e * height) / 2;
    return Float32Array.of(a, b, 0, x, d, e, 0, y, 0, 0, 1, 0, 0, 0, 0, 1);
  };
}

/** (1, H, W, C) and a transform -> (1, h, w, C), bilinear; zero where it leads outside.
 * @type {Compute} */
function transformTensor([{ data, shape }, { data: m }], [, height, width, channels]) {
  const [, rows, columns] = shape;
  const out = new Float32Array(height * width * channels);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const u = column + 0.5, v = row + 0.5;
      const x = m[0] * u + m[1] * v + m[3] - 0.5;
      const y = m[4] * u + m[5] * v + m[7] - 0.5;
      if (!(x >= 0 && y >= 0 && x <= columns - 1 && y <= rows - 1)) continue;
      const x0 = Math.min(Math.floor(x), columns - 2), y0 = Math.min(Math.floor(y), rows - 2);
      const fx = x - x0, fy = y - y0;
      const at = (y0 * columns + x0) * channels, below = at + columns * channels;
      const to = (row * width + column) * channels;
      for (let i = 0; i < channels; i++) {
        const top = data[at + i] + fx * (data[at + channels + i] - data[at + i]);
        const bottom = data[below + i] + fx * (data[below + channels + i] - data[below + i]);
        out[to + i] = top + fy * (bottom - top);
      }
    }
  }
  return out;
}

/** (1, L, 2) and a transform -> (1, L, 2). @type {Compute} */
function transformLandmarks([{ data: points }, { data: m }]) {
  const out = new Float32Array(points.length);
  for (let i = 0; i < points.length; i += 2) {
    const x = points[i], y = points[i + 1];
    out[i] = m[0] * x + m[1] * y + m[3];
    out[i + 1] = m[4] * x + m[5] * y + m[7];
  }
  return out;
}

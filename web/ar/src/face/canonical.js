/** The canonical face and what follows from it; see `retinue.apps.ar.face.canonical`. */
import shared from "../shared.json";
import { solve } from "./linear.js";

const { canonical } = shared;

export const COUNT = 468;
/** (468, 3), centimetres: x to the picture's right, y up, z out of the face. */
export const VERTICES = Float64Array.from(canonical.vertices);
/** (468, 2), origin at the texture's top left. */
export const UV = Float32Array.from(canonical.uv);
/** (898, 3), counter-clockwise seen from the front. */
export const TRIANGLES = Uint16Array.from(canonical.triangles);
/** (33,): vertices that expressions hardly move. */
export const BASIS = canonical.basis;
/** (33,): how much each of them counts. */
export const BASIS_WEIGHTS = Float64Array.from(canonical.weights);
/** Of the outer corners of the eyes. */
export const EYE_DISTANCE_CM = apart(33, 263);

/** (468, 3): outwards. */
export const NORMALS = normals();
/** (468,): the vertex on the other side of the face; itself on the middle line. */
export const MIRROR = mirror();
/** By iris landmark from 468 on, the corners of its eye. */
export const IRIS_CORNERS = [0, 1].flatMap((side) =>
  Array.from({ length: 5 }, () => (side ? [263, 362] : [33, 133])),
);

/** @param {number} a @param {number} b @returns {number} */
function apart(a, b) {
  const v = VERTICES;
  return Math.hypot(v[3 * a] - v[3 * b], v[3 * a + 1] - v[3 * b + 1], v[3 * a + 2] - v[3 * b + 2]);
}

function normals() {
  const v = VERTICES;
  const summed = new Float64Array(v.length);
  for (let i = 0; i < TRIANGLES.length; i += 3) {
    const [a, b, c] = [3 * TRIANGLES[i], 3 * TRIANGLES[i + 1], 3 * TRIANGLES[i + 2]];
    const [ux, uy, uz] = [v[b] - v[a], v[b + 1] - v[a + 1], v[b + 2] - v[a + 2]];
    const [wx, wy, wz] = [v[c] - v[a], v[c + 1] - v[a + 1], v[c + 2] - v[a + 2]];
    const across = [uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx];
    for (const corner of [a, b, c]) across.forEach((value, k) => (summed[corner + k] += value));
  }
  for (let i = 0; i < summed.length; i += 3) {
    const length = Math.hypot(summed[i], summed[i + 1], summed[i + 2]);
    for (let k = 0; k < 3; k++) summed[i + k] /= length;
  }
  return summed;
}

function mirror() {
  const v = VERTICES;
  return Array.from({ length: COUNT }, (_, i) => {
    let best = 0, least = Infinity;
    for (let j = 0; j < COUNT; j++) {
      const x = v[3 * i] + v[3 * j], y = v[3 * i + 1] - v[3 * j + 1];
      const z = v[3 * i + 2] - v[3 * j + 2];
      const away = x * x + y * y + z * z;
      if (away < least) [best, least] = [j, away];
    }
    return best;
  });
}

/**
 * The matrix that takes points to the affine map (rows: three axes, then the shift) that brings
 * canonical vertices to them with the least weighted squares.
 *
 * @param {number[]} indices (K,) of vertices.
 * @param {ArrayLike<number>} weights (K,)
 * @returns {Float64Array} (4, K)
 */
export function affineFit(indices, weights) {
  const known = indices.map((i) => [VERTICES[3 * i], VERTICES[3 * i + 1], VERTICES[3 * i + 2], 1]);
  const normal = new Float64Array(16);
  known.forEach((row, k) => {
    for (let a = 0; a < 4; a++) {
      for (let b = 0; b < 4; b++) normal[4 * a + b] += weights[k] * row[a] * row[b];
    }
  });
  const out = new Float64Array(4 * indices.length);
  known.forEach((row, k) => {
    const column = solve(normal, Float64Array.from(row, (value) => value * weights[k]), 4);
    column.forEach((value, a) => (out[a * indices.length + k] = value));
  });
  return out;
}

/**
 * @param {Float64Array} fit (4, K) of `affineFit`.
 * @param {ArrayLike<number>} points (K, 3)
 * @returns {Float64Array} (4, 3)
 */
export function affineOf(fit, points) {
  const count = fit.length / 4;
  const out = new Float64Array(12);
  for (let a = 0; a < 4; a++) {
    for (let k = 0; k < count; k++) {
      const share = fit[a * count + k];
      for (let c = 0; c < 3; c++) out[3 * a + c] += share * points[3 * k + c];
    }
  }
  return out;
}

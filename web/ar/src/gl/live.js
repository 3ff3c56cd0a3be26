/**
 * The live face in space and in the picture: what effects share; see
 * `retinue.apps.ar.effects.live`.
 *
 * @typedef {import("../face/tracker.js").Face} Face
 * @typedef {import("../face/camera.js").Camera} Camera
 */
import { COUNT, IRIS_CORNERS, MIRROR, NORMALS, VERTICES } from "../face/canonical.js";

export const NEAREST = 1;
const FAR_AWAY = 1e5;

/** @param {ArrayLike<number>} p (N, 3) @returns {number} Between the outer corners of the eyes. */
export function eyeDistance(p) {
  return Math.hypot(p[99] - p[789], p[100] - p[790], p[101] - p[791]);
}

/** @param {Face} face Whether it can be drawn on. */
export function usable({ landmarks: p, opacity, pose }) {
  if (!(opacity > 0) || !(pose.translation[2] > NEAREST)) return false;
  for (let i = 0; i < p.length; i++) {
    if (!Number.isFinite(p[i]) || (i % 3 < 2 && Math.abs(p[i]) > FAR_AWAY)) return false;
  }
  return eyeDistance(p) > 1;
}

/**
 * @param {Face} face @param {Camera} camera
 * @returns {Float32Array} (N, 3) landmarks in camera space: seen where they are in the picture, as
 *   deep as the canonical head has them.
 */
export function inSpace({ landmarks: p, pose }, camera) {
  const { rotation: r, translation: t } = pose;
  const out = new Float32Array(p.length);
  const depth = (/** @type {number} */ i) =>
    r[6] * VERTICES[3 * i] + r[7] * VERTICES[3 * i + 1] + r[8] * VERTICES[3 * i + 2] + t[2];
  for (let i = 0; i < p.length / 3; i++) {
    const corners = i < COUNT ? [i] : IRIS_CORNERS[i - COUNT];
    const mean = corners.reduce((sum, corner) => sum + depth(corner), 0) / corners.length;
    const z = Math.max(mean, NEAREST);
    out[3 * i] = ((p[3 * i] - camera.x) / camera.focal) * z;
    out[3 * i + 1] = ((p[3 * i + 1] - camera.y) / camera.focal) * z;
    out[3 * i + 2] = z;
  }
  return out;
}

/**
 * @param {Face} face @param {number} vertex
 * @returns {number} How far what lies there is to be shown, in [0, 1]: it goes softly.
 */
export function turnedToUs({ pose: { rotation: r, translation: t } }, vertex, low = 0.05, high = 0.35) {
  let dot = 0, square = 0;
  for (let row = 0; row < 3; row++) {
    let place = t[row], normal = 0;
    for (let k = 0; k < 3; k++) {
      place += r[3 * row + k] * VERTICES[3 * vertex + k];
      normal += r[3 * row + k] * NORMALS[3 * vertex + k];
    }
    dot -= place * normal;
    square += place * place;
  }
  const facing = dot / Math.sqrt(square);
  const share = Math.min(1, Math.max(0, (facing - low) / (high - low)));
  return share * share * (3 - 2 * share);
}

/** @param {Face} face @param {number} side @returns {number} See `effects.live.eye_shown`. */
export function eyeShown(face, side) {
  return turnedToUs(face, [130, 359][side], 0.1, 0.35);
}

/** @param {Face} face @returns {{ along: number[], up: number[] }} Unit, in the picture. */
export function axes({ pose: { rotation: r } }) {
  const length = Math.hypot(r[1], r[4]);
  const up = length > 1e-6 ? [r[1] / length, r[4] / length] : [0, -1];
  return { along: [-up[1], up[0]], up };
}

/** @param {ArrayLike<number>} p (N, 3) @param {number[]} at @returns {[number, number]} Middle. */
export function middle(p, at) {
  const known = at.flatMap((i) => (3 * i < p.length ? [i] : IRIS_CORNERS[i - COUNT]));
  const mean = (/** @type {number} */ axis) =>
    known.reduce((sum, i) => sum + p[3 * i + axis], 0) / known.length;
  return [mean(0), mean(1)];
}

/**
 * @param {number[]} ring Of the eye on the picture's left. @param {number} side 1 for the other.
 * @returns {number[]}
 */
export function onSide(ring, side) {
  return side ? ring.map((i) => MIRROR[i]) : ring;
}

/** @typedef {[number, number][]} Points */

/** @param {ArrayLike<number>} p (N, 3) @param {number[]} indices @returns {Points} */
export function points(p, indices) {
  return indices.map((i) => [p[3 * i], p[3 * i + 1]]);
}

/**
 * @param {Points} given @param {boolean} closed @param {number} steps Pieces between two points.
 * @returns {Points} A smooth curve through them (Catmull-Rom).
 */
export function curve(given, closed = false, steps = 4) {
  const n = given.length;
  const end = (/** @type {number} */ a, /** @type {number} */ b) => /** @type {[number, number]} */ (
    [2 * given[a][0] - given[b][0], 2 * given[a][1] - given[b][1]]
  );
  const whole = closed
    ? [given[n - 1], ...given, given[0], given[1]]
    : [end(0, 1), ...given, end(n - 1, n - 2)];
  /** @type {Points} */
  const out = [];
  for (let i = 0; i + 3 < whole.length; i++) {
    const [a, b, c, d] = whole.slice(i, i + 4);
    for (let step = 0; step < steps; step++) {
      const t = step / steps;
      const at = (/** @type {0 | 1} */ k) =>
        b[k] +
        0.5 * t * (c[k] - a[k] + t * (2 * a[k] - 5 * b[k] + 4 * c[k] - d[k] +
          t * (3 * (b[k] - c[k]) + d[k] - a[k])));
      out.push([at(0), at(1)]);
    }
  }
  if (!closed) out.push(given[n - 1]);
  return out;
}

/** @param {Points} given @returns {Points} Their convex hull (A. Andrew's chains). */
export function hull(given) {
  const sorted = [...given].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const chain = (/** @type {Points} */ of) => {
    /** @type {Points} */
    const out = [];
    for (const p of of) {
      for (;;) {
        const [b, a] = [out.at(-1), out.at(-2)];
        if (!a || !b) break;
        if ((b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0]) > 0) break;
        out.pop();
      }
      out.push(p);
    }
    return out.slice(0, -1);
  };
  return [...chain(sorted), ...chain(sorted.reverse())];
}

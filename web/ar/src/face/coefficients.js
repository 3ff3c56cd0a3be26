/**
 * What a face does, in numbers from 0 to 1, by geometry alone; see
 * `retinue.apps.ar.face.coefficients`.
 *
 * @typedef {Record<string, number>} Coefficients "mouth_open", "smile", "blink_left",
 *   "blink_right" (the subject's), "brow_raise"; "yaw", "pitch" and "roll" in degrees.
 */
import shared from "../shared.json";
import { BASIS, BASIS_WEIGHTS, VERTICES, affineFit, affineOf } from "./canonical.js";
import { invert } from "./linear.js";
import { angles } from "./pose.js";
import { localise } from "./smoothing.js";

const settings = shared.coefficients;
const TO_AFFINE = affineFit(BASIS, BASIS_WEIGHTS);

/**
 * @param {ArrayLike<number>} landmarks (N, 3), pixels.
 * @param {import("./pose.js").Pose} pose
 * @returns {Coefficients}
 */
export function coefficients(landmarks, pose) {
  const points = brought(landmarks, Math.hypot(...pose.translation));
  const lids = (/** @type {number[][]} */ pairs, /** @type {number[][]} */ corners) =>
    opening(points, pairs) / Math.max(opening(points, corners), settings.TINY);
  const span = settings.LIDS_OPEN - settings.LIDS_CLOSED;
  const blink = (/** @type {number} */ open) => (settings.LIDS_OPEN - open) / span;
  const brows = browHeight(points) - settings.CANONICAL_BROWS - settings.BROW_REST;
  const measures = {
    mouth_open: (opening(points, settings.INNER_LIPS) - settings.MOUTH_REST) / settings.MOUTH_RANGE,
    smile: smile(points) - settings.CANONICAL_SMILE,
    blink_left: blink(lids(settings.LEFT_LIDS, settings.LEFT_CORNERS)),
    blink_right: blink(lids(settings.RIGHT_LIDS, settings.RIGHT_CORNERS)),
    brow_raise: brows / settings.BROW_RANGE,
  };
  const found = Object.entries(measures).map(([name, value]) => [
    name,
    Math.min(Math.max(value, 0), 1),
  ]);
  return { ...Object.fromEntries(found), ...angles(pose) };
}

/**
 * @param {ArrayLike<number>} landmarks
 * @param {number} distance Centimetres to the face: what is nearer looks larger.
 * @returns {ArrayLike<number>} (N, 3) in the canonical face's coordinates.
 */
function brought(landmarks, distance) {
  const points = Float64Array.from(landmarks);
  const known = () => BASIS.flatMap((i) => [points[3 * i], points[3 * i + 1], points[3 * i + 2]]);
  let affine = affineOf(TO_AFFINE, known());
  const scale = Math.cbrt(Math.abs(invert(affine).determinant));
  if (!(scale > 0) || !(distance > 0)) return VERTICES;
  for (let i = 0; i < points.length; i += 3) {
    for (let c = 0; c < 3; c++) points[i + c] -= affine[9 + c];
    const nearer = 1 + points[i + 2] / (scale * distance);
    points[i] *= nearer;
    points[i + 1] *= nearer;
  }
  affine = affineOf(TO_AFFINE, known());
  return localise(points, affine, invert(affine).inverse);
}

/** @param {ArrayLike<number>} p @param {number[][]} pairs @returns {number} Mean distance. */
function opening(p, pairs) {
  const apart = pairs.map(([a, b]) =>
    Math.hypot(p[3 * a] - p[3 * b], p[3 * a + 1] - p[3 * b + 1], p[3 * a + 2] - p[3 * b + 2]),
  );
  return apart.reduce((sum, value) => sum + value, 0) / pairs.length;
}

/** @param {ArrayLike<number>} p How wide the mouth is, and how far its corners are up. */
function smile(p) {
  const [left, right, upper, lower] = settings.MOUTH.map((i) => 3 * i);
  const lift = (p[left + 1] + p[right + 1]) / 2 - 0.75 * p[upper + 1] - 0.25 * p[lower + 1];
  return ((p[right] - p[left]) / settings.WIDTH_RANGE + lift / settings.LIFT_RANGE) / 2;
}

/** @param {ArrayLike<number>} p */
function browHeight(p) {
  const height = (/** @type {number[]} */ of) =>
    of.reduce((sum, i) => sum + p[3 * i + 1], 0) / of.length;
  return height(settings.BROWS) - height(settings.EYES);
}

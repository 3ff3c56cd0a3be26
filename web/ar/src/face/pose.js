/**
 * Where a head is, from its landmarks: the same least squares as `retinue.apps.ar.face.pose`, by
 * Levenberg and Marquardt's method. It starts at the last frame's pose, else at that of the points
 * with the network's own depths taken for a picture without perspective; the pose that it ends in
 * is that of the program, which starts at SQPNP's answer too.
 *
 * @typedef {import("./camera.js").Camera} Camera
 * @typedef {{ rotation: Float64Array, translation: number[], error: number }} Pose
 *   From canonical to camera coordinates, centimetres; the error is in pixels.
 * @typedef {{ cost: number, rotation: Float64Array, translation: number[] }} Found
 */
import shared from "../shared.json";
import { BASIS, BASIS_WEIGHTS, VERTICES } from "./canonical.js";
import {
  apply, applyTransposed, multiply, nearestRotation, rotation as turnBy, solve as solveSystem,
} from "./linear.js";

const { DEPTH_WEIGHT, MAX_ITERATIONS, SMALL_STEP, JUMP, MIN_DEPTH, MIN_SIZE } = shared.pose;
const COUNT = BASIS.length;
const TOTAL = BASIS_WEIGHTS.reduce((sum, weight) => sum + weight, 0);
const WEIGHTS = BASIS_WEIGHTS.map((weight) => weight / TOTAL);
const CENTRE = [0, 1, 2].map((axis) =>
  BASIS.reduce((sum, vertex, k) => sum + WEIGHTS[k] * VERTICES[3 * vertex + axis], 0),
);
const CENTRED = Float64Array.from({ length: 3 * COUNT }, (_, i) => {
  const axis = i % 3;
  return VERTICES[3 * BASIS[(i - axis) / 3] + axis] - CENTRE[axis];
});
const ROOTS = WEIGHTS.map(Math.sqrt);
const DEPTH_ROOT = Math.sqrt(DEPTH_WEIGHT);

/**
 * @param {ArrayLike<number>} landmarks (N, 3), N >= 468, pixels; z smaller where nearer.
 * @param {Camera} camera
 * @param {Pose | null} guess The last frame's.
 * @returns {Pose | null} None where the landmarks are no face's.
 */
export function solve(landmarks, camera, guess = null) {
  const problem = problemOf(landmarks, camera);
  if (!problem) return null;
  if (guess) {
    const found = refine(problem, guess.rotation, guess.translation);
    if (found.cost < (JUMP * problem.size) ** 2 && agrees(problem, found.rotation)) {
      return poseOf(problem, found);
    }
  }
  const start = procrustes(problem);
  return poseOf(problem, refine(problem, start.rotation, start.translation));
}

/**
 * @param {ArrayLike<number>} landmarks @param {Camera} camera
 * @returns {Problem | null}
 *
 * @typedef {{ xs: Float64Array, ys: Float64Array, depths: Float64Array, ray: number[],
 *   size: number, focal: number }} Problem Slopes of the rays to the points, the points' depths
 *   along the ray through their middle, and how far they are spread.
 */
function problemOf(landmarks, camera) {
  const xs = new Float64Array(COUNT), ys = new Float64Array(COUNT);
  const depths = new Float64Array(COUNT);
  let x = 0, y = 0, z = 0, squares = 0;
  for (let k = 0; k < COUNT; k++) {
    const at = 3 * BASIS[k], weight = WEIGHTS[k];
    xs[k] = (landmarks[at] - camera.x) / camera.focal;
    ys[k] = (landmarks[at + 1] - camera.y) / camera.focal;
    depths[k] = landmarks[at + 2] / camera.focal;
    x += weight * xs[k];
    y += weight * ys[k];
    z += weight * depths[k];
    squares += weight * (xs[k] ** 2 + ys[k] ** 2);
  }
  for (let k = 0; k < COUNT; k++) depths[k] -= z;
  const length = Math.sqrt(1 + x * x + y * y);
  const size = Math.sqrt(Math.max(squares - x * x - y * y, 0));
  if (!(size >= MIN_SIZE) || !Number.isFinite(z)) return null;
  const ray = [x / length, y / length, 1 / length];
  return { xs, ys, depths, ray, size, focal: camera.focal };
}

/** @param {Problem} problem @returns {{ rotation: Float64Array, translation: number[] }} */
function procrustes({ xs, ys, depths, ray }) {
  const [x, y, z] = ray;
  const a = 1 / (1 + z);
  // The smallest rotation that takes the camera's axis to the ray.
  const turn = Float64Array.of(
    1 - a * x * x, -a * x * y, x, -a * x * y, 1 - a * y * y, y, -x, -y, z,
  );
  const target = new Float64Array(3 * COUNT);
  const mean = [0, 0, 0];
  for (let k = 0; k < COUNT; k++) {
    const [u, v, w] = applyTransposed(turn, [xs[k], ys[k], 1]);
    [u / w, v / w, depths[k] * z].forEach((value, axis) => {
      target[3 * k + axis] = value;
      mean[axis] += WEIGHTS[k] * value;
    });
  }
  const sums = new Float64Array(9);
  let size = 0;
  for (let k = 0; k < COUNT; k++) {
    for (let axis = 0; axis < 3; axis++) {
      target[3 * k + axis] -= mean[axis];
      for (let other = 0; other < 3; other++) {
        sums[3 * axis + other] += WEIGHTS[k] * target[3 * k + axis] * CENTRED[3 * k + other];
      }
    }
    size += WEIGHTS[k] * (target[3 * k] ** 2 + target[3 * k + 1] ** 2);
  }
  const local = nearestRotation(sums);
  let wide = 0;
  for (let k = 0; k < COUNT; k++) {
    const [u, v] = apply(local, CENTRED.subarray(3 * k, 3 * k + 3));
    wide += WEIGHTS[k] * (u * u + v * v);
  }
  const distance = Math.max(Math.sqrt(wide) / Math.max(Math.sqrt(size), MIN_SIZE), MIN_DEPTH);
  const rotation = multiply(turn, local);
  const centre = apply(rotation, CENTRE);
  return { rotation, translation: ray.map((value, axis) => value * distance - centre[axis]) };
}

/** @param {Problem} problem @param {Float64Array} rotation Whether depths grow as they should. */
function agrees({ ray, depths }, rotation) {
  const way = applyTransposed(rotation, ray);
  let sum = 0;
  for (let k = 0; k < COUNT; k++) {
    const at = 3 * k;
    const depth = CENTRED[at] * way[0] + CENTRED[at + 1] * way[1] + CENTRED[at + 2] * way[2];
    sum += WEIGHTS[k] * depth * depths[k];
  }
  return sum >= 0;
}

/** @param {Problem} problem @param {Found} found @returns {Pose | null} */
function poseOf({ xs, ys, focal }, { rotation, translation }) {
  let sum = 0;
  const middle = apply(rotation, CENTRE).map((value, axis) => value + translation[axis]);
  for (let k = 0; k < COUNT; k++) {
    const point = apply(rotation, CENTRED.subarray(3 * k, 3 * k + 3));
    const z = point[2] + middle[2];
    const x = (point[0] + middle[0]) / z - xs[k], y = (point[1] + middle[1]) / z - ys[k];
    sum += WEIGHTS[k] * (x * x + y * y);
  }
  const error = Math.sqrt(sum) * focal;
  return Number.isFinite(error) ? { rotation, translation, error } : null;
}

/**
 * @param {Problem} problem @param {Float64Array} rotation @param {number[]} translation
 * @returns {Found} At the nearest minimum.
 */
function refine(problem, rotation, translation) {
  let damping = 1e-6;
  let now = linearise(problem, rotation, translation);
  for (let round = 0; round < MAX_ITERATIONS; round++) {
    const normal = now.normal.slice();
    for (let i = 0; i < 36; i += 7) normal[i] *= 1 + damping;
    const step = solveSystem(normal, now.gradient, 6);
    const turned = multiply(turnBy(-step[0], -step[1], -step[2]), rotation);
    // Rotations are about the points' middle, which hardly moves then: faster convergence.
    const before = apply(rotation, CENTRE), after = apply(turned, CENTRE);
    const moved = translation.map(
      (value, axis) => value - step[3 + axis] * translation[2] + before[axis] - after[axis],
    );
    if (!(moved[2] >= MIN_DEPTH)) {
      damping = Math.max(damping * 100, 1e-2);
      continue;
    }
    if (step.every((value) => Math.abs(value) < SMALL_STEP)) {
      return { cost: now.cost, rotation: turned, translation: moved };
    }
    const next = linearise(problem, turned, moved);
    if (next.cost <= now.cost) {
      [rotation, translation, now] = [turned, moved, next];
      damping *= 0.1;
    } else {
      damping = Math.max(damping * 100, 1e-2);
    }
  }
  return { cost: now.cost, rotation, translation };
}

/**
 * @param {Problem} problem @param {Float64Array} rotation @param {number[]} translation
 * @returns {{ cost: number, normal: Float64Array, gradient: Float64Array }} Of a small rotation
 *   about the points' middle, and the translation in units of its depth.
 */
function linearise({ xs, ys, depths, ray }, rotation, translation) {
  const middle = apply(rotation, CENTRE).map((value, axis) => value + translation[axis]);
  const unit = translation[2], distance = middle[2];
  const normal = new Float64Array(36), gradient = new Float64Array(6);
  const row = new Float64Array(6);
  let cost = 0;
  for (let k = 0; k < COUNT; k++) {
    const p = apply(rotation, CENTRED.subarray(3 * k, 3 * k + 3));
    const near = 1 / Math.max(p[2] + distance, MIN_DEPTH);
    const x = (p[0] + middle[0]) * near, y = (p[1] + middle[1]) * near;
    const depth = (ray[0] * p[0] + ray[1] * p[1] + ray[2] * p[2]) / distance;
    const residuals = [x - xs[k], y - ys[k], depth - depths[k]];
    // How each changes when the point moves along the axes.
    const ways = [
      [near, 0, -x * near], [0, near, -y * near], ray.map((value) => value / distance),
    ];
    for (let i = 0; i < 3; i++) {
      const root = ROOTS[k] * (i === 2 ? DEPTH_ROOT : 1);
      const w = ways[i], residual = residuals[i] * root;
      for (let axis = 0; axis < 3; axis++) {
        const next = (axis + 1) % 3, last = (axis + 2) % 3;
        row[axis] = (p[next] * w[last] - p[last] * w[next]) * root;
        row[3 + axis] = i < 2 ? w[axis] * root * unit : 0;
      }
      // Depths count from the middle: they do not change with it, but shrink with its distance.
      if (i === 2) row[5] = (-depth * root * unit) / distance;
      cost += residual * residual;
      for (let a = 0; a < 6; a++) {
        gradient[a] += row[a] * residual;
        for (let b = 0; b < 6; b++) normal[6 * a + b] += row[a] * row[b];
      }
    }
  }
  return { cost, normal, gradient };
}

/** @param {Pose} pose @returns {{ yaw: number, pitch: number, roll: number }} Degrees. */
export function angles({ rotation: r }) {
  const degrees = 180 / Math.PI;
  // r times diag(1, -1, -1).
  const pitch = Math.atan2(-r[7], -r[8]);
  const yaw = Math.asin(Math.max(-1, Math.min(1, -r[6])));
  const roll = Math.atan2(r[3], r[0]);
  return { yaw: -yaw * degrees, pitch: -pitch * degrees, roll: roll * degrees };
}

/**
 * Landmarks without jitter at rest and without lag in motion; the same filters as
 * `retinue.apps.ar.face.smoothing`, which explains them.
 */
import shared from "../shared.json";
import { COUNT, EYE_DISTANCE_CM, affineFit, affineOf } from "./canonical.js";
import { invert } from "./linear.js";

const {
  MAX_GAP_S, MAX_JUMP, RADIUS_CM, MIN_VOLUME, SAME_UNIT, NOISE, MAX_NOISE, NEW_S, AVERAGING,
  NOISE_UP_S, NOISE_DOWN_S,
} = shared.smoothing;
const TO_AFFINE = affineFit(
  Array.from({ length: COUNT }, (_, i) => i),
  new Float64Array(COUNT).fill(1),
);
const TAU = 2 * Math.PI;

/** @param {number} cutoff Hz @param {number} seconds @returns {number} A low pass's share. */
function share(cutoff, seconds) {
  const turn = cutoff * TAU * seconds;
  return turn / (turn + 1);
}

/** The One-Euro filter on arrays; each element has its own cutoff. */
export class OneEuro {
  /** @type {number | null} */
  seconds = null;
  raw = new Float64Array();
  smooth = this.raw;
  speed = this.raw;

  /**
   * @param {number} minCutoff Hz, at rest.
   * @param {number} beta Hz for a speed of one scale a second.
   * @param {number} derivativeCutoff Hz, for the speed itself.
   * @param {number} deadZone Speed in scales a second that is taken for noise.
   */
  constructor(minCutoff, beta, derivativeCutoff = 1, deadZone = 0) {
    this.min = minCutoff;
    this.beta = beta;
    this.derivative = derivativeCutoff;
    this.dead = deadZone;
  }

  reset() {
    this.seconds = null;
    this.raw = this.smooth = this.speed = new Float64Array();
  }

  /**
   * @param {Float64Array<ArrayBuffer>} values @param {number} seconds @param {number} scale
   * @returns {Float64Array<ArrayBuffer>}
   */
  update(values, seconds, scale = 1) {
    const gap = this.seconds === null ? -1 : seconds - this.seconds;
    if (!(gap >= 0 && gap <= MAX_GAP_S) || values.length !== this.raw.length) {
      this.raw = values.slice();
      this.smooth = values.slice();
      this.speed = new Float64Array(values.length);
      this.seconds = seconds;
    } else if (gap > 0) {
      const slow = share(this.derivative, gap), unit = 1 / (gap * scale);
      for (let i = 0; i < values.length; i++) {
        this.speed[i] += slow * ((values[i] - this.raw[i]) * unit - this.speed[i]);
        const fast = Math.max(Math.abs(this.speed[i]) - this.dead, 0);
        this.smooth[i] += share(this.min + this.beta * fast, gap) * (values[i] - this.smooth[i]);
      }
      this.raw = values.slice();
      this.seconds = seconds;
    }
    return this.smooth.slice();
  }
}

/** A critically damped g-h filter whose cutoff follows what stands out of the noise. */
class Steady {
  age = 0;
  values = new Float64Array();
  raw = this.values;
  velocity = this.values;
  speed = this.values;
  error = this.values;
  rate = this.values;
  variance = this.values;
  noise = this.values;

  /**
   * @param {number} cutoff @param {number} bySpeed @param {number} deadSpeed
   * @param {number} byError @param {number} deadError
   */
  constructor(cutoff, bySpeed, deadSpeed, byError, deadError) {
    this.cutoff = cutoff;
    this.settings = { bySpeed, deadSpeed, byError, deadError };
  }

  /** @param {Float64Array} values */
  start(values) {
    const zeros = () => new Float64Array(values.length);
    this.values = values.slice();
    this.raw = values.slice();
    this.age = 0;
    this.velocity = zeros();
    this.speed = zeros();
    this.error = zeros();
    this.rate = zeros();
    this.variance = zeros().fill(NOISE ** 2);
    this.noise = zeros().fill(1);
  }

  /** @param {Float64Array} fresh @param {number} gap */
  update(fresh, gap) {
    this.age += gap;
    const slow = 1 - Math.exp(-gap / NOISE_UP_S), fast = 1 - Math.exp(-gap / NOISE_DOWN_S);
    // A new face's first values are averaged: none of them is better than the others.
    const first = this.age < NEW_S ? Math.exp((-TAU * AVERAGING * gap) / this.age) : 1;
    const { bySpeed, deadSpeed, byError, deadError } = this.settings;
    for (let i = 0; i < fresh.length; i++) {
      const rate = (fresh[i] - this.raw[i]) / gap;
      const bend = (rate - this.rate[i]) * gap;
      const variance = (bend * bend) / 6;
      this.variance[i] +=
        (variance > this.variance[i] ? slow : fast) * (variance - this.variance[i]);
      const noise = Math.min(Math.max(Math.sqrt(this.variance[i]) / NOISE, 1), MAX_NOISE);
      this.noise[i] = noise;
      this.raw[i] = fresh[i];
      this.rate[i] = rate;
      this.speed[i] += share(1, gap) * (rate - this.speed[i]);
      const expected = this.values[i] + this.velocity[i] * gap;
      const error = fresh[i] - expected;
      this.error[i] += share(1.5, gap) * (error - this.error[i]);
      const moving = Math.max(Math.abs(this.speed[i]) - deadSpeed * noise, 0);
      const behind = Math.max(Math.abs(this.error[i]) - deadError * noise, 0);
      const cutoff = this.cutoff + (bySpeed * moving + byError * behind) / noise;
      const keep = Math.exp(cutoff * -TAU * gap);
      this.values[i] = expected + (1 - Math.min(keep, first) ** 2) * error;
      this.velocity[i] += ((1 - keep) ** 2 / gap) * error;
    }
  }

  /** @param {number} factor What was 1 is now this. */
  rescale(factor) {
    for (const of of [this.values, this.raw, this.velocity, this.rate, this.speed, this.error]) {
      for (let i = 0; i < of.length; i++) of[i] *= factor;
    }
  }
}

/** Smooths the landmarks of one face, and tells how it moves. */
export class LandmarkFilter {
  motion = new Steady(0.06, 20, 0.05, 700, 0.0025);
  shape = new OneEuro(0.3, 100, 3, 0.1);
  /** @type {number | null} */
  seconds = null;
  eye = 1;
  local = new Float64Array();

  reset() {
    this.seconds = null;
    this.eye = 1;
    this.local = new Float64Array();
    this.shape.reset();
  }

  /** @returns {number[]} Pixels a second that the canonical face's origin moves with. */
  get velocity() {
    if (this.seconds === null) return [0, 0];
    return [9, 10].map((i) => this.motion.velocity[i] * this.eye);
  }

  /**
   * @param {Float32Array} points (N, 3), pixels.
   * @param {number} seconds Of the frame.
   * @returns {Float32Array} (N, 3), smoothed.
   */
  update(points, seconds) {
    const gap = this.seconds === null ? null : seconds - this.seconds;
    if (gap === 0 && points.length === this.local.length) return this.now();
    const affine = affineOf(TO_AFFINE, points.subarray(0, 3 * COUNT));
    const across = [0, 1, 2].map((i) => points[99 + i] - points[789 + i]);
    let eye = Math.hypot(...across);
    const { inverse, determinant } = invert(affine);
    if (!(Math.abs(determinant) * EYE_DISTANCE_CM ** 3 > MIN_VOLUME * eye ** 3)) {
      this.reset();
      return points.slice();
    }
    const local = localise(points, affine, inverse);
    const fresh = affine.map((value, i) => (i < 9 ? value * RADIUS_CM : value));
    if (gap === null || !(gap >= 0 && gap <= MAX_GAP_S) || this.#jumped(fresh, eye, gap)) {
      this.reset();
      this.motion.start(fresh.map((value) => value / eye));
    } else if (gap > 0) {
      if (Math.abs(eye / this.eye - 1) < SAME_UNIT) eye = this.eye;
      else this.motion.rescale(this.eye / eye);
      this.motion.update(fresh.map((value) => value / eye), gap);
    }
    this.seconds = seconds;
    this.eye = eye;
    const noise = this.motion.noise.reduce((sum, value) => sum + value, 0) / 12;
    this.local = this.shape.update(local, seconds, EYE_DISTANCE_CM * noise);
    return this.now();
  }

  /** @returns {Float32Array} (N, 3) of the last update. */
  now() {
    const m = this.motion.values.map((value, i) => value * this.eye / (i < 9 ? RADIUS_CM : 1));
    const out = new Float32Array(this.local.length);
    for (let i = 0; i < out.length; i += 3) {
      const x = this.local[i], y = this.local[i + 1], z = this.local[i + 2];
      for (let c = 0; c < 3; c++) out[i + c] = x * m[c] + y * m[3 + c] + z * m[6 + c] + m[9 + c];
    }
    return out;
  }

  /** @param {Float64Array} fresh @param {number} eye @param {number} gap */
  #jumped(fresh, eye, gap) {
    const { values, velocity } = this.motion;
    return fresh.some(
      (value, i) => Math.abs(value - (values[i] + velocity[i] * gap) * this.eye) > MAX_JUMP * eye,
    );
  }
}

/**
 * @param {ArrayLike<number>} points (N, 3)
 * @param {Float64Array} affine (4, 3) @param {Float64Array} inverse (3, 3) of its slopes.
 * @returns {Float64Array<ArrayBuffer>} (N, 3) in the canonical face's coordinates.
 */
export function localise(points, affine, inverse) {
  const out = new Float64Array(points.length);
  for (let i = 0; i < out.length; i += 3) {
    const x = points[i] - affine[9], y = points[i + 1] - affine[10], z = points[i + 2] - affine[11];
    for (let c = 0; c < 3; c++) {
      out[i + c] = x * inverse[c] + y * inverse[3 + c] + z * inverse[6 + c];
    }
  }
  return out;
}

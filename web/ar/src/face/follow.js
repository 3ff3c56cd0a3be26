/** A face that is followed, and how faces are told apart; see `retinue.apps.ar.face._follow`. */
import shared from "../shared.json";
import { MARGIN, near } from "./roi.js";
import { LandmarkFilter } from "./smoothing.js";

/** @typedef {import("./roi.js").Roi} Roi */
/** @typedef {import("./pose.js").Pose} Pose */
/** @typedef {{ landmarks: Float32Array, score: number, place: Roi }} Seen */

const {
  FADE_S, FADE_YAW, BACK_YAW, FADE_SCORE, HELD, MAX_LEAD, SAME_PLACE, SAME_SIZE, DOUBLE_PLACE, DOUBLE_SIZE,
  BACK, THUMB, CUT_CORRELATION, CUT_CONTRAST,
} = shared.follow;
export const { REMEMBERED_S } = shared.follow;

export class Track {
  /** @param {number} id @param {Seen} seen @param {number} seconds */
  constructor(id, { landmarks, score, place }, seconds) {
    this.id = id;
    this.roi = place;
    this.place = place;
    this.landmarks = landmarks;
    this.score = score;
    this.seen = seconds;
    this.lost = false;
    this.opacity = 0;
    this.turned = false;
    /** @type {Pose | null} */
    this.pose = null;
    /** @type {import("./coefficients.js").Coefficients} */
    this.coefficients = {};
    this.velocity = [0, 0];
    this.surprise = 0;
    this.smooth = new LandmarkFilter();
    this.before = { landmarks, seen: seconds, place, velocity: this.velocity };
  }

  /** @param {Seen} fresh @param {number} seconds */
  see({ landmarks, score, place }, seconds) {
    const expected = this.expected(seconds);
    this.surprise = Math.hypot(place.x - expected.x, place.y - expected.y) / place.size;
    this.surprise += Math.abs(Math.log(place.size / expected.size));
    const { seen, velocity } = this;
    this.before = { landmarks: this.landmarks, seen, place: this.place, velocity };
    const gap = seconds - seen;
    this.landmarks = this.smooth.update(landmarks, seconds);
    this.velocity = this.smooth.velocity;
    this.place = place;
    this.score = score;
    this.seen = seconds;
    this.lost = false;
    const ahead = this.#moved(place, gap);
    if (!near(this.roi, ahead, HELD)) this.roi = ahead;
  }

  /** Take the last `see` back: it was another face. */
  unsee() {
    Object.assign(this, this.before);
    this.smooth.reset();
    this.lost = true;
  }

  /** @param {number} seconds @returns {Roi} Where the face should be then. */
  expected(seconds) {
    return this.#moved(this.place, seconds - this.seen);
  }

  /** @param {Roi} place @param {number} gap @returns {Roi} */
  #moved(place, gap) {
    const [x, y] = this.velocity.map((speed) => speed * Math.max(gap, 0));
    const factor = Math.min(1, (MAX_LEAD * this.place.size) / Math.max(Math.hypot(x, y), 1e-9));
    return { ...place, x: place.x + x * factor, y: place.y + y * factor };
  }

  /** @param {number} seconds Since the last frame. @param {boolean} atOnce */
  fade(seconds, atOnce) {
    let wanted = 0;
    if (this.pose) {
      const yaw = yawOf(this.pose);
      this.turned = yaw >= FADE_YAW[1] || (this.turned && yaw > BACK_YAW);
      if (!this.lost && !this.turned) {
        wanted = ramp(yaw, FADE_YAW[1], FADE_YAW[0]) * ramp(this.score, FADE_SCORE[0], FADE_SCORE[1]);
      }
    }
    if (atOnce) {
      this.opacity = wanted;
      return;
    }
    const step = seconds / FADE_S;
    this.opacity += Math.min(Math.max(wanted - this.opacity, -step), step);
  }
}

/** @param {Pose} pose @returns {number} Degrees of yaw that the camera sees, without their sign. */
function yawOf({ rotation: r, translation: t }) {
  const x = -(t[0] * r[0] + t[1] * r[3] + t[2] * r[6]);
  const z = -(t[0] * r[2] + t[1] * r[5] + t[2] * r[8]);
  return (Math.abs(Math.atan2(x, z)) * 180) / Math.PI;
}

/** @param {number} value @param {number} nothing @param {number} all @returns {number} */
function ramp(value, nothing, all) {
  const share = Math.min(Math.max((value - nothing) / (all - nothing), 0), 1);
  return share * share * (3 - 2 * share);
}

/** @param {Roi} a @param {Roi} b Whether two squares are around one face. */
export function same(a, b, place = SAME_PLACE, size = SAME_SIZE) {
  const small = Math.min(a.size, b.size), large = Math.max(a.size, b.size);
  const apart = Math.hypot(a.x - b.x, a.y - b.y) * MARGIN;
  return large <= size * small && apart < place * small;
}

/** @param {Track[]} tracks @returns {Track[]} Those that jumped to another one's face. */
export function doubles(tracks) {
  /** @type {Track[]} */
  const out = [];
  tracks.forEach((one, i) => {
    for (const other of tracks.slice(i + 1)) {
      if (out.includes(one) || out.includes(other)) continue;
      if (!same(one.place, other.place, DOUBLE_PLACE, DOUBLE_SIZE)) continue;
      const oneJumped =
        one.surprise > other.surprise || (one.surprise === other.surprise && one.id > other.id);
      out.push(oneJumped ? one : other);
    }
  });
  return out;
}

/** @param {Track} track @param {Roi} place @param {number} seconds @returns {number | null} */
export function cameBack(track, place, seconds) {
  const gone = seconds - track.seen;
  const expected = track.expected(seconds);
  const small = Math.min(expected.size, place.size), large = Math.max(expected.size, place.size);
  const apart = (Math.hypot(expected.x - place.x, expected.y - place.y) / large) * MARGIN;
  const reach = BACK + (gone <= REMEMBERED_S ? gone : 0);
  return large <= SAME_SIZE * small && apart < reach ? apart : null;
}

/** Tells a cut between two scenes by small pictures of both. */
export class CutDetector {
  constructor() {
    /** @type {Float64Array | null} */
    this.last = null;
  }

  /** Pixels of the small picture's side. */
  static SIDE = THUMB;

  reset() {
    this.last = null;
  }

  /** @param {Uint8Array} pixels (16, 16, 4) @returns {boolean} Whether it is another scene. */
  update(pixels) {
    const count = THUMB * THUMB;
    const thumb = new Float64Array(3 * count);
    for (let c = 0; c < 3; c++) {
      let mean = 0;
      for (let i = 0; i < count; i++) mean += pixels[4 * i + c] / count;
      for (let i = 0; i < count; i++) thumb[3 * i + c] = pixels[4 * i + c] - mean;
    }
    const { last } = this;
    this.last = thumb;
    if (!last) return false;
    let own = 0, before = 0, shared_ = 0, change = 0;
    thumb.forEach((value, i) => {
      own += value * value;
      before += last[i] * last[i];
      shared_ += value * last[i];
      change += (value - last[i]) ** 2;
    });
    const size = thumb.length;
    const correlation = shared_ / size / Math.max(Math.sqrt((own / size) * (before / size)), 1e-9);
    return correlation < CUT_CORRELATION && change / size > CUT_CONTRAST ** 2;
  }
}

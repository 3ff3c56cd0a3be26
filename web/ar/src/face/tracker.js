/**
 * Follows faces from frame to frame; see `retinue.apps.ar.face.tracker`.
 *
 * @typedef {{ id: number, score: number, landmarks: Float32Array, pose: import("./pose.js").Pose,
 *   coefficients: import("./coefficients.js").Coefficients, opacity: number, seconds: number
 * }} Face Landmarks are (N, 3), pixels, smoothed.
 * @typedef {{ width: number, height: number, crop(roi: import("./roi.js").Roi, size: number):
 *   Uint8Array, letterbox(size: number): Uint8Array, thumb(size: number): Uint8Array }} FrameReader
 *   Pixels are RGBA.
 * @typedef {{ find(frame: FrameReader): Promise<import("../net/detector.js").Box[]> }} Detector
 * @typedef {{ size: number, read(crop: Uint8Array): Promise<{ landmarks: Float32Array,
 *   score: number }> }} Mesh
 */
import shared from "../shared.json";
import { coefficients } from "./coefficients.js";
import { CutDetector, REMEMBERED_S, Track, cameBack, doubles, same } from "./follow.js";
import { solve } from "./pose.js";
import { MARGIN, landmarksToFrame, roiOfDetection, roiOfLandmarks } from "./roi.js";

/** @typedef {import("./follow.js").Seen} Seen */
/** @typedef {import("./roi.js").Roi} Roi */

const { MIN_SCORE, MIN_FACE, MAX_GAP_S, MAX_MISFIT, EAGER, REST_S } = shared.tracker;
const DETECT_EVERY_S = 0.5;

export class Tracker {
  /** @type {Track[]} */
  tracks = [];
  cuts = new CutDetector();
  times = { read: 0, detect: 0, mesh: 0, pose: 0 };
  ids = 0;
  /** @type {number | null} */
  seconds = null;
  size = "";
  opening = true;
  detected = -Infinity;
  empty = 0;
  farNext = false;

  /**
   * @param {Detector} detector
   * @param {Mesh} mesh May be set to another between two frames.
   * @param {{ maxFaces?: number, far?: Detector | null }} options `far` finds small faces.
   */
  constructor(detector, mesh, { maxFaces = 4, far = null } = {}) {
    this.detector = detector;
    this.far = far;
    this.mesh = mesh;
    this.max = maxFaces;
  }

  /** Forget all faces and the time; ids go on. */
  reset() {
    this.seconds = null;
    this.size = "";
    this.#forget();
  }

  #forget() {
    this.tracks = [];
    this.cuts.reset();
    this.opening = true;
    this.detected = -Infinity;
    this.empty = 0;
    this.farNext = false;
  }

  /**
   * @param {FrameReader} frame
   * @param {number} seconds
   * @param {import("./camera.js").Camera} camera
   * @returns {Promise<Face[]>}
   */
  async update(frame, seconds, camera) {
    let gap = this.seconds === null ? 0 : seconds - this.seconds;
    const size = `${frame.width}x${frame.height}`;
    if (gap < 0 || size !== this.size) {
      this.#forget();
      gap = 0;
    }
    const start = performance.now();
    const thumb = frame.thumb(CutDetector.SIDE);
    const read = performance.now() - start;
    if (this.cuts.update(thumb)) {
      this.#forget();
      this.cuts.update(thumb);
    }
    this.seconds = seconds;
    this.size = size;
    this.times = { read, detect: 0, mesh: 0, pose: 0 };
    if (gap > MAX_GAP_S) for (const track of this.tracks) track.lost = true;
    for (const track of this.tracks) if (!track.lost) await this.#look(track, frame, seconds);
    for (const track of doubles(this.tracks.filter((each) => !each.lost))) track.unsee();
    if (this.#mustDetect(seconds)) await this.#detect(frame, seconds);
    const found = performance.now();
    const faces = this.#answer(camera, seconds, gap);
    this.times.pose += performance.now() - found;
    this.opening = false;
    return faces;
  }

  /** @param {Track} track @param {FrameReader} frame @param {number} seconds */
  async #look(track, frame, seconds) {
    const seen = await this.#read(frame, track.roi);
    const start = performance.now();
    if (seen) track.see(seen, seconds);
    else track.lost = true;
    this.times.pose += performance.now() - start;
  }

  /** @param {FrameReader} frame @param {Roi} roi @returns {Promise<Seen | null>} */
  async #read(frame, roi) {
    const start = performance.now();
    const found = await this.mesh.read(frame.crop(roi, this.mesh.size));
    this.times.mesh += performance.now() - start;
    if (!(found.score >= MIN_SCORE)) return null;
    const landmarks = landmarksToFrame(found.landmarks, roi, this.mesh.size);
    const place = roiOfLandmarks(landmarks);
    if (!place || place.size < MIN_FACE * MARGIN) return null;
    const inside =
      place.x >= 0 && place.x <= frame.width && place.y >= 0 && place.y <= frame.height;
    return inside ? { landmarks, score: found.score, place } : null;
  }

  #room() {
    return this.max - this.tracks.filter((track) => !track.lost).length;
  }

  /** @param {number} seconds @returns {boolean} */
  #mustDetect(seconds) {
    if (this.#room() <= 0) return false;
    if (this.tracks.some((track) => track.lost)) return true;
    const since = seconds - this.detected;
    if (!this.tracks.length) return this.empty < EAGER || since >= REST_S;
    return since >= DETECT_EVERY_S;
  }

  /** @param {FrameReader} frame @param {number} seconds */
  async #detect(frame, seconds) {
    this.detected = seconds;
    // With a face in sight, detectors take turns: both in one frame would make it late.
    const turns = this.#room() < this.max;
    let fresh = turns && this.farNext && this.far ? [] : await this.#find(this.detector, frame);
    if (this.far && !fresh.length && (this.farNext || !turns)) fresh = await this.#find(this.far, frame);
    this.farNext = turns && !this.farNext;
    for (const place of await this.#recognise(fresh, frame, seconds)) {
      if (this.#room() <= 0) break;
      await this.#add(place, frame, seconds);
    }
    this.empty = this.tracks.length ? 0 : this.empty + 1;
  }

  /** @param {Detector} detector @param {FrameReader} frame @returns {Promise<Roi[]>} */
  async #find(detector, frame) {
    const start = performance.now();
    const boxes = await detector.find(frame);
    this.times.detect += performance.now() - start;
    const known = this.tracks.filter((track) => !track.lost).map((track) => track.place);
    return boxes
      .map(roiOfDetection)
      .filter((place) => place.size > 0 && !known.some((other) => same(place, other)))
      .sort((a, b) => b.size - a.size);
  }

  /**
   * Take up lost faces where they are found again.
   *
   * @param {Roi[]} fresh @param {FrameReader} frame @param {number} seconds
   * @returns {Promise<Roi[]>} The squares of the others.
   */
  async #recognise(fresh, frame, seconds) {
    const pairs = this.tracks
      .filter((track) => track.lost)
      .flatMap((track) =>
        fresh.flatMap((place) => {
          const apart = cameBack(track, place, seconds);
          return apart === null ? [] : [{ apart, track, place }];
        }),
      )
      .sort((a, b) => a.apart - b.apart);
    const left = new Set(fresh);
    for (const { track, place } of pairs) {
      if (!track.lost || !left.has(place) || this.#room() <= 0) continue;
      left.delete(place);
      track.roi = track.place = place;
      await this.#look(track, frame, seconds);
    }
    return [...left];
  }

  /** @param {Roi} place @param {FrameReader} frame @param {number} seconds */
  async #add(place, frame, seconds) {
    const first = await this.#read(frame, place);
    if (!first) return;
    // A detector's square is rough; the landmarks' own is what the network was trained on.
    const second = await this.#read(frame, first.place);
    const taken = (/** @type {Roi} */ found) =>
      this.tracks.some((track) => !track.lost && same(found, track.place));
    if (!second || taken(second.place)) return;
    const track = new Track(++this.ids, second, seconds);
    track.see(second, seconds);
    this.tracks.push(track);
  }

  /**
   * @param {import("./camera.js").Camera} camera @param {number} seconds @param {number} gap
   * @returns {Face[]}
   */
  #answer(camera, seconds, gap) {
    /** @type {Track[]} */
    const kept = [];
    /** @type {Face[]} */
    const faces = [];
    const order = [...this.tracks].sort((a, b) => Number(a.lost) - Number(b.lost) || a.id - b.id);
    for (const track of order) {
      if (!track.lost) this.#measure(track, camera);
      track.fade(gap, this.opening);
      if (track.lost && (seconds - track.seen > REMEMBERED_S || this.opening)) continue;
      kept.push(track);
      const { id, score, landmarks, pose, opacity } = track;
      const shown = !track.lost || opacity > 0;
      if (!pose || !shown || faces.length >= this.max) continue;
      const { coefficients: measured } = track;
      faces.push({ id, score, landmarks, pose, coefficients: measured, opacity, seconds });
    }
    this.tracks = kept.sort((a, b) => a.id - b.id);
    return faces.sort((a, b) => a.id - b.id);
  }

  /** @param {Track} track @param {import("./camera.js").Camera} camera */
  #measure(track, camera) {
    const pose = solve(track.landmarks, camera, track.pose);
    const p = track.landmarks;
    const eyes = Math.hypot(p[99] - p[789], p[100] - p[790], p[101] - p[791]);
    if (!pose || pose.error > MAX_MISFIT * eyes) {
      track.lost = true;
      return;
    }
    track.pose = pose;
    track.coefficients = coefficients(track.landmarks, pose);
  }
}

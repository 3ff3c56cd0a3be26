/**
 * The square around a face that the mesh network sees; see `retinue.apps.ar.face.roi`.
 *
 * @typedef {{ x: number, y: number, size: number, angle: number }} Roi Its middle and side in
 *   pixels of the frame; radians clockwise.
 */
import shared from "../shared.json";

export const { MARGIN, AVERAGED } = shared.roi;
const { LEFT_EYE, RIGHT_EYE } = shared.roi;

/**
 * @param {import("../net/detector.js").Box} box
 * @returns {Roi}
 */
export function roiOfDetection({ x1, y1, x2, y2, points: [left, right] }) {
  return {
    x: (x1 + x2) / 2,
    y: (y1 + y2) / 2,
    size: Math.max(x2 - x1, y2 - y1) * MARGIN,
    angle: Math.atan2(right[1] - left[1], right[0] - left[0]),
  };
}

/**
 * @param {ArrayLike<number>} p (N, 3)
 * @returns {Roi | null} None where the landmarks lie all in one place or are not finite.
 */
export function roiOfLandmarks(p) {
  const left = 3 * LEFT_EYE, right = 3 * RIGHT_EYE;
  const angle = Math.atan2(p[right + 1] - p[left + 1], p[right] - p[left]);
  let [x1, y1, x2, y2] = [Infinity, Infinity, -Infinity, -Infinity];
  for (let i = 0; i < p.length; i += 3) {
    const x = p[i], y = p[i + 1];
    if (!Number.isFinite(x + y)) return null;
    x1 = Math.min(x1, x);
    x2 = Math.max(x2, x);
    y1 = Math.min(y1, y);
    y2 = Math.max(y2, y);
  }
  const size = Math.max(x2 - x1, y2 - y1) * MARGIN;
  if (!(size > 0)) return null;
  return { x: (x1 + x2) / 2, y: (y1 + y2) / 2, size, angle };
}

/** @param {Roi} a @param {Roi} b @param {number} share @returns {boolean} See `Roi.near`. */
export function near(a, b, share) {
  const tau = 2 * Math.PI;
  const turn = a.angle - b.angle - tau * Math.round((a.angle - b.angle) / tau);
  const apart = Math.hypot(a.x - b.x, a.y - b.y);
  const corners = 0.71 * (Math.abs(a.size - b.size) + Math.abs(turn) * a.size);
  return apart + corners <= share * a.size;
}

/**
 * @param {Roi} roi
 * @param {number} pixels Side of the crop.
 * @returns {number[]} a b x, c d y: from the crop's to the frame's pixels.
 */
export function toFrame({ x, y, size, angle }, pixels) {
  const scale = size / pixels, half = pixels / 2;
  const cosine = Math.cos(angle) * scale, sine = Math.sin(angle) * scale;
  return [
    cosine, -sine, x - (cosine - sine) * half,
    sine, cosine, y - (sine + cosine) * half,
  ];
}

/**
 * @param {Float32Array} landmarks (N, 3) of a crop.
 * @param {Roi} roi @param {number} pixels Side of the crop.
 * @returns {Float32Array} (N, 3) of the frame.
 */
export function landmarksToFrame(landmarks, roi, pixels) {
  const [a, b, x, c, d, y] = toFrame(roi, pixels);
  const out = new Float32Array(landmarks.length);
  for (let i = 0; i < out.length; i += 3) {
    out[i] = a * landmarks[i] + b * landmarks[i + 1] + x;
    out[i + 1] = c * landmarks[i] + d * landmarks[i + 1] + y;
    out[i + 2] = landmarks[i + 2] * (roi.size / pixels);
  }
  return out;
}

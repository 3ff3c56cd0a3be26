/** Other shapes of a face: local warps, summed; see `retinue.apps.ar.effects.distort`. */
import { Vector4 } from "three";
import shared from "../shared.json";
import { pass } from "./canvas.js";
import { axes, eyeDistance, middle } from "./live.js";

const MOST = /** @type {Record<string, number>} */ (shared.most);
const { ROUNDS } = shared.distort;
const MAX = 32;

/**
 * @typedef {{ x: number, y: number, radius: number, scale: number, push: number[] }} Warp
 * @typedef {import("./live.js").Face} Face
 */

/**
 * @param {Face} face @param {any[]} points Of the part. @param {number} strength In [0, 1].
 * @returns {Warp[]}
 */
export function warps(face, points, strength) {
  const unit = eyeDistance(face.landmarks);
  const { along, up } = axes(face);
  return points.flatMap(({ kind, strength: own, at, radius: reach, direction }) => {
    const amount = MOST[kind] * own * strength * face.opacity;
    const [x, y] = middle(face.landmarks, at);
    const radius = reach * unit;
    if (!amount || radius < 1) return [];
    if (kind !== "pull") return [{ x, y, radius, scale: amount, push: [0, 0] }];
    const way = [0, 1].map((i) => direction[0] * along[i] + direction[1] * up[i]);
    const length = (amount * radius) / Math.hypot(way[0], way[1]);
    return [{ x, y, radius, scale: 0, push: way.map((value) => value * length) }];
  });
}

/**
 * @param {Face} face @param {Warp[]} local
 * @returns {Face} With its landmarks where the warped picture shows them.
 */
export function moved(face, local) {
  if (!local.length) return face;
  const landmarks = face.landmarks.slice();
  // A place p shows what was at p + offset(p): find the p that shows the landmark.
  for (let i = 0; i < landmarks.length; i += 3) {
    const startX = landmarks[i], startY = landmarks[i + 1];
    let x = startX, y = startY;
    for (let round = 0; round < ROUNDS; round++) {
      let dx = 0, dy = 0;
      for (const warp of local) {
        const ax = x - warp.x, ay = y - warp.y;
        const inside = Math.max(0, 1 - (ax * ax + ay * ay) / warp.radius ** 2);
        const fall = inside * inside;
        dx += fall * (warp.scale * ax + warp.push[0]);
        dy += fall * (warp.scale * ay + warp.push[1]);
      }
      x = startX + dx;
      y = startY + dy;
    }
    landmarks[i] = x;
    landmarks[i + 1] = y;
  }
  return { ...face, landmarks };
}

const BODY = /* glsl */ `
uniform sampler2D frame;
uniform int count;
uniform vec4 places[${MAX}];  // x, y, radius, scale
uniform vec4 pushes[${MAX}];
void main() {
  vec2 offset = vec2(0.0);
  for (int i = 0; i < count; i++) {
    vec2 away = at - places[i].xy;
    float inside = max(0.0, 1.0 - dot(away, away) / (places[i].z * places[i].z));
    offset -= inside * inside * (places[i].w * away + pushes[i].xy);
  }
  drawn = texture(frame, (at + offset) / vec2(textureSize(frame, 0)));
}`;

export class Distortion {
  /** @param {import("./canvas.js").Canvas} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    const places = () => Array.from({ length: MAX }, () => new Vector4());
    this.material = pass(BODY, { frame: null, count: 0, places: places(), pushes: places() });
  }

  /** @param {Warp[]} local */
  apply(local) {
    const { canvas, material } = this;
    const ends = local.flatMap(({ x, y, radius }) => [
      x - radius, y - radius, x + radius, y + radius,
    ]);
    const rect = local.length ? canvas.around(ends, 1) : null;
    if (!rect) return;
    const { uniforms } = material;
    uniforms.count.value = local.length;
    local.forEach(({ x, y, radius, scale, push }, i) => {
      uniforms.places.value[i].set(x, y, radius, scale);
      uniforms.pushes.value[i].set(push[0], push[1], 0, 0);
    });
    canvas.keep(rect);
    uniforms.frame.value = canvas.other.texture;
    canvas.run(material, canvas.now, rect);
  }

  dispose() {
    this.material.dispose();
  }
}

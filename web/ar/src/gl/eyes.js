/** Other irises, clipped by the eyelids; see `retinue.apps.ar.effects.eyes`. */
import { DataTexture, LinearMipmapLinearFilter, Texture, Vector2, Vector4 } from "three";
import shared from "../shared.json";
import { COUNT } from "../face/canonical.js";
import { LUMINANCE, rgb } from "./blend.js";
import { pass, plain, target } from "./canvas.js";
import { axes, curve, eyeDistance, eyeShown, middle, onSide, points, turnedToUs } from "./live.js";
import { Mask } from "./mask.js";

const { EYE, IRIS_RADIUS, WHITE, LID_AT, LIDS, SIDE } = shared.eyes;

/** How bright an eye is: what a fifth of its opening is brighter than; into one pixel. */
const LIGHT = /* glsl */ `
uniform sampler2D frame;
uniform sampler2D mask;
uniform vec4 area;
${LUMINANCE}
void main() {
  float low = 0.0, high = 1.0;
  for (int round = 0; round < 7; round++) {
    float level = 0.5 * (low + high), below = 0.0, all = 1e-4;
    for (int row = 0; row < 16; row++) {
      for (int column = 0; column < 16; column++) {
        vec2 share = (vec2(column, row) + 0.5) / 16.0;
        float here = step(0.5, texture(mask, share).a);
        vec2 place = (area.xy + share * area.zw) / vec2(textureSize(frame, 0));
        below += here * step(luminance(texture(frame, place).rgb), level);
        all += here;
      }
    }
    if (below < 0.8 * all) low = level; else high = level;
  }
  drawn = vec4(vec3(clamp(high * 255.0 / ${WHITE.toFixed(1)}, 0.3, 1.0)), 1.0);
}`;

const BODY = /* glsl */ `
uniform sampler2D frame;
uniform sampler2D mask;
uniform sampler2D iris;
uniform sampler2D light;
uniform vec4 area;
uniform vec2 center;
uniform vec2 across;  // half axes, in pixels
uniform vec2 up;
uniform float opacity;
${LUMINANCE}
void main() {
  vec3 eye = texelFetch(frame, ivec2(at), 0).rgb;
  vec2 away = at - center;
  float turned = across.x * up.y - across.y * up.x;
  vec2 local = vec2(away.x * up.y - away.y * up.x, across.x * away.y - across.y * away.x) / turned;
  vec4 made = texture(iris, vec2(0.5 + 0.5 * local.x, 0.5 - 0.5 * local.y), -0.7);
  if (any(greaterThan(abs(local), vec2(1.0)))) made = vec4(0.0);
  // Lights that are mirrored in the eye stay.
  float dull = 1.0 - clamp((luminance(eye) * 255.0 - 185.0) / 45.0, 0.0, 1.0);
  float share = texture(mask, (at - area.xy) / area.zw).a * dull * opacity;
  vec3 color = made.rgb * texelFetch(light, ivec2(0), 0).r;
  drawn = vec4(eye * (1.0 - made.a * share) + color * share, 1.0);
}`;

export class Eyes {
  /**
   * @param {import("./canvas.js").Canvas} canvas
   * @param {import("../filter/spec.js").Part} part
   * @param {ImageBitmap | null} picture Alpha premultiplied; none draws one.
   */
  constructor(canvas, part, picture) {
    this.canvas = canvas;
    this.part = part;
    this.mask = new Mask();
    this.light = target(1, 1);
    this.iris = plain(picture ? new Texture(picture) : new DataTexture(drawIris(part), SIDE, SIDE));
    this.iris.generateMipmaps = true;
    this.iris.minFilter = LinearMipmapLinearFilter;
    this.iris.needsUpdate = true;
    const area = new Vector4();
    const shared_ = { frame: null, mask: this.mask.texture, area };
    this.measure = pass(LIGHT, shared_);
    this.material = pass(BODY, {
      ...shared_, iris: this.iris, light: this.light.texture, center: new Vector2(),
      across: new Vector2(), up: new Vector2(), opacity: 1,
    });
  }

  /** @param {import("./live.js").Face} face @param {number} strength */
  draw(face, strength) {
    for (const side of [0, 1]) {
      const share = turnedToUs(face, onSide([LID_AT], side)[0]) * eyeShown(face, side);
      const opacity = strength * share * this.part.opacity * face.opacity;
      if (opacity > 0) this.#eye(face, side, opacity);
    }
  }

  /** @param {import("./live.js").Face} face @param {number} side @param {number} opacity */
  #eye(face, side, opacity) {
    const { canvas, material, measure, part } = this;
    const { landmarks: p } = face;
    const opening = points(p, onSide(EYE, side));
    const rect = canvas.around(opening.flat(), 2);
    if (!rect) return;
    const { center, across, up } = irisOf(face, side);
    const [[x1, y1], [x2, y2]] = points(p, onSide(LIDS, side));
    const radius = Math.hypot(up[0], up[1]);
    const gap = Math.hypot(x1 - x2, y1 - y2);
    const open = Math.min(1, Math.max(0, (gap - 0.6 * radius) / (0.3 * radius)));
    if (open <= 0) return;
    this.mask.begin(rect);
    this.mask.fill(curve(opening, true), 0.8);
    this.mask.end();
    canvas.keep(rect);
    const { uniforms } = material;
    uniforms.area.value.set(rect.x, rect.y, rect.width, rect.height);
    measure.uniforms.area.value.copy(uniforms.area.value);
    uniforms.frame.value = measure.uniforms.frame.value = canvas.other.texture;
    canvas.run(measure, this.light);
    uniforms.center.value.fromArray(center);
    uniforms.across.value.set(across[0] * part.size, across[1] * part.size);
    uniforms.up.value.set(up[0] * part.size, up[1] * part.size);
    uniforms.opacity.value = opacity * open;
    canvas.run(material, canvas.now, rect);
  }

  dispose() {
    for (const each of [this.mask, this.light, this.iris, this.measure, this.material]) {
      each.dispose();
    }
  }
}

/** @param {import("./live.js").Face} face @param {number} side An iris' middle and half axes. */
function irisOf(face, side) {
  const { landmarks: p, pose } = face;
  const { along, up } = axes(face);
  const scaled = (/** @type {number[]} */ v, /** @type {number} */ by) => v.map((x) => x * by);
  if (p.length > 3 * COUNT) {
    const ring = points(p, [0, 1, 2, 3, 4].map((i) => COUNT + 5 * side + i));
    const apart = (/** @type {number} */ a, /** @type {number} */ b) =>
      Math.max(Math.hypot(ring[a][0] - ring[b][0], ring[a][1] - ring[b][1]) / 2, 0.5);
    return { center: ring[0], across: scaled(along, apart(1, 3)), up: scaled(up, apart(2, 4)) };
  }
  const radius = IRIS_RADIUS * eyeDistance(p);
  const turned = Math.max(0.3, Math.hypot(pose.rotation[0], pose.rotation[3]));
  const center = middle(p, onSide(LIDS, side));
  return { center, across: scaled(along, radius * turned), up: scaled(up, radius) };
}

/**
 * @param {any} part
 * @returns {Uint8Array} (side, side, 4), premultiplied: an iris with fibres and a pupil, the
 *   program's own.
 */
export function drawIris({ color, pupil }) {
  const out = new Uint8Array(4 * SIDE * SIDE);
  const base = rgb(color);
  const waves = [[23, 0.5], [41, 0.3], [67, 0.2]].map(([count, weight], i) => {
    const [phase, sway] = shared.iris_phases[i];
    return { count, weight, phase, sway };
  });
  const clip = (/** @type {number} */ v, low = 0, high = 1) => Math.min(Math.max(v, low), high);
  for (let i = 0; i < SIDE * SIDE; i++) {
    const x = (((i % SIDE) + 0.5) / SIDE) * 2 - 1, y = ((Math.floor(i / SIDE) + 0.5) / SIDE) * 2 - 1;
    const radius = Math.hypot(x, y), angle = Math.atan2(y, x);
    let fibres = 0;
    for (const { count, weight, phase, sway } of waves) {
      fibres +=
        weight * Math.cos(count * angle + phase + 1.5 * Math.sin(3 * angle + sway) * radius);
    }
    let light = 0.82 + 0.22 * fibres * clip(radius * 1.6);
    // Lighter around the pupil, dark at the rim, shaded by the upper lid.
    light += 0.2 * Math.exp(-(((radius - 0.45) / 0.2) ** 2));
    light *= 1 - 0.75 * clip((radius - 0.74) / 0.26) ** 1.5;
    light *= 1 - 0.35 * clip(-y - 0.1);
    const inside =
      pupil === "slit"
        ? 0.17 - Math.abs(x) - 0.17 * clip(Math.abs(y) / 0.86, 0, 2) ** 2.2
        : 0.38 - radius;
    const black = clip((inside * SIDE) / 3 + 0.5);
    // A window's light, without which an eye looks dull.
    const spot = 0.8 * clip(2.2 - Math.hypot(x + 0.27, y + 0.34) / 0.075);
    const alpha = clip(((1 - radius) * SIDE) / 5);
    base.forEach((value, k) => {
      let made = clip(value * light + 0.08 * clip(light - 0.9));
      made = made * (1 - black) + 0.015 * black;
      made = made * (1 - spot) + spot;
      out[4 * i + k] = Math.round(255 * made * alpha);
    });
    out[4 * i + 3] = Math.round(255 * alpha);
  }
  return out;
}

/** Make-up: regions that take a colour and keep the light; see `retinue.apps.ar.effects.makeup`. */
import { Vector3, Vector4 } from "three";
import shared from "../shared.json";
import { LUMINANCE, MODES, TINTED, rgb } from "./blend.js";
import { pass, target } from "./canvas.js";
import { axes, curve, eyeDistance, eyeShown, hull, onSide, points, turnedToUs } from "./live.js";
import { Mask } from "./mask.js";

const {
  LIPS, MOUTH, EYE, LASHES, CREASE, BROW, CHEEK, LID_AT, CHEEK_AT, BROW_AT, LOWER_LIP, LIP_EDGE,
  LID_EDGE, BROW_EDGE, CHEEK_EDGE, LINE, WING,
} = shared.makeup;
const AT = /** @type {Record<string, number>} */ (
  { eyelids: LID_AT, eyeliner: LID_AT, brows: BROW_AT, cheeks: CHEEK_AT }
);

/** @typedef {import("./live.js").Face} Face */
/** @typedef {import("./live.js").Points} Points */
/** @typedef {import("./canvas.js").Rect} Rect */

/** The mean luminance where a mask is, into one pixel. */
export const MEAN = /* glsl */ `
uniform sampler2D frame;
uniform sampler2D mask;
uniform vec4 area;
${LUMINANCE}
void main() {
  float sum = 0.0, weight = 1e-4;
  for (int row = 0; row < 24; row++) {
    for (int column = 0; column < 24; column++) {
      vec2 share = (vec2(column, row) + 0.5) / 24.0;
      float here = texture(mask, share).a;
      vec2 place = (area.xy + share * area.zw) / vec2(textureSize(frame, 0));
      sum += here * luminance(texture(frame, place).rgb);
      weight += here;
    }
  }
  drawn = vec4(vec3(weight < 0.01 ? 0.5 : sum / weight), 1.0);
}`;

const PAINT = /* glsl */ `
uniform sampler2D frame;
uniform sampler2D mask;
uniform sampler2D shine;
uniform sampler2D mean;
uniform vec4 area;
uniform vec3 color;
uniform int mode;
uniform float opacity;
uniform float gloss;   // 1 lets lights shine
uniform float line;    // of the lower lip's light
${LUMINANCE}
${TINTED}
void main() {
  vec2 uv = (at - area.xy) / area.zw;
  float here = texture(mask, uv).a;
  vec3 skin = texelFetch(frame, ivec2(at), 0).rgb;
  float gray = luminance(skin);
  float reference = texelFetch(mean, ivec2(0), 0).r;
  vec3 made = mix(skin, tinted(skin, gray, color, mode, reference), here * opacity);
  float level = clamp((gray - 1.12 * reference) / max(0.45 * reference, 0.004), 0.0, 1.0);
  float glow = min(1.0, 0.15 + 2.0 * reference);
  made = mix(made, max(made, vec3(glow)), gloss * 0.55 * pow(level, 1.5) * here * opacity);
  made = mix(made, max(made, vec3(glow)), line * texture(shine, uv).a * here);
  drawn = vec4(made, 1.0);
}`;

export class Makeup {
  /** @param {import("./canvas.js").Canvas} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.mask = new Mask();
    this.shine = new Mask();
    this.mean = target(1, 1);
    const area = new Vector4();
    this.material = pass(PAINT, {
      frame: null, mask: this.mask.texture, shine: this.shine.texture, mean: this.mean.texture,
      area, color: new Vector3(), mode: 0, opacity: 1, gloss: 0, line: 0,
    });
    this.average = pass(MEAN, { frame: null, mask: this.mask.texture, area });
  }

  /**
   * @param {Face} face @param {import("../filter/spec.js").Part} part
   * @param {number} strength Beside the part's own opacity.
   */
  draw(face, part, strength) {
    const opacity = strength * part.opacity * face.opacity;
    if (!(opacity > 0)) return;
    if (part.region === "lips") {
      const area = this.#lips(face.landmarks, part.size);
      if (area) this.#apply(face, part, area, opacity, 1);
      return;
    }
    for (const side of [0, 1]) {
      let share = turnedToUs(face, onSide([AT[part.region]], side)[0]);
      if (part.region === "eyelids" || part.region === "eyeliner") share *= eyeShown(face, side);
      const area = share > 0 ? this.#region(face, part, side) : null;
      if (area) this.#apply(face, part, area, opacity, share);
    }
  }

  /** @param {Face} face @param {any} part @param {number} side @returns {Rect | null} */
  #region(face, { region, size }, side) {
    if (region === "eyelids") return this.#lid(face, side, size);
    if (region === "eyeliner") return this.#liner(face, side, size);
    if (region === "brows") return this.#brow(face, side, size);
    return this.#cheek(face, side, size);
  }

  /** @param {Face} face @param {any} part @param {Rect} area @param {number} opacity @param {number} share */
  #apply(face, part, area, opacity, share) {
    const { canvas, material, average } = this;
    this.mask.end();
    canvas.keep(area);
    const { uniforms } = material;
    uniforms.area.value.set(area.x, area.y, area.width, area.height);
    uniforms.frame.value = average.uniforms.frame.value = canvas.other.texture;
    const glossy = part.finish === "gloss";
    if (glossy || part.blend === "normal") canvas.run(average, this.mean);
    uniforms.color.value.fromArray(rgb(part.color));
    uniforms.mode.value = MODES[part.blend];
    uniforms.opacity.value = opacity * share;
    uniforms.gloss.value = Number(glossy);
    uniforms.line.value = 0;
    if (glossy && part.region === "lips") {
      this.#light(face, area);
      uniforms.line.value = 0.75 * opacity;
    }
    canvas.run(material, canvas.now, area);
  }

  /** A soft light along the lower lip. @param {Face} face @param {Rect} area */
  #light({ landmarks: p }, area) {
    const line = LOWER_LIP.slice(1, -1).map(([a, b]) => {
      const at = (/** @type {number} */ k) => p[3 * a + k] * 0.55 + p[3 * b + k] * 0.45;
      return /** @type {[number, number]} */ ([at(0), at(1)]);
    });
    const [[x1, y1], [x2, y2]] = points(p, [14, 17]);
    const width = Math.max(1, Math.round(0.16 * Math.hypot(x1 - x2, y1 - y2)));
    this.shine.begin(area);
    this.shine.stroke(curve(line), width, Math.max(0.5, 0.018 * eyeDistance(p)), 150 / 255);
    this.shine.end();
  }

  /** @param {Points} outline @param {number} margin @param {number} sigma */
  #begin(outline, margin, sigma) {
    const rect = this.canvas.around(outline.flat(), margin);
    if (rect) this.mask.begin(rect, sigma);
    return rect;
  }

  /** @param {Float32Array} p @param {number} size */
  #lips(p, size) {
    const edge = LIP_EDGE * size * eyeDistance(p);
    const outline = points(p, LIPS);
    const rect = this.#begin(outline, 3 * edge + 2, edge);
    if (!rect) return null;
    this.mask.fill(curve(outline, true), edge);
    // The mouth stays sharp: teeth take no colour.
    this.mask.cut(curve(points(p, MOUTH), true));
    return rect;
  }

  /** @param {Float32Array} p @param {number} side */
  #cutEye(p, side) {
    this.mask.cut(curve(points(p, onSide(EYE, side)), true));
  }

  /** Shadow: all at the lashes, half above the crease.
   * @param {Face} face @param {number} side @param {number} size */
  #lid({ landmarks: p }, side, size) {
    const edge = LID_EDGE * size * eyeDistance(p);
    const lashes = points(p, onSide(LASHES, side)), crease = points(p, onSide(CREASE, side));
    const towards = (/** @type {number} */ share) =>
      lashes.map(([x, y], i) => /** @type {[number, number]} */ (
        [x + (crease[i][0] - x) * share, y + (crease[i][1] - y) * share]
      ));
    const reach = Math.min(1.6, 0.9 * size);
    const rect = this.#begin([...lashes, ...towards(reach)], 3 * edge + 2, edge);
    if (!rect) return null;
    const band = (/** @type {number} */ share) =>
      [...curve(lashes), ...curve(towards(share)).reverse()];
    this.mask.fill(band(reach), edge, 150 / 255);
    this.mask.fill(band(reach * 0.55), edge);
    this.#cutEye(p, side);
    return rect;
  }

  /** A line along the upper lashes, thicker outwards, that ends in a wing.
   * @param {Face} face @param {number} side @param {number} size */
  #liner(face, side, size) {
    const { landmarks: p } = face;
    const unit = eyeDistance(p);
    const lashes = points(p, onSide(LASHES, side));
    const { along, up } = axes(face);
    const outwards = side ? along : along.map((value) => -value);
    const [corner] = lashes;
    const wing = /** @type {[number, number]} */ (
      corner.map((value, k) => value + unit * WING * size * (0.9 * outwards[k] + 0.55 * up[k]))
    );
    const edge = curve(lashes, false, 6);
    const top = edge.map(([x, y], i) => {
      const thick = LINE * size * unit * (1 - (0.85 * i) / (edge.length - 1));
      return /** @type {[number, number]} */ ([x + thick * up[0], y + thick * up[1]]);
    });
    const sigma = Math.max(0.5, 0.004 * unit);
    const rect = this.#begin([...edge, ...top, wing], 3, sigma);
    if (!rect) return null;
    this.mask.fill([wing, ...top, ...edge.reverse()], sigma);
    this.#cutEye(p, side);
    return rect;
  }

  /** @param {Face} face @param {number} side @param {number} size */
  #brow({ landmarks: p }, side, size) {
    const edge = BROW_EDGE * size * eyeDistance(p);
    const outline = points(p, onSide(BROW, side));
    const rect = this.#begin(outline, 3 * edge + 2, edge);
    if (rect) this.mask.fill(curve(outline, true), edge);
    return rect;
  }

  /** @param {Face} face @param {number} side @param {number} size */
  #cheek({ landmarks: p }, side, size) {
    const edge = CHEEK_EDGE * eyeDistance(p) * size;
    const ring = points(p, onSide(CHEEK, side));
    const center = [0, 1].map((k) => ring.reduce((sum, q) => sum + q[k], 0) / ring.length);
    const outline = ring.map((q) => /** @type {[number, number]} */ (
      q.map((value, k) => center[k] + (value - center[k]) * size * 0.85)
    ));
    const rect = this.#begin(outline, 2.5 * edge, edge);
    if (!rect) return null;
    // What is softer than the way to the face's edge must not colour what is behind.
    this.mask.within(hull(points(p, Array.from({ length: p.length / 3 }, (_, i) => i))));
    this.mask.fill(curve(outline, true), edge);
    return rect;
  }

  dispose() {
    for (const each of [this.mask, this.shine, this.mean, this.material, this.average]) {
      each.dispose();
    }
  }
}

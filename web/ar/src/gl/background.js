/**
 * What is behind people; see `retinue.apps.ar.effects.background`. The mask is brought to the
 * frame's edges by a guided filter, whose lines are found here on the network's own picture and
 * drawn by the GPU on every pixel.
 */
import { FloatType, HalfFloatType, RGFormat, RedFormat, Texture, Vector2, Vector3 } from "three";
import shared from "../shared.json";
import { LUMINANCE, rgb } from "./blend.js";
import { dataTexture, pass, plain, target } from "./canvas.js";

const { SMALL, RADIUS, EPSILON, STILL, LOW, HIGH, REST_S } = shared.background;
const MODES = /** @type {Record<string, number>} */ ({ blur: 0, replace: 1, color: 2 });

const SHRINK = /* glsl */ `
uniform sampler2D frame;
uniform sampler2D mask;
uniform vec2 wide;  // of a pixel, in the frame's
void main() {
  vec2 size = vec2(textureSize(frame, 0));
  vec3 sum = vec3(0.0);
  for (int row = 0; row < 5; row++) {
    for (int column = 0; column < 5; column++) {
      vec2 inner = (vec2(column, row) + 0.5) / 5.0 - 0.5;
      sum += texture(frame, (at + inner) * wide / size).rgb;
    }
  }
  ivec2 p = ivec2(at * wide / size * vec2(textureSize(mask, 0)));
  float behind = 1.0 - texelFetch(mask, p, 0).r;
  // People do not bleed into what is behind them.
  float weight = clamp(behind * 1.15 - 0.1, 0.004, 1.0);
  drawn = vec4(sum / 25.0, 1.0) * weight;
}`;

const SOFT = /* glsl */ `
uniform sampler2D picture;
uniform vec2 way;
uniform float sigma;
void main() {
  vec2 size = vec2(textureSize(picture, 0));
  int reach = int(ceil(3.0 * sigma));
  vec4 sum = vec4(0.0);
  float all = 0.0;
  for (int i = -reach; i <= reach; i++) {
    float share = exp(-0.5 * float(i * i) / (sigma * sigma));
    vec2 place = abs(at + float(i) * way);
    place = size - abs(size - place);
    sum += share * texture(picture, place / size);
    all += share;
  }
  drawn = sum / all;
}`;

const BODY = /* glsl */ `
uniform sampler2D frame;
uniform sampler2D lines;
uniform sampler2D soft;
uniform sampler2D scenery;
uniform vec3 color;
uniform vec2 part;  // of the picture that covers the frame
uniform int mode;
uniform float amount;
${LUMINANCE}
vec2 lineAt(vec2 share) {
  ivec2 size = textureSize(lines, 0);
  vec2 place = share * vec2(size) - 0.5;
  ivec2 low = ivec2(floor(place));
  vec2 between = place - floor(place);
  vec2 corners[4];
  for (int i = 0; i < 4; i++) {
    ivec2 p = clamp(low + ivec2(i & 1, i >> 1), ivec2(0), size - 1);
    corners[i] = texelFetch(lines, p, 0).rg;
  }
  return mix(mix(corners[0], corners[1], between.x), mix(corners[2], corners[3], between.x),
             between.y);
}
void main() {
  vec2 share = at / vec2(textureSize(frame, 0));
  vec3 here = texelFetch(frame, ivec2(at), 0).rgb;
  vec2 line = lineAt(share);
  float alpha = line.x * luminance(here) + line.y;
  alpha = clamp((alpha - ${LOW.toFixed(3)}) / ${(HIGH - LOW).toFixed(3)}, 0.0, 1.0);
  vec3 behind = color;
  if (mode == 0) {
    vec4 blurred = texture(soft, share);
    behind = blurred.rgb / max(blurred.a, 1e-4);
  } else if (mode == 1) {
    behind = texture(scenery, 0.5 + (share - 0.5) * part).rgb;
  }
  drawn = vec4(mix(behind, here, 1.0 - amount * (1.0 - alpha)), 1.0);
}`;

export class Background {
  /**
   * @param {import("./canvas.js").Canvas} canvas
   * @param {import("../filter/spec.js").Part} part
   * @param {ImageBitmap | null} picture For "replace"; alpha premultiplied, as on black.
   */
  constructor(canvas, part, picture) {
    this.canvas = canvas;
    this.part = part;
    this.picture = picture;
    this.scenery = plain(new Texture(picture ?? undefined));
    if (picture) this.scenery.needsUpdate = true;
    /** @type {Float32Array | null} */
    this.mask = null;
    /** @type {{ seconds: number, shape: string }} */
    this.last = { seconds: 0, shape: "" };
    this.shrink = pass(SHRINK, { frame: null, mask: null, wide: new Vector2() });
    this.soft = pass(SOFT, { picture: null, way: new Vector2(), sigma: 1 });
    this.material = pass(BODY, {
      frame: null, lines: null, soft: null, scenery: this.scenery,
      color: new Vector3(...rgb(part.color)), part: new Vector2(1, 1), mode: MODES[part.mode],
      amount: 1,
    });
    /** @type {import("three").WebGLRenderTarget[]} */
    this.targets = [];
  }

  /**
   * Take a frame's mask.
   *
   * @param {import("../net/segmenter.js").Segmenter} segmenter
   * @param {number} seconds
   */
  async look(segmenter, seconds) {
    const { canvas, last } = this;
    const { size } = segmenter;
    const pixels = canvas.stretched(size);
    const fresh = await segmenter.mask(pixels);
    const shape = `${canvas.width}x${canvas.height}`;
    const away = seconds - last.seconds;
    if (!this.mask || shape !== last.shape || !(away >= 0 && away <= REST_S)) {
      this.mask = fresh.slice();
    } else {
      for (let i = 0; i < fresh.length; i++) {
        const change = fresh[i] - this.mask[i];
        const share = Math.min(1, STILL + ((1 - STILL) * Math.abs(change)) / 0.35);
        this.mask[i] += share * change;
      }
    }
    this.last = { seconds, shape };
    this.#update(pixels, size);
  }

  /** @param {Uint8Array} pixels @param {number} size */
  #update(pixels, size) {
    const { canvas } = this;
    const shrink = Math.min(1, SMALL / Math.max(canvas.width, canvas.height));
    const reach = (/** @type {number} */ side) => Math.round((RADIUS * size) / (side * shrink));
    const mask = /** @type {Float32Array} */ (this.mask);
    const lines = guided(pixels, mask, size, reach(canvas.width), reach(canvas.height));
    if (!this.lines || !this.people) {
      this.lines = dataTexture(lines, size, size, RGFormat, FloatType);
      this.people = dataTexture(mask, size, size, RedFormat, FloatType);
      this.material.uniforms.lines.value = this.lines;
      this.shrink.uniforms.mask.value = this.people;
    }
    this.lines.image.data = lines;
    this.people.image.data = mask;
    this.lines.needsUpdate = this.people.needsUpdate = true;
  }

  /** Change the frame that was looked at. @param {number} strength Beside the part's opacity. */
  apply(strength) {
    const { canvas, part, material } = this;
    const amount = strength * part.opacity;
    if (!(amount > 0) || !this.mask) return;
    const { uniforms } = material;
    const rect = { x: 0, y: 0, width: canvas.width, height: canvas.height };
    canvas.keep(rect);
    uniforms.frame.value = canvas.other.texture;
    uniforms.amount.value = amount;
    if (part.mode === "blur") uniforms.soft.value = this.#blurred();
    if (this.picture) {
      const { width, height } = this.picture;
      const scale = Math.max(canvas.width / width, canvas.height / height);
      uniforms.part.value.set(canvas.width / width / scale, canvas.height / height / scale);
    }
    canvas.run(material, canvas.now, rect);
  }

  /** @returns {import("three").Texture} What is behind people, blurred, times how much of it. */
  #blurred() {
    const { canvas, part } = this;
    const share = part.strength * 0.03;
    // As small as the blur leaves nothing to be seen of.
    const longest = Math.round(Math.min(SMALL, 2.5 / Math.max(share, 1e-3)));
    const scale = Math.min(1, longest / Math.max(canvas.width, canvas.height));
    const width = Math.max(1, Math.round(canvas.width * scale));
    const height = Math.max(1, Math.round(canvas.height * scale));
    if (this.targets[0]?.width !== width || this.targets[0]?.height !== height) {
      this.targets.forEach((each) => each.dispose());
      this.targets = [0, 1].map(() => target(width, height, { type: HalfFloatType }));
    }
    const [one, other] = this.targets;
    const { shrink, soft } = this;
    shrink.uniforms.frame.value = canvas.other.texture;
    shrink.uniforms.wide.value.set(canvas.width / width, canvas.height / height);
    canvas.run(shrink, one);
    soft.uniforms.sigma.value = Math.max(0.5, share * Math.max(width, height));
    for (const [from, to, x, y] of /** @type {const} */ ([[one, other, 1, 0], [other, one, 0, 1]])) {
      soft.uniforms.picture.value = from.texture;
      soft.uniforms.way.value.set(x, y);
      canvas.run(soft, to);
    }
    return one.texture;
  }

  dispose() {
    const each = [this.scenery, this.lines, this.people, this.shrink, this.soft, this.material];
    for (const one of [...each, ...this.targets]) one?.dispose();
    this.picture?.close();
  }
}

/**
 * The guided filter of K. He, J. Sun and X. Tang (2013): near each place, a line of luminance fits
 * the mask.
 *
 * @param {Uint8Array} pixels (size, size, 4) @param {Float32Array} mask (size, size)
 * @param {number} size @param {number} across @param {number} down Radii in pixels.
 * @returns {Float32Array} (size, size, 2): slope and offset, by luminance in [0, 1].
 */
export function guided(pixels, mask, size, across, down) {
  const count = size * size;
  const planes = Array.from({ length: 4 }, () => new Float32Array(count));
  const [guide, both, square, plain_] = planes;
  for (let i = 0; i < count; i++) {
    const g = (0.299 * pixels[4 * i] + 0.587 * pixels[4 * i + 1] + 0.114 * pixels[4 * i + 2]) / 255;
    guide[i] = g;
    plain_[i] = mask[i];
    both[i] = g * mask[i];
    square[i] = g * g;
  }
  for (const plane of planes) boxBlur(plane, size, across, down);
  for (let i = 0; i < count; i++) {
    const variance = square[i] - guide[i] * guide[i] + EPSILON;
    const slope = (both[i] - guide[i] * plain_[i]) / variance;
    both[i] = slope;
    square[i] = plain_[i] - slope * guide[i];
  }
  boxBlur(both, size, across, down);
  boxBlur(square, size, across, down);
  const lines = new Float32Array(2 * count);
  for (let i = 0; i < count; i++) {
    lines[2 * i] = both[i];
    lines[2 * i + 1] = square[i];
  }
  return lines;
}

/** @param {Float32Array} plane @param {number} size @param {number} across @param {number} down */
function boxBlur(plane, size, across, down) {
  const line = new Float32Array(size);
  for (const [radius, step, next] of [[across, 1, size], [down, size, 1]]) {
    const reach = Math.min(radius, size - 1), share = 1 / (2 * reach + 1);
    const mirrored = (/** @type {number} */ i) => (i < 0 ? -1 - i : i >= size ? 2 * size - 1 - i : i);
    for (let row = 0; row < size; row++) {
      const start = row * next;
      for (let i = 0; i < size; i++) line[i] = plane[start + i * step];
      let sum = 0;
      for (let i = -reach; i <= reach; i++) sum += line[mirrored(i)];
      for (let i = 0; i < size; i++) {
        plane[start + i * step] = sum * share;
        sum += line[mirrored(i + reach + 1)] - line[mirrored(i - reach)];
      }
    }
  }
}

/** Flat pictures that face the camera; see `retinue.apps.ar.effects.sticker`. */
import { LinearMipmapLinearFilter, Texture, Vector2 } from "three";
import { pass, plain } from "./canvas.js";
import { axes, eyeDistance, middle } from "./live.js";

const BODY = /* glsl */ `
uniform sampler2D picture;
uniform vec2 start;
uniform vec2 right;  // the picture's sides, in pixels
uniform vec2 down;
uniform float opacity;
void main() {
  vec2 away = at - start;
  float turned = right.x * down.y - right.y * down.x;
  vec2 uv = vec2(away.x * down.y - away.y * down.x, right.x * away.y - right.y * away.x) / turned;
  // Half a pixel of every edge is soft.
  vec2 slope = vec2(length(right), length(down));
  vec2 edge = clamp(min(uv, 1.0 - uv) * slope + 0.5, 0.0, 1.0);
  drawn = texture(picture, uv) * (opacity * edge.x * edge.y);
}`;

export class Sticker {
  /**
   * @param {import("./canvas.js").Canvas} canvas
   * @param {import("../filter/spec.js").Part} part
   * @param {ImageBitmap} picture Alpha premultiplied.
   */
  constructor(canvas, part, picture) {
    this.canvas = canvas;
    this.part = part;
    this.texture = plain(new Texture(picture));
    this.texture.generateMipmaps = true;
    this.texture.minFilter = LinearMipmapLinearFilter;
    this.texture.needsUpdate = true;
    this.shape = picture.height / picture.width;
    const way = () => new Vector2();
    const uniforms = { picture: this.texture, start: way(), right: way(), down: way(), opacity: 1 };
    this.material = pass(BODY, uniforms, { over: true });
  }

  /** @param {import("./live.js").Face} face @param {import("../filter/triggers.js").Seen} seen */
  draw(face, { strength, elapsed }) {
    const { part, canvas } = this;
    let lift = 0, faded = 1;
    if (part.rise) {
      const turns = elapsed / part.period + part.phase;
      const share = turns - Math.floor(turns);
      lift = part.rise * share;
      faded = Math.min(1, 5 * share, 3 * (1 - share));
    }
    const opacity = strength * faded * part.opacity * face.opacity;
    if (!(opacity > 0)) return;
    const unit = eyeDistance(face.landmarks);
    let { along, up } = axes(face);
    const shift = [part.offset[0], part.offset[1] + lift];
    const center = middle(face.landmarks, part.at).map(
      (value, i) => value + unit * (shift[0] * along[i] + shift[1] * up[i]),
    );
    if (!part.turn) [along, up] = [[1, 0], [0, -1]];
    const angle = ((part.angle + part.spin * elapsed) * Math.PI) / 180;
    const cosine = Math.cos(angle), sine = Math.sin(angle), wide = unit * part.size;
    const right = along.map((value, i) => (cosine * value - sine * up[i]) * wide);
    const down = along.map((value, i) => (-sine * value - cosine * up[i]) * wide * this.shape);
    const start = center.map((value, i) => value - (right[i] + down[i]) / 2);
    const corners = [
      ...start,
      ...start.map((value, i) => value + right[i]),
      ...start.map((value, i) => value + down[i]),
      ...start.map((value, i) => value + right[i] + down[i]),
    ];
    const rect = canvas.around(corners, 1);
    if (!rect) return;
    const { uniforms } = this.material;
    uniforms.start.value.fromArray(start);
    uniforms.right.value.fromArray(right);
    uniforms.down.value.fromArray(down);
    uniforms.opacity.value = opacity;
    canvas.run(this.material, canvas.now, rect);
  }

  dispose() {
    this.material.dispose();
    this.texture.dispose();
  }
}

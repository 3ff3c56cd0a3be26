/** Face paint on the live mesh; see `retinue.apps.ar.effects.paint`. */
import {
  BufferAttribute, CustomBlending, DoubleSide, LinearMipmapLinearFilter, Mesh, NoBlending,
  OneFactor, OneMinusSrcAlphaFactor, ShaderMaterial, Texture,
} from "three";
import shared from "../shared.json";
import { COUNT, TRIANGLES, UV } from "../face/canonical.js";
import { plain } from "./canvas.js";
import { movable } from "./head.js";
import { onSide } from "./live.js";

const { EYE, MOUTH } = shared.makeup;

const VERTEX = /* glsl */ `
attribute float light;
varying vec2 place;
varying float shade;
void main() {
  place = uv;
  shade = light;
  gl_Position = projectionMatrix * modelViewMatrix * vec4(position, 1.0);
}`;

const FRAGMENT = /* glsl */ `
uniform sampler2D picture;
uniform float opacity;
varying vec2 place;
varying float shade;
void main() {
  vec4 texel = texture2D(picture, place);
  gl_FragColor = vec4(min(texel.rgb * shade, texel.a), texel.a) * opacity;
}`;

/** @param {string[]} cover Openings whose triangles stay. @returns {number[]} */
export function triangles(cover) {
  const rings = [
    ...(cover.includes("eyes") ? [] : [onSide(EYE, 0), onSide(EYE, 1)]),
    ...(cover.includes("mouth") ? [] : [MOUTH]),
  ];
  const kept = [];
  for (let i = 0; i < TRIANGLES.length; i += 3) {
    const corners = [...TRIANGLES.subarray(i, i + 3)];
    if (!rings.some((ring) => corners.every((c) => ring.includes(c)))) kept.push(...corners);
  }
  return kept;
}

export class Paint {
  /** @param {import("../filter/spec.js").Part} part @param {ImageBitmap} picture Premultiplied. */
  constructor(part, picture) {
    this.part = part;
    this.texture = plain(new Texture(picture));
    this.texture.generateMipmaps = true;
    this.texture.minFilter = LinearMipmapLinearFilter;
    this.texture.needsUpdate = true;
    const normal = part.blend === "normal";
    this.material = new ShaderMaterial({
      vertexShader: VERTEX,
      fragmentShader: FRAGMENT,
      uniforms: { picture: { value: this.texture }, opacity: { value: 1 } },
      side: DoubleSide,
      // Other modes are mixed with the skin by a pass of their own.
      blending: normal ? CustomBlending : NoBlending,
      blendSrc: OneFactor,
      blendDst: OneMinusSrcAlphaFactor,
      transparent: true,
    });
    const geometry = movable(COUNT, triangles(part.cover));
    geometry.setAttribute("uv", new BufferAttribute(UV, 2));
    geometry.setAttribute("light", new BufferAttribute(new Float32Array(COUNT).fill(1), 1));
    this.mesh = new Mesh(geometry, this.material);
    this.mesh.frustumCulled = false;
  }

  /** Whether the skin's light shows on it. */
  get isLit() {
    // Other modes than "normal" keep the skin's light by themselves.
    return this.part.blend === "normal" && this.part.shading > 0;
  }

  /**
   * @param {Float32Array} live (N, 3) in camera space.
   * @param {Float32Array | null} light (468,)
   * @param {number} opacity
   */
  update(live, light, opacity) {
    const { position, light: levels } = this.mesh.geometry.attributes;
    position.array.set(live.subarray(0, 3 * COUNT));
    position.needsUpdate = true;
    if (light) {
      light.forEach((value, i) => (levels.array[i] = 1 + this.part.shading * (value - 1)));
      levels.needsUpdate = true;
    }
    this.material.uniforms.opacity.value = opacity;
  }

  dispose() {
    this.mesh.geometry.dispose();
    this.material.dispose();
    this.texture.dispose();
  }
}

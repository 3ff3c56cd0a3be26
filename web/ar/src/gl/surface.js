/** How surfaces are lit: the program's formula and its studio; see `render.environment` there. */
import {
  BackSide, CustomBlending, DoubleSide, Matrix3, OneFactor, OneMinusSrcAlphaFactor, ShaderMaterial,
  Vector4,
} from "three";
import shared from "../shared.json";

const { studio, lamps } = shared;

/** @param {number[]} v @returns {string} */
const vec = (v) => `vec${v.length}(${v.map((x) => x.toFixed(9)).join(", ")})`;

const LIGHT = /* glsl */ `
uniform float metallic;
uniform float roughness;
float lamp(vec3 d, vec3 middle, vec3 right, vec3 up, vec2 wide, float w) {
  vec2 place = abs(vec2(dot(d, right), dot(d, up))) / max(dot(d, middle), 1e-4);
  vec2 inside = (1.0 - smoothstep(wide - w, wide + w, place)) * wide / (wide + 0.5 * w);
  return inside.x * inside.y;
}
void lit(vec3 n, vec3 v, out vec3 gain, out vec3 shine) {
  float facing = max(dot(n, v), 1e-3);
  float w = ${studio.SHARPEST} + ${studio.BLUR} * roughness;
  vec3 d = 2.0 * facing * n - v;
  vec3 light = mix(${vec(studio.FLOOR)}, ${vec(studio.WALL)}, smoothstep(-w, w, d.y));
${lamps
  .map(
    ({ middle, right, up, half, light }) =>
      `  light += ${light.toFixed(6)} * lamp(d, ${vec(middle)}, ${vec(right)}, ${vec(up)}, ` +
      `${vec(half)}, w);`,
  )
  .join("\n")}
  vec4 r = roughness * vec4(-1.0, -0.0275, -0.572, 0.022) + vec4(1.0, 0.0425, 1.04, -0.04);
  float edge = min(r.x * r.x, exp2(-9.28 * facing)) * r.x + r.y;
  vec2 split = vec2(-1.04, 1.04) * edge + r.zw;
  float key = max(0.0, (dot(n, ${vec(studio.KEY)}) + ${studio.WRAP}) / ${1 + studio.WRAP});
  vec3 diffuse = mix(${vec(studio.GROUND)}, ${vec(studio.SKY)}, 0.5 + 0.5 * n.y)
    + key * ${vec(studio.KEY_LIGHT)};
  gain = (1.0 - metallic) * diffuse + metallic * split.x * light;
  shine = ((1.0 - metallic) * ${studio.DIELECTRIC} * split.x + split.y) * light;
}`;

const VERTEX = /* glsl */ `
#include <common>
#include <color_pars_vertex>
#include <morphtarget_pars_vertex>
#include <skinning_pars_vertex>
uniform mat3 uvTransform;
varying vec2 place;
varying vec3 toLight;
varying vec3 toCamera;
void main() {
  #include <color_vertex>
  #include <beginnormal_vertex>
  #include <morphnormal_vertex>
  #include <skinbase_vertex>
  #include <skinnormal_vertex>
  #include <begin_vertex>
  #include <morphtarget_vertex>
  #include <skinning_vertex>
  vec4 seen = modelViewMatrix * vec4(transformed, 1.0);
  vec3 n = normalMatrix * objectNormal;
  toLight = vec3(n.x, -n.y, -n.z);
  toCamera = vec3(-seen.x, seen.y, seen.z);
  place = (uvTransform * vec3(uv, 1.0)).xy;
  gl_Position = projectionMatrix * seen;
}`;

const FRAGMENT = /* glsl */ `
#include <common>
#include <color_pars_fragment>
uniform vec4 factor;
uniform vec4 glow;  // emissive, opacity
uniform float cutoff;
uniform sampler2D picture;
varying vec2 place;
varying vec3 toLight;
varying vec3 toCamera;
${LIGHT}
vec3 encoded(vec3 c) {
  c = clamp(c, 0.0, 1.0);
  return mix(12.92 * c, 1.055 * pow(c, vec3(1.0 / 2.4)) - 0.055, step(0.0031308, c));
}
void main() {
  vec4 base = factor;
  float cut = 1.0;
#if defined( USE_COLOR_ALPHA )
  base *= vColor;
#elif defined( USE_COLOR )
  base.rgb *= vColor.rgb;
#endif
#ifdef TEXTURED
  vec4 texel = texture2D(picture, place);
  base.rgb *= texel.rgb;
  cut = texel.a;
#endif
#ifdef MASKED
  if (cut * base.a < cutoff) discard;
#endif
#ifdef UNLIT
  vec3 gain = vec3(1.0), shine = vec3(0.0), emitted = vec3(0.0);
#else
  vec3 n = normalize(toLight), v = normalize(toCamera), gain, shine;
  if (dot(n, v) < 0.0 && TWO_SIDED == 1) n = -n;
  lit(n, v, gain, shine);
  vec3 emitted = glow.rgb;
#endif
#ifdef BLENDED
  float bright = min(1.0, max(shine.r, max(shine.g, shine.b)));
  float alpha = 1.0 - (1.0 - base.a) * (1.0 - bright);
  vec3 color = (base.a * (base.rgb * gain + emitted) + shine) / max(alpha, 1e-6);
  alpha *= cut * glow.a;
#else
  float alpha = glow.a;
  vec3 color = base.rgb * gain + shine + emitted;
#endif
  gl_FragColor = vec4(encoded(color) * alpha, alpha);
}`;

/**
 * @param {any} from A material that three.js made of a glTF material.
 * @param {import("three").BufferGeometry} geometry
 * @returns {ShaderMaterial} One that is lit as in the program.
 */
export function surface(from, geometry) {
  const unlit = Boolean(from.isMeshBasicMaterial);
  const masked = from.alphaTest > 0, blended = Boolean(from.transparent);
  const defines = Object.fromEntries(
    Object.entries({ UNLIT: unlit, MASKED: masked, BLENDED: blended, TEXTURED: Boolean(from.map) })
      .filter(([, on]) => on)
      .map(([name]) => [name, 1]),
  );
  from.map?.updateMatrix();
  const { color, emissive } = from;
  const uniforms = {
    factor: new Vector4(color.r, color.g, color.b, blended || masked ? from.opacity : 1),
    glow: new Vector4(emissive?.r ?? 0, emissive?.g ?? 0, emissive?.b ?? 0, 1),
    metallic: from.metalness ?? 0,
    roughness: from.roughness ?? 1,
    cutoff: from.alphaTest,
    picture: from.map ?? null,
    uvTransform: from.map ? from.map.matrix.clone() : new Matrix3(),
  };
  return new ShaderMaterial({
    uniforms: Object.fromEntries(Object.entries(uniforms).map(([name, value]) => [name, { value }])),
    defines: { ...defines, TWO_SIDED: from.side === DoubleSide ? 1 : 0 },
    vertexShader: VERTEX,
    fragmentShader: FRAGMENT,
    vertexColors: Boolean(geometry.attributes.color),
    // The picture's y is down, which turns triangles round.
    side: from.side === DoubleSide ? DoubleSide : BackSide,
    transparent: blended,
    depthWrite: !blended,
    blending: CustomBlending,
    blendSrc: OneFactor,
    blendDst: OneMinusSrcAlphaFactor,
  });
}

/**
 * How colours mix with a frame, in sRGB; see `retinue.apps.ar.effects.blend`: GLSL functions.
 */

/** Numbers of the modes, as shaders know them. @type {Record<string, number>} */
export const MODES = { normal: 0, multiply: 1, screen: 2, overlay: 3, soft_light: 4 };

/** `over(b, p, a, mode)`: a picture on a frame; p is premultiplied by a. */
export const OVER = /* glsl */ `
vec3 over(vec3 b, vec3 p, float a, int mode) {
  if (mode == 0) return b * (1.0 - a) + p;
  if (mode == 1) return b * (1.0 - a + p);
  if (mode == 2) return b + (1.0 - b) * p;
  if (mode == 3) {
    vec3 light = a - 2.0 * (1.0 - b) * (a - p);
    return b * (1.0 - a) + mix(2.0 * b * p, light, step(0.5, b));
  }
  return b * (1.0 - a) + b * b * a + 2.0 * b * (1.0 - b) * p;
}`;

/** `tinted(b, gray, color, mode, reference)`: skin under a colour; light and shadow stay. */
export const TINTED = /* glsl */ `
vec3 tinted(vec3 b, float gray, vec3 color, int mode, float reference) {
  if (mode == 0) return min(color * gray / max(reference, 0.02), 1.0);
  if (mode == 1) return b * color;
  if (mode == 2) return b + color - b * color;
  if (mode == 3) {
    return mix(2.0 * b * color, 1.0 - 2.0 * (1.0 - b) * (1.0 - color), step(0.50001, b));
  }
  return (1.0 - 2.0 * color) * b * b + 2.0 * color * b;
}`;

/** `luminance(c)` as OpenCV has it. */
export const LUMINANCE = /* glsl */ `
float luminance(vec3 c) { return dot(c, vec3(0.299, 0.587, 0.114)); }`;

/** @param {string} color "#rrggbb". @returns {[number, number, number]} In [0, 1], sRGB. */
export function rgb(color) {
  const part = (/** @type {number} */ i) => parseInt(color.slice(i, i + 2), 16) / 255;
  return [part(1), part(3), part(5)];
}

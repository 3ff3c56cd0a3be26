/**
 * The pinhole that pose, drawing and crops share; see `retinue.apps.ar.face.camera`.
 *
 * @typedef {{ width: number, height: number, focal: number, x: number, y: number }} Camera Pixels.
 */

/**
 * @param {number} width @param {number} height Of the frame.
 * @param {number} degrees Vertical field of view.
 * @returns {Camera}
 */
export function cameraOf(width, height, degrees) {
  const focal = height / 2 / Math.tan((degrees * Math.PI) / 360);
  return { width, height, focal, x: width / 2, y: height / 2 };
}

/**
 * A video's frame as its decoder left it: a plane of light and planes of colour, which a pass makes
 * a picture of. Where there is no GPU, browsers take ten times as long to do that themselves.
 */
import { LinearFilter, RGFormat, RedFormat, UnsignedByteType, Vector3 } from "three";
import { dataTexture, pass } from "./canvas.js";

/** Red's and blue's share of light. */
const BT601 = [0.299, 0.114];
const BT709 = [0.2126, 0.0722];

const BODY = /* glsl */ `
uniform sampler2D light;
uniform sampler2D first;
uniform sampler2D second;
uniform bool paired;   // both colours are in the first plane
uniform vec3 range;    // of light: black, and one over its span; one over colour's span
uniform vec3 share;    // red's, green's and blue's of light
uniform vec2 whole;    // the target's size
uniform mat2 turn;     // from what is seen to how it was filmed
void main() {
  vec2 place = turn * (at / whole - 0.5) + 0.5;
  float y = (texture(light, place).r - range.x) * range.y;
  vec2 color = paired ? texture(first, place).rg
                      : vec2(texture(first, place).r, texture(second, place).r);
  color = (color - 128.0 / 255.0) * range.z;
  float red = y + 2.0 * (1.0 - share.r) * color.y;
  float blue = y + 2.0 * (1.0 - share.b) * color.x;
  float green = (y - share.r * red - share.b * blue) / share.g;
  drawn = vec4(clamp(vec3(red, green, blue), 0.0, 1.0), 1.0);
}`;

/**
 * @param {any} frame A VideoFrame.
 * @returns {number[] | null} By columns, from a place in what is seen to one in the planes, both
 *   from their middle; none where the browser does not tell how it was filmed.
 */
function orientation({ rotation, flip }) {
  if (rotation === undefined) return null;
  const [c, s] = [[1, 0], [0, 1], [-1, 0], [0, -1]][rotation / 90];
  const across = flip ? -1 : 1;
  return [across * c, across * -s, s, c];
}

export class Planes {
  constructor() {
    this.buffer = new Uint8Array();
    /** @type {import("three").DataTexture[]} */
    this.textures = [];
    this.layout = "";
    this.material = pass(BODY, {
      light: null, first: null, second: null, paired: false, range: new Vector3(),
      share: new Vector3(), whole: [1, 1], turn: [1, 0, 0, 1],
    });
  }

  /**
   * Take a video's frame.
   *
   * @param {HTMLVideoElement} video
   * @returns {Promise<boolean>} Whether it could be had so.
   */
  async read(video) {
    if (typeof VideoFrame === "undefined") return false;
    if (video.readyState < video.HAVE_CURRENT_DATA) return false;
    /** @type {VideoFrame | null} */
    let frame = null;
    try {
      frame = new VideoFrame(video);
      const { format, visibleRect, colorSpace } = frame;
      const turned = orientation(frame);
      if (!visibleRect || !turned || (format !== "NV12" && format !== "I420")) return false;
      const { width, height } = visibleRect;
      const seen = turned[0] ? [width, height] : [height, width];
      // Pixels that are not square are left to the browser.
      if (seen[0] !== video.videoWidth || seen[1] !== video.videoHeight) return false;
      const size = frame.allocationSize();
      if (this.buffer.length !== size) this.buffer = new Uint8Array(size);
      const places = await frame.copyTo(this.buffer);
      this.#upload(format, width, height, places);
      this.#colors(colorSpace, height);
      this.material.uniforms.turn.value = turned;
      return true;
    } catch {
      // Kinds that a browser does not give out, and a video that begins anew just now.
      return false;
    } finally {
      frame?.close();
    }
  }

  /** @param {string} format @param {number} width @param {number} height @param {PlaneLayout[]} places */
  #upload(format, width, height, places) {
    const half = [Math.ceil(width / 2), Math.ceil(height / 2)];
    const parts = places.map(({ offset, stride }, i) => {
      const pixels = i && format === "NV12" ? 2 : 1;
      const rows = i ? half[1] : height;
      const data = this.buffer.subarray(offset, offset + stride * rows);
      return { data, width: stride / pixels, rows, format: pixels === 2 ? RGFormat : RedFormat };
    });
    const layout = JSON.stringify([format, width, height, places]);
    if (layout !== this.layout) {
      this.textures.forEach((each) => each.dispose());
      this.textures = parts.map((part) => {
        const made = dataTexture(part.data, part.width, part.rows, part.format, UnsignedByteType);
        made.minFilter = made.magFilter = LinearFilter;
        return made;
      });
      this.layout = layout;
    }
    this.textures.forEach((each, i) => {
      each.image.data = parts[i].data;
      each.needsUpdate = true;
    });
    const { uniforms } = this.material;
    [uniforms.light.value, uniforms.first.value] = this.textures;
    uniforms.second.value = this.textures[2] ?? this.textures[1];
    uniforms.paired.value = format === "NV12";
  }

  /** @param {VideoColorSpace} space @param {number} height */
  #colors({ matrix, fullRange }, height) {
    const [red, blue] = matrix === "bt709" || (!matrix && height >= 720) ? BT709 : BT601;
    const { range, share } = this.material.uniforms;
    share.value.set(red, 1 - red - blue, blue);
    if (fullRange) range.value.set(0, 1, 1);
    else range.value.set(16 / 255, 255 / 219, 255 / 224);
  }

  /** @param {import("./canvas.js").Canvas} canvas @param {import("three").WebGLRenderTarget} to */
  draw(canvas, to) {
    this.material.uniforms.whole.value = [to.width, to.height];
    canvas.run(this.material, to);
  }
}

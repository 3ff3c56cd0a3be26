/**
 * The GPU's side of a frame: the picture that came in, targets of its size, and passes over them.
 *
 * In all textures and targets the first row is the picture's top, so pixels have the same
 * coordinates everywhere: their origin is the top left corner, centres lie at + 0.5. Colours are
 * sRGB's numbers as they are; layers are mixed in them, alpha premultiplied.
 */
import {
  BufferAttribute, BufferGeometry, ClampToEdgeWrapping, CustomBlending, DataTexture, GLSL3,
  LinearFilter, LinearSRGBColorSpace, Mesh, NearestFilter, NoBlending, NoColorSpace, OneFactor,
  OneMinusSrcAlphaFactor, OrthographicCamera, RawShaderMaterial, Scene, Texture, Vector2, Vector4,
  WebGLRenderTarget, WebGLRenderer,
} from "three";
import { AVERAGED, toFrame } from "../face/roi.js";

/** @typedef {{ x: number, y: number, width: number, height: number }} Rect Pixels. */

const VERTEX = /* glsl */ `
in vec2 corner;
uniform vec4 rect;
uniform vec2 size;
out vec2 at;
void main() {
  at = rect.xy + corner * rect.zw;
  gl_Position = vec4(2.0 * at / size - 1.0, 0.0, 1.0);
}`;

const HEAD = /* glsl */ `
precision highp float;
precision highp int;
precision highp sampler2D;
in vec2 at;
out vec4 drawn;
`;

/**
 * @param {string} body A fragment shader; `at` is its place in pixels of the target.
 * @param {Record<string, any>} uniforms By name, their first values.
 * @param {{ over?: boolean }} options Whether it is laid over what is there.
 * @returns {RawShaderMaterial}
 */
export function pass(body, uniforms, { over = false } = {}) {
  const all = { rect: new Vector4(), size: new Vector2(), ...uniforms };
  return new RawShaderMaterial({
    glslVersion: GLSL3,
    vertexShader: VERTEX,
    fragmentShader: HEAD + body,
    uniforms: Object.fromEntries(Object.entries(all).map(([name, value]) => [name, { value }])),
    depthTest: false,
    depthWrite: false,
    blending: over ? CustomBlending : NoBlending,
    blendSrc: OneFactor,
    blendDst: OneMinusSrcAlphaFactor,
  });
}

/** A texture whose content is replaced by whole pictures, such as a video's frames. */
class Source extends Texture {
  constructor() {
    super();
    // It has three.js ask the GPU for storage each time, as the picture's size may change.
    this.isVideoTexture = true;
    plain(this);
  }

  update() {
    return undefined;
  }
}

/**
 * @template {Texture} T
 * @param {T} texture
 * @returns {T} It, with its numbers as they are.
 */
export function plain(texture) {
  texture.colorSpace = NoColorSpace;
  texture.generateMipmaps = false;
  texture.minFilter = texture.magFilter = LinearFilter;
  texture.wrapS = texture.wrapT = ClampToEdgeWrapping;
  texture.flipY = false;
  return texture;
}

/** @param {number} width @param {number} height @param {object} more @returns {WebGLRenderTarget} */
export function target(width, height, more = {}) {
  return new WebGLRenderTarget(width, height, {
    depthBuffer: false,
    minFilter: LinearFilter,
    magFilter: LinearFilter,
    colorSpace: NoColorSpace,
    ...more,
  });
}

/** @param {Float32Array | Uint8Array} data @param {number} width @param {number} height @param {any} format @param {any} type */
export function dataTexture(data, width, height, format, type) {
  const texture = new DataTexture(data, width, height, format, type);
  texture.minFilter = texture.magFilter = NearestFilter;
  texture.generateMipmaps = false;
  texture.flipY = false;
  texture.unpackAlignment = 1;
  texture.needsUpdate = true;
  return texture;
}

const SAMPLE = /* glsl */ `
uniform sampler2D picture;
uniform vec3 rowX;
uniform vec3 rowY;
uniform ivec2 taps;
uniform vec2 wide;
vec4 texel(ivec2 p, ivec2 size) {
  bool inside = all(greaterThanEqual(p, ivec2(0))) && all(lessThan(p, size));
  return inside ? texelFetch(picture, p, 0) : vec4(0.0, 0.0, 0.0, 1.0);
}
vec4 bilinear(vec2 place) {
  ivec2 size = textureSize(picture, 0);
  vec2 low = floor(place - 0.5);
  vec2 share = place - 0.5 - low;
  ivec2 p = ivec2(low);
  vec4 top = mix(texel(p, size), texel(p + ivec2(1, 0), size), share.x);
  vec4 bottom = mix(texel(p + ivec2(0, 1), size), texel(p + ivec2(1, 1), size), share.x);
  return mix(top, bottom, share.y);
}
void main() {
  vec4 sum = vec4(0.0);
  for (int row = 0; row < taps.y; row++) {
    for (int column = 0; column < taps.x; column++) {
      vec2 inner = (vec2(column, row) + 0.5) / vec2(taps) - 0.5;
      vec3 p = vec3(at + inner * wide, 1.0);
      sum += bilinear(vec2(dot(rowX, p), dot(rowY, p)));
    }
  }
  drawn = sum / float(taps.x * taps.y);
}`;

const COPY = /* glsl */ `
uniform sampler2D picture;
void main() { drawn = vec4(texelFetch(picture, ivec2(at), 0).rgb, 1.0); }`;

const PRESENT = /* glsl */ `
uniform sampler2D picture;
uniform float mirrored;
void main() {
  vec2 size = vec2(textureSize(picture, 0));
  vec2 p = vec2(mix(at.x, size.x - at.x, mirrored), size.y - at.y);
  drawn = vec4(texelFetch(picture, ivec2(p), 0).rgb, 1.0);
}`;

export class Canvas {
  width = 1;
  height = 1;
  /** What the frame looks like so far; with depth. */
  now = target(1, 1, { depthBuffer: true });
  /** A copy of a part of it, for passes that read what they change. */
  other = target(1, 1);
  /** The frame as it came, where it is not `source` itself. @type {WebGLRenderTarget | null} */
  plain = null;

  /**
   * @param {HTMLCanvasElement} canvas What is seen.
   * @throws {Error} There is no WebGL 2.
   */
  constructor(canvas) {
    this.renderer = new WebGLRenderer({
      canvas, antialias: false, alpha: false, depth: false, stencil: false,
      powerPreference: "high-performance",
    });
    this.renderer.autoClear = false;
    this.renderer.outputColorSpace = LinearSRGBColorSpace;
    this.renderer.setPixelRatio(1);
    this.renderer.setClearColor(0, 0);
    const gl = this.renderer.getContext();
    const about = gl.getExtension("WEBGL_debug_renderer_info");
    const name = String(gl.getParameter(about ? about.UNMASKED_RENDERER_WEBGL : gl.RENDERER));
    /** Whether there is no GPU, and the CPU draws. */
    this.isSlow = /swiftshader|llvmpipe|software|basic render/i.test(name);
    this.source = new Source();
    this.camera = new OrthographicCamera();
    this.scene = new Scene();
    const quad = new BufferGeometry();
    quad.setAttribute("corner", new BufferAttribute(Float32Array.of(0, 0, 1, 0, 0, 1, 1, 1), 2));
    quad.setIndex([0, 1, 2, 2, 1, 3]);
    this.quad = new Mesh(quad);
    this.quad.frustumCulled = false;
    this.scene.add(this.quad);
    this.passes = {
      sample: pass(SAMPLE, {
        picture: null, rowX: null, rowY: null, taps: new Vector2(1, 1), wide: new Vector2(1, 1),
      }),
      copy: pass(COPY, { picture: null }),
      present: pass(PRESENT, { picture: null, mirrored: 0 }),
    };
    /** @type {Map<string, { target: WebGLRenderTarget, pixels: Uint8Array }>} */
    this.small = new Map();
  }

  /** Whether the browser took the GPU away, which it mostly gives back soon. */
  get isLost() {
    return this.renderer.getContext().isContextLost();
  }

  /** @param {number} width @param {number} height Of frames from now on. */
  resize(width, height) {
    if (width === this.width && height === this.height) return;
    this.width = width;
    this.height = height;
    this.renderer.setSize(width, height, false);
    for (const each of [this.now, this.other]) each.dispose();
    this.now = target(width, height, { depthBuffer: true });
    this.other = target(width, height);
    this.source.dispose();
    this.plain?.dispose();
    this.plain = null;
  }

  /** @returns {Texture} The frame as it came. */
  get input() {
    return this.plain?.texture ?? this.source;
  }

  /**
   * Take a picture.
   *
   * @param {HTMLVideoElement | ImageBitmap | HTMLCanvasElement} picture
   * @param {number} width @param {number} height Its pixels.
   */
  take(picture, width, height) {
    this.resize(width, height);
    this.plain?.dispose();
    this.plain = null;
    this.source.image = /** @type {any} */ (picture);
    this.source.needsUpdate = true;
    this.#begin();
  }

  /** @param {import("./planes.js").Planes} planes @param {number} width @param {number} height */
  takePlanes(planes, width, height) {
    this.resize(width, height);
    this.plain ??= target(width, height);
    planes.draw(this, this.plain);
    this.#begin();
  }

  #begin() {
    this.passes.copy.uniforms.picture.value = this.input;
    this.run(this.passes.copy, this.now);
  }

  /**
   * @param {RawShaderMaterial} material Of `pass`.
   * @param {WebGLRenderTarget | null} to None for the canvas.
   * @param {Rect} rect Where; all of it by default.
   */
  run(material, to, rect = { x: 0, y: 0, width: to?.width ?? this.width, height: to?.height ?? this.height }) {
    material.uniforms.rect.value.set(rect.x, rect.y, rect.width, rect.height);
    material.uniforms.size.value.set(to?.width ?? this.width, to?.height ?? this.height);
    this.quad.material = material;
    this.renderer.setRenderTarget(to);
    this.renderer.render(this.scene, this.camera);
  }

  /** Copy a part of the frame, to be read while it is changed. @param {Rect} rect */
  keep(rect) {
    this.passes.copy.uniforms.picture.value = this.now.texture;
    this.run(this.passes.copy, this.other, rect);
  }

  /** @param {boolean} mirrored */
  present(mirrored) {
    const { present } = this.passes;
    present.uniforms.picture.value = this.now.texture;
    present.uniforms.mirrored.value = Number(mirrored);
    this.run(present, null);
  }

  /**
   * @param {ArrayLike<number>} points (N, stride) pixels; the first two of each count.
   * @param {number} margin
   * @param {number} stride
   * @returns {Rect | null} Their box inside the frame; none where nothing is left.
   */
  around(points, margin, stride = 2) {
    let [x1, y1, x2, y2] = [Infinity, Infinity, -Infinity, -Infinity];
    for (let i = 0; i < points.length; i += stride) {
      x1 = Math.min(x1, points[i]);
      x2 = Math.max(x2, points[i]);
      y1 = Math.min(y1, points[i + 1]);
      y2 = Math.max(y2, points[i + 1]);
    }
    const x = Math.max(0, Math.floor(x1 - margin)), y = Math.max(0, Math.floor(y1 - margin));
    const width = Math.min(this.width, Math.ceil(x2 + margin)) - x;
    const height = Math.min(this.height, Math.ceil(y2 + margin)) - y;
    return width >= 1 && height >= 1 ? { x, y, width, height } : null;
  }

  // -- reading pixels back: what the networks see ------------------------------------------

  /**
   * @param {string} name Of the use; its memory is used again.
   * @param {number} size Side in pixels.
   * @param {number[]} matrix a b x, c d y: from the small picture's to the frame's pixels.
   * @param {number[]} taps Across and down, for each pixel; they are averaged.
   * @returns {Uint8Array} RGBA; black beyond the frame.
   */
  #read(name, size, matrix, taps = [1, 1]) {
    const key = `${name}${size}`;
    let kept = this.small.get(key);
    if (!kept) {
      kept = { target: target(size, size), pixels: new Uint8Array(4 * size * size) };
      this.small.set(key, kept);
    }
    const { uniforms } = this.passes.sample;
    uniforms.picture.value = this.input;
    uniforms.rowX.value = matrix.slice(0, 3);
    uniforms.rowY.value = matrix.slice(3);
    uniforms.taps.value = taps;
    this.run(this.passes.sample, kept.target);
    this.renderer.readRenderTargetPixels(kept.target, 0, 0, size, size, kept.pixels);
    return kept.pixels;
  }

  /** @param {import("../face/roi.js").Roi} roi @param {number} size @returns {Uint8Array} */
  crop(roi, size) {
    const taps = roi.size >= AVERAGED * size ? Math.floor(roi.size / size / 1.5) : 1;
    return this.#read("crop", size, toFrame(roi, size), [taps, taps]);
  }

  /** @param {Rect} rect @param {number} size @returns {Uint8Array} A part, stretched and averaged. */
  part(rect, size) {
    const matrix = [rect.width / size, 0, rect.x, 0, rect.height / size, rect.y];
    return this.#read("part", size, matrix, [4, 4]);
  }

  /** @param {number} size @returns {Uint8Array} The frame in the middle of a black square. */
  letterbox(size) {
    const scale = Math.max(this.width, this.height) / size;
    const across = (this.width - size * scale) / 2, down = (this.height - size * scale) / 2;
    return this.#read("letterbox", size, [scale, 0, across, 0, scale, down]);
  }

  /** @param {number} size @returns {Uint8Array} The whole frame, stretched. */
  stretched(size) {
    return this.#read("stretched", size, [this.width / size, 0, 0, 0, this.height / size, 0]);
  }

  /** @param {number} size @returns {Uint8Array} The whole frame, stretched and averaged. */
  thumb(size) {
    return this.part({ x: 0, y: 0, width: this.width, height: this.height }, size);
  }
}

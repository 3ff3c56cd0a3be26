/**
 * Puts a filter on a frame, in the program's order: what is behind people, the shape of faces,
 * what is on the skin in the file's order, what is in space, stickers; see
 * `retinue.apps.ar.filters.stage`.
 *
 * @typedef {import("./live.js").Face} Face
 * @typedef {{ simple: boolean, samples: number }} Quality Simpler models; samples of a pixel.
 */
import { Camera as ThreeCamera, Scene } from "three";
import { readModel } from "../filter/gltf.js";
import { readPicture } from "../filter/pictures.js";
import { Triggers } from "../filter/triggers.js";
import { Background } from "./background.js";
import { MODES, OVER } from "./blend.js";
import { pass, target } from "./canvas.js";
import { Eyes } from "./eyes.js";
import { Head } from "./head.js";
import { skinLight } from "./light.js";
import { inSpace, usable } from "./live.js";
import { Makeup } from "./makeup.js";
import { ModelPart, loadModel } from "./model.js";
import { Paint } from "./paint.js";
import { Sticker } from "./sticker.js";
import { Distortion, moved, warps } from "./warp.js";

const NEAR = 1, FAR = 1000;

const INK = /* glsl */ `
uniform sampler2D frame;
uniform sampler2D ink;
uniform int mode;
${OVER}
void main() {
  vec4 put = texelFetch(ink, ivec2(at), 0);
  vec3 here = texelFetch(frame, ivec2(at), 0).rgb;
  drawn = vec4(clamp(over(here, put.rgb, put.a, mode), 0.0, 1.0), 1.0);
}`;

const LAY = /* glsl */ `
uniform sampler2D ink;
void main() { drawn = texelFetch(ink, ivec2(at), 0); }`;

export class Stage {
  /**
   * @param {import("./canvas.js").Canvas} canvas
   * @param {import("../filter/spec.js").Spec} spec
   */
  constructor(canvas, spec) {
    this.canvas = canvas;
    this.spec = spec;
    this.triggers = new Triggers(spec.parts);
    this.camera = new ThreeCamera();
    this.camera.matrixWorldAutoUpdate = false;
    this.space = new Scene();
    this.skin = new Scene();
    /** @type {(Background | Eyes | Makeup | ModelPart | Paint | Sticker | null)[]} By part. */
    this.ready = [];
    this.distortion = new Distortion(canvas);
    this.head = new Head();
    this.skin.add(this.head.group);
    /** @type {Map<number, Head>} */
    this.heads = new Map();
    this.ink = pass(INK, { frame: null, ink: null, mode: 0 });
    this.lay = pass(LAY, { ink: null }, { over: true });
    /** @type {import("three").WebGLRenderTarget | null} */
    this.layer = null;
  }

  /**
   * @param {import("./canvas.js").Canvas} canvas
   * @param {import("../filter/spec.js").Spec} spec
   * @param {import("../filter/files.js").Files} files
   * @returns {Promise<Stage>}
   * @throws {Error} One of its files cannot be read.
   */
  static async load(canvas, spec, files) {
    const stage = new Stage(canvas, spec);
    try {
      for (const part of spec.parts) stage.ready.push(await stage.#prepare(part, files));
    } catch (error) {
      stage.dispose();
      throw error;
    }
    return stage;
  }

  /** @param {import("../filter/spec.js").Part} part @param {import("../filter/files.js").Files} files */
  async #prepare(part, files) {
    const { canvas } = this;
    const picture = () => readPicture(files, part.file, true);
    const model = async (/** @type {string} */ name) =>
      loadModel(name, await readModel(files, name));
    switch (part.kind) {
      case "model": {
        const simple = part.simple ? await model(part.simple) : null;
        return new ModelPart(part, await model(part.file), simple, this.space);
      }
      case "paint":
        return new Paint(part, await picture());
      case "sticker":
        return new Sticker(canvas, part, await picture());
      case "makeup":
        return new Makeup(canvas);
      case "eyes":
        return new Eyes(canvas, part, part.file ? await picture() : null);
      case "background":
        return new Background(canvas, part, part.file ? await picture() : null);
      default:
        return null;
    }
  }

  /**
   * Put the filter on the frame that the canvas took.
   *
   * @param {Face[]} faces
   * @param {import("./live.js").Camera} camera
   * @param {number} seconds
   * @param {Quality} quality
   * @param {import("../net/segmenter.js").Segmenter | null} segmenter
   */
  async apply(faces, camera, seconds, quality, segmenter) {
    const known = faces.filter(usable);
    const seen = this.triggers.update(known, seconds);
    const lit = this.ready.some((each) => each instanceof Paint && each.isLit);
    const lights = known.map((face) => (lit ? skinLight(this.canvas, face.landmarks) : null));
    await this.#behind(seen, seconds, segmenter);
    this.#look(camera);
    const worn = known.map((face, i) => {
      const how = /** @type {import("../filter/triggers.js").Seen[]} */ (seen.get(face.id));
      const bent = this.#bend(face, how);
      return { face: bent, how, live: inSpace(bent, camera), light: lights[i] };
    });
    for (const one of worn) this.#skin(one);
    this.#models(worn, seconds, quality);
    for (const { face, how } of worn) {
      this.ready.forEach((each, i) => {
        if (each instanceof Sticker && how[i].strength > 0) each.draw(face, how[i]);
      });
    }
  }

  /** @param {import("./live.js").Camera} camera */
  #look({ width, height, focal, x, y }) {
    // The picture's y is down and so is the target's: nothing is turned over.
    this.camera.projectionMatrix.set(
      (2 * focal) / width, 0, (2 * x) / width - 1, 0,
      0, (2 * focal) / height, (2 * y) / height - 1, 0,
      0, 0, (FAR + NEAR) / (FAR - NEAR), (-2 * FAR * NEAR) / (FAR - NEAR),
      0, 0, 1, 0,
    );
    this.camera.projectionMatrixInverse.copy(this.camera.projectionMatrix).invert();
  }

  /**
   * @param {Map<number, import("../filter/triggers.js").Seen[]>} seen @param {number} seconds
   * @param {import("../net/segmenter.js").Segmenter | null} segmenter
   */
  async #behind(seen, seconds, segmenter) {
    const place = this.ready.findIndex((each) => each instanceof Background);
    if (place < 0 || !segmenter) return;
    const background = /** @type {Background} */ (this.ready[place]);
    await background.look(segmenter, seconds);
    const strengths = [...seen.values()].map((how) => how[place].strength);
    background.apply(this.spec.parts[place].show ? Math.max(0, ...strengths) : 1);
  }

  /** @param {Face} face @param {import("../filter/triggers.js").Seen[]} how @returns {Face} */
  #bend(face, how) {
    this.spec.parts.forEach((part, i) => {
      if (part.kind !== "distort" || !(how[i].strength > 0)) return;
      const local = warps(face, part.points, how[i].strength * part.opacity);
      this.distortion.apply(local);
      face = moved(face, local);
    });
    return face;
  }

  /** @typedef {{ face: Face, how: import("../filter/triggers.js").Seen[], live: Float32Array,
   *   light: Float32Array | null }} Worn */

  /** @param {Worn} worn */
  #skin({ face, how, live, light }) {
    this.ready.forEach((each, i) => {
      const { strength } = how[i];
      if (!(strength > 0)) return;
      if (each instanceof Makeup) each.draw(face, this.spec.parts[i], strength);
      else if (each instanceof Eyes) each.draw(face, strength);
      else if (each instanceof Paint) this.#paint(each, face, live, light, strength);
    });
  }

  /**
   * @param {Paint} paint @param {Face} face @param {Float32Array} live
   * @param {Float32Array | null} light @param {number} strength
   */
  #paint(paint, face, live, light, strength) {
    const { canvas, skin } = this;
    const { renderer } = canvas;
    const { blend, opacity } = paint.part;
    paint.update(live, paint.isLit ? light : null, strength * opacity * face.opacity);
    this.head.update(face, live, false);
    skin.add(paint.mesh);
    const direct = blend === "normal";
    const to = direct ? canvas.now : this.#layer(0);
    renderer.setRenderTarget(to);
    renderer.clear(!direct, true, false);
    renderer.render(skin, this.camera);
    paint.mesh.removeFromParent();
    if (direct) return;
    const rect = canvas.around(Array.from(face.landmarks), 2, 3);
    if (!rect) return;
    canvas.keep(rect);
    const { uniforms } = this.ink;
    uniforms.frame.value = canvas.other.texture;
    uniforms.ink.value = to.texture;
    uniforms.mode.value = MODES[blend];
    canvas.run(this.ink, canvas.now, rect);
  }

  /** @param {number} samples @returns {import("three").WebGLRenderTarget} Empty or not. */
  #layer(samples) {
    const { width, height } = this.canvas;
    const fits = this.layer?.width === width && this.layer.height === height;
    if (!this.layer || !fits || this.layer.samples !== samples) {
      this.layer?.dispose();
      this.layer = target(width, height, { depthBuffer: true, samples });
    }
    return this.layer;
  }

  /** @param {Worn[]} worn @param {number} seconds @param {Quality} quality */
  #models(worn, seconds, { simple, samples }) {
    const models = this.ready.filter((each) => each instanceof ModelPart);
    if (!models.length) return;
    for (const each of models) each.clear();
    for (const head of this.heads.values()) head.group.removeFromParent();
    let any = false;
    for (const { face, how, live } of worn) {
      this.ready.forEach((each, i) => {
        if (!(each instanceof ModelPart) || !(how[i].strength > 0)) return;
        each.draw(face, live, how[i], seconds, simple);
        any = true;
      });
      const painted = this.ready.some((each, i) => each instanceof Paint && how[i].strength > 0);
      if (this.spec.occlusion || painted) this.#occlude(face, live);
    }
    if (!any) return;
    const { canvas } = this;
    const { renderer } = canvas;
    const to = samples > 1 ? this.#layer(samples) : canvas.now;
    renderer.setRenderTarget(to);
    renderer.clear(to !== canvas.now, true, false);
    renderer.render(this.space, this.camera);
    if (to === canvas.now) return;
    this.lay.uniforms.ink.value = to.texture;
    canvas.run(this.lay, canvas.now);
  }

  /** @param {Face} face @param {Float32Array} live */
  #occlude(face, live) {
    if (this.heads.size > 32) {
      for (const head of this.heads.values()) head.dispose();
      this.heads.clear();
    }
    let head = this.heads.get(face.id);
    if (!head) this.heads.set(face.id, (head = new Head()));
    head.update(face, live, this.spec.occlusion);
    this.space.add(head.group);
  }

  dispose() {
    const own = [this.distortion, this.head, ...this.heads.values(), this.ink, this.lay, this.layer];
    for (const each of [...this.ready, ...own]) each?.dispose();
  }
}

/** A stream of frames with a filter on it: track, draw, keep to the time that there is. */
import { cameraOf } from "./face/camera.js";
import { Tracker } from "./face/tracker.js";
import { needsBackground, needsIris } from "./filter/spec.js";
import { Canvas } from "./gl/canvas.js";
import { Planes } from "./gl/planes.js";
import { Stage } from "./gl/stage.js";
import { Governor } from "./governor.js";
import { BlazeFace } from "./net/detector.js";
import { FaceMesh } from "./net/mesh.js";
import { Network, startLiteRt } from "./net/network.js";
import { Segmenter } from "./net/segmenter.js";

/**
 * @typedef {{ detector: string, far_detector?: string, mesh: string, iris_mesh?: string,
 *   segmenter: string }} Names Of the networks.
 * @typedef {{ models: Names, fov: number, max_faces: number }} Settings
 * @typedef {{ faces: import("./face/tracker.js").Face[], times: Record<string, number> }} Drawn
 */

const SLOW_SIDE = 640;
const WASM = "/apps/ar/litert.wasm";
/** Of the detectors' grids, by the side of their input. @type {Record<number, number[]>} */
const STRIDES = { 128: [8, 16, 16, 16], 192: [4] };

/** Loads networks, each when it is first needed. */
class Networks {
  /** @param {(path: string) => Promise<Response>} get */
  constructor(get) {
    this.get = get;
    /** @type {Map<string, Promise<any>>} */
    this.loaded = new Map();
  }

  /**
   * @template T
   * @param {string} name
   * @param {(network: Network) => T} make
   * @returns {Promise<T>}
   */
  load(name, make) {
    let found = this.loaded.get(name);
    if (!found) {
      found = this.#fetch(name).then(make);
      // What failed is tried again when it is asked for again.
      found.catch(() => this.loaded.delete(name));
      this.loaded.set(name, found);
    }
    return found;
  }

  /** @param {string} name */
  async #fetch(name) {
    const answer = await this.get(`/v1/ar/models/${encodeURIComponent(name)}`);
    const [file] = await Promise.all([answer.arrayBuffer(), startLiteRt(WASM)]);
    return Network.load(new Uint8Array(file));
  }

  /** @param {string} name @returns {Promise<BlazeFace>} */
  detector(name) {
    return this.load(name, (network) => new BlazeFace(network, STRIDES[network.shape[1]]));
  }

  /** @param {string} name @returns {Promise<FaceMesh>} */
  mesh(name) {
    return this.load(name, (network) => new FaceMesh(network));
  }

  /** @param {string} name @returns {Promise<Segmenter>} */
  segmenter(name) {
    return this.load(name, (network) => new Segmenter(network));
  }
}

export class Session {
  /**
   * @param {HTMLCanvasElement} element @param {(path: string) => Promise<Response>} get
   * @param {Settings} settings @param {Networks} networks Of a session before it, if any.
   * @throws {Error} There is no WebGL 2.
   */
  constructor(element, get, settings, networks = new Networks(get)) {
    this.settings = settings;
    this.canvas = new Canvas(element);
    this.networks = networks;
    this.governor = new Governor();
    this.planes = new Planes();
    /** Whether this source's frames come so. */
    this.inPlanes = false;
    /** @type {Drawn} */
    this.last = { faces: [], times: {} };
    /** @type {Tracker | null} */
    this.tracker = null;
    /** @type {Stage | null} */
    this.stage = null;
    /** @type {{ mesh: FaceMesh | null, iris: FaceMesh | null, segmenter: Segmenter | null }} */
    this.ready = { mesh: null, iris: null, segmenter: null };
    this.mirrored = false;
    /** @type {Promise<unknown>} */
    this.turn = Promise.resolve();
  }

  /** Load what every frame needs. */
  async start() {
    const { detector, mesh, far_detector: far } = this.settings.models;
    const found = await Promise.all([
      this.networks.detector(detector),
      this.networks.mesh(mesh),
      far ? this.networks.detector(far) : null,
    ]);
    this.ready.mesh = found[1];
    const options = { maxFaces: this.settings.max_faces, far: found[2] };
    this.tracker ??= new Tracker(found[0], found[1], options);
  }

  /**
   * Change the filter; what is worn stays until all of the new one is there.
   *
   * @param {import("./filter/spec.js").Spec | null} spec None to wear nothing.
   * @param {import("./filter/files.js").Files | null} files
   * @throws {Error} One of its files or networks cannot be had.
   */
  async wear(spec, files) {
    let stage = null;
    if (spec && files) {
      const { models } = this.settings;
      const iris = needsIris(spec) ? this.networks.mesh(models.iris_mesh ?? "face-mesh-attention") : null;
      const segmenter = needsBackground(spec) ? this.networks.segmenter(models.segmenter) : null;
      stage = await Stage.load(this.canvas, spec, files);
      try {
        this.ready.iris = await iris;
        this.ready.segmenter = await segmenter;
      } catch (error) {
        stage.dispose();
        throw error;
      }
    }
    await this.#alone(async () => {
      const before = this.stage;
      this.stage = stage;
      before?.dispose();
      this.governor.reset();
    });
  }

  /**
   * Frames are drawn one after the other, and filters change between them.
   *
   * @template T @param {() => Promise<T>} action @returns {Promise<T>}
   */
  #alone(action) {
    const done = this.turn.then(action);
    this.turn = done.catch(() => undefined);
    return done;
  }

  /** Forget all faces: what follows is another picture. */
  reset() {
    this.inPlanes = false;
    this.tracker?.reset();
    this.stage?.triggers.faces.clear();
    this.governor.reset();
  }

  /**
   * Put the filter on a frame, and show it.
   *
   * @param {HTMLVideoElement | ImageBitmap} picture @param {number} width @param {number} height
   * @param {number} seconds @param {boolean} live Whether quality follows the time that it takes.
   * @returns {Promise<Drawn>}
   */
  draw(picture, width, height, seconds, live) {
    return this.#alone(() => this.#draw(picture, width, height, seconds, live));
  }

  /**
   * @param {HTMLVideoElement | ImageBitmap} picture @param {number} width @param {number} height
   * @param {number} seconds @param {boolean} live
   * @returns {Promise<Drawn>}
   */
  async #draw(picture, width, height, seconds, live) {
    const { canvas, tracker, stage, ready } = this;
    const start = performance.now();
    const video = live && canvas.isSlow ? /** @type {HTMLVideoElement} */ (picture) : null;
    if (video && (await this.planes.read(video))) {
      this.inPlanes = true;
      // Without a GPU, a quarter of the pixels takes a quarter of the time.
      const shrink = Math.min(1, SLOW_SIDE / Math.max(width, height));
      [width, height] = [Math.round(width * shrink), Math.round(height * shrink)];
      canvas.takePlanes(this.planes, width, height);
    } else if (this.inPlanes && video) {
      // A frame of another size would be another scene; the next one comes soon.
      return this.last;
    } else {
      canvas.take(picture, width, height);
    }
    const taken = performance.now() - start;
    const camera = cameraOf(width, height, this.settings.fov);
    const quality = live ? this.governor.quality : this.governor.best;
    /** @type {import("./face/tracker.js").Face[]} */
    let faces = [];
    /** @type {Record<string, number>} */
    let times = {};
    if (tracker) {
      const iris = stage && needsIris(stage.spec) && quality.iris ? ready.iris : null;
      tracker.mesh = iris ?? /** @type {FaceMesh} */ (ready.mesh);
      faces = await tracker.update(canvas, seconds, camera);
      times = { ...tracker.times, read: tracker.times.read + taken };
    }
    const drawing = performance.now();
    await stage?.apply(faces, camera, seconds, quality, ready.segmenter);
    canvas.present(this.mirrored);
    const end = performance.now();
    times.draw = end - drawing;
    times.total = end - start;
    if (live) this.governor.note(times.total);
    this.last = { faces, times };
    return this.last;
  }

  /** Whether what is worn shows on faces only. */
  get needsFace() {
    return this.stage?.spec.parts.some(({ kind }) => kind !== "background") ?? false;
  }

  /** Show the last frame again, for example mirrored. */
  again() {
    this.canvas.present(this.mirrored);
  }

  /** @returns {Promise<Blob>} What is seen, as PNG. */
  picture() {
    // The canvas keeps nothing after it was shown: it is drawn again in the same turn.
    this.again();
    const element = this.canvas.renderer.domElement;
    return new Promise((resolve, reject) =>
      element.toBlob(
        (blob) => (blob ? resolve(blob) : reject(new Error("the picture cannot be saved"))),
        "image/png",
      ),
    );
  }
}

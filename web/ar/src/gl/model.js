/** glTF models on a head; see `retinue.apps.ar.effects.asset`. */
import {
  AnimationMixer, LoopOnce, Matrix4, TextureLoader,
} from "three";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
import { clone } from "three/addons/utils/SkeletonUtils.js";
import { Invalid } from "../filter/schema.js";
import { measure } from "../filter/triggers.js";
import { COUNT, IRIS_CORNERS } from "../face/canonical.js";
import { surface } from "./surface.js";

const MAX_TRIANGLES = 200_000;
const SPARE = 8;

/** @typedef {{ scene: import("three").Group, animations: import("three").AnimationClip[], morphs: Set<string> }} Loaded */

/**
 * @param {string} name For messages. @param {ArrayBuffer} glb Of `readModel`.
 * @returns {Promise<Loaded>}
 * @throws {Invalid}
 */
export async function loadModel(name, glb) {
  const loader = new GLTFLoader();
  // Pictures come by <img>, as the page's policy lets nothing be fetched but from the server.
  loader.register((parser) => {
    /** @type {any} */ (parser).textureLoader = new TextureLoader();
    return { name: "RETINUE_pictures" };
  });
  /** @type {any} */
  let found;
  try {
    found = await loader.parseAsync(glb, "");
  } catch (error) {
    throw new Invalid(name, `it cannot be read: ${error instanceof Error ? error.message : error}`);
  }
  if (!found.scene) throw new Invalid(name, "it has no scene");
  let triangles = 0;
  /** @type {Set<string>} */
  const morphs = new Set();
  found.scene.traverse((/** @type {any} */ node) => {
    if (!node.isMesh) return;
    const { geometry } = node;
    if (!geometry.attributes.normal) geometry.computeVertexNormals();
    triangles += (geometry.index?.count ?? geometry.attributes.position.count) / 3;
    node.material = surface(node.material, geometry);
    node.frustumCulled = false;
    for (const target of Object.keys(node.morphTargetDictionary ?? {})) morphs.add(target);
  });
  if (triangles > MAX_TRIANGLES) throw new Invalid(name, "it has too many triangles");
  return { scene: found.scene, animations: found.animations, morphs };
}

/** @param {any} part @returns {Matrix4} From the file's coordinates to the anchor's. */
export function localMatrix({ position, rotation, scale }) {
  const [x, y, z] = rotation.map((/** @type {number} */ degrees) => (degrees * Math.PI) / 180);
  const made = new Matrix4().makeTranslation(position[0], position[1], position[2]);
  made.multiply(new Matrix4().makeRotationZ(z));
  made.multiply(new Matrix4().makeRotationY(y));
  made.multiply(new Matrix4().makeRotationX(x));
  return made.multiply(new Matrix4().makeScale(scale, scale, scale));
}

/** One model on one face. */
class Instance {
  /** @param {Loaded} loaded */
  constructor(loaded) {
    this.root = clone(loaded.scene);
    this.root.matrixAutoUpdate = false;
    this.rest = loaded.scene.matrix;
    /** @type {any[]} */
    this.meshes = [];
    this.root.traverse((/** @type {any} */ node) => {
      if (!node.isMesh) return;
      // Opacity is the face's, so materials are not shared between faces.
      node.material = node.material.clone();
      node.frustumCulled = false;
      this.meshes.push(node);
    });
    this.mixer = new AnimationMixer(this.root);
    this.actions = new Map(
      loaded.animations.map((clip) => {
        const action = this.mixer.clipAction(clip);
        action.setLoop(LoopOnce, 1);
        action.clampWhenFinished = true;
        return [clip.name, action];
      }),
    );
    this.playing = "";
  }

  /** @param {string} name @param {number} seconds Of the animation. */
  play(name, seconds) {
    const action = this.actions.get(name);
    if (this.playing !== name) {
      this.mixer.stopAllAction();
      this.playing = name;
      action?.play();
    }
    if (!action) return;
    const length = action.getClip().duration;
    action.paused = false;
    action.enabled = true;
    action.time = Math.min(Math.max(seconds, 0), length);
    this.mixer.update(0);
  }

  /** @param {Map<string, number>} weights By morph target's name. */
  morph(weights) {
    for (const mesh of this.meshes) {
      for (const [name, value] of weights) {
        const target = mesh.morphTargetDictionary?.[name];
        if (target !== undefined) mesh.morphTargetInfluences[target] = value;
      }
    }
  }

  /** @param {number} opacity */
  fade(opacity) {
    for (const mesh of this.meshes) mesh.material.uniforms.glow.value.w = opacity;
  }

  dispose() {
    for (const mesh of this.meshes) {
      mesh.material.dispose();
      mesh.skeleton?.dispose();
    }
  }
}

export class ModelPart {
  /**
   * @param {import("../filter/spec.js").Part} part
   * @param {Loaded} full @param {Loaded | null} simple
   * @param {import("three").Scene} scene
   */
  constructor(part, full, simple, scene) {
    this.part = part;
    this.full = full;
    this.simple = simple;
    this.scene = scene;
    this.local = localMatrix(part);
    const wanted = [part.animation, part.show?.play].filter(Boolean);
    const missing = wanted.find((name) => !full.animations.some((clip) => clip.name === name));
    if (missing) throw new Invalid(part.file, `it has no animation ${missing}`);
    const unknown = Object.keys(part.morphs ?? {}).find((name) => !full.morphs.has(name));
    if (unknown) throw new Invalid(part.file, `it has no morph target ${unknown}`);
    /** @type {Map<string, Instance>} */
    this.instances = new Map();
  }

  /** Take all of it off the scene; what is drawn in this frame is put there again. */
  clear() {
    for (const { root } of this.instances.values()) root.removeFromParent();
    if (this.instances.size <= SPARE) return;
    for (const instance of this.instances.values()) instance.dispose();
    this.instances.clear();
  }

  /**
   * @param {import("./live.js").Face} face @param {Float32Array} live
   * @param {import("../filter/triggers.js").Seen} seen
   * @param {number} seconds @param {boolean} simple
   */
  draw(face, live, { strength, elapsed }, seconds, simple) {
    const { part } = this;
    const opacity = strength * part.opacity * face.opacity;
    if (!(opacity > 0)) return;
    const loaded = (simple && this.simple) || this.full;
    const key = `${face.id} ${loaded === this.full}`;
    let instance = this.instances.get(key);
    if (!instance) this.instances.set(key, (instance = new Instance(loaded)));
    const play = part.show?.play || part.animation;
    if (play) {
      const clip = loaded.animations.find(({ name }) => name === play);
      const looping = !part.show?.play && clip && clip.duration > 0;
      instance.play(play, looping ? seconds % clip.duration : elapsed);
    }
    const { morphs } = part;
    instance.morph(new Map(Object.entries(morphs ?? {}).map(([to, from]) => [to, measure(face, from)])));
    instance.fade(opacity);
    const { matrix } = instance.root;
    matrix.copy(anchorMatrix(part, face, live)).multiply(this.local).multiply(instance.rest);
    this.scene.add(instance.root);
    instance.root.updateMatrixWorld(true);
  }

  dispose() {
    for (const instance of this.instances.values()) instance.dispose();
    for (const loaded of [this.full, this.simple]) {
      loaded?.scene.traverse((/** @type {any} */ node) => {
        node.geometry?.dispose();
        node.material?.uniforms?.picture?.value?.dispose();
        node.material?.dispose();
      });
    }
  }
}

/** @param {any} part @param {import("./live.js").Face} face @param {Float32Array} live */
function anchorMatrix({ anchor }, { pose: { rotation: r, translation } }, live) {
  let t = translation;
  if (anchor !== "head") {
    const known = 3 * anchor < live.length ? [anchor] : IRIS_CORNERS[anchor - COUNT];
    t = [0, 1, 2].map(
      (k) => known.reduce((sum, i) => sum + live[3 * i + k], 0) / known.length,
    );
  }
  return new Matrix4().set(
    r[0], r[1], r[2], t[0], r[3], r[4], r[5], t[1], r[6], r[7], r[8], t[2], 0, 0, 0, 1,
  );
}


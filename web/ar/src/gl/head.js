/** The invisible head, which hides what is behind it; see `retinue.apps.ar.effects.occluder`. */
import {
  BufferAttribute, BufferGeometry, DoubleSide, Group, Mesh, ShaderMaterial,
} from "three";
import shared from "../shared.json";
import { COUNT, TRIANGLES, VERTICES } from "../face/canonical.js";

const { head } = shared;
const { SET_BACK_CM } = shared.occluder;

const VERTEX = "void main() { gl_Position = projectionMatrix * modelViewMatrix * vec4(position, 1.0); }";

/** @param {number} count @param {number[] | Uint16Array} triangles @returns {BufferGeometry} */
export function movable(count, triangles) {
  const geometry = new BufferGeometry();
  geometry.setAttribute("position", new BufferAttribute(new Float32Array(3 * count), 3));
  geometry.setIndex(new BufferAttribute(Uint16Array.from(triangles), 1));
  return geometry;
}

export class Head {
  constructor() {
    this.material = new ShaderMaterial({
      vertexShader: VERTEX,
      fragmentShader: "void main() { gl_FragColor = vec4(0.0); }",
      colorWrite: false,
      side: DoubleSide,
    });
    this.face = new Mesh(movable(COUNT, TRIANGLES), this.material);
    this.skull = new Mesh(movable(head.follows.length, head.triangles), this.material);
    this.group = new Group();
    for (const mesh of [this.face, this.skull]) {
      mesh.frustumCulled = false;
      mesh.renderOrder = -1;
      this.group.add(mesh);
    }
  }

  /**
   * @param {import("./live.js").Face} face
   * @param {Float32Array} live (N, 3) its landmarks in camera space.
   * @param {boolean} whole With skull and ears; else the face alone.
   */
  update({ pose }, live, whole) {
    const { rotation: r, translation: t } = pose;
    const front = this.face.geometry.attributes.position;
    for (let i = 0; i < COUNT; i++) {
      // Along the rays: the outline in the picture stays.
      const back = 1 + SET_BACK_CM / live[3 * i + 2];
      for (let k = 0; k < 3; k++) front.array[3 * i + k] = live[3 * i + k] * back;
    }
    front.needsUpdate = true;
    this.skull.visible = whole;
    if (!whole) return;
    const rear = this.skull.geometry.attributes.position;
    const posed = (/** @type {ArrayLike<number>} */ v, /** @type {number} */ i, /** @type {number} */ k) =>
      r[3 * k] * v[3 * i] + r[3 * k + 1] * v[3 * i + 1] + r[3 * k + 2] * v[3 * i + 2] + t[k];
    const back = 1 + SET_BACK_CM / t[2];
    head.follows.forEach((vertex, i) => {
      for (let k = 0; k < 3; k++) {
        const own = live[3 * vertex + k] - posed(VERTICES, vertex, k);
        rear.array[3 * i + k] = (posed(head.positions, i, k) + head.weights[i] * own) * back;
      }
    });
    rear.needsUpdate = true;
  }

  dispose() {
    this.face.geometry.dispose();
    this.skull.geometry.dispose();
    this.material.dispose();
  }
}

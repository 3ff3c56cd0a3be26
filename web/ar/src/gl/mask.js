/** Soft, anti-aliased masks of regions, drawn by a 2D canvas; the alpha channel is the mask. */
import { CanvasTexture } from "three";
import shared from "../shared.json";
import { plain } from "./canvas.js";

const { MOST, SOFTEST } = shared.makeup;

/** @typedef {import("./live.js").Points} Points */
/** @typedef {import("./canvas.js").Rect} Rect */

/** How far beside the canvas shapes are drawn whose blurred shadows fall on it. */
const ASIDE = 10_000;

export class Mask {
  constructor() {
    this.canvas = document.createElement("canvas");
    const context = this.canvas.getContext("2d", { willReadFrequently: true });
    if (!context) throw new Error("this browser draws no 2D canvas");
    this.context = context;
    this.texture = plain(new CanvasTexture(this.canvas));
    this.scale = 1;
    this.rect = { x: 0, y: 0, width: 1, height: 1 };
  }

  /**
   * Begin an empty mask.
   *
   * @param {Rect} rect Of the frame. @param {number} sigma Of the blur to come, in its pixels.
   */
  begin(rect, sigma = 0) {
    this.rect = rect;
    const longest = Math.max(rect.width, rect.height);
    this.scale = Math.min(1, MOST / longest, SOFTEST / Math.max(sigma, 0.1));
    const width = Math.max(1, Math.round(rect.width * this.scale));
    const height = Math.max(1, Math.round(rect.height * this.scale));
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
      this.texture.dispose();
    } else {
      this.context.reset();
    }
    const across = width / rect.width, down = height / rect.height;
    this.context.setTransform(across, 0, 0, down, -rect.x * across, -rect.y * down);
  }

  /** @param {Points} outline */
  #trace(outline) {
    this.context.beginPath();
    for (const [x, y] of outline) this.context.lineTo(x, y);
    this.context.closePath();
  }

  /** Fill what was traced, and its edge: OpenCV's polygons, too, are half a pixel wider. */
  #solid() {
    this.context.fill();
    this.context.lineWidth = 1 / this.scale;
    this.context.lineJoin = "round";
    this.context.stroke();
  }

  /** Nothing is drawn outside of this from now on. @param {Points} outline */
  within(outline) {
    this.#trace(outline);
    this.context.clip();
  }

  /**
   * @param {Points} outline @param {number} sigma Of its blur, in the frame's pixels.
   * @param {number} level In [0, 1].
   */
  fill(outline, sigma = 0, level = 1) {
    const { context } = this;
    context.save();
    this.#aside(sigma, level);
    this.#trace(outline);
    this.#solid();
    context.restore();
  }

  /** @param {Points} line @param {number} width @param {number} sigma @param {number} level */
  stroke(line, width, sigma, level) {
    const { context } = this;
    context.save();
    this.#aside(sigma, level);
    context.lineWidth = width;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    for (const [x, y] of line) context.lineTo(x, y);
    context.stroke();
    context.restore();
  }

  /** @param {number} sigma @param {number} level A shadow is the one blur that all browsers have. */
  #aside(sigma, level) {
    const { context } = this;
    const color = `rgb(255 255 255 / ${level})`;
    if (sigma * this.scale < 0.34) {
      context.fillStyle = context.strokeStyle = color;
      return;
    }
    context.fillStyle = context.strokeStyle = "#fff";
    context.shadowColor = color;
    context.shadowBlur = 2 * sigma * this.scale;
    context.shadowOffsetX = ASIDE;
    context.translate(-ASIDE / (this.canvas.width / this.rect.width), 0);
  }

  /** Take an outline out again, sharply. @param {Points} outline */
  cut(outline) {
    const { context } = this;
    context.globalCompositeOperation = "destination-out";
    context.fillStyle = context.strokeStyle = "#fff";
    this.#trace(outline);
    this.#solid();
    context.globalCompositeOperation = "source-over";
  }

  /** Have the GPU see it. */
  end() {
    this.texture.needsUpdate = true;
  }

  dispose() {
    this.texture.dispose();
  }
}

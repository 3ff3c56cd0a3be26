/** Draws a source's frames, one after the other, as fast as they come and no faster. */

/** @typedef {import("./sources.js").Source} Source */
/** @typedef {import("../session.js").Drawn} Drawn */

export class Loop {
  /**
   * @param {import("../session.js").Session} session
   * @param {(drawn: Drawn) => void} onDrawn
   * @param {(error: unknown) => void} onError After which it stands still.
   */
  constructor(session, onDrawn, onError) {
    this.session = session;
    this.onDrawn = onDrawn;
    this.onError = onError;
    /** @type {Source | null} */
    this.source = null;
    this.running = false;
    /** Frames are drawn one at a time. @type {Promise<void>} */
    this.queue = Promise.resolve();
    this.turn = 0;
  }

  /** @param {Source} source Which takes the place of the last one. */
  async open(source) {
    await this.close();
    this.session.reset();
    this.source = source;
    await this.once();
  }

  async close() {
    this.pause();
    await this.queue;
    this.source?.close();
    this.source = null;
  }

  async play() {
    const { source } = this;
    if (!source || source.kind === "photo" || this.running) return;
    this.running = true;
    const video = /** @type {HTMLVideoElement} */ (source.picture);
    if (source.kind === "video") await video.play();
    this.#next(video, ++this.turn);
  }

  pause() {
    this.running = false;
    this.turn += 1;
    const { source } = this;
    if (source && source.kind === "video") /** @type {HTMLVideoElement} */ (source.picture).pause();
  }

  /** @param {HTMLVideoElement} video @param {number} turn */
  #next(video, turn) {
    const step = () => {
      if (!this.running || turn !== this.turn) return;
      this.once().then(() => this.#next(video, turn));
    };
    if ("requestVideoFrameCallback" in video) video.requestVideoFrameCallback(step);
    else requestAnimationFrame(step);
  }

  /** Draw the frame that is there now. @returns {Promise<void>} */
  once() {
    this.queue = this.queue.then(() => this.#draw());
    return this.queue;
  }

  async #draw() {
    const { source, session } = this;
    if (!source || !source.width) return;
    const { kind, picture, width, height } = source;
    let seconds = performance.now() / 1000;
    if (kind === "video") seconds = /** @type {HTMLVideoElement} */ (picture).currentTime;
    // A photo is its own first frame each time.
    if (kind === "photo") {
      session.reset();
      seconds = 0;
    }
    try {
      this.onDrawn(await session.draw(picture, width, height, seconds, kind !== "photo"));
    } catch (error) {
      this.pause();
      this.onError(error);
    }
  }
}

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
    /** So are sources opened and closed. @type {Promise<void>} */
    this.changes = Promise.resolve();
    this.turn = 0;
  }

  /** @param {Source} source Which takes the place of the last one. */
  open(source) {
    return this.#change(async () => {
      this.session.reset();
      this.source = source;
      await this.once();
    });
  }

  close() {
    return this.#change(async () => undefined);
  }

  /** @param {() => Promise<void>} then After the last source was closed. */
  #change(then) {
    this.changes = this.changes.then(async () => {
      this.pause();
      await this.queue;
      this.source?.close();
      this.source = null;
      await then();
    });
    return this.changes;
  }

  /** @returns {HTMLVideoElement | null} A file's, which may be paused. */
  get video() {
    const { source } = this;
    return source?.kind === "video" ? /** @type {HTMLVideoElement} */ (source.picture) : null;
  }

  async play() {
    const { source } = this;
    if (!source || source.kind === "photo" || this.running) return;
    this.running = true;
    const turn = ++this.turn;
    await this.video?.play();
    this.#next(/** @type {HTMLVideoElement} */ (source.picture), turn);
  }

  pause() {
    this.running = false;
    this.turn += 1;
    this.video?.pause();
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
    if (!source || !source.width || session.canvas.isLost) return;
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

/** Records what is seen; what was recorded stays in the page until it is saved. */

const KINDS = [
  "video/webm;codecs=vp9,opus", "video/webm;codecs=vp8,opus", "video/webm", "video/mp4",
];

/** @param {Blob} blob @param {string} name Give it to the person as a file. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** @returns {string} "20260131-174502", of now. */
export function stamp() {
  const now = new Date();
  const two = (/** @type {number} */ value) => String(value).padStart(2, "0");
  const day = `${now.getFullYear()}${two(now.getMonth() + 1)}${two(now.getDate())}`;
  return `${day}-${two(now.getHours())}${two(now.getMinutes())}${two(now.getSeconds())}`;
}

export class Recorder {
  /** @type {MediaRecorder | null} */
  #recorder = null;
  /** @type {Blob[]} */
  #parts = [];
  /** Milliseconds, until it was last begun or gone on with; and when that was. */
  #before = 0;
  #since = 0;

  /** Whether this browser can record at all. */
  static get possible() {
    return (
      typeof MediaRecorder !== "undefined" &&
      "captureStream" in HTMLCanvasElement.prototype &&
      KINDS.some((kind) => MediaRecorder.isTypeSupported(kind))
    );
  }

  get active() {
    return this.#recorder !== null;
  }

  /** Seconds that were recorded so far. */
  get seconds() {
    const running = this.#recorder?.state === "recording" ? performance.now() - this.#since : 0;
    return (this.#before + running) / 1000;
  }

  /**
   * @param {HTMLCanvasElement} canvas @param {HTMLVideoElement | null} sound A video's.
   * @param {() => void} onError When it cannot go on.
   */
  start(canvas, sound, onError) {
    const stream = canvas.captureStream();
    const heard = /** @type {any} */ (sound)?.captureStream?.();
    for (const track of heard?.getAudioTracks() ?? []) stream.addTrack(track);
    const mimeType = KINDS.find((kind) => MediaRecorder.isTypeSupported(kind));
    const recorder = new MediaRecorder(stream, { mimeType, videoBitsPerSecond: 8_000_000 });
    this.#parts = [];
    recorder.addEventListener("dataavailable", ({ data }) => {
      if (data.size) this.#parts.push(data);
    });
    recorder.addEventListener("error", onError);
    recorder.start(1000);
    this.#recorder = recorder;
    this.#before = 0;
    this.#since = performance.now();
  }

  /** While the page is out of sight nothing is drawn, and nothing is recorded. */
  pause() {
    if (this.#recorder?.state !== "recording") return;
    this.#before = 1000 * this.seconds;
    this.#recorder.pause();
  }

  resume() {
    if (this.#recorder?.state !== "paused") return;
    this.#since = performance.now();
    this.#recorder.resume();
  }

  /** @returns {Promise<{ blob: Blob, suffix: string } | null>} What was recorded. */
  async stop() {
    const recorder = this.#recorder;
    this.#recorder = null;
    if (!recorder) return null;
    if (recorder.state !== "inactive") {
      const stopped = new Promise((resolve) =>
        recorder.addEventListener("stop", resolve, { once: true }),
      );
      recorder.stop();
      await stopped;
    }
    recorder.stream.getVideoTracks().forEach((track) => track.stop());
    const blob = new Blob(this.#parts, { type: recorder.mimeType });
    this.#parts = [];
    return blob.size ? { blob, suffix: recorder.mimeType.includes("mp4") ? "mp4" : "webm" } : null;
  }
}

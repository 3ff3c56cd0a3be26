/** Where frames come from: a camera, a photo or a video of the person's own. */

import { sizeOf } from "../filter/pictures.js";
import { Trouble } from "../trouble.js";

const MAX_SIDE = 4096;
/** Of a photo: a phone's largest. A browser unpacks it to four bytes each. */
const MAX_MEGAPIXELS = 220;
/** Of a file, in which a photo's size is looked for. */
const HEADER_BYTES = 1 << 20;
const CAMERA = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 60 } };
const UNKNOWN = "it is damaged, or of a kind that the browser does not know";
const KINDS = "Use a JPEG, PNG or WebP photo, or an MP4 or WebM video";

/** @type {Record<string, string>} */
const CAMERA_TROUBLE = {
  NotAllowedError:
    "The camera is not allowed here. Allow it for this page in the browser's address bar or settings, then start it again.",
  SecurityError: "The browser's settings forbid the camera. Use a photo or a video file.",
  NotFoundError: "There is no camera. Connect one, or use a photo or a video file.",
  OverconstrainedError: "That camera is gone. Connect it again, or choose another one.",
  NotReadableError:
    "The camera cannot be opened; another program may be using it. Close that, then start it again.",
  AbortError: "The camera stopped while it was started. Start it again.",
};

/**
 * @typedef {{ kind: "camera" | "video" | "photo", width: number, height: number,
 *   picture: HTMLVideoElement | ImageBitmap, isMirrored: boolean, close(): void }} Source
 */

/** @param {string} src @param {MediaStream | null} stream @returns {HTMLVideoElement} */
function player(src, stream) {
  const video = document.createElement("video");
  video.playsInline = true;
  video.muted = true;
  if (stream) video.srcObject = stream;
  else video.src = src;
  return video;
}

/** @param {HTMLVideoElement} video Wait until it has a picture. */
async function opened(video) {
  await new Promise((resolve, reject) => {
    video.addEventListener("loadeddata", resolve, { once: true });
    video.addEventListener("error", () => reject(video.error), { once: true });
  });
  if (!video.videoWidth) throw new Error("it has no picture");
}

/**
 * @param {string} id Of a camera; "" for the browser's choice.
 * @param {(error: Trouble) => void} onEnd When it is unplugged, or taken away.
 * @returns {Promise<Source>}
 * @throws {Trouble}
 */
export async function openCamera(id, onEnd) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Trouble(
      "The browser gives no camera to this page: it must come from localhost or by HTTPS. Photos and video files work.",
    );
  }
  const which = id ? { deviceId: { exact: id } } : { facingMode: "user" };
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { ...CAMERA, ...which } });
  } catch (error) {
    const name = error instanceof Error ? error.name : "";
    const message = `The camera cannot be opened (${name || error}). Start it again, or use a file.`;
    throw new Trouble(CAMERA_TROUBLE[name] ?? message);
  }
  const video = player("", stream);
  const gone = () =>
    onEnd(new Trouble("The camera was unplugged or taken away. Connect it, then start it again."));
  stream.getTracks().forEach((track) => track.addEventListener("ended", gone));
  const close = () => {
    stream.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  };
  try {
    const ready = opened(video);
    await video.play();
    await ready;
  } catch {
    close();
    throw new Trouble("The camera gives no picture. Start it again, or choose another one.");
  }
  return {
    kind: "camera",
    picture: video,
    // What looks away from the person is no mirror.
    isMirrored: stream.getVideoTracks()[0]?.getSettings().facingMode !== "environment",
    get width() {
      return video.videoWidth;
    },
    get height() {
      return video.videoHeight;
    },
    close,
  };
}

/** @returns {Promise<{ id: string, label: string }[]>} The cameras that the page may name. */
export async function cameras() {
  const all = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
  return all
    .filter(({ kind }) => kind === "videoinput")
    .map(({ deviceId, label }, i) => ({ id: deviceId, label: label || `Camera ${i + 1}` }));
}

/**
 * @param {File} file @param {(error: Trouble) => void} onEnd When a video cannot go on.
 * @returns {Promise<Source>}
 * @throws {Trouble}
 */
export async function openFile(file, onEnd) {
  if (!file.size) throw new Trouble(`There is nothing in ${file.name}. ${KINDS}.`);
  if (file.type.startsWith("image/")) return openPhoto(file);
  try {
    // Systems know few kinds of video by their names; the browser looks into the file.
    return await openVideo(file, onEnd);
  } catch (error) {
    if (file.type.startsWith("video/") || !(error instanceof Trouble)) throw error;
    throw new Trouble(`This browser opens no photo or video from ${file.name}. ${KINDS}.`);
  }
}

/** @param {File} file @returns {Promise<Source>} @throws {Trouble} */
async function openPhoto(file) {
  const header = new Uint8Array(await file.slice(0, HEADER_BYTES).arrayBuffer());
  const [across, down] = sizeOf(header) ?? [0, 0];
  if (across * down > MAX_MEGAPIXELS * 1e6) {
    throw new Trouble(
      `The photo ${file.name} has ${across} × ${down} pixels; at most ${MAX_MEGAPIXELS} million are opened. Make it smaller.`,
    );
  }
  let picture;
  try {
    picture = await createImageBitmap(file);
    const longest = Math.max(picture.width, picture.height);
    if (longest > MAX_SIDE) {
      const side = picture.width >= picture.height ? "resizeWidth" : "resizeHeight";
      const smaller = await createImageBitmap(picture, { [side]: MAX_SIDE, resizeQuality: "high" });
      picture.close();
      picture = smaller;
    }
  } catch {
    throw new Trouble(
      `This browser reads no picture from ${file.name}: ${UNKNOWN}. Use a JPEG, PNG or WebP.`,
    );
  }
  const { width, height } = picture;
  const close = () => picture.close();
  return { kind: "photo", picture, isMirrored: false, width, height, close };
}

/**
 * @param {File} file @param {(error: Trouble) => void} onEnd
 * @returns {Promise<Source>}
 * @throws {Trouble}
 */
async function openVideo(file, onEnd) {
  const address = URL.createObjectURL(file);
  const video = player(address, null);
  video.loop = true;
  try {
    await opened(video);
  } catch (error) {
    URL.revokeObjectURL(address);
    // What is wrong with the file itself is a MediaError, which is no Error.
    const why = error instanceof Error ? error.message : UNKNOWN;
    throw new Trouble(
      `This browser plays no video from ${file.name}: ${why}. Use an MP4 or WebM; the command retinue ar apply reads more kinds.`,
    );
  }
  const broken = () => {
    const at = video.currentTime.toFixed(1);
    onEnd(new Trouble(`The video ${file.name} is damaged after ${at} seconds. Use another file.`));
  };
  video.addEventListener("error", broken);
  return {
    kind: "video",
    picture: video,
    isMirrored: false,
    width: video.videoWidth,
    height: video.videoHeight,
    close() {
      video.removeEventListener("error", broken);
      video.pause();
      video.removeAttribute("src");
      video.load();
      URL.revokeObjectURL(address);
    },
  };
}

/** Where frames come from: a camera, a photo or a video of the person's own. */

const MAX_SIDE = 4096;
const CAMERA = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 60 } };

/** Something that a person can do something about. */
export class Trouble extends Error {}

/** @type {Record<string, string>} */
const CAMERA_TROUBLE = {
  NotAllowedError:
    "The camera is not allowed here. Allow it for this page in the browser's address bar, then start it again.",
  SecurityError: "The browser's settings forbid the camera. Use a photo or a video file.",
  NotFoundError: "There is no camera. Connect one, or use a photo or a video file.",
  OverconstrainedError: "That camera is gone. Choose another one.",
  NotReadableError:
    "The camera cannot be opened; another program may be using it. Close that, then start it again.",
  AbortError: "The camera stopped while it was started. Start it again.",
};

/**
 * @typedef {{ kind: "camera" | "video" | "photo", width: number, height: number,
 *   picture: HTMLVideoElement | ImageBitmap, close(): void }} Source
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
 * @param {() => void} onEnd When it is unplugged.
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
    throw new Trouble(CAMERA_TROUBLE[name] ?? `The camera cannot be opened: ${name || error}.`);
  }
  const video = player("", stream);
  stream.getTracks().forEach((track) => track.addEventListener("ended", onEnd));
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

/** @param {File} file @returns {Promise<Source>} @throws {Trouble} */
export async function openFile(file) {
  return file.type.startsWith("video/") ? openVideo(file) : openPhoto(file);
}

/** @param {File} file @returns {Promise<Source>} */
async function openPhoto(file) {
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
      `This browser reads no picture from ${file.name}. Use a JPEG, PNG or WebP.`,
    );
  }
  const { width, height } = picture;
  return { kind: "photo", picture, width, height, close: () => picture.close() };
}

/** @param {File} file @returns {Promise<Source>} */
async function openVideo(file) {
  const address = URL.createObjectURL(file);
  const video = player(address, null);
  video.loop = true;
  try {
    await opened(video);
  } catch {
    URL.revokeObjectURL(address);
    throw new Trouble(
      `This browser plays no video from ${file.name}. The command retinue ar apply reads more kinds.`,
    );
  }
  return {
    kind: "video",
    picture: video,
    width: video.videoWidth,
    height: video.videoHeight,
    close() {
      video.pause();
      video.removeAttribute("src");
      video.load();
      URL.revokeObjectURL(address);
    },
  };
}

/** The page: a filter, a source, what is seen, and what may be done with it. */
import { $, ApiError, el, hideProblem, request, showProblem } from "retinue-console";
import { filesDropped } from "../filter/files.js";
import { Invalid } from "../filter/schema.js";
import { cameraOf } from "../face/camera.js";
import { solve } from "../face/pose.js";
import { Session } from "../session.js";
import { Trouble } from "../trouble.js";
import { Choices } from "./choices.js";
import { Loop } from "./loop.js";
import { Recorder, save, stamp } from "./recorder.js";
import { cameras, openCamera, openFile } from "./sources.js";

const STAGES = ["read", "detect", "mesh", "pose", "draw", "total"];
const TOLD_EVERY_MS = 400;
const MISSED_MS = 1500;
/** That a recorder gets for the last frame. */
const LAST_FRAME_MS = 250;

/** @type {Session} */
let session;
/** @type {Loop} */
let loop;
const recorder = new Recorder();
const choices = new Choices(wear, tried, busy);
/** What was measured since it was last told. */
const measured = { told: 0, frames: 0, sums: /** @type {Record<string, number>} */ ({}) };
/** When a face was last seen. */
let seenAt = 0;
let opening = 0;
/** Whether it goes on by itself once the page is seen again. */
let goesOn = false;

/** @param {unknown} error */
function tell(error) {
  const problem = $("problem");
  if (error instanceof Invalid) {
    const message = `The filter cannot be used: ${error.message}`;
    showProblem(problem, new ApiError("filter_invalid", message));
  } else if (error instanceof Trouble) {
    showProblem(problem, new ApiError("", error.message));
  } else {
    showProblem(problem, error);
    if (!(error instanceof ApiError)) console.error(error);
  }
  problem.scrollIntoView({ block: "nearest" });
}

/** @template T @param {() => Promise<T>} action @returns {Promise<T | null>} None where it failed. */
async function tried(action) {
  hideProblem($("problem"));
  try {
    return await action();
  } catch (error) {
    tell(error);
    return null;
  }
}

/** @param {string} text What is going on; "" for nothing. */
function busy(text) {
  $("working").hidden = !text;
  $("working-text").textContent = text;
  $("stage").setAttribute("aria-busy", String(Boolean(text)));
}

/**
 * @param {import("../filter/spec.js").Spec | null} spec
 * @param {import("../filter/files.js").Files | null} files
 */
async function wear(spec, files) {
  await session.wear(spec, files);
  if (!loop.running) await loop.once();
}

// -- sources -------------------------------------------------------------------------------

/** @param {() => Promise<import("./sources.js").Source>} open @param {string} words */
async function use(open, words) {
  const turn = ++opening;
  await stopRecording();
  busy(words);
  await tried(async () => {
    try {
      const source = await open();
      try {
        if (turn === opening) busy("Loading the networks…");
        await session.start();
      } catch (error) {
        source.close();
        throw error;
      }
      // Another one was asked for meanwhile.
      if (turn !== opening) return source.close();
      goesOn = false;
      seenAt = performance.now();
      setMirror(source.isMirrored);
      // Frames have a size before the canvas is seen.
      $("stage").dataset.state = source.kind;
      await loop.open(source);
      await loop.play();
    } catch (error) {
      if (turn === opening) throw error;
    }
  });
  if (turn !== opening) return;
  busy("");
  showState();
}

const useCamera = () => use(() => openCamera($("cameras").value, ended), "Starting the camera…");

/** @param {File} file */
const useFile = (file) => use(() => openFile(file, ended), "Opening the file…");

/** @param {unknown} error Why the source gives no more frames. */
async function ended(error) {
  await stopRecording();
  await loop.close();
  showState();
  tell(error);
}

async function listCameras() {
  const found = await cameras();
  const select = $("cameras");
  const before = select.value;
  select.replaceChildren(...found.map(({ id, label }) => el("option", { value: id }, label)));
  if (found.some(({ id }) => id === before)) select.value = before;
  $("cameras-field").hidden = found.length < 2;
}

// -- what is seen ---------------------------------------------------------------------------

/** @param {boolean} on */
function setMirror(on) {
  session.mirrored = on;
  $("mirror").setAttribute("aria-pressed", String(on));
}

function showState() {
  const { source, running } = loop;
  const focused = /** @type {HTMLElement | null} */ (document.activeElement);
  $("stage").dataset.state = source?.kind ?? "empty";
  $("empty").hidden = Boolean(source);
  $("canvas").hidden = !source;
  const moving = Boolean(source) && source?.kind !== "photo";
  $("stop").hidden = !moving;
  $("stop").textContent = source?.kind === "camera" ? "Stop camera" : running ? "Pause" : "Play";
  $("camera").hidden = source?.kind === "camera";
  $("camera").classList.toggle("quiet", moving);
  for (const id of ["mirror", "picture"]) $(id).disabled = !source;
  $("record").disabled = !moving || !Recorder.possible;
  $("record").hidden = source?.kind === "photo";
  $("record").textContent = recorder.active ? "Stop and save" : "Record";
  $("record").classList.toggle("recording", recorder.active);
  $("recorded").hidden = !recorder.active;
  if (!source) $("hint").hidden = true;
  // Who works by keyboard stays where they are.
  if (focused?.hidden) $(moving ? "stop" : "camera").focus({ preventScroll: true });
  if (source?.kind === "camera") listCameras();
}

/** @param {import("../session.js").Drawn} drawn */
function onDrawn({ faces, times }) {
  measured.frames += 1;
  for (const [name, value] of Object.entries(times)) {
    measured.sums[name] = (measured.sums[name] ?? 0) + value;
  }
  const now = performance.now();
  const still = !loop.running;
  if (faces.length) seenAt = now;
  if (!still && now - measured.told < TOLD_EVERY_MS) return;
  for (const name of STAGES) {
    const value = (measured.sums[name] ?? 0) / measured.frames;
    $(`time-${name}`).textContent = `${value.toFixed(1)} ms`;
  }
  const rate = (1000 * measured.frames) / (now - measured.told);
  $("rate").textContent = still ? "" : `${rate.toFixed(0)} fps`;
  const { width, height } = session.canvas;
  const count = faces.length === 1 ? "1 face" : `${faces.length || "No"} faces`;
  $("seen").textContent = `${count}, ${width} × ${height}`;
  const missed = still ? !faces.length : now - seenAt > MISSED_MS;
  $("hint").hidden = !(missed && session.needsFace);
  const seconds = Math.floor(recorder.seconds);
  const two = String(seconds % 60).padStart(2, "0");
  $("recorded").textContent = `${Math.floor(seconds / 60)}:${two}`;
  Object.assign(measured, { told: now, frames: 0, sums: {} });
}

// -- saving --------------------------------------------------------------------------------

async function stopRecording() {
  if (!recorder.active) return;
  const made = await recorder.stop();
  if (loop.video) loop.video.loop = true;
  showState();
  if (made) save(made.blob, `retinue-${stamp()}.${made.suffix}`);
  else tell(new Trouble("Nothing was recorded: no frame was drawn in time. Record for longer."));
}

async function record() {
  if (recorder.active) return stopRecording();
  const { video } = loop;
  // A file is recorded from its beginning to its end.
  if (video) await fromStart(video);
  recorder.start(session.canvas.renderer.domElement, video, async () => {
    await stopRecording();
    tell(new Trouble("The browser could not go on recording; what there was is saved."));
  });
  if (video) {
    // Also where drawing is slow, its first frame and its last are in it.
    await loop.once();
    await loop.play();
  }
  showState();
}

/** @param {HTMLVideoElement} video Which stops at its end, this time. */
async function fromStart(video) {
  loop.pause();
  video.loop = false;
  const there = new Promise((resolve) => video.addEventListener("seeked", resolve, { once: true }));
  video.currentTime = 0;
  await there;
  video.addEventListener("ended", recordedAll, { once: true });
}

async function recordedAll() {
  loop.pause();
  await loop.once();
  await new Promise((resolve) => setTimeout(resolve, LAST_FRAME_MS));
  await stopRecording();
  showState();
}

async function stop() {
  const { source } = loop;
  goesOn = false;
  if (source?.kind === "camera") {
    await stopRecording();
    await loop.close();
  } else if (loop.running) {
    recorder.pause();
    loop.pause();
  } else {
    recorder.resume();
    await loop.play();
  }
  showState();
}

// -- the beginning -------------------------------------------------------------------------

function listen() {
  $("camera").addEventListener("click", useCamera);
  $("cameras").addEventListener("change", useCamera);
  $("stop").addEventListener("click", () => tried(stop));
  $("record").addEventListener("click", () => tried(record));
  $("picture").addEventListener("click", () =>
    tried(async () => save(await session.picture(), `retinue-${stamp()}.png`)),
  );
  $("mirror").addEventListener("click", () => {
    setMirror(!session.mirrored);
    session.again();
  });
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    $("file").value = "";
    if (file) useFile(file);
  });
  for (const id of ["own-folder", "own-zip"]) {
    $(id).addEventListener("change", () => {
      const files = [...$(id).files];
      $(id).value = "";
      if (!files.length) return;
      choices.addOwn(files.map((file) => ({ path: file.webkitRelativePath || file.name, file })));
    });
  }
  listenToSight();
  listenToDrops();
}

/** What comes between: the page out of sight. */
function listenToSight() {
  document.addEventListener("visibilitychange", async () => {
    if (document.hidden) {
      recorder.pause();
      goesOn = loop.running && loop.video !== null;
      if (goesOn) loop.pause();
    } else {
      if (goesOn) await loop.play();
      if (loop.running) recorder.resume();
      goesOn = false;
    }
    showState();
  });
}

/** A canvas whose GPU was taken away is thrown away: another one, with all on it anew. */
async function drawElsewhere() {
  goesOn = loop.running;
  loop.pause();
  await stopRecording();
  await loop.queue;
  const { mirrored, networks, settings } = session;
  const canvas = /** @type {HTMLCanvasElement} */ ($("canvas").cloneNode());
  $("canvas").replaceWith(canvas);
  canvas.addEventListener("webglcontextlost", drawElsewhere, { once: true });
  try {
    session = new Session(canvas, request, settings, networks);
  } catch {
    tell(new Trouble("The graphics driver stopped and does not come back. Load this page again."));
    return;
  }
  loop.session = session;
  session.mirrored = mirrored;
  show();
  if (loop.source) await session.start();
  await choices.again();
  if (goesOn) await loop.play();
  goesOn = false;
  showState();
}

function listenToDrops() {
  const stage = $("stage");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    stage.toggleAttribute("data-over", Boolean(event.dataTransfer?.types.includes("Files")));
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) stage.removeAttribute("data-over");
  });
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    stage.removeAttribute("data-over");
    const given = event.dataTransfer ? await filesDropped(event.dataTransfer) : [];
    const [first] = given;
    if (!first) return;
    const filter = given.length > 1 || first.path.includes("/") || /\.(zip|toml)$/i.test(first.path);
    if (filter) await choices.addOwn(given);
    else await useFile(first.file);
  });
}

/** For people who try things in the browser's console, and for tests. */
function show() {
  Object.assign(window, { retinueAr: { session, loop, solve, cameraOf } });
}

async function begin() {
  const settings = await tried(() => choices.list());
  if (!settings) return;
  try {
    session = new Session($("canvas"), request, settings);
  } catch {
    tell(new Trouble("This browser has no WebGL 2, which filters are drawn with. Turn on hardware acceleration in its settings, use another browser, or the command retinue ar apply."));
    return;
  }
  $("canvas").addEventListener("webglcontextlost", drawElsewhere, { once: true });
  loop = new Loop(session, onDrawn, (error) => {
    tell(error);
    showState();
  });
  listen();
  showState();
  $("no-gpu").hidden = !session.canvas.isSlow;
  $("controls").disabled = $("choosing").disabled = false;
  $("ar").dataset.ready = "";
  show();
}

begin();

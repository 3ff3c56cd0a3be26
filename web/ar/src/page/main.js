/** The page: a filter, a source, what is seen, and what may be done with it. */
import { $, ApiError, el, getJson, hideProblem, request, showProblem } from "retinue-console";
import { filesDropped, filesGiven, filesOfServer } from "../filter/files.js";
import { Invalid } from "../filter/schema.js";
import { FILE, readSpec } from "../filter/spec.js";
import { cameraOf } from "../face/camera.js";
import { solve } from "../face/pose.js";
import { Session } from "../session.js";
import { Loop } from "./loop.js";
import { Recorder, save, stamp } from "./recorder.js";
import { Trouble, cameras, openCamera, openFile } from "./sources.js";

const STAGES = { detect: "Detect", mesh: "Mesh", pose: "Pose", draw: "Draw", total: "Frame" };
const OWN = "own:";
const TOLD_EVERY_MS = 400;

/** @typedef {{ name: string, title: string, summary: string, files: string[] }} Row */

/** @type {Session} */
let session;
/** @type {Loop} */
let loop;
const recorder = new Recorder();
/** What was measured since it was last told. */
const measured = { told: 0, frames: 0, sums: /** @type {Record<string, number>} */ ({}) };
let wearing = 0;

/** @param {unknown} error */
function tell(error) {
  if (error instanceof Invalid) {
    const message = `The filter cannot be used: ${error.message}`;
    showProblem($("problem"), new ApiError("filter_invalid", message));
  } else if (error instanceof Trouble) {
    showProblem($("problem"), new ApiError("", error.message));
  } else {
    showProblem($("problem"), error);
    if (!(error instanceof ApiError)) console.error(error);
  }
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

// -- filters -------------------------------------------------------------------------------

/** @param {string} value @param {string} title @param {HTMLElement} picture @param {string} about */
function choice(value, title, picture, about) {
  const input = el("input", { type: "radio", name: "filter", value, class: "visually-hidden" });
  input.addEventListener("change", () => {
    input.parentElement.scrollIntoView({ block: "nearest", inline: "center" });
    chosen(value);
  });
  const label = el("label", { class: "choice", title: about }, input, picture,
    el("span", { class: "choice-title" }, title));
  $("filters").append(label);
  return input;
}

/** @param {string} name @returns {HTMLImageElement} */
function preview(name) {
  const image = el("img", { alt: "", width: 96, height: 96 });
  request(`/v1/ar/filters/${encodeURIComponent(name)}/preview.png`)
    .then(async (answer) => {
      image.src = URL.createObjectURL(await answer.blob());
    })
    // A filter without a picture of itself is shown by its name.
    .catch(() => image.classList.add("bare"));
  return image;
}

/** @type {Map<string, import("../filter/files.js").Files>} */
const own = new Map();

/** @param {string} value Of the filter's radio button. */
async function chosen(value) {
  const turn = ++wearing;
  await tried(async () => {
    busy(value ? "Loading the filter…" : "");
    const files = own.get(value) ?? (value && filesOfServer(request, `/v1/ar/filters/${value}`));
    const spec = files ? readSpec(new TextDecoder().decode(await files.read(FILE))) : null;
    if (turn !== wearing) return;
    await session.wear(spec, files || null);
    $("about").textContent = spec ? spec.summary || spec.title : "Nothing is drawn.";
    if (!loop.running) await loop.once();
  });
  if (turn === wearing) busy("");
}

/** @param {{ path: string, file: File }[]} given */
async function addOwn(given) {
  await tried(async () => {
    const files = await filesGiven(given);
    const spec = readSpec(new TextDecoder().decode(await files.read(FILE)));
    const value = OWN + spec.name;
    own.set(value, files);
    /** @type {HTMLInputElement | null} */
    const known = document.querySelector(`input[name="filter"][value="${CSS.escape(value)}"]`);
    const picture = () => el("span", { class: "own" }, "yours");
    (known ?? choice(value, spec.title, picture(), spec.summary)).checked = true;
    await chosen(value);
  });
}

async function listFilters() {
  const settings = await getJson("/v1/ar/filters");
  choice("", "None", el("span", { class: "own" }, "off"), "Nothing is drawn").checked = true;
  for (const { name, title, summary } of /** @type {Row[]} */ (settings.filters)) {
    choice(name, title, preview(name), summary);
  }
  return settings;
}

// -- sources -------------------------------------------------------------------------------

/** @param {() => Promise<import("./sources.js").Source>} open @param {string} words */
async function use(open, words) {
  await stopRecording();
  busy(words);
  await tried(async () => {
    const source = await open();
    try {
      busy("Loading the networks…");
      await session.start();
    } catch (error) {
      source.close();
      throw error;
    }
    setMirror(source.kind === "camera");
    // Frames have a size before the canvas is seen.
    $("stage").dataset.state = source.kind;
    await loop.open(source);
    await loop.play();
  });
  busy("");
  showState();
}

const useCamera = () => use(() => openCamera($("cameras").value, unplugged), "Starting the camera…");

/** @param {File} file */
const useFile = (file) => use(() => openFile(file), "Opening the file…");

async function unplugged() {
  if (loop.source?.kind !== "camera") return;
  await stopRecording();
  await loop.close();
  showState();
  tell(new Trouble("The camera was unplugged. Connect it and start it again."));
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
  $("stage").dataset.state = source?.kind ?? "empty";
  $("empty").hidden = Boolean(source);
  $("canvas").hidden = !source;
  const moving = Boolean(source) && source?.kind !== "photo";
  $("stop").hidden = !moving;
  $("stop").textContent = source?.kind === "camera" ? "Stop camera" : running ? "Pause" : "Play";
  $("camera").hidden = source?.kind === "camera";
  for (const id of ["mirror", "picture"]) $(id).disabled = !source;
  $("record").disabled = !running || !Recorder.possible;
  $("record").hidden = source?.kind === "photo";
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
  if (!still && now - measured.told < TOLD_EVERY_MS) return;
  for (const name of Object.keys(STAGES)) {
    const value = (measured.sums[name] ?? 0) / measured.frames;
    $(`time-${name}`).textContent = `${value.toFixed(1)} ms`;
  }
  const rate = (1000 * measured.frames) / (now - measured.told);
  $("rate").textContent = still ? "" : `${rate.toFixed(0)} fps`;
  const { width, height } = session.canvas;
  $("seen").textContent = [
    faces.length === 1 ? "1 face" : `${faces.length || "No"} faces`,
    `${width} × ${height}`,
  ].join(", ");
  Object.assign(measured, { told: now, frames: 0, sums: {} });
}

// -- saving --------------------------------------------------------------------------------

async function stopRecording() {
  if (!recorder.active) return;
  const made = await recorder.stop();
  $("record").setAttribute("aria-pressed", "false");
  $("record").textContent = "Record";
  if (made) save(made.blob, `retinue-${stamp()}.${made.suffix}`);
}

async function record() {
  if (recorder.active) return stopRecording();
  const { source } = loop;
  const video = source?.kind === "video" ? /** @type {HTMLVideoElement} */ (source.picture) : null;
  recorder.start(session.canvas.renderer.domElement, video);
  $("record").setAttribute("aria-pressed", "true");
  $("record").textContent = "Stop and save";
}

async function stop() {
  const { source } = loop;
  if (source?.kind === "camera") {
    await stopRecording();
    await loop.close();
  } else if (loop.running) loop.pause();
  else await loop.play();
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
      addOwn(files.map((file) => ({ path: file.webkitRelativePath || file.name, file })));
    });
  }
  document.addEventListener("visibilitychange", () => {
    if (document.hidden && loop.source?.kind === "video" && !recorder.active) {
      loop.pause();
      showState();
    }
  });
  listenToDrops();
}

function listenToDrops() {
  const stage = $("stage");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    stage.toggleAttribute("data-over", true);
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
    const media = /^(image|video)\//.test(first.file.type);
    if (given.length === 1 && media) await useFile(first.file);
    else await addOwn(given);
  });
}

async function begin() {
  const settings = await tried(listFilters);
  if (!settings) return;
  try {
    session = new Session($("canvas"), request, settings);
  } catch {
    tell(new Trouble("This browser has no WebGL 2, which filters are drawn with. Use another one."));
    return;
  }
  loop = new Loop(session, onDrawn, (error) => {
    tell(error);
    showState();
  });
  listen();
  showState();
  $("ar").dataset.ready = "";
  // For people who try things in the browser's console, and for tests.
  Object.assign(window, { retinueAr: { session, loop, solve, cameraOf } });
}

begin();

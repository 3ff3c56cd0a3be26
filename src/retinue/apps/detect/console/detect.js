import { $, ApiError, copies, el, getJson, hideProblem, request, showProblem } from "/static/app.js";

// Light enough for black text on every one of them (WCAG AAA), and told apart by neighbours.
const COLORS = [
  "#ffd43b", "#63e6be", "#74c0fc", "#ffa94d", "#eebefa", "#a9e34b",
  "#66d9e8", "#ffa8a8", "#b197fc", "#69db7c", "#faa2c1", "#e9d8a6",
];
const STAGES = {
  decode: ["Decode", "#4c6ef5"],
  preprocess: ["Preprocess", "#15aabf"],
  queue: ["Queue", "#868e96"],
  run: ["Run", "#f08c00"],
  postprocess: ["Postprocess", "#ae3ec9"],
};
const LOWEST = 0.1; // asked of the server; the slider filters from here up, without asking again

let photo = null; // the file that is shown
let answer = null; // the server's answer for it
let running = null; // the request under way
let objectUrl = null;
let pressed = null; // index of the detection that is held highlighted

const color = (detection) => COLORS[detection.class_id % COLORS.length];
const percent = (score) => `${Math.round(score * 100)} %`;
const milliseconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
const threshold = () => Number($("conf").value) / 100;
const visible = () => answer.detections.filter((detection) => detection.score >= threshold());

function setState(state) {
  $("stage").dataset.state = state;
  $("empty").hidden = state !== "empty";
  $("picture").hidden = state === "empty";
  $("working").hidden = state !== "working";
  $("stage").setAttribute("aria-busy", String(state === "working"));
}

function summarize(detections) {
  if (!detections.length) {
    return answer.detections.length
      ? "No object reaches this confidence. Lower it to see the weaker ones."
      : "No object was found.";
  }
  const counts = new Map();
  for (const { class: name } of detections) counts.set(name, (counts.get(name) ?? 0) + 1);
  const parts = [...counts].map(([name, count]) => (count > 1 ? `${count} × ${name}` : name));
  const shown = parts.slice(0, 6).join(", ");
  return parts.length > 6 ? `${shown} and ${parts.length - 6} more kinds` : shown;
}

function makeBox(detection, index) {
  const [x1, y1, x2, y2] = detection.box;
  const { width, height } = answer;
  const box = el("div", { class: "box", "data-index": index },
    el("span", {}, `${detection.class} ${percent(detection.score)}`));
  box.style.setProperty("--c", color(detection));
  box.style.left = `${(100 * x1) / width}%`;
  box.style.top = `${(100 * y1) / height}%`;
  box.style.width = `${(100 * (x2 - x1)) / width}%`;
  box.style.height = `${(100 * (y2 - y1)) / height}%`;
  return box;
}

const LABEL_PLACES = ["above", "inside", "below", "above right", "inside right", "below right"];

const apart = (a, b) =>
  a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;

/** Put each label inside the picture and on no better one's label; without a place it is hidden. */
function placeLabels() {
  const frame = $("boxes").getBoundingClientRect();
  const placed = [];
  for (const box of [...$("boxes").children].reverse()) {
    const label = box.firstElementChild;
    const fits = () => {
      const area = label.getBoundingClientRect();
      return area.top >= frame.top && area.left >= frame.left && area.right <= frame.right
        && area.bottom <= frame.bottom && placed.every((other) => apart(area, other));
    };
    const found = LABEL_PLACES.find((place) => {
      box.className = `box ${place}`;
      return fits();
    });
    if (found) placed.push(label.getBoundingClientRect());
    else box.className = "box inside bare"; // it shows when the box is highlighted
  }
}

function highlight(index) {
  const boxes = $("boxes");
  const on = index ?? pressed;
  boxes.toggleAttribute("data-active", on !== null);
  for (const box of boxes.children) {
    box.toggleAttribute("data-on", box.dataset.index === String(on));
  }
  for (const button of $("found").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.index === String(pressed)));
  }
}

function makeRow(detection, index) {
  const meter = el("span", { class: "meter", "aria-hidden": "true" }, el("span"));
  meter.firstElementChild.style.width = `${100 * detection.score}%`;
  const swatch = el("span", { class: "swatch", "aria-hidden": "true" });
  swatch.style.setProperty("--c", color(detection));
  const button = el("button", { type: "button", "data-index": index, "aria-pressed": "false" },
    swatch,
    el("span", { class: "name" }, detection.class),
    meter,
    el("span", { class: "score" }, percent(detection.score)));
  button.addEventListener("click", () => {
    pressed = pressed === index ? null : index;
    highlight(null);
  });
  button.addEventListener("pointerenter", () => highlight(index));
  button.addEventListener("pointerleave", () => highlight(null));
  button.addEventListener("focus", () => highlight(index));
  button.addEventListener("blur", () => highlight(null));
  return el("li", {}, button);
}

function showDetections() {
  const detections = visible();
  pressed = null;
  $("boxes").replaceChildren(...detections.map(makeBox).reverse()); // the best one on top
  $("boxes").removeAttribute("data-active");
  $("found").replaceChildren(...detections.map(makeRow));
  $("count").hidden = false;
  $("count").textContent = String(detections.length);
  $("summary").textContent = summarize(detections);
  placeLabels();
}

function showTimings(roundTrip) {
  const timings = answer.timings_ms;
  const known = Object.entries(STAGES).filter(([stage]) => stage in timings);
  $("timing-bar").replaceChildren(...known.map(([stage, [, hue]]) => {
    const part = el("span");
    part.style.setProperty("--c", hue);
    part.style.flexGrow = String(Math.max(timings[stage], 0));
    return part;
  }));
  $("timings").replaceChildren(
    ...known.map(([stage, [name, hue]]) => {
      const swatch = el("span", { class: "swatch", "aria-hidden": "true" });
      swatch.style.setProperty("--c", hue);
      return el("div", {}, swatch, el("dt", {}, name), el("dd", {}, milliseconds(timings[stage])));
    }),
    el("div", { class: "rest" }, el("span"), el("dt", {}, "Seen from this page"),
      el("dd", {}, milliseconds(roundTrip))),
  );
  $("total").textContent = milliseconds(timings.total ?? roundTrip);
  $("about").textContent =
    `${answer.model} · version ${answer.model_version ?? "?"} · ${answer.width} × ${answer.height} pixels`;
  $("timings-part").hidden = false;
}

function clearAnswer() {
  answer = null;
  $("boxes").replaceChildren();
  $("found").replaceChildren();
  $("count").hidden = true;
  $("timings-part").hidden = true;
  $("json-part").hidden = true;
}

async function loadPhoto(file) {
  if (objectUrl) URL.revokeObjectURL(objectUrl);
  objectUrl = URL.createObjectURL(file);
  const image = $("photo");
  image.src = objectUrl;
  image.alt = file.name ? `The photo ${file.name}` : "The photo";
  try {
    await image.decode();
    return true;
  } catch {
    return false; // the server is still asked: it says what is wrong better than the browser does
  }
}

async function detect() {
  if (!photo) return;
  running?.abort();
  const control = new AbortController();
  running = control;
  clearAnswer();
  hideProblem($("problem"));
  $("summary").textContent = "Looking…";
  const shown = await loadPhoto(photo);
  if (control.signal.aborted) return;
  setState("working");
  $("picture").hidden = !shown;
  try {
    const query = new URLSearchParams({ conf: String(LOWEST) });
    if ($("model").value) query.set("model", $("model").value);
    const began = performance.now();
    const response = await request(`/v1/detect?${query}`, {
      method: "POST",
      body: photo,
      headers: { "Content-Type": photo.type || "application/octet-stream" },
      signal: control.signal,
    });
    answer = await response.json();
    const roundTrip = performance.now() - began;
    setState("done");
    $("picture").hidden = !shown;
    showDetections();
    showTimings(roundTrip);
    $("json").textContent = JSON.stringify(answer, null, 2);
    $("json-part").hidden = false;
  } catch (error) {
    if (control.signal.aborted) return;
    setState(shown ? "failed" : "empty");
    $("summary").textContent = "No answer for this photo.";
    showProblem($("problem"), error);
    if (!(error instanceof ApiError)) throw error;
  }
}

function take(files) {
  const file = [...files].find((item) => item.type.startsWith("image/")) ?? files[0];
  if (!file) return;
  photo = file;
  detect();
}

function listen() {
  for (const input of [$("file"), $("camera")]) {
    input.addEventListener("change", () => {
      take(input.files);
      input.value = ""; // so that the same file can be chosen again
    });
  }
  let depth = 0; // dragenter and dragleave also come from the children
  const over = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => {
    if (over(event) && ++depth === 1) $("stage").toggleAttribute("data-over", true);
  });
  addEventListener("dragleave", (event) => {
    if (over(event) && --depth === 0) $("stage").toggleAttribute("data-over", false);
  });
  addEventListener("dragover", (event) => { if (over(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    if (!over(event)) return;
    event.preventDefault();
    depth = 0;
    $("stage").toggleAttribute("data-over", false);
    take(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) take(event.clipboardData.files);
  });
  $("conf").addEventListener("input", () => {
    $("conf-value").textContent = percent(threshold());
    if (answer) showDetections();
  });
  $("model").addEventListener("change", detect);
  new ResizeObserver(() => { if (answer) placeLabels(); }).observe($("picture"));
  copies($("copy-json"), () => $("json").textContent);
}

async function listModels() {
  const status = await getJson("/v1/status");
  const app = status.apps.find(({ name }) => name === "detect");
  const preferred = app?.pipelines.find(({ task }) => task === "detect")?.model;
  const models = status.models.filter(({ task }) => task === "detect");
  $("model").replaceChildren(...models.map(({ name }) =>
    el("option", { value: name, selected: name === preferred }, name)));
}

const touch = navigator.maxTouchPoints > 0;
$("camera").hidden = $("camera-label").hidden = !touch;
if (touch) {
  $("invite").textContent = "Choose or take a photo";
  $("invite-more").textContent = "and see what is in it";
}
listen();
try {
  await listModels();
} catch (error) {
  showProblem($("problem"), error);
}

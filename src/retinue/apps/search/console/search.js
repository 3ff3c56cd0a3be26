import { $, el, getJson, hideProblem, request, showProblem } from "/static/app.js";

const PAGE = 24;
const PATIENCE_MS = 1000; // a person would rather wait for all stages than miss one
const OPERATORS = { is: null, "at least": "gte", "at most": "lte", "begins with": "prefix", contains: "contains" };

let collections = [];
let photo = null; // the file that is searched by
let item = null; // the id that is searched by
let box = null; // the region, in pixels of the photo
let running = null; // the request under way
let shown = 0;

const path = (...parts) => ["/v1/search", ...parts.map(encodeURIComponent)].join("/");
const current = () => collections.find((one) => one.name === $("collection").value);

/** Fetch a thumbnail with the caller's key, which an img alone would not send. */
async function thumbnail(image, url) {
  if (!url) return;
  try {
    const blob = await (await request(url)).blob();
    image.src = URL.createObjectURL(blob);
    image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  } catch {
    image.alt = "no thumbnail";
  }
}

function percentBox(node, [x1, y1, x2, y2], width, height) {
  node.style.left = `${(100 * x1) / width}%`;
  node.style.top = `${(100 * y1) / height}%`;
  node.style.width = `${(100 * (x2 - x1)) / width}%`;
  node.style.height = `${(100 * (y2 - y1)) / height}%`;
}

function showPhoto(file, id = null) {
  photo = file;
  item = id;
  box = null;
  const has = file !== null || id !== null;
  $("invite").hidden = has;
  $("photo").hidden = !has;
  $("clear").hidden = !has;
  $("region-hint").hidden = file === null;
  $("region").hidden = $("whole").hidden = true;
  if (file) $("image").src = URL.createObjectURL(file);
}

function pointIn(event) {
  const frame = $("image").getBoundingClientRect();
  const share = (value, from, size) => Math.min(1, Math.max(0, (value - from) / size));
  return [
    share(event.clientX, frame.left, frame.width) * $("image").naturalWidth,
    share(event.clientY, frame.top, frame.height) * $("image").naturalHeight,
  ];
}

$("photo").addEventListener("pointerdown", (event) => {
  if (photo === null) return;
  const [x, y] = pointIn(event);
  $("photo").setPointerCapture(event.pointerId);
  const move = (moved) => {
    const [u, v] = pointIn(moved);
    box = [Math.min(x, u), Math.min(y, v), Math.max(x, u), Math.max(y, v)];
    $("region").hidden = false;
    percentBox($("region"), box, $("image").naturalWidth, $("image").naturalHeight);
  };
  const up = () => {
    $("photo").removeEventListener("pointermove", move);
    const drawn = box && box[2] - box[0] > 4 && box[3] - box[1] > 4;
    if (!drawn) box = null;
    $("region").hidden = $("whole").hidden = !drawn;
    if (drawn) ask();
  };
  $("photo").addEventListener("pointermove", move);
  $("photo").addEventListener("pointerup", up, { once: true });
});

function take(file) {
  if (!file) return;
  showPhoto(file);
  ask();
}

function addCondition() {
  const fields = [...Object.keys(current().fields), "id", "path", "width", "height"];
  const row = el("div", { class: "condition" },
    el("select", { "aria-label": "Field" }, ...fields.map((name) => el("option", {}, name))),
    el("select", { "aria-label": "How" }, ...Object.keys(OPERATORS).map((name) => el("option", {}, name))),
    el("input", { "aria-label": "Value", type: "text" }),
    el("button", { type: "button", class: "button small quiet", "aria-label": "Remove the condition" }, "×"));
  row.querySelector("button").addEventListener("click", () => row.remove());
  $("conditions").append(row);
}

function where() {
  const all = [];
  for (const row of $("conditions").children) {
    const [field, how] = [...row.querySelectorAll("select")].map((one) => one.value);
    const text = row.querySelector("input").value.trim();
    if (!text) continue;
    const numeric = (current().fields[field] === "number" || ["width", "height"].includes(field)) && !Number.isNaN(Number(text));
    const value = numeric ? Number(text) : text === "true" ? true : text === "false" ? false : text;
    all.push({ [field]: OPERATORS[how] ? { [OPERATORS[how]]: value } : value });
  }
  return all.length ? { all } : null;
}

function query(offset) {
  const form = new FormData();
  const terms = [];
  if ($("text").value.trim()) terms.push({ text: $("text").value.trim() });
  if ($("not").value.trim()) terms.push({ text: $("not").value.trim(), weight: -1 });
  if (photo) form.append("file", photo, photo.name || "photo");
  if (item) form.append("id", item);
  if (box && photo) form.append("box", box.map((edge) => edge.toFixed(1)).join(","));
  if (terms.length) form.append("terms", JSON.stringify(terms));
  const condition = where();
  if (condition) form.append("where", JSON.stringify(condition));
  form.append("k", PAGE);
  form.append("deadline_ms", PATIENCE_MS);
  form.append("offset", offset);
  form.append("rerank", $("rerank").checked);
  form.append("dedupe", $("dedupe").checked);
  return form;
}

function card(hit) {
  const image = el("img", { alt: hit.id });
  thumbnail(image, hit.thumbnail);
  const frame = el("div", { class: "frame" }, image);
  for (const region of hit.regions ?? []) {
    const node = el("div", { class: "match" });
    percentBox(node, region, hit.width, hit.height);
    node.style.opacity = String(Math.min(1, 0.3 + region[4]));
    frame.append(node);
  }
  const stages = Object.entries(hit.stages ?? {}).map(([name, value]) => `${name} ${value}`).join(", ");
  const fill = el("i");
  fill.style.width = `${100 * hit.relevance}%`;
  const like = el("button", { type: "button", class: "button small quiet" }, "More like this");
  like.addEventListener("click", () => {
    showPhoto(null, hit.id);
    thumbnail($("image"), hit.thumbnail);
    $("text").value = $("not").value = "";
    ask();
  });
  return el("li", { class: "panel hit" },
    el("figure", {}, frame),
    el("div", { class: "hit-body" },
      el("span", { class: "hit-id" }, `${hit.rank}. ${hit.id}`),
      el("div", { class: "bar", role: "img", "aria-label": `relevance ${hit.relevance}` }, fill),
      el("span", { class: "muted small-text" }, `score ${hit.score}${hit.duplicates ? `, +${hit.duplicates} duplicates` : ""}`),
      el("details", { class: "small-text" }, el("summary", {}, "Why"), stages || "index", el("br"),
        Object.entries(hit.meta).map(([name, value]) => `${name}: ${value}`).join(", ")),
      like));
}

function drawRegions() {
  $("grid").classList.toggle("plain", !$("regions").checked);
  for (const node of document.querySelectorAll(".match")) node.hidden = !$("regions").checked;
}

async function ask(offset = 0) {
  running?.abort();
  const mine = (running = new AbortController());
  hideProblem($("problem"));
  if (!photo && !item && !$("text").value.trim()) {
    $("summary").textContent = "Give a photo, some words, or take an item.";
    return;
  }
  $("summary").textContent = "Searching…";
  try {
    const options = { method: "POST", body: query(offset), signal: mine.signal };
    const answer = await (await request(path($("collection").value), options)).json();
    if (!offset) $("grid").replaceChildren();
    $("grid").append(...answer.results.map(card));
    shown = offset + answer.results.length;
    drawRegions();
    const total = Object.values(answer.timings_ms).reduce((sum, part) => sum + part, 0);
    const late = answer.skipped.length ? `; no time for ${answer.skipped.join(", ")}` : "";
    const cached = answer.cached ? ", from the cache" : "";
    $("summary").textContent =
      `${shown} of ${answer.count} items, ${total.toFixed(1)} ms${cached}${late} (${answer.model})`;
    $("more").hidden = answer.results.length < PAGE;
  } catch (error) {
    if (error.name === "AbortError") return;
    $("summary").textContent = "Nothing was found.";
    showProblem($("problem"), error);
  }
}

async function showDuplicates() {
  running?.abort();
  hideProblem($("problem"));
  try {
    const name = $("collection").value;
    const { groups } = await getJson(`${path(name)}/duplicates?limit=100`);
    $("more").hidden = true;
    $("summary").textContent = groups.length ? `${groups.length} groups of the same picture` : "No duplicates.";
    $("grid").replaceChildren(...groups.map((group) => el("li", { class: "panel group" },
      ...group.items.map((one) => {
        const image = el("img", { alt: one.id });
        thumbnail(image, one.thumbnail);
        const remove = el("button", { type: "button", class: "button small quiet" }, "Delete");
        remove.addEventListener("click", async () => {
          if (!window.confirm(`Delete ${one.id} from ${name}? The original stays.`)) return;
          try {
            await request(path(name, "items", one.id), { method: "DELETE" });
            showDuplicates();
          } catch (error) {
            showProblem($("problem"), error);
          }
        });
        return el("div", { class: "hit" }, el("figure", {}, image),
          el("div", { class: "hit-body" }, el("span", { class: "hit-id" }, one.id), remove));
      }))));
  } catch (error) {
    showProblem($("problem"), error);
  }
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
$("file").addEventListener("change", () => { take($("file").files[0]); $("file").value = ""; });
$("clear").addEventListener("click", () => showPhoto(null));
$("whole").addEventListener("click", () => { box = null; $("region").hidden = $("whole").hidden = true; ask(); });
$("add").addEventListener("click", addCondition);
$("more").addEventListener("click", () => ask(shown));
$("duplicates").addEventListener("click", showDuplicates);
$("regions").addEventListener("change", drawRegions);
$("collection").addEventListener("change", () => { $("conditions").replaceChildren(); $("grid").replaceChildren(); });
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("stage").toggleAttribute("data-over", name === "dragover");
    if (name === "drop") take([...event.dataTransfer.files].find((file) => file.type.startsWith("image/")));
  });
}
document.addEventListener("paste", (event) => {
  take([...event.clipboardData.files].find((file) => file.type.startsWith("image/")));
});

try {
  ({ collections } = await getJson("/v1/search"));
  $("none").hidden = collections.length > 0;
  $("search").hidden = !collections.length;
  $("collection").append(...collections.map((one) =>
    el("option", { value: one.name }, `${one.name} (${one.items})`)));
  const asked = new URLSearchParams(location.hash.slice(1));
  if (asked.has("collection")) $("collection").value = asked.get("collection");
  if (asked.has("text")) {
    $("text").value = asked.get("text");
    ask();
  }
} catch (error) {
  showProblem($("problem"), error);
}

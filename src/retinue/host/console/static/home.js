import { $, copies, el, getJson, showProblem, storedKey } from "/static/app.js";

const TASKS = { detect: "Detection", classify: "Classification", embed: "Embedding" };

function duration(seconds) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const parts = [];
  let left = Math.floor(seconds);
  for (const [size, unit] of units) {
    const count = Math.floor(left / size);
    left -= count * size;
    if (count) parts.push(`${count} ${unit}`);
  }
  return parts.slice(0, 2).join(" ") || "0 s";
}

function fact(name, value) {
  return el("div", {}, el("dt", {}, name), el("dd", {}, value));
}

function appCard(app) {
  const links = app.pages.map((page) =>
    el("a", { class: "button", href: page.path }, `Open ${page.title}`));
  const routes = app.routes.map((route) => el("code", {}, `${route.method} ${route.path}`));
  return el("li", { class: "panel card" },
    el("h3", {}, app.title),
    el("p", { class: "grow" }, app.summary),
    el("p", { class: "muted small-text" }, ...routes),
    el("div", { class: "row" }, ...links));
}

const percent = (share) => `${+(100 * share).toFixed(1)} %`;

function guardText(guard) {
  if (!guard.compared) return "";
  return `agrees ${percent(guard.agreement)} over ${guard.compared}`;
}

function versionRow(one) {
  const answers = one.share > 0 ? percent(one.share) : "–";
  const alarm = one.guard.evidence >= 0.5 ? " warn" : "";
  return el("tr", {},
    el("td", {}, el("code", {}, one.version)),
    el("td", {}, el("span", { class: "tag" }, one.role)),
    el("td", { class: "number" }, answers),
    el("td", { class: `muted small-text${alarm}` }, guardText(one.guard)));
}

function versionTable(versions) {
  const head = ["Version", "Role", "Answers", "Live guard"].map((text) =>
    el("th", { scope: "col" }, text));
  return el("table", { class: "versions" },
    el("thead", {}, el("tr", {}, ...head)),
    el("tbody", {}, ...versions.map(versionRow)));
}

function modelCard(model) {
  const [height, width] = model.input;
  return el("li", { class: "panel card" },
    el("div", { class: "row spread" },
      el("h3", { class: "mono" }, model.name),
      el("span", { class: "tag" }, TASKS[model.task] ?? model.task)),
    el("p", { class: "grow" }, model.summary),
    el("dl", { class: "facts" },
      fact("Input", `${width} × ${height}`),
      fact("Classes", model.classes ? String(model.classes) : "–"),
      fact("Licence", model.license),
      fact("Version", el("code", {}, model.version))),
    ...(model.versions.length > 1 ? [versionTable(model.versions)] : []));
}

function show(status) {
  $("stat-models").textContent = status.models.length;
  $("stat-apps").textContent = status.apps.length;
  $("stat-runtime").textContent = `${status.runtime} · ${status.precision}`;
  $("stat-uptime").textContent = duration(status.uptime_s);
  $("apps").replaceChildren(...status.apps.map(appCard));
  $("models").replaceChildren(...status.models.map(modelCard));
  if (!status.models.length) {
    $("models").append(el("li", { class: "muted" }, "No model is loaded."));
  }
}

function snippet() {
  const key = storedKey() ? '-H "Authorization: Bearer $RETINUE_KEY" ' : "";
  return `curl ${key}--data-binary @photo.jpg ${location.origin}/v1/detect`;
}

copies($("copy-curl"), snippet);
try {
  show(await getJson("/v1/status"));
} catch (error) {
  showProblem($("problem"), error);
}
$("curl").textContent = snippet();

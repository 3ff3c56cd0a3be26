// Shared by all pages: requests to the API with the caller's key, small DOM helpers, the health pill.

const KEY = "retinue-api-key";

export const $ = (id) => document.getElementById(id);

/** Make an element. Text always goes in as text, never as markup. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "class") node.className = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** What the server said was wrong, or that it could not be reached. */
export class ApiError extends Error {
  constructor(code, message, requestId) {
    super(message);
    this.code = code;
    this.requestId = requestId;
  }
}

/** The key that this tab's user gave, or null. */
export const storedKey = () => sessionStorage.getItem(KEY);

let asking = null;

/** Ask for the API key in a dialog; one dialog serves all requests that wait for it. */
function askForKey(wrong) {
  asking ??= new Promise((resolve) => {
    const dialog = $("key-dialog");
    const form = $("key-form");
    const input = $("key-input");
    $("key-wrong").textContent = wrong ? "This key is not known here." : "";
    input.value = "";
    const finish = (key) => {
      form.onsubmit = $("key-cancel").onclick = dialog.oncancel = null;
      if (dialog.open) dialog.close();
      asking = null;
      resolve(key);
    };
    form.onsubmit = (event) => {
      event.preventDefault();
      const key = input.value.trim();
      if (key) finish(key);
    };
    $("key-cancel").onclick = () => finish(null);
    dialog.oncancel = () => finish(null);
    dialog.showModal();
    input.focus();
  });
  return asking;
}

async function readError(response) {
  let body = null;
  try {
    body = await response.json();
  } catch {
    // Not JSON: a proxy's page, for example. The status says what there is to say.
  }
  const error = body?.error;
  const message = typeof error === "string" ? error : error?.message;
  return new ApiError(
    error?.code ?? `http_${response.status}`,
    message ?? `The server answered ${response.status} ${response.statusText}.`,
    body?.request_id,
  );
}

/** Call the API; asks for a key when the server wants one. Throws ApiError. */
export async function request(path, options = {}) {
  for (;;) {
    const used = storedKey();
    const headers = new Headers(options.headers);
    if (used) headers.set("Authorization", `Bearer ${used}`);
    let response;
    try {
      response = await fetch(path, { ...options, headers, credentials: "omit" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("unreachable", "The server cannot be reached. Is it still running?");
    }
    if (response.ok) return response;
    if (response.status !== 401) throw await readError(response);
    if (storedKey() !== used) continue; // another request has asked meanwhile
    const key = await askForKey(Boolean(used));
    if (key === null) throw await readError(response);
    sessionStorage.setItem(KEY, key);
  }
}

export const getJson = async (path) => (await request(path)).json();

/** Show an error in an element with role="alert". */
export function showProblem(node, error) {
  const known = error instanceof ApiError;
  const message = known ? error.message : "Something went wrong on this page.";
  node.replaceChildren(
    el("strong", {}, message.charAt(0).toUpperCase() + message.slice(1)),
    el("span", { class: "alert-detail" }, known ? error.code : String(error)),
    ...(error.requestId ? [el("span", { class: "alert-detail" }, `request ${error.requestId}`)] : []),
  );
  node.hidden = false;
}

export function hideProblem(node) {
  node.hidden = true;
  node.replaceChildren();
}

/** Make a button copy a text, and say that it did. */
export function copies(button, text) {
  const label = button.textContent;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Copying is blocked";
    }
    setTimeout(() => { button.textContent = label; }, 1600);
  });
}

function setHealth(state, text) {
  const pill = $("health");
  if (pill.dataset.state === state) return;
  pill.dataset.state = state;
  $("health-text").textContent = text;
}

async function watchHealth() {
  try {
    const response = await fetch("/readyz", { cache: "no-store", credentials: "omit" });
    if (response.ok) setHealth("ok", "Ready");
    else setHealth("wait", "Not ready");
  } catch {
    setHealth("bad", "Unreachable");
  }
}

watchHealth();
setInterval(() => { if (!document.hidden) watchHealth(); }, 10_000);
document.addEventListener("visibilitychange", () => { if (!document.hidden) watchHealth(); });

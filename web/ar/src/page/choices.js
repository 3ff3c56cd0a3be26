/** The filters that may be chosen: the server's, and the person's own. */
import { $, el, getJson, request } from "retinue-console";
import { filesGiven, filesOfServer } from "../filter/files.js";
import { FILE, readSpec } from "../filter/spec.js";

const OWN = "own:";

/** @typedef {import("../filter/files.js").Files} Files */
/** @typedef {import("../filter/spec.js").Spec} Spec */
/** @typedef {{ name: string, title: string, summary: string }} Row */

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

export class Choices {
  /** The value of what is worn. */
  #worn = "";
  #turn = 0;
  /** @type {Map<string, Files>} */
  #own = new Map();

  /**
   * @param {(spec: Spec | null, files: Files | null) => Promise<void>} wear
   * @param {<T>(action: () => Promise<T>) => Promise<T | null>} tried Tells what went wrong.
   * @param {(text: string) => void} busy Tells what is going on.
   */
  constructor(wear, tried, busy) {
    this.wear = wear;
    this.tried = tried;
    this.busy = busy;
  }

  /** @returns {Promise<any>} What the server says about filters and networks. */
  async list() {
    const settings = await getJson("/v1/ar/filters");
    this.#add("", "None", el("span", { class: "own" }, "off"), "Nothing is drawn").checked = true;
    for (const { name, title, summary } of /** @type {Row[]} */ (settings.filters)) {
      this.#add(name, title, preview(name), summary);
    }
    return settings;
  }

  /** @param {string} value @param {string} title @param {HTMLElement} picture @param {string} about */
  #add(value, title, picture, about) {
    const input = el("input", { type: "radio", name: "filter", value, class: "visually-hidden" });
    input.addEventListener("change", () => {
      input.parentElement.scrollIntoView({ block: "nearest", inline: "center" });
      this.choose(value);
    });
    const label = el("label", { class: "choice", title: about }, input, picture,
      el("span", { class: "choice-title" }, title));
    $("filters").append(label);
    return input;
  }

  /** @param {string} value @returns {HTMLInputElement | null} */
  #find(value) {
    return document.querySelector(`input[name="filter"][value="${CSS.escape(value)}"]`);
  }

  /** @param {string} value Of the radio button. @returns {Promise<boolean>} Whether it is worn. */
  async choose(value) {
    const turn = ++this.#turn;
    const done = await this.tried(async () => {
      this.busy(value ? "Loading the filter…" : "");
      const files =
        this.#own.get(value) ?? (value && filesOfServer(request, `/v1/ar/filters/${value}`));
      const spec = files ? readSpec(new TextDecoder().decode(await files.read(FILE))) : null;
      if (turn !== this.#turn) return true;
      await this.wear(spec, files || null);
      this.#worn = value;
      $("about").textContent = spec ? spec.summary || spec.title : "Nothing is drawn.";
      return true;
    });
    if (turn === this.#turn) {
      this.busy("");
      // What is chosen is what is worn, also where another could not be.
      const worn = this.#find(this.#worn);
      if (worn) worn.checked = true;
    }
    return Boolean(done);
  }

  /** Wear once more what is worn. */
  again() {
    return this.choose(this.#worn);
  }

  /** @param {{ path: string, file: File }[]} given A folder's files, or a .zip. */
  async addOwn(given) {
    await this.tried(async () => {
      const files = await filesGiven(given);
      const spec = readSpec(new TextDecoder().decode(await files.read(FILE)));
      const value = OWN + spec.name;
      const before = this.#own.get(value);
      this.#own.set(value, files);
      const picture = () => el("span", { class: "own" }, "yours");
      const input = this.#find(value) ?? this.#add(value, spec.title, picture(), spec.summary);
      input.checked = true;
      input.parentElement?.scrollIntoView({ block: "nearest", inline: "center" });
      if (await this.choose(value)) return;
      if (before) this.#own.set(value, before);
      else {
        this.#own.delete(value);
        input.parentElement?.remove();
      }
    });
  }
}

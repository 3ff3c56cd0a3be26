/**
 * Reads `filter.toml`: the same file and the same rules as `retinue.apps.ar.filters.spec`, whose
 * schema is in `shared.json`.
 *
 * @typedef {{ when: string, above: number, until: number, after: number, hold: number,
 *   fade: number, hide: boolean, play: string }} Show
 * @typedef {{ kind: string, show: Show | null, opacity: number } & Record<string, any>} Part
 * @typedef {{ name: string, title: string, summary: string, author: string, license: string,
 *   occlusion: boolean, needs: string[], parts: Part[] }} Spec
 */
import { TomlError, parse } from "smol-toml";
import shared from "../shared.json";
import { Invalid, checked } from "./schema.js";

const { usual, stay, degrees, events } = shared.spec;
export const FILE = "filter.toml";

/**
 * @param {string} text Of a `filter.toml`.
 * @returns {Spec}
 * @throws {Invalid} It is no TOML, or says what it may not.
 */
export function readSpec(text) {
  if (text.length > shared.limits.toml) throw new Invalid(FILE, "it is too large");
  let said;
  try {
    said = parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    throw new Invalid(FILE, `it is not TOML: ${error.message.split("\n")[0]}`);
  }
  const spec = checked(said, shared.schema);
  const parts = spec.parts.map(completed);
  if (parts.filter((/** @type {Part} */ part) => part.kind === "background").length > 1) {
    throw new Invalid("parts", "there is one background; leave out the other parts of that kind");
  }
  return { ...spec, parts };
}

/** @param {Part} part @param {number} number @returns {Part} */
function completed(part, number) {
  const place = `parts[${number}]`;
  const show = part.show ? completedShow(part.show, `${place}.show`) : null;
  if (part.kind === "background" && (part.mode === "replace") !== Boolean(part.file)) {
    throw new Invalid(place, 'mode = "replace" and a file go together; give both or neither');
  }
  if (part.kind === "model" && part.position.some((/** @type {number} */ v) => Math.abs(v) > 200)) {
    throw new Invalid(`${place}.position`, "a part is within 200 cm of its anchor");
  }
  for (const [i, point] of (part.points ?? []).entries()) {
    if (point.kind === "pull" && !point.direction.some(Boolean)) {
      throw new Invalid(`${place}.points[${i}]`, "direction = [0, 0] points nowhere");
    }
  }
  return { ...part, show };
}

/** @param {any} show @param {string} place @returns {Show} */
function completedShow(show, place) {
  const above = show.above ?? /** @type {Record<string, number>} */ (usual)[show.when];
  const until = show.until ?? stay * above;
  if (until > above) {
    throw new Invalid(place, `until = ${until} is more than above = ${above}; give a smaller one`);
  }
  if (![...degrees, ...events].includes(show.when) && above > 1) {
    throw new Invalid(place, `above = ${above}: ${show.when} goes from 0 to 1; give a smaller one`);
  }
  return { ...show, above, until, hold: show.hold ?? (events.includes(show.when) ? 1 : 0.15) };
}

/** @param {Spec} spec Whether it is to be given 478 landmarks. */
export function needsIris(spec) {
  return spec.needs.includes("iris") || spec.parts.some((part) => part.kind === "eyes");
}

/** @param {Spec} spec Whether people must be told from what is behind them. */
export function needsBackground(spec) {
  return spec.parts.some((part) => part.kind === "background");
}

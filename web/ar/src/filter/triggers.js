/**
 * When parts are seen: hysteresis, least times, fades and gestures; see
 * `retinue.apps.ar.filters.triggers`.
 *
 * @typedef {import("../face/tracker.js").Face} Face
 * @typedef {import("./spec.js").Show} Show
 * @typedef {{ strength: number, elapsed: number }} Seen Seconds since it went on.
 */
import shared from "../shared.json";

const { STILL_S, FORGET_S, NOD_S, SHAKE_S, NEAR } = shared.triggers;
const SIGNS = /** @type {Record<string, [string, number]>} */ (
  /** @type {unknown} */ (shared.signs)
);

/** @param {Face} face @param {string} when @returns {number} */
export function measure({ coefficients: known }, when) {
  if (when === "blink") return Math.min(known.blink_left ?? 0, known.blink_right ?? 0);
  const sign = SIGNS[when];
  return sign ? sign[1] * (known[sign[0]] ?? 0) : (known[when] ?? 0);
}

/** Finds swings to and fro in an angle. */
export class Swings {
  /** @param {number} degrees Least way. @param {number[]} pattern @param {number} within */
  constructor(degrees, pattern, within) {
    this.degrees = degrees;
    this.pattern = pattern;
    this.within = within;
    this.direction = 0;
    /** @type {{ value: number, seconds: number } | null} */
    this.high = null;
    /** @type {{ value: number, seconds: number } | null} */
    this.low = null;
    /** @type {{ turn: number, start: number }[]} */
    this.swings = [];
  }

  /** @param {number} value @param {number} seconds @returns {boolean} Whether it is complete. */
  update(value, seconds) {
    if (!this.high || !this.low) {
      this.high = this.low = { value, seconds };
      return false;
    }
    const slack = NEAR * this.degrees;
    // The last time near the extreme counts: a head that is still has not begun to swing.
    if (value > this.high.value - slack) {
      this.high = { value: Math.max(value, this.high.value), seconds };
    }
    if (value < this.low.value + slack) {
      this.low = { value: Math.min(value, this.low.value), seconds };
    }
    if (this.direction >= 0 && this.high.value - value >= this.degrees) {
      return this.#turn(-1, this.high.seconds, value, seconds);
    }
    if (this.direction <= 0 && value - this.low.value >= this.degrees) {
      return this.#turn(1, this.low.seconds, value, seconds);
    }
    return false;
  }

  /** @param {number} turn @param {number} start @param {number} value @param {number} seconds */
  #turn(turn, start, value, seconds) {
    this.direction = turn;
    this.high = this.low = { value, seconds };
    this.swings = [...this.swings, { turn, start }].slice(-this.pattern.length);
    const right =
      this.swings.length === this.pattern.length &&
      this.swings.every((swing, i) => swing.turn === this.pattern[i]);
    if (!right || seconds - this.swings[0].start > this.within) return false;
    this.swings = [];
    return true;
  }
}

/** Tells when a head nods (down and up) or shakes (to and fro and to). */
export class Gesture {
  /** @param {Show} show */
  constructor(show) {
    const nod = show.when === "nod";
    this.axis = nod ? "pitch" : "yaw";
    this.other = nod ? "yaw" : "pitch";
    this.within = nod ? NOD_S : SHAKE_S;
    const patterns = nod ? [[-1, 1]] : [[-1, 1, -1], [1, -1, 1]];
    this.swings = patterns.map((pattern) => new Swings(show.above, pattern, this.within));
    /** @type {number[][]} */
    this.recent = [];
  }

  /** @param {Face} face @param {number} seconds @returns {boolean} */
  update({ coefficients: known }, seconds) {
    const value = known[this.axis] ?? 0;
    this.recent.push([seconds, value, known[this.other] ?? 0]);
    while (seconds - this.recent[0][0] > this.within) this.recent.shift();
    const done = this.swings.map((swings) => swings.update(value, seconds));
    if (!done.includes(true)) return false;
    // A head that goes round, or looks elsewhere, moves about its other axis as much.
    const way = (/** @type {number} */ axis) => {
      const values = this.recent.map((item) => item[axis]);
      return Math.max(...values) - Math.min(...values);
    };
    return way(1) > way(2);
  }
}

/** One part's trigger on one face. */
export class Switch {
  /** @param {Show} show */
  constructor(show) {
    this.show = show;
    this.gesture = shared.spec.events.includes(show.when) ? new Gesture(show) : null;
    this.on = false;
    this.since = this.asked = this.seconds = 0;
    this.waiting = false;
    /** @type {number | null} */
    this.strength = null;
  }

  /** @param {Face} face @param {number} seconds @returns {Seen} */
  update(face, seconds) {
    const first = this.strength === null;
    if (this.gesture) this.#event(this.gesture.update(face, seconds), seconds);
    else this.#level(measure(face, this.show.when), seconds, first);
    const wanted = Number(this.on !== this.show.hide);
    if (this.strength === null) this.strength = wanted;
    else if (this.strength !== wanted) {
      const step = this.show.fade > 0 ? (seconds - this.seconds) / this.show.fade : 1;
      this.strength += Math.max(-step, Math.min(step, wanted - this.strength));
    }
    this.seconds = seconds;
    return { strength: this.strength, elapsed: Math.max(0, seconds - this.since) };
  }

  /** @param {boolean} happened @param {number} seconds */
  #event(happened, seconds) {
    if (happened) {
      this.on = true;
      this.since = seconds;
    } else if (this.on && seconds - this.since >= this.show.hold) this.on = false;
  }

  /** @param {number} value @param {number} seconds @param {boolean} first */
  #level(value, seconds, first) {
    const { above, until, hold, after } = this.show;
    if (this.on) {
      if (value < until && seconds - this.since >= hold) this.on = false;
      return;
    }
    if (value < above) {
      this.waiting = false;
      return;
    }
    if (!this.waiting) {
      this.waiting = true;
      this.asked = seconds;
    }
    if (first || seconds - this.asked >= after) {
      this.on = true;
      this.waiting = false;
      this.since = seconds - (first ? STILL_S : 0);
    }
  }
}

/** All triggers of a filter, for each face of its own. */
export class Triggers {
  /** @param {import("./spec.js").Part[]} parts */
  constructor(parts) {
    this.parts = parts;
    /** @type {Map<number, { switches: (Switch | null)[], last: number }>} */
    this.faces = new Map();
  }

  /** @param {Face[]} faces @param {number} seconds @returns {Map<number, Seen[]>} By face. */
  update(faces, seconds) {
    for (const [id, { last }] of this.faces) {
      if (seconds - last > FORGET_S || seconds < last) this.faces.delete(id);
    }
    const seen = new Map();
    for (const face of faces) {
      const known = this.faces.get(face.id) ?? {
        switches: this.parts.map(({ show }) => (show ? new Switch(show) : null)),
        last: seconds,
      };
      known.last = seconds;
      this.faces.set(face.id, known);
      seen.set(
        face.id,
        known.switches.map((one) =>
          one ? one.update(face, seconds) : { strength: 1, elapsed: seconds },
        ),
      );
    }
    return seen;
  }
}

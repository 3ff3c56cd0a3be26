/** Keeps frames inside their time: less is done while they take too long, more when it fits. */

/** @typedef {{ iris: boolean, simple: boolean, samples: number }} Quality */

const BUDGET_MS = 1000 / 30;
const WINDOW = 20;
const LATE = 0.25;
const ROOM = 0.7;
const PATIENCE = 60;
const MOST_PATIENCE = 1920;
/** @type {Quality[]} */
const LADDER = [
  { iris: true, simple: false, samples: 4 },
  { iris: true, simple: false, samples: 0 },
  { iris: false, simple: false, samples: 0 },
  { iris: false, simple: true, samples: 0 },
];

export class Governor {
  level = 0;
  patience = PATIENCE;
  calm = 0;
  /** @type {number[]} */
  recent = [];
  /** @type {number | null} */
  sinceUp = null;

  /** @param {number} budget Milliseconds. */
  constructor(budget = BUDGET_MS) {
    this.budget = budget;
  }

  /** Forget what frames took. */
  reset() {
    this.recent = [];
    this.calm = 0;
    this.sinceUp = null;
  }

  get quality() {
    return LADDER[this.level];
  }

  /** For pictures that wait for no one. */
  get best() {
    return LADDER[0];
  }

  /** @param {number} milliseconds That a frame took. */
  note(milliseconds) {
    this.recent = [...this.recent, milliseconds].slice(-WINDOW);
    this.calm = milliseconds <= ROOM * this.budget ? this.calm + 1 : 0;
    if (this.sinceUp !== null) this.sinceUp += 1;
    const late = this.recent.filter((each) => each > this.budget).length;
    if (this.recent.length === WINDOW && late > LATE * WINDOW && this.level < LADDER.length - 1) {
      // A step up that had to be taken back is not tried again soon.
      if (this.sinceUp !== null && this.sinceUp < 3 * WINDOW) {
        this.patience = Math.min(2 * this.patience, MOST_PATIENCE);
      }
      this.level += 1;
      this.reset();
    } else if (this.calm >= this.patience && this.level > 0) {
      this.level -= 1;
      this.reset();
      this.sinceUp = 0;
    }
  }
}

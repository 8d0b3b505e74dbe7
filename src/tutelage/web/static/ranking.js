// @ts-check
/** The order of candidates while somebody ranks them: ties, those not rankable, and undo. No page in here. */

/** @typedef {{id: string, tied: boolean}} Place `tied` with the one above */
/** @typedef {{ranked: Place[], out: string[]}} State */

export class Ranking {
  /** @param {string[]} ids in the order in which they came */
  constructor(ids) {
    /** @type {State} */
    this.state = { ranked: ids.map((id) => ({ id, tied: false })), out: [] };
    /** @type {State[]} */
    this.history = [];
    this.first = JSON.stringify(this.state);
  }

  /** Whether the order is still as it came. */
  get untouched() {
    return JSON.stringify(this.state) === this.first;
  }

  /** Ids best first; those in one group are tied. @returns {string[][]} */
  get groups() {
    /** @type {string[][]} */
    const groups = [];
    for (const { id, tied } of this.state.ranked) {
      if (tied && groups.length) /** @type {string[]} */ (groups.at(-1)).push(id);
      else groups.push([id]);
    }
    return groups;
  }

  /** @param {string} id @param {number} step -1 is up, 1 is down */
  move(id, step) {
    const from = this.#index(id);
    if (from >= 0) this.place(id, from + step);
  }

  /** Put a candidate at a position among the ranked, on its own. @param {string} id @param {number} position */
  place(id, position) {
    const from = this.#index(id);
    const to = Math.max(0, Math.min(position, this.state.ranked.length - (from >= 0 ? 1 : 0)));
    if (from === to) return;
    this.#change((state) => {
      this.#remove(state, id);
      state.ranked.splice(to, 0, { id, tied: false });
      if (state.ranked[to + 1]) state.ranked[to + 1].tied = false;
    });
  }

  /** Tie a candidate with the one above, or untie it. @param {string} id */
  tie(id) {
    const index = this.#index(id);
    if (index > 0) this.#change((state) => (state.ranked[index].tied = !state.ranked[index].tied));
  }

  /** Take a candidate out of the ranking, or put it back at its end. @param {string} id */
  drop(id) {
    const ranked = this.#index(id) >= 0;
    this.#change((state) => {
      this.#remove(state, id);
      if (ranked) state.out.push(id);
      else state.ranked.push({ id, tied: false });
    });
  }

  undo() {
    this.state = this.history.pop() ?? this.state;
  }

  /** @param {string} id */
  #index(id) {
    return this.state.ranked.findIndex((place) => place.id === id);
  }

  /** @param {State} state @param {string} id */
  #remove(state, id) {
    const index = state.ranked.findIndex((place) => place.id === id);
    if (index >= 0) {
      const [gone] = state.ranked.splice(index, 1);
      if (state.ranked[index] && !gone.tied) state.ranked[index].tied = false;
    }
    state.out = state.out.filter((other) => other !== id);
  }

  /** @param {(state: State) => void} edit */
  #change(edit) {
    this.history.push(structuredClone(this.state));
    edit(this.state);
  }
}

/* Chosen by us */

/** Waits that are kept: of more, these many are a sample that is even over time. */
const KEPT_MAX = 4096;

/** How long something took, each time. */
export interface LatencyFacts {
  readonly count: number;
  readonly medianMs: number | undefined;
  readonly p99Ms: number | undefined;
  readonly maxMs: number | undefined;
}

/** Gathers how long something took, in bounded room. */
export class Latencies {
  readonly #kept = new Float64Array(KEPT_MAX);
  #keptCount = 0;
  #count = 0;
  /** Of so many waits one is kept: doubled whenever there is no room. */
  #stride = 1;
  #maxMs = 0;

  add(ms: number): void {
    this.#maxMs = Math.max(this.#maxMs, ms);
    if (this.#count++ % this.#stride !== 0) return;
    if (this.#keptCount === KEPT_MAX) {
      for (let at = 0; at < KEPT_MAX / 2; at++) this.#kept[at] = this.#kept[2 * at]!;
      this.#keptCount = KEPT_MAX / 2;
      this.#stride *= 2;
    }
    this.#kept[this.#keptCount++] = ms;
  }

  facts(): LatencyFacts {
    const sorted = this.#kept.slice(0, this.#keptCount).sort();
    const at = (share: number): number | undefined =>
      sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
    const maxMs = this.#count === 0 ? undefined : this.#maxMs;
    return { count: this.#count, medianMs: at(0.5), p99Ms: at(0.99), maxMs };
  }
}

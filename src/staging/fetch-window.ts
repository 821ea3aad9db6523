/* Chosen by us */

/** What may be on its way ahead of what is wanted at once, as time on the slowest link. */
const AHEAD_MS = 20;

/** Never fewer, so that a link does not idle between two of them. */
const FETCHES_MIN = 2;

/** Time over which arrivals are counted before the window is set anew. */
const SPAN_MS = 100;

/**
 * How many extents may be fetched in the background at once. What is asked for meanwhile waits
 * behind them, at the destination's link: so no more than that link carries in a few milliseconds,
 * or in two of the shortest round trips there were, whichever is more.
 */
export class FetchWindow {
  readonly #fetchesMax: number;
  #size: number;
  #shortestMs = Number.POSITIVE_INFINITY;
  #spanFromMs: number | undefined;
  #arrived = 0;

  /** @param fetchesMax As many as all intermediaries take. */
  constructor(fetchesMax: number) {
    this.#fetchesMax = Math.max(FETCHES_MIN, fetchesMax);
    this.#size = this.#fetchesMax;
  }

  /** How many may be on their way. */
  get size(): number {
    return this.#size;
  }

  /** An extent that was asked for at `fromMs` is here. */
  arrived(fromMs: number, nowMs: number): void {
    this.#shortestMs = Math.min(this.#shortestMs, nowMs - fromMs);
    this.#arrived++;
    this.#spanFromMs ??= fromMs;
    const spanMs = nowMs - this.#spanFromMs;
    if (spanMs < SPAN_MS) return;
    const aheadMs = Math.max(AHEAD_MS, 2 * this.#shortestMs);
    const wanted = Math.ceil((this.#arrived / spanMs) * aheadMs);
    this.#size = Math.min(this.#fetchesMax, Math.max(FETCHES_MIN, wanted));
    this.#spanFromMs = nowMs;
    this.#arrived = 0;
  }
}

import type { Session } from '../session/session.ts';
import { KiB, MiB } from '../units.ts';

/* Chosen by us */

/** Most encoded bytes that wait for a path, beside the paths' own room. */
const BYTES_MAX: number = MiB;

/** Fewer would leave paths without work while the next batch is made. */
const BYTES_MIN: number = 256 * KiB;

/** What may wait, as time: what QEMU says last waits as long, with the guest standing still. */
const WAITING_MS = 30;

/** The rate of all paths is asked for so often. */
const LOOK_MS = 50;

/** How much may wait between QEMU and the paths: less, the slower they are. */
export class WaitingLimit {
  readonly #rateOf: () => number;
  readonly #now: () => number;
  #bytes: number = BYTES_MAX;
  #nextLookMs = Number.NEGATIVE_INFINITY;

  /** @param rateOf Bytes per second of all paths; 0 as long as it is not known. */
  constructor(rateOf: () => number, now: () => number) {
    this.#rateOf = rateOf;
    this.#now = now;
  }

  /** Bytes from which on nothing more is taken. */
  get bytes(): number {
    const nowMs = this.#now();
    if (nowMs >= this.#nextLookMs) {
      this.#nextLookMs = nowMs + LOOK_MS;
      const rate = this.#rateOf();
      const wanted = rate === 0 ? BYTES_MAX : (rate * WAITING_MS) / 1000;
      this.#bytes = Math.min(BYTES_MAX, Math.max(BYTES_MIN, wanted));
    }
    return this.#bytes;
  }
}

/** Bytes per second of all paths that are used. */
export function rateOf(session: Pick<Session, 'pathReports'>): number {
  const used = session.pathReports().filter(({ state, isParked }) => state === 'open' && !isParked);
  return used.reduce((sum, { bytesPerSecond }) => sum + bytesPerSecond, 0);
}

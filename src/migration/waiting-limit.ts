import type { Session } from '../session/session.ts';
import { KiB, MiB } from '../units.ts';

/* Chosen by us */

/** Most encoded bytes that wait for a path, beside the paths' own room. */
const BYTES_MAX: number = MiB;

/**
 * What may wait, as time: what QEMU says last waits as long, with the guest standing still. Fewer
 * bytes would leave paths without work while the next batch is made.
 */
const PRECOPY = { waitingMs: 30, bytesMin: 256 * KiB };

/** In a post-copy, where the guest waits again and again: for pages it touches. */
const POSTCOPY = { waitingMs: 15, bytesMin: 64 * KiB };

/** The rate of all paths is asked for so often. */
const LOOK_MS = 50;

/** How much may wait between QEMU and the paths: less, the slower they are. */
export class WaitingLimit {
  readonly #rateOf: () => number;
  readonly #now: () => number;
  #bytes: number = BYTES_MAX;
  #nextLookMs = Number.NEGATIVE_INFINITY;
  #limits = PRECOPY;

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
      const { waitingMs, bytesMin } = this.#limits;
      const rate = this.#rateOf();
      const wanted = rate === 0 ? BYTES_MAX : (rate * waitingMs) / 1000;
      this.#bytes = Math.min(BYTES_MAX, Math.max(bytesMin, wanted));
    }
    return this.#bytes;
  }

  /** Lets less wait from now on. */
  beginPostcopy(): void {
    this.#limits = POSTCOPY;
    this.#nextLookMs = Number.NEGATIVE_INFINITY;
  }
}

/** Bytes per second of all paths in use, as measured and as allowed; 0 if neither is known. */
export function rateOf(session: Pick<Session, 'pathReports' | 'maxBytesPerSecond'>): number {
  const used = session.pathReports().filter(({ state, isParked }) => state === 'open' && !isParked);
  const rates = used.map((path) => limited(path.bytesPerSecond, path.maxBytesPerSecond));
  return limited(
    rates.reduce((sum, rate) => sum + rate, 0),
    session.maxBytesPerSecond,
  );
}

function limited(bytesPerSecond: number, maxBytesPerSecond: number | undefined): number {
  if (bytesPerSecond === 0) return maxBytesPerSecond ?? 0;
  return Math.min(bytesPerSecond, maxBytesPerSecond ?? Number.POSITIVE_INFINITY);
}

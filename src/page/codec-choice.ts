import { Codec } from '../native.ts';

/** A codec as it is asked for on a command line. */
export type CodecName = 'auto' | 'none' | 'lz4' | 'zstd';

/** A codec and its level, as `encodeBatch` takes them. */
export interface CodecStep {
  readonly codec: Codec;
  readonly level: number;
  readonly name: string;
  /** Whether similar pages that both ends keep help to compress. */
  readonly findsSimilar: boolean;
}

/* Chosen by us */

/** From cheapest to tightest. */
const LADDER: readonly CodecStep[] = [
  { codec: Codec.None, level: 0, name: 'none', findsSimilar: false },
  { codec: Codec.Lz4, level: 4, name: 'lz4-fast', findsSimilar: false },
  { codec: Codec.Lz4, level: 1, name: 'lz4', findsSimilar: false },
  { codec: Codec.Zstd, level: -1, name: 'zstd-fast', findsSimilar: false },
  { codec: Codec.Zstd, level: 1, name: 'zstd', findsSimilar: false },
  { codec: Codec.Zstd, level: 2, name: 'zstd-2', findsSimilar: false },
  { codec: Codec.Zstd, level: 3, name: 'zstd-3', findsSimilar: false },
  { codec: Codec.Zstd, level: 3, name: 'zstd-3-similar', findsSimilar: true },
  { codec: Codec.Zstd, level: 5, name: 'zstd-5-similar', findsSimilar: true },
  { codec: Codec.Zstd, level: 7, name: 'zstd-7-similar', findsSimilar: true },
];
const FIXED: Readonly<Record<Exclude<CodecName, 'auto'>, number>> = {
  none: 0,
  lz4: 2,
  zstd: 4,
};
const FIRST = 2;
/** The lowest is for those who ask for it: what does not compress costs the next one little. */
const LOWEST = 1;

/** Batches that must agree on who waits before anything is done differently. */
const AGREEING_BATCHES = 6;

/** Batches whose delivery is measured, once those have gone that were begun before. */
const WINDOW_BATCHES = 8;
const LAG_BATCHES = 4;

/** A window is no shorter: clocks and acks come in steps. */
const WINDOW_MS_MIN = 10;

/** What a tighter codec may cost of the pages that arrive; what a faster one must gain. */
const TIGHTER_FACTOR_MIN = 0.98;
const FASTER_FACTOR_MIN = 1.02;

/**
 * Paths that carry so much of what they carried before were full, and are: then a tighter codec is
 * better for certain, whatever the pages are that came meanwhile, and a faster one is not.
 */
const FULL_FACTOR_MIN = 0.9;
const FULL_FACTOR_MAX = 1.1;

/** Batches until another step is tried after one that was none; each time twice as many. */
const PATIENCE_BATCHES_MIN = 24;
const PATIENCE_BATCHES_MAX = 2048;

/** Where a sender stands when it chooses a codec. */
export interface Standing {
  /** Encoded bytes that wait for a path. */
  readonly waitingBytes: number;
  /** Pages with contents that have arrived so far, and what they took on the wire. */
  readonly deliveredPages: number;
  readonly deliveredBytes: number;
  readonly nowMs: number;
}

/** What was delivered in a window, each per millisecond. */
interface Rates {
  readonly pages: number;
  readonly bytes: number;
}

/** A step that is tried, and what was delivered before it. */
interface Trial {
  readonly from: number;
  readonly before: Rates;
}

/**
 * Chooses the codec of the next batch. Where paths wait for batches, a faster one is taken. Where
 * batches wait for paths, the network may be the limit, or the processor that feeds it: so a
 * tighter one is tried, and kept if pages then arrive as fast, or paths carry as much as before;
 * now and then a faster one is tried too.
 */
export class CodecChoice {
  readonly #isFixed: boolean;
  #rung: number;
  /** Batches in a row that waited for paths if positive, that paths waited for if negative. */
  #agreeing = 0;
  #isNetworkLimit = false;
  #trial: Trial | undefined;
  /** The window that is measured: batches since its step was taken, and where it began. */
  #batches = 0;
  #windowFrom = 0;
  #from: Standing = { waitingBytes: 0, deliveredPages: 0, deliveredBytes: 0, nowMs: 0 };
  #triesTighter = true;
  #patience = PATIENCE_BATCHES_MIN;
  #restUntil = 0;

  constructor(name: CodecName) {
    this.#isFixed = name !== 'auto';
    this.#rung = name === 'auto' ? FIRST : FIXED[name];
  }

  /** Whether batches wait for paths. Then memory and time are well spent on sending less. */
  get isNetworkLimit(): boolean {
    return this.#isNetworkLimit;
  }

  /**
   * Whether pages that are new are worth keeping at both ends. Memory that is touched for the first
   * time takes as long as compressing a page well, so `auto` does that first.
   */
  get keepsPages(): boolean {
    return this.#isNetworkLimit && (this.#isFixed || this.current.findsSimilar);
  }

  /** The step of the ladder in use. */
  get current(): CodecStep {
    return LADDER[this.#rung]!;
  }

  /** The codec for the next batch. */
  next(standing: Standing): CodecStep {
    this.#batches++;
    if (this.#batches === LAG_BATCHES) this.#beginWindow(standing);
    const direction = standing.waitingBytes > 0 ? 1 : -1;
    const isSame = Math.sign(this.#agreeing) === direction;
    this.#agreeing = isSame ? this.#agreeing + direction : direction;
    const agree = Math.abs(this.#agreeing) >= AGREEING_BATCHES;
    if (agree) this.#isNetworkLimit = direction > 0;
    if (this.#isFixed) return this.current;
    if (agree && direction < 0) this.#stepDown();
    else if (this.#isWindowOver(standing)) this.#judge(standing, agree);
    return this.current;
  }

  /** Paths wait: whatever is tried is over. */
  #stepDown(): void {
    this.#agreeing = 0;
    this.#trial = undefined;
    this.#patience = PATIENCE_BATCHES_MIN;
    this.#triesTighter = true;
    this.#goTo(this.#rung - 1);
  }

  #judge(standing: Standing, mayTry: boolean): void {
    const rates = this.#rates(standing);
    const trial = this.#trial;
    this.#trial = undefined;
    if (trial !== undefined) {
      const isTighter = this.#rung > trial.from;
      if (!isBetter(rates, trial.before, isTighter)) {
        // Something else for a change, but not at once: each try that fails costs a little.
        this.#triesTighter = !isTighter;
        this.#restUntil = this.#patience;
        this.#patience = Math.min(PATIENCE_BATCHES_MAX, this.#patience * 2);
        this.#goTo(trial.from);
        return;
      }
      this.#patience = PATIENCE_BATCHES_MIN;
    }
    if (mayTry && this.#batches >= this.#restUntil) this.#try(rates);
    else this.#beginWindow(standing);
  }

  #rates({ nowMs, deliveredPages, deliveredBytes }: Standing): Rates {
    const { nowMs: fromMs, deliveredPages: fromPages, deliveredBytes: fromBytes } = this.#from;
    const ms = nowMs - fromMs;
    return { pages: (deliveredPages - fromPages) / ms, bytes: (deliveredBytes - fromBytes) / ms };
  }

  #try(before: Rates): void {
    const from = this.#rung;
    this.#restUntil = 0;
    if (this.#triesTighter && from === LADDER.length - 1) this.#triesTighter = false;
    else if (!this.#triesTighter && from === LOWEST) this.#triesTighter = true;
    this.#goTo(from + (this.#triesTighter ? 1 : -1));
    this.#trial = { from, before };
  }

  #goTo(rung: number): void {
    this.#rung = Math.min(LADDER.length - 1, Math.max(LOWEST, rung));
    this.#batches = 0;
    this.#windowFrom = Number.POSITIVE_INFINITY;
  }

  #beginWindow(standing: Standing): void {
    this.#from = standing;
    this.#windowFrom = this.#batches;
  }

  #isWindowOver({ nowMs }: Standing): boolean {
    const hasBatches = this.#batches - this.#windowFrom >= WINDOW_BATCHES;
    return hasBatches && nowMs - this.#from.nowMs >= WINDOW_MS_MIN;
  }
}

/** Whether a step is better than the one before it, by what was delivered with each. */
function isBetter(now: Rates, before: Rates, isTighter: boolean): boolean {
  const ofBytes = now.bytes / before.bytes;
  const ofPages = now.pages / before.pages;
  if (isTighter) return ofBytes >= FULL_FACTOR_MIN || ofPages >= TIGHTER_FACTOR_MIN;
  return ofBytes >= FULL_FACTOR_MAX && ofPages >= FASTER_FACTOR_MIN;
}

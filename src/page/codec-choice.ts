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
/** The cheapest that compresses: pages that it cannot make smaller cost it little. */
const CHEAPEST = 1;

/** Batches that must agree on who waits before anything is done differently. */
const AGREEING_BATCHES = 6;

/** A batch that took so much longer than the fastest was waiting behind others on its way. */
const QUEUED_MS = 10;

/** What is measured: from the delivery of a batch to that of another one of the same step. */
const WINDOW_BATCHES = 12;
/** No shorter, though: clocks and acks come in steps. */
const WINDOW_MS_MIN = 15;

/** What a tighter codec may cost of the pages that arrive; what a faster one must gain. */
const TIGHTER_FACTOR_MIN = 0.98;
const FASTER_FACTOR_MIN = 1.02;
/** What none must gain, as it takes so many more bytes. */
const NONE_FACTOR_MIN = 1.1;

/**
 * Paths that carry so much of what they carried before were full, and are: then a tighter codec is
 * better for certain, whatever the pages are that came meanwhile, and a faster one is not.
 */
const FULL_FACTOR_MIN = 0.9;
const FULL_FACTOR_MAX = 1.1;

/** Contents that stay as large as this are none that a tighter codec is any good for. */
const INCOMPRESSIBLE_FACTOR_MIN = 0.97;

/** Paths that wait, and carry less than this of what they did when they were full, are idle. */
const IDLE_FACTOR_MAX = 0.85;

/** Batches that paths wait for the cheapest codec until it is tried to go without one. */
const BATCHES_BEFORE_NONE = 48;

/** Batches until another step is tried after one that was no better, and how they grow. */
const PATIENCE = { batches: 24, growth: 2 };
/** To send whole pages where a path has no room for them costs more. */
const PATIENCE_FOR_NONE = { batches: 192, growth: 4 };
/** Batches after which such a try is over already, if pages arrive no faster. */
const WINDOW_BATCHES_FOR_NONE = 4;
const PATIENCE_BATCHES_MAX = 2048;

/** A batch that has arrived. */
export interface Delivery {
  /** `period` when its codec was chosen. */
  readonly period: number;
  /** Pages with contents. */
  readonly pages: number;
  /** Their contents before they were compressed, and all of it after. */
  readonly literalBytes: number;
  readonly bytes: number;
  /** From when it was encoded. */
  readonly tookMs: number;
  readonly nowMs: number;
}

/** What was delivered of a step. */
interface Window {
  readonly fromMs: number;
  untilMs: number;
  batches: number;
  pages: number;
  literalBytes: number;
  bytes: number;
}

/** What was delivered in a window, each per millisecond. */
interface Rates {
  readonly pages: number;
  readonly bytes: number;
  readonly isIncompressible: boolean;
}

/** A step that is tried, and what was delivered before it. */
interface Trial {
  readonly from: number;
  readonly before: Rates;
  readonly patience: Patience;
}

/** How long something is not tried again that was no better: each time longer. */
class Patience {
  readonly #shape: typeof PATIENCE;
  #restBatches: number;
  #restUntil = 0;

  constructor(shape: typeof PATIENCE) {
    this.#shape = shape;
    this.#restBatches = shape.batches;
  }

  isOver(batches: number): boolean {
    return batches >= this.#restUntil;
  }

  failed(batches: number): void {
    this.#restUntil = batches + this.#restBatches;
    this.#restBatches = Math.min(PATIENCE_BATCHES_MAX, this.#restBatches * this.#shape.growth);
  }

  reset(): void {
    this.#restBatches = this.#shape.batches;
    this.#restUntil = 0;
  }
}

/**
 * Chooses the codec of the next batch.
 *
 * - Paths wait for batches, and have room: a faster one is taken. They have hardly any, or it would
 *   be none at all, which may fill any path: it is tried, and kept if pages arrive faster.
 * - Batches wait for paths: the network may be the limit, or the processor that feeds it. A tighter
 *   one is tried, and kept if pages arrive as fast, or paths carry as much as before; now and then
 *   a faster one.
 *
 * A step is judged by its own batches, however long they are on their way.
 */
export class CodecChoice {
  readonly #isFixed: boolean;
  #rung: number;
  #period = 0;
  #batches = 0;
  /** Batches in a row that waited for paths if positive, that paths waited for if negative. */
  #agreeing = 0;
  #isNetworkLimit = false;
  #tookMsMin = Number.POSITIVE_INFINITY;
  #tookMs = 0;
  #window: Window | undefined;
  #trial: Trial | undefined;
  /** What paths carried when batches last waited for them. */
  #fullRate: number | undefined;
  #triesTighter = true;
  readonly #patience = new Patience(PATIENCE);
  readonly #patienceForNone = new Patience(PATIENCE_FOR_NONE);

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

  /** Since when that step is in use, as a number: for `delivered`. */
  get period(): number {
    return this.#period;
  }

  /** The codec for the next batch, while encoded bytes wait for a path, or none do. */
  next(waitingBytes: number): CodecStep {
    this.#batches++;
    const isQueued = this.#tookMs - this.#tookMsMin > QUEUED_MS;
    const direction = waitingBytes > 0 || isQueued ? 1 : -1;
    const isSame = Math.sign(this.#agreeing) === direction;
    this.#agreeing = isSame ? this.#agreeing + direction : direction;
    const agree = Math.abs(this.#agreeing) >= AGREEING_BATCHES;
    if (agree) this.#isNetworkLimit = direction > 0;
    if (this.#isFixed) return this.current;
    const hasRoom = this.#fullRate === undefined && this.#rung > CHEAPEST;
    if (agree && direction < 0 && hasRoom) this.#stepDown();
    else if (this.#isNoneTooMuch()) this.#giveUp(this.#trial!);
    else if (isOver(this.#window)) this.#judge(this.#window);
    return this.current;
  }

  /** A batch has arrived. */
  delivered({ period, pages, literalBytes, bytes, tookMs, nowMs }: Delivery): void {
    this.#tookMs = tookMs;
    this.#tookMsMin = Math.min(this.#tookMsMin, tookMs);
    if (period !== this.#period) return;
    const window = this.#window;
    if (window === undefined) {
      this.#window = beginWindow(nowMs);
      return;
    }
    window.untilMs = nowMs;
    window.batches++;
    window.pages += pages;
    window.literalBytes += literalBytes;
    window.bytes += bytes;
  }

  /** Paths wait, and have room. */
  #stepDown(): void {
    this.#agreeing = 0;
    this.#patience.reset();
    this.#triesTighter = true;
    this.#goTo(this.#rung - 1);
  }

  #judge(window: Window): void {
    const rates = ratesOf(window);
    this.#window = beginWindow(window.untilMs);
    const trial = this.#trial;
    this.#trial = undefined;
    if (trial !== undefined) {
      if (!isBetter(rates, trial.before, trial.from, this.#rung)) {
        this.#giveUp(trial);
        return;
      }
      trial.patience.reset();
    }
    if (this.#agreeing >= AGREEING_BATCHES) this.#fullRate = rates.bytes;
    const isIdle = rates.bytes < IDLE_FACTOR_MAX * (this.#fullRate ?? Number.POSITIVE_INFINITY);
    const doPathsWait = this.#agreeing <= -AGREEING_BATCHES;
    if (doPathsWait && isIdle && this.#rung > CHEAPEST) this.#stepDown();
    else this.#try(rates);
  }

  /** Whether none was tried because paths waited, and fills them: no more need be known. */
  #isNoneTooMuch(): boolean {
    const [trial, window] = [this.#trial, this.#window];
    if (trial?.patience !== this.#patienceForNone) return false;
    if (this.#agreeing >= AGREEING_BATCHES) return true;
    if (window === undefined || window.batches < WINDOW_BATCHES_FOR_NONE) return false;
    return ratesOf(window).pages < trial.before.pages;
  }

  /** Goes back to what was before, and to something else for a change, but not at once. */
  #giveUp(trial: Trial): void {
    this.#triesTighter = this.#rung < trial.from;
    trial.patience.failed(this.#batches);
    this.#trial = undefined;
    this.#goTo(trial.from);
  }

  /** Tries another step, if it is time to. */
  #try(before: Rates): void {
    const from = this.#rung;
    const doBatchesWait = this.#agreeing > 0;
    const isNoneNext = !doBatchesWait && from <= CHEAPEST;
    const patience = isNoneNext ? this.#patienceForNone : this.#patience;
    const agreeing = isNoneNext ? BATCHES_BEFORE_NONE : AGREEING_BATCHES;
    if (Math.abs(this.#agreeing) < agreeing || !patience.isOver(this.#batches)) return;
    if (!doBatchesWait && from === 0) return;
    if (this.#triesTighter && from === LADDER.length - 1) this.#triesTighter = false;
    else if (!this.#triesTighter && from === 0) this.#triesTighter = true;
    this.#goTo(from + (doBatchesWait && this.#triesTighter ? 1 : -1));
    this.#trial = { from, before, patience };
  }

  #goTo(rung: number): void {
    this.#rung = rung;
    this.#period++;
    this.#window = undefined;
  }
}

function isOver(window: Window | undefined): window is Window {
  if (window === undefined || window.batches < WINDOW_BATCHES) return false;
  return window.untilMs - window.fromMs >= WINDOW_MS_MIN;
}

function beginWindow(nowMs: number): Window {
  return { fromMs: nowMs, untilMs: nowMs, batches: 0, pages: 0, literalBytes: 0, bytes: 0 };
}

function ratesOf({ fromMs, untilMs, pages, literalBytes, bytes }: Window): Rates {
  const ms = untilMs - fromMs;
  const isIncompressible = bytes > INCOMPRESSIBLE_FACTOR_MIN * literalBytes;
  return { pages: pages / ms, bytes: bytes / ms, isIncompressible };
}

/** Whether a step is better than the one before it, by what was delivered with each. */
function isBetter(now: Rates, before: Rates, from: number, rung: number): boolean {
  const ofBytes = now.bytes / before.bytes;
  const ofPages = now.pages / before.pages;
  if (rung > from && now.isIncompressible) return ofPages >= FASTER_FACTOR_MIN;
  if (rung > from) return ofBytes >= FULL_FACTOR_MIN || ofPages >= TIGHTER_FACTOR_MIN;
  const pagesMin = rung === 0 ? NONE_FACTOR_MIN : FASTER_FACTOR_MIN;
  return ofBytes >= FULL_FACTOR_MAX && ofPages >= pagesMin;
}

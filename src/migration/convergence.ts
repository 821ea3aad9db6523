import { formatDuration } from '../units.ts';

/* Chosen by us */

/** Rounds and bytes after which a migration gives up, if nothing else is said. */
const ROUNDS_MAX = 100;
const BYTES_FACTOR_MAX = 4;

/** Share of the allowed downtime that an estimate may fill: bandwidth is never quite known. */
const DOWNTIME_SHARE = 0.8;

/** Share of that below which it is not worth waiting for still less. */
const SMALL_SHARE = 0.5;

/** Rounds whose bandwidth counts, and whose remainders are compared. */
const ROUNDS_COMPARED = 5;

/** A round of fewer pages says more about round trips than about bandwidth: once more are known. */
const SAMPLE_PAGES_MIN = 256;
const SAMPLES_MIN = 3;

/** What the bandwidth of a single round is divided by: nothing says that it was no exception. */
const SINGLE_DIVISOR = 4;

/** A remainder below this part of the lowest of late is falling; above that one, it has risen. */
const FALLING_FACTOR = 0.7;
const RISEN_FACTOR = 1.1;

/** How often a remainder that fits is left for a lower one, in all. */
const DEFERRALS_MAX = 4;

/** A round that leaves more than this part of what there was to send does not shrink. */
const SHRINKING_FACTOR = 0.9;

/** Rounds in a row that must not shrink before the guest is slowed down, and by how much. */
const STUBBORN_ROUNDS = 2;
const THROTTLE_FIRST_PERCENT = 20;
const THROTTLE_STEP_PERCENT = 10;
const THROTTLE_MAX_PERCENT = 99;

export interface ConvergenceOptions {
  /** How long the guest may stand still, > 0. */
  readonly downtimeMs: number;
  /**
   * What a switchover takes besides sending pages: device state, a round trip. Less than 0.8 of
   * `downtimeMs`, or nothing will ever fit.
   *
   * @default 0
   */
  readonly fixedMs?: number;
  /** Rounds after which the migration gives up, >= 1. @default 100 */
  readonly maxRounds?: number;
  /** Bytes on the wire after which it gives up, as a multiple of `memoryBytes`. @default 4 */
  readonly maxBytesFactor?: number;
  /** Bytes of a page. */
  readonly pageBytes: number;
  /** Bytes of guest memory. */
  readonly memoryBytes: number;
}

/** One pass over the dirty bitmap, when all of it is acknowledged. */
export interface RoundFacts {
  readonly sentPages: number;
  readonly wireBytes: number;
  /** From the first page until the last acknowledgement. */
  readonly durationMs: number;
  /** All that is left to send: pages that became dirty meanwhile, or were left out. */
  readonly dirtyPages: number;
}

/** What to do when a round has ended. */
export type Decision =
  /** Another round. Where the guest can be slowed down, by that much. */
  | { readonly action: 'continue'; readonly throttlePercent: number }
  /** Pause the guest and send the rest: there is room to spare, or it will not get less. */
  | { readonly action: 'switch'; readonly because: 'fits' | 'local-minimum' }
  /** Give up: the guest runs on at the source. */
  | { readonly action: 'stop'; readonly because: 'rounds' | 'bytes' };

/** Where the rounds stand. */
export interface ConvergenceEstimate {
  /** Rounds that have ended. */
  readonly rounds: number;
  readonly wireBytes: number;
  readonly remainingBytes: number;
  /** Pages delivered and acknowledged, smoothed; 0 before the first round has ended. */
  readonly pagesPerSecond: number;
  readonly dirtyPagesPerSecond: number;
  /** Downtime of a switchover now; infinite before anything was sent. */
  readonly expectedDowntimeMs: number;
  readonly throttlePercent: number;
  /** False as soon as several rounds agree that the rest will not fit within the limits. */
  readonly converges: boolean;
  /** The same for people, and what would help. */
  readonly text: string;
}

/**
 * Decides when to stop sending rounds of memory that changes meanwhile. It is told of whole rounds
 * and compares them: what is left is a saw-tooth, and bandwidth has exceptions, so that no single
 * figure ends a migration or switches it over.
 */
export class Convergence {
  readonly #options: Required<ConvergenceOptions>;
  /** Pages per millisecond of late rounds; the bandwidth of a switchover is among them. */
  readonly #rates: number[] = [];
  readonly #dirtyRates: number[] = [];
  /** What late rounds left, as a part of what there was to send. */
  readonly #ratios: number[] = [];
  /** What was left before the last round, and those before it. */
  readonly #remainders: number[] = [];
  #lastRate = 0;
  #rounds = 0;
  #sentPages = 0;
  #wireBytes = 0;
  #dirtyPages: number;
  #deferrals = 0;
  #shrinks = true;
  #stubborn = 0;
  #throttlePercent = 0;

  /** @throws {RangeError} If an option is out of its limits. */
  constructor(options: ConvergenceOptions) {
    const { downtimeMs, fixedMs = 0, pageBytes, memoryBytes } = options;
    const { maxRounds = ROUNDS_MAX, maxBytesFactor = BYTES_FACTOR_MAX } = options;
    check('downtimeMs', downtimeMs, downtimeMs > 0);
    check('fixedMs', fixedMs, fixedMs >= 0);
    check('maxRounds', maxRounds, maxRounds >= 1);
    check('maxBytesFactor', maxBytesFactor, maxBytesFactor > 0);
    check('pageBytes', pageBytes, pageBytes >= 1);
    check('memoryBytes', memoryBytes, memoryBytes >= 0);
    this.#options = { downtimeMs, fixedMs, maxRounds, maxBytesFactor, pageBytes, memoryBytes };
    this.#dirtyPages = Math.ceil(memoryBytes / pageBytes);
  }

  /**
   * Decides what follows a round.
   *
   * @throws {RangeError} If a figure is negative or none; then nothing has changed.
   */
  endRound(round: RoundFacts): Decision {
    for (const name of ['sentPages', 'wireBytes', 'durationMs', 'dirtyPages'] as const) {
      check(name, round[name], round[name] >= 0);
    }
    this.#note(round);
    const { maxRounds, maxBytesFactor, memoryBytes } = this.#options;
    const isLast = this.#rounds >= maxRounds;
    const isSpent = this.#wireBytes >= maxBytesFactor * memoryBytes && this.#wireBytes > 0;
    const because = this.#switchBecause(isLast || isSpent);
    if (because !== undefined) return { action: 'switch', because };
    if (isLast) return { action: 'stop', because: 'rounds' };
    if (isSpent) return { action: 'stop', because: 'bytes' };
    this.#throttle();
    return { action: 'continue', throttlePercent: this.#throttlePercent };
  }

  get estimate(): ConvergenceEstimate {
    const converges = this.#converges();
    return {
      rounds: this.#rounds,
      wireBytes: this.#wireBytes,
      remainingBytes: this.#dirtyPages * this.#options.pageBytes,
      pagesPerSecond: 1000 * middle(this.#rates),
      dirtyPagesPerSecond: 1000 * middle(this.#dirtyRates),
      expectedDowntimeMs: this.#downtimeMs(),
      throttlePercent: this.#throttlePercent,
      converges,
      text: converges ? this.#hope() : this.#warning(),
    };
  }

  #note({ sentPages, wireBytes, durationMs, dirtyPages }: RoundFacts): void {
    // Most of memory may never have been touched: the first round tells how much there is.
    const pagesBefore = this.#rounds === 0 ? sentPages : this.#dirtyPages;
    this.#shrinks = dirtyPages <= SHRINKING_FACTOR * pagesBefore;
    if (pagesBefore > 0) push(this.#ratios, dirtyPages / pagesBefore);
    push(this.#remainders, this.#dirtyPages);
    this.#rounds++;
    this.#sentPages += sentPages;
    this.#wireBytes += wireBytes;
    this.#dirtyPages = dirtyPages;
    if (durationMs === 0) return;
    push(this.#dirtyRates, dirtyPages / durationMs);
    // Pages that were never touched cost nothing on the wire: what is dirty will.
    const pages =
      this.#rounds > 1 ? sentPages : Math.min(sentPages, wireBytes / this.#options.pageBytes);
    const isSample = sentPages >= SAMPLE_PAGES_MIN || this.#rates.length < SAMPLES_MIN;
    if (pages === 0 || !isSample) return;
    this.#lastRate = pages / durationMs;
    push(this.#rates, this.#lastRate);
  }

  /** Pages per millisecond that a switchover can rely on. */
  #safeRate(): number {
    if (this.#rates.length === 1) return this.#lastRate / SINGLE_DIVISOR;
    return Math.min(middle(this.#rates), this.#lastRate);
  }

  #downtimeMs(): number {
    if (this.#dirtyPages === 0) return this.#options.fixedMs;
    return this.#options.fixedMs + this.#dirtyPages / this.#safeRate();
  }

  /** Why to switch over now, if so. */
  #switchBecause(isLast: boolean): 'fits' | 'local-minimum' | undefined {
    const { downtimeMs, fixedMs } = this.#options;
    const allowedMs = DOWNTIME_SHARE * downtimeMs;
    const expectedMs = this.#downtimeMs();
    if (expectedMs > allowedMs) return undefined;
    if (isLast || expectedMs - fixedMs <= SMALL_SHARE * (allowedMs - fixedMs)) return 'fits';
    const lowest = Math.min(...this.#remainders);
    const isFalling = this.#dirtyPages < FALLING_FACTOR * lowest;
    const hasRisen = this.#dirtyPages > RISEN_FACTOR * lowest;
    if ((isFalling || hasRisen) && this.#deferrals < DEFERRALS_MAX) {
      this.#deferrals++;
      return undefined;
    }
    return 'local-minimum';
  }

  #throttle(): void {
    this.#stubborn = this.#shrinks ? 0 : this.#stubborn + 1;
    if (this.#stubborn < STUBBORN_ROUNDS) return;
    this.#stubborn = 0;
    this.#throttlePercent = Math.min(
      THROTTLE_MAX_PERCENT,
      this.#throttlePercent === 0
        ? THROTTLE_FIRST_PERCENT
        : this.#throttlePercent + THROTTLE_STEP_PERCENT,
    );
  }

  /** Whether the rest fits before rounds or bytes are used up, if rounds go on as they do. */
  #converges(): boolean {
    const { downtimeMs, fixedMs, maxRounds, maxBytesFactor, memoryBytes } = this.#options;
    const pagesMs = DOWNTIME_SHARE * downtimeMs - fixedMs;
    if (pagesMs < 0) return false;
    if (this.#ratios.length < 2) return true;
    const fittingPages = pagesMs * middle(this.#rates);
    if (this.#dirtyPages <= fittingPages) return true;
    const ratio = middle(this.#ratios);
    if (ratio >= 1 || fittingPages < 1) return false;
    const roundsNeeded = Math.log(fittingPages / this.#dirtyPages) / Math.log(ratio);
    const bytesNeeded =
      (this.#dirtyPages / (1 - ratio)) * (this.#wireBytes / Math.max(1, this.#sentPages));
    return (
      this.#rounds + roundsNeeded <= maxRounds &&
      this.#wireBytes + bytesNeeded <= maxBytesFactor * memoryBytes
    );
  }

  #hope(): string {
    const expectedMs = this.#downtimeMs();
    if (!Number.isFinite(expectedMs)) return 'too early to say';
    const allowed = formatDuration(this.#options.downtimeMs);
    return `a switchover now would take ${formatDuration(expectedMs)}; ${allowed} are allowed`;
  }

  #warning(): string {
    const { downtimeMs, fixedMs } = this.#options;
    if (fixedMs > DOWNTIME_SHARE * downtimeMs) {
      return (
        `will not converge: a switchover takes ${formatDuration(fixedMs)} besides pages, ` +
        `and ${formatDuration(downtimeMs)} are allowed; allow a longer downtime`
      );
    }
    const perSecond = (rates: readonly number[]): string => (1000 * middle(rates)).toFixed(0);
    return (
      `will not converge at this rate: ${perSecond(this.#dirtyRates)} pages become dirty a second, ` +
      `${perSecond(this.#rates)} are sent; add a path, allow a longer downtime, or slow the guest down`
    );
  }
}

/** The middle one, the lower of two: a single exception is never it. 0 of none. */
function middle(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[(sorted.length - 1) >> 1] ?? 0;
}

function push(values: number[], value: number): void {
  values.push(value);
  if (values.length > ROUNDS_COMPARED) values.shift();
}

function check(name: string, value: number, isInRange: boolean): void {
  if (Number.isFinite(value) && isInRange) return;
  throw new RangeError(`Cannot judge convergence: "${name}" is out of its range: is ${value}`);
}

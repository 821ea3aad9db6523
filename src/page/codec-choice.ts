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

/** Batches that must agree before anything is done differently. */
const AGREEING_BATCHES = 6;

/** As long as every step was one up: a slow link is known at once, and most is still to be sent. */
const AGREEING_BATCHES_AT_FIRST = 2;

/**
 * Chooses the codec of the next batch from who waits for whom: where encoded batches wait for
 * paths, the network is the limit and a tighter codec pays; where paths wait for batches, the
 * processor is. This is the links' rate per free core, found out without measuring either.
 */
export class CodecChoice {
  readonly #isFixed: boolean;
  #rung: number;
  /** Batches in a row that waited for paths if positive, that paths waited for if negative. */
  #agreeing = 0;
  #isNetworkLimit = false;
  #hasOnlyClimbed = true;

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

  /**
   * The codec for the next batch.
   *
   * @param waitingBytes Encoded bytes that wait for a path.
   */
  next(waitingBytes: number): CodecStep {
    const direction = waitingBytes > 0 ? 1 : -1;
    const isSame = Math.sign(this.#agreeing) === direction;
    this.#agreeing = isSame ? this.#agreeing + direction : direction;
    const isFirstClimb = this.#hasOnlyClimbed && direction > 0;
    const needed = isFirstClimb ? AGREEING_BATCHES_AT_FIRST : AGREEING_BATCHES;
    if (Math.abs(this.#agreeing) >= needed) {
      this.#agreeing = 0;
      this.#hasOnlyClimbed = isFirstClimb;
      this.#isNetworkLimit = direction > 0;
      if (!this.#isFixed) this.#climb(direction);
    }
    return this.current;
  }

  #climb(direction: 1 | -1): void {
    this.#rung = Math.min(LADDER.length - 1, Math.max(LOWEST, this.#rung + direction));
  }
}

import { Codec } from '../native.ts';

/** A codec as it is asked for on a command line. */
export type CodecName = 'auto' | 'none' | 'lz4' | 'zstd';

/** A codec and its level, as `encodeBatch` takes them. */
export interface CodecStep {
  readonly codec: Codec;
  readonly level: number;
  readonly name: string;
}

/* Chosen by us */

/** From cheapest to tightest. */
const LADDER: readonly CodecStep[] = [
  { codec: Codec.None, level: 0, name: 'none' },
  { codec: Codec.Lz4, level: 4, name: 'lz4-fast' },
  { codec: Codec.Lz4, level: 1, name: 'lz4' },
  { codec: Codec.Zstd, level: -1, name: 'zstd-fast' },
  { codec: Codec.Zstd, level: 1, name: 'zstd' },
  { codec: Codec.Zstd, level: 2, name: 'zstd-tight' },
];
const FIXED: Readonly<Record<Exclude<CodecName, 'auto'>, number>> = {
  none: 0,
  lz4: 2,
  zstd: 4,
};
const FIRST = 2;

/** Batches that must agree before the ladder is climbed or descended. */
const AGREEING_BATCHES = 6;

/** A batch that keeps more than this share of its bytes was not worth compressing. */
const WORTHLESS_SHARE = 0.94;

/** Most batches that are sent as they are before compression is tried again. */
const SKIP_BATCHES_MAX = 4;

/**
 * Chooses the codec of the next batch from who waits for whom: where encoded batches wait for
 * paths, the network is the limit and a tighter codec pays; where paths wait for batches, the
 * processor is.
 */
export class CodecChoice {
  readonly #isFixed: boolean;
  #rung: number;
  #votes = 0;
  #skipNext = 0;
  #skipBatches = 1;

  constructor(name: CodecName) {
    this.#isFixed = name !== 'auto';
    this.#rung = name === 'auto' ? FIRST : FIXED[name];
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
    if (!this.#isFixed) this.#vote(waitingBytes > 0 ? 1 : -1);
    if (this.#skipNext > 0) {
      this.#skipNext--;
      return LADDER[0]!;
    }
    return this.current;
  }

  /** Learns how a compressed batch turned out. */
  learn(literalBytes: number, wireBytes: number): void {
    if (this.#isFixed || literalBytes === 0) return;
    if (wireBytes > literalBytes * WORTHLESS_SHARE) {
      this.#skipNext = this.#skipBatches;
      this.#skipBatches = Math.min(SKIP_BATCHES_MAX, this.#skipBatches * 2);
    } else {
      this.#skipNext = 0;
      this.#skipBatches = 1;
    }
  }

  #vote(direction: 1 | -1): void {
    this.#votes = Math.sign(this.#votes) === -direction ? direction : this.#votes + direction;
    if (Math.abs(this.#votes) < AGREEING_BATCHES) return;
    this.#votes = 0;
    // The lowest rung is only for what does not compress: the cheap step costs less than any wire.
    this.#rung = Math.min(LADDER.length - 1, Math.max(1, this.#rung + direction));
  }
}

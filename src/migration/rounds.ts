import { HEADER_BYTES } from '../frame/limits.ts';
import type { PageDigests } from '../native-memory.ts';
import type { DirtyBitmap } from '../page/bitmap.ts';
import type { BatchEncoder, BatchFacts, EncodedBatch, PageRange } from '../page/encode.ts';
import type { GuestMemory } from '../page/memory.ts';
import type { Lane } from '../session/lane.ts';
import { encodeRound } from './guest-message.ts';

/*
 * One pass over the pages that are to be sent
 *
 *   1. take      the next pages of a block's bitmap, as many as may fit in a batch
 *   2. encode    them in the addon's threads, a few batches at once
 *   3. send      each batch as it is ready: inside a round there is no order
 *   4. mark      the end, which arrives after all before it
 */

/* Chosen by us */

/** Encoded bytes that may wait for a path. */
const WAITING_BYTES_MAX = 1024 * 1024;

/** Pages that are tried for one batch: more than fit if they have contents, if they are zeros. */
const PAGES_MIN = 128;
const PAGES_MAX = 4096;

/** Pages by what they were, and what they took. */
export interface SentRound {
  readonly pages: number;
  readonly wireBytes: number;
}

type Sums = { -readonly [Key in keyof SentRound]: SentRound[Key] };

/** Pages of a block that are still to be looked at. */
interface Rest {
  readonly block: number;
  readonly from: number;
  readonly end: number;
}

/** Sends rounds of a guest's pages over a lane. One at a time. */
export class RoundSender {
  readonly #memory: GuestMemory;
  readonly #encoder: BatchEncoder;
  readonly #lane: Lane;
  readonly #onSent: (batch: EncodedBatch, sequence: number) => void;
  #wake: () => void = () => {};
  #error: unknown;
  #inWork = 0;
  #digests: PageDigests | undefined;
  #pagesAtOnce = PAGES_MIN;

  constructor(parts: {
    readonly memory: GuestMemory;
    readonly encoder: BatchEncoder;
    readonly lane: Lane;
    /** Hears of every batch that is with the lane. */
    readonly onSent: (batch: EncodedBatch, sequence: number) => void;
  }) {
    this.#memory = parts.memory;
    this.#encoder = parts.encoder;
    this.#lane = parts.lane;
    this.#onSent = parts.onSent;
    this.#lane.onDrain = () => this.#wake();
  }

  /** Ends the round that is being sent: it rejects with `error`, as any later one does. */
  fail(error: unknown): void {
    this.#error ??= error;
    this.#wake();
  }

  /**
   * Sends every page whose bit is set, and the round's mark behind them.
   *
   * @param bitmaps One for each block; not changed.
   * @param options.digests Where it is noted what was read of each page.
   * @returns When all is with the lane: not when it has arrived.
   * @throws What `fail` was given, ERR_MEMORY_LOST, ERR_MEMORY_CLOSED.
   */
  async send(
    bitmaps: readonly DirtyBitmap[],
    { round, digests }: { readonly round: number; readonly digests?: PageDigests | undefined },
  ): Promise<SentRound> {
    this.#digests = digests;
    const sums: Sums = { pages: 0, wireBytes: 0 };
    const rests: Rest[] = [];
    for (const [block, { pageCount }] of bitmaps.entries()) {
      rests.push({ block, from: 0, end: pageCount });
    }
    rests.reverse();
    for (;;) {
      if (this.#error !== undefined) throw this.#error;
      const isOver = !this.#start(rests, bitmaps, sums);
      if (isOver && this.#inWork === 0 && rests.length === 0) break;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    this.#lane.send({ ...encodeRound(round, HEADER_BYTES), isOrdered: true });
    return sums;
  }

  /** Starts as many batches as there is room for. False if there are no more pages. */
  #start(rests: Rest[], bitmaps: readonly DirtyBitmap[], sums: Sums): boolean {
    while (rests.length > 0) {
      if (this.#lane.queuedBytes >= WAITING_BYTES_MAX) return true;
      const rest = rests.at(-1)!;
      const ahead = bitmaps[rest.block]!.endOf(rest.from, this.#pagesAtOnce);
      const { count } = ahead;
      if (count === 0 || rest.from === rest.end) {
        rests.pop();
        continue;
      }
      const end = Math.min(ahead.end, rest.end);
      const slot = this.#encoder.takeSlot();
      if (slot === undefined) return true;
      rests[rests.length - 1] = { ...rest, from: end };
      const range: PageRange = {
        memory: this.#memory.native,
        block: rest.block,
        words: bitmaps[rest.block]!.words,
        from: rest.from,
        end,
        digests: this.#digests,
      };
      this.#inWork++;
      this.#encode(slot, range, rests, sums).catch((error: unknown) => this.fail(error));
    }
    return false;
  }

  async #encode(slot: Uint8Array, range: PageRange, rests: Rest[], sums: Sums): Promise<void> {
    const { batch, next } = await this.#encoder.encodePages(slot, range, this.#lane.queuedBytes);
    this.#inWork--;
    // What did not fit comes next, while it is still in a cache.
    if (next < range.end) rests.push({ block: range.block, from: next, end: range.end });
    this.#adapt(next < range.end, batch.facts);
    sums.pages += batch.facts.pages;
    sums.wireBytes += batch.end - batch.start;
    this.#put(batch);
    this.#wake();
  }

  /** The more of the pages had no contents, the more are tried at once. */
  #adapt(wasFull: boolean, { pages }: BatchFacts): void {
    const next = wasFull ? pages : this.#pagesAtOnce * 2;
    this.#pagesAtOnce = Math.min(PAGES_MAX, Math.max(PAGES_MIN, next));
  }

  #put(batch: EncodedBatch): void {
    if (this.#error !== undefined) return;
    const { buffer, start, end } = batch;
    const sequence = this.#lane.send({
      buffer,
      start,
      end,
      isOrdered: false,
      onAcked: () => {
        this.#encoder.acked(batch);
        this.#wake();
      },
    });
    this.#onSent(batch, sequence);
  }
}

import { PagelaneError } from '../errors.ts';
import { SequenceSet } from '../frame/sequence-set.ts';
import {
  BATCHES_MAX,
  Codec,
  Encoded,
  EncodedRange,
  native,
  Order,
  OrderFlag,
  Sealed,
  SLOT_ROOM_BYTES,
  type StoreIndex,
} from '../native.ts';
import type { NativeGuestMemory, PageDigests } from '../native-memory.ts';
import type { RamLayout } from './block.ts';
import { CodecChoice, type CodecName, type CodecStep } from './codec-choice.ts';
import { SlotPool } from './slot-pool.ts';
import { openStoreIndex } from './store.ts';

/*
 * From sealed batches to messages, in the addon's threads
 *
 *   1. seal      the reader leaves header, map and literals in a slot
 *   2. choose    a codec, by what arrives
 *   3. encode    what the store has becomes references; checksum, compression: in a worker
 *   4. send      the message stays in its slot until it is acked; then the slot is free again
 *   5. ack       what all batches up to there have kept may be referred to
 */

/* Chosen by us */

/** Bytes of page contents in a batch: long enough for the codecs, short enough for slow paths. */
export const LITERAL_BYTES_MAX: number = 512 * 1024;

/** Slots of a sender: batches being built, encoded, and sent but not acked. Bounds its memory. */
export const SENDER_SLOTS_MAX = 96;

/** What a batch holds, by kind of page, and what became of it. */
export interface BatchFacts {
  readonly pages: number;
  readonly zeroPages: number;
  readonly blankPages: number;
  readonly foreignPages: number;
  /** Pages that repeat one word. */
  readonly fillPages: number;
  /** Pages that the store has as they are, and as they were. */
  readonly samePages: number;
  readonly deltaPages: number;
  /** What the deltas take. */
  readonly deltaBytes: number;
  /** Pages that were sent before; 0 without a store. */
  readonly againPages: number;
  /** References and contents, before they were compressed. */
  readonly literalBytes: number;
}

/** An encoded batch: `buffer[start, end)`. Give `buffer` back to the encoder when it is acked. */
export interface EncodedBatch {
  readonly buffer: Uint8Array;
  readonly start: number;
  readonly end: number;
  readonly codec: Codec;
  /** Place of the batch in its stream, when it was ready and by which choice: for `acked`. */
  readonly number: number;
  readonly readyMs: number;
  readonly period: number;
  readonly facts: BatchFacts;
}

/** Pages of a block that are to be encoded: those from `from` to below `end` with their bit set. */
export interface PageRange {
  readonly memory: NativeGuestMemory;
  readonly block: number;
  /** Bit p % 32 of word p / 32 is page p; must not change until the pages are encoded. */
  readonly words: Uint32Array;
  readonly from: number;
  readonly end: number;
  /** Where it is noted what was read of each page, for a dirty log that compares. */
  readonly digests?: PageDigests | undefined;
}

/** A batch of guest memory's pages. */
export interface EncodedPages {
  readonly batch: EncodedBatch;
  /** The first page of the range that did not fit; `end` if all did. */
  readonly next: number;
}

/** Encodes batches of one stream. */
export class BatchEncoder {
  readonly choice: CodecChoice;
  readonly #slots: SlotPool;
  readonly #inWorkMax: number;
  readonly #acked = new SequenceSet();
  readonly #now: () => number;
  #inWork = 0;
  #nextNumber = 0;
  #store: StoreIndex | undefined;

  /**
   * @param options.threads Worker threads of the addon; one more batch than that is kept ready for
   *   them.
   * @param options.now Milliseconds, for what is delivered in a time.
   * @param options.literalBytes Most bytes of page contents in a batch. @default LITERAL_BYTES_MAX
   */
  constructor({
    codec,
    threads,
    now,
    literalBytes = LITERAL_BYTES_MAX,
  }: {
    readonly codec: CodecName;
    readonly threads: number;
    readonly now: () => number;
    readonly literalBytes?: number;
  }) {
    this.#now = now;
    this.choice = new CodecChoice(codec);
    this.#inWorkMax = threads + 1;
    this.#slots = new SlotPool({
      slotBytes: SLOT_ROOM_BYTES + literalBytes,
      countMax: SENDER_SLOTS_MAX,
    });
  }

  /** Batches in the addon's threads. */
  get inWork(): number {
    return this.#inWork;
  }

  /**
   * Lets batches refer to what the destination keeps, in so many slots.
   *
   * @throws {Error} ERR_OUT_OF_MEMORY If there is no memory for it.
   */
  openStore(layout: RamLayout, slots: number): void {
    this.#store = openStoreIndex(layout, slots);
  }

  /** A slot to build a batch in; undefined while the threads or the slots are all busy. */
  takeSlot(): Uint8Array | undefined {
    // Each batch in work may need a second slot for its compressed form.
    const isFull = this.#inWork >= this.#inWorkMax || this.#slots.freeCount <= this.#inWorkMax;
    return isFull ? undefined : this.#slots.take();
  }

  /** Takes back a slot that is not needed. */
  giveSlot(slot: Uint8Array): void {
    this.#slots.give(slot);
  }

  /** The destination has a batch: its buffer is free, and what it keeps may be referred to. */
  acked({ buffer, start, end, number, readyMs, period, facts }: EncodedBatch): void {
    this.#slots.give(buffer);
    this.#acked.add(number);
    const { literalBytes } = facts;
    if (literalBytes === 0) return;
    const nowMs = this.#now();
    const pages = facts.pages - facts.zeroPages;
    const [bytes, tookMs] = [end - start, nowMs - readyMs];
    this.choice.delivered({ period, pages, literalBytes, bytes, tookMs, nowMs });
  }

  /** Frees the buffer of a batch that was copied. Nothing refers to what such a batch has kept. */
  release({ buffer }: EncodedBatch): void {
    this.giveSlot(buffer);
  }

  /**
   * Encodes a sealed batch.
   *
   * @param waitingBytes Encoded bytes that wait for a path: the hint by which the codec is chosen.
   */
  async encode(slot: Uint8Array, sealed: Int32Array, waitingBytes: number): Promise<EncodedBatch> {
    const literalBytes = sealed[Sealed.literalBytes]!;
    const step = literalBytes === 0 ? NO_LITERALS : this.choice.next(waitingBytes);
    const facts = Int32Array.from(sealed);
    const encoded = new Int32Array(Encoded.count);
    const start = sealed[Sealed.start]!;
    const end = sealed[Sealed.end]!;
    return this.#run(slot, step, facts, encoded, (order, out) =>
      native.encodeBatch(slot, start, end, order, this.#store, out, encoded),
    );
  }

  /**
   * Encodes pages of guest memory: as many of `range` as fit in a batch.
   *
   * @param waitingBytes Encoded bytes that wait for a path: the hint by which the codec is chosen.
   * @throws {Error} ERR_MEMORY_LOST If the memory's file was truncated, ERR_MEMORY_CLOSED.
   */
  async encodePages(
    slot: Uint8Array,
    { memory, block, words, from, end, digests }: PageRange,
    waitingBytes: number,
  ): Promise<EncodedPages> {
    const step = this.choice.next(waitingBytes);
    const sealed = new Int32Array(Sealed.count);
    const encoded = new Int32Array(EncodedRange.count);
    const batch = await this.#run(slot, step, sealed, encoded, (order, out) => {
      const store = this.#store;
      const into = [slot, order, store, out, sealed, encoded, digests] as const;
      return native.encodePages(memory, block, words, from, end, ...into);
    });
    return { batch, next: from + encoded[EncodedRange.taken]! };
  }

  /** Has a batch made in `slot` or in another one, and gives back whichever is not needed. */
  async #run(
    slot: Uint8Array,
    step: CodecStep,
    sealed: Int32Array,
    encoded: Int32Array,
    make: (order: Int32Array, out: Uint8Array) => Promise<void>,
  ): Promise<EncodedBatch> {
    const out = step.codec === Codec.None ? slot : this.#slots.take()!;
    const order = this.#order(step);
    const number = order[Order.number]!;
    const { period } = this.choice;
    this.#inWork++;
    try {
      await make(order, out);
    } finally {
      this.#inWork--;
    }
    const isInOut = encoded[Encoded.inOut] === 1;
    if (out !== slot) {
      this.#slots.give(isInOut ? slot : out);
    }
    return {
      buffer: isInOut ? out : slot,
      start: encoded[Encoded.start]!,
      end: encoded[Encoded.end]!,
      codec: encoded[Encoded.codec] as Codec,
      number,
      readyMs: this.#now(),
      period,
      facts: factsOf(sealed, encoded),
    };
  }

  #order({ codec, level, findsSimilar }: CodecStep): Int32Array {
    const order = new Int32Array(Order.count);
    if (this.#nextNumber > BATCHES_MAX) {
      throw new PagelaneError(
        'ERR_BATCH_NUMBER',
        'Migration has more batches than can be numbered',
      );
    }
    order[Order.codec] = codec;
    order[Order.level] = level;
    order[Order.number] = this.#nextNumber++;
    order[Order.base] = this.#acked.base;
    order[Order.flags] =
      (this.choice.keepsPages ? OrderFlag.Keeps : 0) | (findsSimilar ? OrderFlag.FindsSimilar : 0);
    return order;
  }
}

const NO_LITERALS: CodecStep = {
  codec: Codec.None,
  level: 0,
  name: 'none',
  findsSimilar: false,
};

function factsOf(sealed: Int32Array, encoded: Int32Array): BatchFacts {
  return {
    pages: sealed[Sealed.pages]!,
    zeroPages: sealed[Sealed.zeroPages]!,
    blankPages: sealed[Sealed.blankPages]!,
    foreignPages: sealed[Sealed.foreignPages]!,
    fillPages: sealed[Sealed.fillPages]!,
    samePages: encoded[Encoded.samePages]!,
    deltaPages: encoded[Encoded.deltaPages]!,
    deltaBytes: encoded[Encoded.deltaBytes]!,
    againPages: encoded[Encoded.againPages]!,
    literalBytes: encoded[Encoded.literalBytes]!,
  };
}

import { Codec, Encoded, native, Sealed, SLOT_ROOM_BYTES } from '../native.ts';
import { CodecChoice, type CodecName } from './codec-choice.ts';
import { SlotPool } from './slot-pool.ts';

/*
 * From sealed batches to messages, in the addon's threads
 *
 *   1. seal      the reader leaves header, map and literals in a slot
 *   2. choose    a codec, by who waits for whom
 *   3. encode    checksum and compression, in a worker
 *   4. send      the message stays in its slot until it is acked; then the slot is free again
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
  readonly rawPages: number;
  readonly blankPages: number;
  readonly foreignPages: number;
  readonly literalBytes: number;
}

/** An encoded batch: `buffer[start, end)`. Give `buffer` back to the encoder when it is acked. */
export interface EncodedBatch {
  readonly buffer: Uint8Array;
  readonly start: number;
  readonly end: number;
  readonly codec: Codec;
  readonly facts: BatchFacts;
}

/** Encodes batches of one stream. */
export class BatchEncoder {
  readonly choice: CodecChoice;
  readonly #slots: SlotPool;
  readonly #inWorkMax: number;
  #inWork = 0;

  /**
   * @param threads Worker threads of the addon; one more batch than that is kept ready for them.
   */
  constructor({ codec, threads }: { codec: CodecName; threads: number }) {
    this.choice = new CodecChoice(codec);
    this.#inWorkMax = threads + 1;
    this.#slots = new SlotPool({
      slotBytes: SLOT_ROOM_BYTES + LITERAL_BYTES_MAX,
      countMax: SENDER_SLOTS_MAX,
    });
  }

  /** Batches in the addon's threads. */
  get inWork(): number {
    return this.#inWork;
  }

  /** A slot to build a batch in; undefined while the threads or the slots are all busy. */
  takeSlot(): Uint8Array | undefined {
    // Each batch in work may need a second slot for its compressed form.
    const isFull = this.#inWork >= this.#inWorkMax || this.#slots.freeCount <= this.#inWorkMax;
    return isFull ? undefined : this.#slots.take();
  }

  /** Takes back the buffer of a batch that is no longer needed. */
  give(buffer: Uint8Array): void {
    this.#slots.give(buffer);
  }

  /**
   * Encodes a sealed batch.
   *
   * @param waitingBytes Encoded bytes that wait for a path: the hint by which the codec is chosen.
   */
  async encode(slot: Uint8Array, sealed: Int32Array, waitingBytes: number): Promise<EncodedBatch> {
    const facts = factsOf(sealed);
    const { codec, level } =
      facts.literalBytes === 0 ? { codec: Codec.None, level: 0 } : this.choice.next(waitingBytes);
    const out = codec === Codec.None ? slot : this.#slots.take()!;
    const encoded = new Int32Array(Encoded.count);
    const start = sealed[Sealed.start]!;
    const end = sealed[Sealed.end]!;
    this.#inWork++;
    try {
      await native.encodeBatch(slot, start, end, codec, level, out, encoded);
    } finally {
      this.#inWork--;
    }
    const isInOut = encoded[Encoded.inOut] === 1;
    if (out !== slot) {
      this.give(isInOut ? slot : out);
      const mapBytes = SLOT_ROOM_BYTES - start;
      const wireBytes = encoded[Encoded.end]! - encoded[Encoded.start]! - mapBytes;
      this.choice.learn(facts.literalBytes, wireBytes);
    }
    return {
      buffer: isInOut ? out : slot,
      start: encoded[Encoded.start]!,
      end: encoded[Encoded.end]!,
      codec: encoded[Encoded.codec] as Codec,
      facts,
    };
  }
}

function factsOf(sealed: Int32Array): BatchFacts {
  return {
    pages: sealed[Sealed.pages]!,
    zeroPages: sealed[Sealed.zeroPages]!,
    rawPages: sealed[Sealed.rawPages]!,
    blankPages: sealed[Sealed.blankPages]!,
    foreignPages: sealed[Sealed.foreignPages]!,
    literalBytes: sealed[Sealed.literalBytes]!,
  };
}

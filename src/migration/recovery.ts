import { PagelaneError } from '../errors.ts';
import { Decoded } from '../native.ts';
import { DirtyBitmap } from '../page/bitmap.ts';
import type { RamLayout } from '../page/block.ts';
import type { DecodedBatch } from '../page/decode.ts';
import { joined, viewOf } from '../stream/bytes.ts';
import { Command, RamFlag, SectionType } from '../stream/format.ts';
import { ReturnType } from '../stream/return-path.ts';
import { sectionEnd, sectionHead } from '../stream/section.ts';
import { command } from './package.ts';

/*
 * How a source takes up a post-copy again that was paused
 *
 *   1. ask      which pages of each block have arrived         recoveryQuestions
 *   2. hear     a bitmap for each                              ReceivedBitmaps
 *   3. resume   and send what has not arrived, and only that   RESUME, keepMissing
 *
 * Source: QEMU migration/ram.c, ram_dirty_bitmap_reload; migration/savevm.c.
 */

/* Fixed by QEMU */
const BITMAP_END = 0x0123456789abcdefn;
const HEAD_BYTES = 4;
const RECORD_HEADER_BYTES = 8;

/** Asks for the bitmaps of all blocks; a recovered stream begins with it, without a header. */
export function recoveryQuestions({ blocks }: RamLayout): Uint8Array {
  return Buffer.concat(
    blocks.map(({ name }) => {
      const text = Buffer.from(name, 'latin1');
      return command(Command.RecvBitmap, Buffer.concat([Uint8Array.of(text.length), text]));
    }),
  );
}

/** Says that pages follow. */
export const RESUME: Uint8Array = command(Command.PostcopyResume);

/** Reads the bitmaps that a destination answers with, off its return path. */
export class ReceivedBitmaps {
  readonly #layout: RamLayout;
  readonly #bitmaps: (DirtyBitmap | undefined)[];
  readonly #blocks: ReadonlyMap<string, number>;
  #held: Uint8Array = new Uint8Array(0);
  #missing: number;

  constructor(layout: RamLayout) {
    this.#layout = layout;
    this.#bitmaps = layout.blocks.map(() => undefined);
    this.#blocks = new Map(layout.blocks.map(({ name }, block) => [name, block]));
    this.#missing = layout.blocks.length;
  }

  /** Whether all are here. */
  get isComplete(): boolean {
    return this.#missing === 0;
  }

  /** The block of a name, -1 if there is none. */
  blockOf(name: Uint8Array): number {
    return this.#blocks.get(Buffer.from(name).toString('latin1')) ?? -1;
  }

  /** Whether a page has arrived. */
  has(block: number, page: number): boolean {
    return this.#bitmaps[block]!.has(page);
  }

  /**
   * Takes bytes of the return path.
   *
   * @returns What comes behind the last bitmap.
   * @throws {PagelaneError} ERR_RECOVERY If it is no answer, or not about this guest.
   */
  push(chunk: Uint8Array): Uint8Array {
    let bytes: Uint8Array = this.#held.length === 0 ? chunk : joined(this.#held, chunk);
    while (!this.isComplete) {
      const used = this.#read(bytes);
      if (used === 0) {
        this.#held = bytes.slice();
        return new Uint8Array(0);
      }
      bytes = bytes.subarray(used);
    }
    this.#held = new Uint8Array(0);
    return bytes;
  }

  /** Reads one message: returns its bytes, or 0 if it is not all there. */
  #read(bytes: Uint8Array): number {
    if (bytes.length < HEAD_BYTES) return 0;
    const view = viewOf(bytes);
    const payloadBytes = view.getUint16(2);
    if (bytes.length < HEAD_BYTES + payloadBytes) return 0;
    if (view.getUint16(0) !== ReturnType.RecvBitmap) return HEAD_BYTES + payloadBytes;
    const block = this.blockOf(bytes.subarray(HEAD_BYTES + 1, HEAD_BYTES + payloadBytes));
    const at = HEAD_BYTES + payloadBytes;
    if (bytes.length < at + 8) return 0;
    const bitmapBytes = Number(view.getBigUint64(at));
    const pages = (this.#layout.blocks[block]?.usedBytes ?? 0) / 2 ** this.#layout.pageBits;
    if (block < 0 || bitmapBytes !== 8 * Math.ceil(pages / 64)) throw noAnswer('of this guest');
    const end = at + 8 + bitmapBytes + 8;
    if (bytes.length < end) return 0;
    if (view.getBigUint64(end - 8) !== BITMAP_END) throw noAnswer('that ends as one does');
    if (this.#bitmaps[block] === undefined) this.#missing--;
    this.#bitmaps[block] = bitmapOf(bytes.subarray(at + 8, end - 8), pages);
    return end;
  }
}

/** Bits as QEMU sends them: little-endian, the first page is the lowest. */
function bitmapOf(bytes: Uint8Array, pages: number): DirtyBitmap {
  const words = new Uint32Array(bytes.length / 4);
  new Uint8Array(words.buffer).set(bytes);
  return new DirtyBitmap(pages, words);
}

function noAnswer(what: string): PagelaneError {
  return new PagelaneError('ERR_RECOVERY', `Destination QEMU gives no bitmap ${what}`);
}

/**
 * Takes the pages that have arrived out of a batch: none must come twice.
 *
 * @returns The records of the others, each with the name of its block.
 */
export function keepMissing(
  { output, decoded }: DecodedBatch,
  received: ReceivedBitmaps,
  layout: RamLayout,
): Uint8Array {
  const records = output.subarray(decoded[Decoded.firstRecord], decoded[Decoded.end]);
  const view = viewOf(records);
  const { pageBits, blocks } = layout;
  const kept: Uint8Array[] = [];
  let block = decoded[Decoded.firstBlock]!;
  for (let at = 0; at < records.length; ) {
    const header = view.getBigUint64(at);
    const flags = Number(header & BigInt(2 ** pageBits - 1));
    let bodyAt = at + RECORD_HEADER_BYTES;
    if ((flags & RamFlag.Continue) === 0) {
      const nameBytes = records[bodyAt]!;
      block = received.blockOf(records.subarray(bodyAt + 1, bodyAt + 1 + nameBytes));
      bodyAt += 1 + nameBytes;
    }
    const bodyBytes = (flags & RamFlag.Zero) !== 0 ? 1 : 2 ** pageBits;
    const page = Number(header >> BigInt(pageBits));
    if (!received.has(block, page)) {
      kept.push(namedHeader(header & ~BigInt(RamFlag.Continue), blocks[block]!.name));
      kept.push(records.subarray(bodyAt, bodyAt + bodyBytes));
    }
    at = bodyAt + bodyBytes;
  }
  return Buffer.concat(kept);
}

/** A RAM section of its own. */
export function ramSection(layout: RamLayout, records: Uint8Array): Uint8Array {
  return Buffer.concat([sectionHead(layout, SectionType.Part), records, sectionEnd(layout)]);
}

/** The end of RAM, and of a post-copy's stream. */
export function ramEnd(layout: RamLayout): Uint8Array {
  const end = [sectionHead(layout, SectionType.End), sectionEnd(layout)];
  return Buffer.concat([...end, Uint8Array.of(SectionType.Eof)]);
}

function namedHeader(header: bigint, name: string): Uint8Array {
  const text = Buffer.from(name, 'latin1');
  const bytes = new Uint8Array(RECORD_HEADER_BYTES + 1 + text.length);
  viewOf(bytes).setBigUint64(0, header);
  bytes[RECORD_HEADER_BYTES] = text.length;
  bytes.set(text, RECORD_HEADER_BYTES + 1);
  return bytes;
}

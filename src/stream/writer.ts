import { DECODED_ROOM_BYTES, Decoded } from '../native.ts';
import type { RamLayout } from '../page/block.ts';
import { EOS_BYTES, FOOTER_BYTES, RamFlag, SectionType } from './format.ts';
import { sectionEnd, sectionHead } from './section.ts';
import type { BytesPlace } from './sink.ts';

/*
 * From decoded batches and opaque bytes to a stream that QEMU accepts
 *
 * A batch is decoded as if the stream stood where it stood at the source. Where batches come in
 * another order, the writer mends the joint: it opens or closes a RAM section in front of the
 * batch, and names the block of the batch's first record. In the source's order there is nothing to
 * mend, and the output is the source's stream, byte for byte.
 */
export class StreamWriter {
  #layout: RamLayout | undefined;
  #isInside = false;
  #isVerbatim = false;
  /** Block that QEMU takes a CONTINUE record to mean, -1 before the first page. */
  #lastBlock = -1;
  /** Last page record of the highest sequence, kept to repeat it by name. */
  #kept: { bytes: Uint8Array; block: number; sequence: number } | undefined;

  /** Takes the RAM layout; before the first batch. */
  setLayout(layout: RamLayout): void {
    this.#layout = layout;
  }

  /** True once a layout is known. */
  get hasLayout(): boolean {
    return this.#layout !== undefined;
  }

  /** What must be written before the opaque bytes of `place`; often nothing. */
  beforeBytes(place: BytesPlace): Uint8Array {
    if (this.#isVerbatim) return EMPTY;
    this.#isVerbatim = place.isVerbatim;
    const parts: Uint8Array[] = [];
    if (place.isVerbatim && place.lastBlock >= 0 && place.lastBlock !== this.#lastBlock) {
      parts.push(...this.#repeatKept(place.lastBlock));
    }
    if (this.#isInside !== place.isInsideBefore) parts.push(this.#border(place.isInsideBefore));
    this.#isInside = place.isInsideAfter;
    return parts.length === 0 ? EMPTY : Buffer.concat(parts);
  }

  /** What must be written before what is in no RAM section; often nothing. */
  leaveSection(): Uint8Array {
    const isInside = this.#isInside;
    this.#isInside = false;
    return isInside ? this.#border(false) : EMPTY;
  }

  /**
   * Joins a decoded batch to what was written before.
   *
   * @param output What `decodeBatch` wrote, behind its room.
   * @param decoded Its `Decoded` fields.
   * @returns The part of `output` to write now.
   */
  batch(output: Uint8Array, decoded: Int32Array, sequence: number): Uint8Array {
    let start = decoded[Decoded.start]!;
    const end = decoded[Decoded.end]!;
    const firstRecord = decoded[Decoded.firstRecord]!;
    const firstBlock = decoded[Decoded.firstBlock]!;
    if (decoded[Decoded.firstContinues] === 1 && firstBlock !== this.#lastBlock) {
      start = nameFirstRecord(output, start, firstRecord, this.#nameOf(firstBlock));
    }
    const isInsideBefore = decoded[Decoded.opensInside] === 1;
    if (isInsideBefore !== this.#isInside) {
      const border = this.#border(isInsideBefore);
      start -= border.length;
      output.set(border, start);
    }
    this.#isInside = decoded[Decoded.endsInside] === 1;
    if (decoded[Decoded.lastBlock]! >= 0) {
      this.#lastBlock = decoded[Decoded.lastBlock]!;
      this.#keep(output, decoded, sequence);
    }
    return output.subarray(start, end);
  }

  #keep(output: Uint8Array, decoded: Int32Array, sequence: number): void {
    if (this.#kept !== undefined && this.#kept.sequence > sequence) return;
    const bytes = output.slice(decoded[Decoded.lastRecord]!, decoded[Decoded.lastRecordEnd]!);
    this.#kept = { bytes, block: this.#lastBlock, sequence };
  }

  /** Bytes that open a RAM section, or close the one that is open. */
  #border(opens: boolean): Uint8Array {
    const layout = this.#layout!;
    return opens ? sectionHead(layout, SectionType.Part) : sectionEnd(layout);
  }

  /** A RAM section whose only record names `block`: the kept record, written once more. */
  #repeatKept(block: number): Uint8Array[] {
    const kept = this.#kept;
    if (kept === undefined || kept.block !== block) return [];
    const parts: Uint8Array[] = [];
    if (!this.#isInside) parts.push(this.#border(true));
    this.#isInside = true;
    const continues = (kept.bytes[7]! & RamFlag.Continue) !== 0;
    if (!continues) {
      parts.push(kept.bytes);
      return parts;
    }
    const name = this.#nameOf(block);
    const record = new Uint8Array(kept.bytes.length + 1 + name.length);
    record.set(kept.bytes, 1 + name.length);
    nameFirstRecord(record, 1 + name.length, 1 + name.length, name);
    parts.push(record);
    return parts;
  }

  #nameOf(block: number): Uint8Array {
    return Buffer.from(this.#layout!.blocks[block]!.name, 'latin1');
  }
}

/**
 * Turns the first page record from CONTINUE to named: moves what is in front of it, and its header,
 * to the left and puts the name in the gap.
 *
 * @returns The new start.
 */
function nameFirstRecord(
  output: Uint8Array,
  start: number,
  firstRecord: number,
  name: Uint8Array,
): number {
  const shift = 1 + name.length;
  const headerEnd = firstRecord + 8;
  output.copyWithin(start - shift, start, headerEnd);
  output[headerEnd - shift - 1]! &= ~RamFlag.Continue;
  output[headerEnd - shift] = name.length;
  output.set(name, headerEnd - shift + 1);
  return start - shift;
}

/** Most bytes that the writer puts in front of a batch. */
export const JOINT_BYTES_MAX: number = EOS_BYTES + FOOTER_BYTES + 256;
if (JOINT_BYTES_MAX > DECODED_ROOM_BYTES) throw new Error('Room before decoded batch is too small');

const EMPTY = new Uint8Array(0);

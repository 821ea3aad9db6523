import { codeOf, messageOf, ProtocolError } from '../errors.ts';
import { SequenceSet } from '../frame/sequence-set.ts';
import { type BlockTable, Decoded, native, type PageHashes } from '../native.ts';
import { blockColumns, type RamLayout } from './block.ts';
import { SlotPool } from './slot-pool.ts';
import { openPageStore } from './store.ts';

/* Chosen by us */

/** Room for a batch with as many pages as there may be; a larger one gets a buffer of its own. */
const OUTPUT_BYTES = 1152 * 1024;

/**
 * Decoded batches that may wait for QEMU at once. Bounds the receiver's memory beside its credit.
 */
export const DECODED_MAX = 8;

/** A decoded batch: QEMU's records, `Decoded` says where. */
export interface DecodedBatch {
  readonly output: Uint8Array;
  readonly decoded: Int32Array;
}

/** Decodes batches of one stream in the addon's threads, and trusts nothing in them. */
export class BatchDecoder {
  readonly #blocks: BlockTable;
  readonly #outputs = new SlotPool({ slotBytes: OUTPUT_BYTES, countMax: DECODED_MAX });
  readonly #begun = new SequenceSet();
  readonly #done = new SequenceSet();
  #waiting: { readonly base: number; readonly resume: () => void }[] = [];

  /**
   * @param storeSlots Pages that are kept for the source.
   * @param options.hashes Where the hash of every page is noted, if memory is verified in the end.
   * @throws {Error} ERR_OUT_OF_MEMORY If there is no memory for them.
   */
  constructor(
    layout: RamLayout,
    storeSlots: number,
    { hashes }: { readonly hashes?: PageHashes } = {},
  ) {
    this.#blocks = new native.BlockTable(layout.pageBits, layout.hasFooter, layout.sectionId);
    const { names, usedBytes } = blockColumns(layout.blocks);
    this.#blocks.setBlocks(names, usedBytes);
    const store = openPageStore(layout, storeSlots);
    if (store !== undefined) this.#blocks.setStore(store);
    if (hashes !== undefined) this.#blocks.setHashes(hashes);
  }

  /**
   * Decodes one batch, after those that it relies on. `payload` must stay as it is until the
   * promise settles. Batches must be given in the order they arrived.
   *
   * @throws {ProtocolError} ERR_BATCH_… If anything in the batch is wrong; nothing of it is then
   *   used.
   */
  async decode(payload: Uint8Array, sequence: number): Promise<DecodedBatch> {
    const decoded = new Int32Array(Decoded.count);
    let output: Uint8Array | undefined;
    try {
      native.inspectBatch(this.#blocks, payload, decoded);
      const number = decoded[Decoded.number]!;
      this.#begin(number, decoded[Decoded.base]!);
      if (this.#done.base < decoded[Decoded.base]!) await this.#waitFor(decoded[Decoded.base]!);
      output = this.#takeOutput(decoded[Decoded.outputBytes]!);
      await native.decodeBatch(this.#blocks, payload, output, decoded);
      this.#finish(number);
      return { output, decoded };
    } catch (cause) {
      if (output !== undefined) this.give(output);
      throw new ProtocolError(codeOf(cause), messageOf(cause), {
        sequence,
        cause,
      });
    }
  }

  /** Takes back the output of a batch that was written. */
  give(output: Uint8Array): void {
    if (output.length === OUTPUT_BYTES) this.#outputs.give(output);
  }

  /** @throws {ProtocolError} If the batch has no place, or relies on one that is not here. */
  #begin(number: number, base: number): void {
    if (this.#begun.has(number) || !this.#begun.fits(number)) {
      const text = `Cannot decode batch: number ${number} came before, or is too far ahead`;
      throw new ProtocolError('ERR_BATCH_NUMBER', text);
    }
    this.#begun.add(number);
    if (this.#begun.base < base) {
      const text =
        `Cannot decode batch: it relies on all before ${base}, and ` +
        `${this.#begun.base} is not here`;
      throw new ProtocolError('ERR_BATCH_REFERENCE', text);
    }
  }

  #waitFor(base: number): Promise<void> {
    return new Promise((resume) => this.#waiting.push({ base, resume }));
  }

  #finish(number: number): void {
    this.#done.add(number);
    const { base } = this.#done;
    for (const each of this.#waiting) if (each.base <= base) each.resume();
    this.#waiting = this.#waiting.filter((each) => each.base > base);
  }

  #takeOutput(outputBytes: number): Uint8Array {
    const pooled = outputBytes <= OUTPUT_BYTES ? this.#outputs.take() : undefined;
    return pooled ?? new Uint8Array(new ArrayBuffer(outputBytes));
  }
}

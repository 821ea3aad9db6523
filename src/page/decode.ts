import { codeOf, messageOf, ProtocolError } from '../errors.ts';
import { type BlockTable, Decoded, native, type PageHashes } from '../native.ts';
import { BatchOrder } from './batch-order.ts';
import type { RamLayout } from './block.ts';
import { SlotPool } from './slot-pool.ts';
import { openBlockTable } from './store.ts';

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
  readonly #order: BatchOrder | undefined;

  /**
   * @param storeSlots Pages that are kept for the source.
   * @param options.hashes Where the hash of every page is noted, if memory is verified in the end.
   * @param options.isOrdered False for batches that come in any order, because none relies on
   *   another: then there must be no store. @default true
   * @throws {Error} ERR_OUT_OF_MEMORY If there is no memory for them.
   */
  constructor(
    layout: RamLayout,
    storeSlots: number,
    {
      hashes,
      isOrdered = true,
    }: { readonly hashes?: PageHashes; readonly isOrdered?: boolean } = {},
  ) {
    this.#order = isOrdered ? new BatchOrder() : undefined;
    this.#blocks = openBlockTable(layout, storeSlots);
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
      await this.#order?.begin(number, decoded[Decoded.base]!);
      output = this.#takeOutput(decoded[Decoded.outputBytes]!);
      await native.decodeBatch(this.#blocks, payload, output, decoded);
      this.#order?.finish(number);
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

  #takeOutput(outputBytes: number): Uint8Array {
    const pooled = outputBytes <= OUTPUT_BYTES ? this.#outputs.take() : undefined;
    return pooled ?? new Uint8Array(new ArrayBuffer(outputBytes));
  }
}

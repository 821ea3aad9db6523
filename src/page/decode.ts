import { codeOf, messageOf, ProtocolError } from '../errors.ts';
import { type BlockTable, Decoded, native } from '../native.ts';
import { blockColumns, type RamLayout } from './block.ts';
import { SlotPool } from './slot-pool.ts';

/* Chosen by us */

/** Usual room for a decoded batch; a larger one gets a buffer of its own. */
const OUTPUT_BYTES = 768 * 1024;

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

  constructor(layout: RamLayout) {
    this.#blocks = new native.BlockTable(layout.pageBits, layout.hasFooter, layout.sectionId);
    const { names, usedBytes } = blockColumns(layout.blocks);
    this.#blocks.setBlocks(names, usedBytes);
  }

  /**
   * Decodes one batch. `payload` must stay as it is until the promise settles.
   *
   * @throws {ProtocolError} ERR_BATCH_… If anything in the batch is wrong; nothing of it is then
   *   used.
   */
  async decode(payload: Uint8Array, sequence: number): Promise<DecodedBatch> {
    const decoded = new Int32Array(Decoded.count);
    let output: Uint8Array | undefined;
    try {
      native.inspectBatch(this.#blocks, payload, decoded);
      output = this.#takeOutput(decoded[Decoded.outputBytes]!);
      await native.decodeBatch(this.#blocks, payload, output, decoded);
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

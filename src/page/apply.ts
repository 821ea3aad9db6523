import { codeOf, messageOf, ProtocolError } from '../errors.ts';
import { type BlockTable, Decoded, native } from '../native.ts';
import type { MemoryTarget } from '../native-memory.ts';
import { BatchOrder } from './batch-order.ts';
import type { GuestMemory } from './memory.ts';
import { openBlockTable } from './store.ts';

/** Applies batches of one migration to guest memory in the addon's threads; trusts nothing. */
export class BatchApplier {
  readonly #blocks: BlockTable;
  readonly #target: MemoryTarget;
  readonly #order: BatchOrder | undefined;

  /**
   * @param memory Writable. What its files hold already is taken for what it holds.
   * @param storeSlots Pages that are kept for the source.
   * @param options.isOrdered False for batches that come in any order, because none relies on
   *   another: then there must be no store. @default true
   * @throws {RangeError} If memory is not writable; {Error} ERR_OUT_OF_MEMORY, ERR_MEMORY_CLOSED.
   */
  constructor(
    memory: GuestMemory,
    storeSlots: number,
    { isOrdered = true }: { readonly isOrdered?: boolean } = {},
  ) {
    if (!isOrdered && storeSlots > 0) {
      throw new RangeError('Cannot apply batches in any order: "storeSlots" must be 0');
    }
    this.#order = isOrdered ? new BatchOrder() : undefined;
    this.#blocks = openBlockTable(memory.layout, storeSlots);
    this.#target = new native.MemoryTarget(memory.native);
    for (const [block, { words }] of memory.findAllPopulated().entries()) {
      this.#target.addHeld(block, words);
    }
  }

  /**
   * Applies one batch, after those that it relies on. `payload` must stay as it is until the
   * promise settles. Batches must be given in the order they arrived; a page may be in one of those
   * that are in work only.
   *
   * @returns `Decoded`.
   * @throws {ProtocolError} ERR_BATCH_… If anything in the batch is wrong: nothing of it was
   *   written then. ERR_MEMORY_LOST if a file of the memory was truncated.
   */
  async apply(payload: Uint8Array, sequence: number): Promise<Int32Array> {
    const decoded = new Int32Array(Decoded.count);
    try {
      native.inspectBatch(this.#blocks, payload, decoded);
      const number = decoded[Decoded.number]!;
      await this.#order?.begin(number, decoded[Decoded.base]!);
      await native.applyBatch(this.#blocks, this.#target, payload, decoded);
      this.#order?.finish(number);
      return decoded;
    } catch (cause) {
      throw new ProtocolError(codeOf(cause), messageOf(cause), { sequence, cause });
    }
  }

  /**
   * The same, for who only counts.
   *
   * @returns How many pages were in the batch.
   */
  async applyPages(payload: Uint8Array, sequence: number): Promise<number> {
    return (await this.apply(payload, sequence))[Decoded.pages]!;
  }
}

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
  readonly #inWork = new Set<Promise<void>>();
  #isStopped = false;

  private constructor(blocks: BlockTable, target: MemoryTarget, order: BatchOrder | undefined) {
    this.#blocks = blocks;
    this.#target = target;
    this.#order = order;
  }

  /**
   * @param memory Writable. What its files hold already is taken for what it holds.
   * @param storeSlots Pages that are kept for the source.
   * @param options.isOrdered False for batches that come in any order, because none relies on
   *   another: then there must be no store. @default true
   * @throws {RangeError} If memory is not writable; {Error} ERR_OUT_OF_MEMORY, ERR_MEMORY_CLOSED.
   */
  static async open(
    memory: GuestMemory,
    storeSlots: number,
    { isOrdered = true }: { readonly isOrdered?: boolean } = {},
  ): Promise<BatchApplier> {
    if (!isOrdered && storeSlots > 0) {
      throw new RangeError('Cannot apply batches in any order: "storeSlots" must be 0');
    }
    const target = new native.MemoryTarget(memory.native);
    for (const [block, { words }] of (await memory.scanAllPopulated()).entries()) {
      target.addHeld(block, words);
    }
    const order = isOrdered ? new BatchOrder() : undefined;
    return new BatchApplier(openBlockTable(memory.layout, storeSlots), target, order);
  }

  /**
   * Applies one batch, after those that it relies on. `payload` must stay as it is until the
   * promise settles. Batches must be given in the order they arrived; a page may be in one of those
   * that are in work only.
   *
   * @returns `Decoded`; undefined if it was stopped before.
   * @throws {ProtocolError} ERR_BATCH_… If anything in the batch is wrong: nothing of it was
   *   written then. ERR_MEMORY_LOST if a file of the memory was truncated.
   */
  async apply(payload: Uint8Array, sequence: number): Promise<Int32Array | undefined> {
    if (this.#isStopped) return undefined;
    const decoded = new Int32Array(Decoded.count);
    try {
      native.inspectBatch(this.#blocks, payload, decoded);
      const number = decoded[Decoded.number]!;
      await this.#order?.begin(number, decoded[Decoded.base]!);
      if (this.#isStopped) return undefined;
      await this.#apply(payload, decoded);
      this.#order?.finish(number);
      return decoded;
    } catch (cause) {
      throw new ProtocolError(codeOf(cause), messageOf(cause), { sequence, cause });
    }
  }

  /**
   * The same, for who only counts.
   *
   * @returns How many pages were in the batch; 0 if it was stopped before.
   */
  async applyPages(payload: Uint8Array, sequence: number): Promise<number> {
    return (await this.apply(payload, sequence))?.[Decoded.pages] ?? 0;
  }

  /**
   * Applies no more.
   *
   * @returns When nothing is written to the memory any more.
   */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#order?.letGo();
    await Promise.allSettled(this.#inWork);
  }

  async #apply(payload: Uint8Array, decoded: Int32Array): Promise<void> {
    const work = native.applyBatch(this.#blocks, this.#target, payload, decoded);
    this.#inWork.add(work);
    try {
      await work;
    } finally {
      this.#inWork.delete(work);
    }
  }
}

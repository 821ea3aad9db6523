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
  readonly #order = new BatchOrder();
  readonly #inWork = new Set<Promise<void>>();
  #isStopped = false;

  private constructor(blocks: BlockTable, target: MemoryTarget) {
    this.#blocks = blocks;
    this.#target = target;
  }

  /**
   * @param memory Writable. What its files hold already is taken for what it holds.
   * @param storeSlots Pages that are kept for the source.
   * @throws {RangeError} If memory is not writable; {Error} ERR_OUT_OF_MEMORY, ERR_MEMORY_CLOSED.
   */
  static async open(memory: GuestMemory, storeSlots: number): Promise<BatchApplier> {
    const target = new native.MemoryTarget(memory.native);
    for (const [block, { words }] of (await memory.scanAllPopulated()).entries()) {
      target.addHeld(block, words);
    }
    return new BatchApplier(openBlockTable(memory.layout, storeSlots), target);
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
      await this.#order.begin(number, decoded[Decoded.base]!);
      if (this.#isStopped) return undefined;
      await this.#apply(payload, decoded);
      this.#order.finish(number);
      return decoded;
    } catch (cause) {
      throw new ProtocolError(codeOf(cause), messageOf(cause), { sequence, cause });
    }
  }

  /**
   * Applies no more.
   *
   * @returns When nothing is written to the memory any more.
   */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#order.letGo();
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

import { CutStop, native, type RamCutter, Sealed } from '../native.ts';
import { blockColumns, type RamLayout } from '../page/block.ts';
import { POSTCOPY_PAGES_MAX, POSTCOPY_SPAN_MAX } from './postcopy-reach.ts';
import { badPage, noPreempt } from './refusals.ts';

/** Takes the pages of a preempt channel. */
export interface PreemptSink {
  /** A slot for the next batch; undefined when none is free, then the reader waits. */
  takeSlot(): Uint8Array | undefined;
  /** A sealed batch of pages of one block, ascending. The slot is the sink's now. */
  pages(slot: Uint8Array, sealed: Int32Array): void;
}

/**
 * Reads the channel on which a QEMU with postcopy-preempt sends pages that somebody waits for: bare
 * RAM records, and at most an EOS record at their end. It names its blocks for itself.
 * Source: QEMU migration/postcopy-ram.c, postcopy_preempt_thread.
 */
export class PreemptReader {
  readonly #sink: PreemptSink;
  readonly #cutter: RamCutter;
  readonly #sealed = new Int32Array(Sealed.count);
  #slot: Uint8Array | undefined;
  #offsetBytes = 0;
  #isOver = false;

  constructor(layout: RamLayout, sink: PreemptSink) {
    this.#sink = sink;
    this.#cutter = new native.RamCutter(layout.pageBits);
    const { names, usedBytes } = blockColumns(layout.blocks);
    this.#cutter.setBlocks(names, usedBytes);
    this.#cutter.setReach(POSTCOPY_PAGES_MAX, POSTCOPY_SPAN_MAX);
  }

  /**
   * Reads `chunk` from `from` on, and gives what is whole: there may be nothing more for long.
   *
   * @returns Where it stopped: `chunk.length`, or less when the sink had no slot; call again with
   *   the rest.
   * @throws {StreamError} ERR_STREAM_PAGE, ERR_STREAM_POSTCOPY If these are no such records.
   */
  push(chunk: Uint8Array, from: number): number {
    let at = from;
    while (at < chunk.length) {
      if (this.#isOver) throw noPreempt('something follows its end', this.#offsetBytes);
      if (!this.#haveSlot()) return at;
      const result = this.#cutter.cut(chunk, at, chunk.length);
      const next = at + Math.floor(result / 8);
      this.#offsetBytes += next - at;
      at = next;
      this.#meet(result % 8);
    }
    if (!this.#cutter.isInsideRecord()) this.#seal();
    return at;
  }

  #meet(stop: number): void {
    switch (stop) {
      case CutStop.BatchFull:
        this.#seal();
        return;
      case CutStop.SectionEnd:
        this.#seal();
        this.#isOver = true;
        return;
      case CutStop.PageAgain:
        throw noPreempt('a page comes twice', this.#offsetBytes);
      case CutStop.BadPage:
        throw badPage(this.#offsetBytes);
      case CutStop.Unknown:
        throw noPreempt('it has a record of another kind', this.#offsetBytes);
    }
  }

  #haveSlot(): boolean {
    if (this.#slot === undefined) {
      this.#slot = this.#sink.takeSlot();
      if (this.#slot === undefined) return false;
      this.#cutter.begin(this.#slot);
    }
    if (this.#cutter.batchEntries() === 0) this.#cutter.setInside(true);
    return true;
  }

  #seal(): void {
    const slot = this.#slot;
    if (slot === undefined || this.#cutter.batchEntries() === 0) return;
    this.#cutter.seal(this.#sealed);
    this.#slot = undefined;
    this.#sink.pages(slot, this.#sealed);
  }
}

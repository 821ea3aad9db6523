import type { DirtyLog } from '../../src/page/dirty-log.ts';
import type { GuestMemory } from '../../src/page/memory.ts';
import { pagesIn, wordsFor } from './guest-memory.ts';

/** The smallest pre-copy there is: what a dirty log says is copied, and nothing else. */
export class Precopy {
  /** What was copied of each block; zeros at first, as a destination's. */
  readonly copies: readonly Uint8Array[];
  readonly #memory: GuestMemory;
  readonly #log: DirtyLog;
  readonly #pageBytes: number;

  constructor(memory: GuestMemory, log: DirtyLog) {
    this.#memory = memory;
    this.#log = log;
    this.#pageBytes = 2 ** memory.layout.pageBits;
    this.copies = memory.layout.blocks.map(({ usedBytes }) => new Uint8Array(usedBytes));
  }

  bitmaps(): Uint32Array[] {
    return this.copies.map((_, block) => wordsFor(this.#memory.pageCount(block)));
  }

  /** Copies what is populated. */
  async first(between: () => void = () => {}): Promise<number> {
    await this.#log.start();
    const bitmaps = this.bitmaps();
    between();
    for (const [block, words] of bitmaps.entries()) this.#memory.findPopulated(block, words);
    return this.copy(bitmaps, between);
  }

  /** Copies what was written since; `between` runs before and after each page. */
  async round(between: () => void = () => {}): Promise<number> {
    const bitmaps = this.bitmaps();
    await this.#log.collect(bitmaps);
    return this.copy(bitmaps, between);
  }

  copy(bitmaps: readonly Uint32Array[], between: () => void = () => {}): number {
    let count = 0;
    for (const [block, words] of bitmaps.entries()) {
      for (const page of pagesIn(words)) {
        between();
        const from = page * this.#pageBytes;
        const bytes = this.#memory.view(block).slice(from, from + this.#pageBytes);
        this.#log.digests?.note(block, page, bytes);
        this.copies[block]!.set(bytes, from);
        count++;
        between();
      }
    }
    return count;
  }

  /** Pages that differ from what was copied. */
  stale(): number[][] {
    return this.copies.map((copy, block) => {
      const view = this.#memory.view(block);
      return Array.from({ length: this.#memory.pageCount(block) }, (_, page) => page).filter(
        (page) =>
          Buffer.compare(
            copy.subarray(page * this.#pageBytes, (page + 1) * this.#pageBytes),
            view.subarray(page * this.#pageBytes, (page + 1) * this.#pageBytes),
          ) !== 0,
      );
    });
  }
}

import { DirtyBitmap, type PageRun } from '../page/bitmap.ts';
import type { RamLayout } from '../page/block.ts';
import type { PageRequest } from '../stream/page-request.ts';

/* A block's pages have numbers of their own: docs/protocol.md, section 8 */
const PAGES_PER_BLOCK = 2 ** 40;

/**
 * Pages that the destination has asked a source QEMU for, and that have not come from it.
 *
 * A QEMU with a second channel may end the first one while a page is on its way in the other; but
 * only pages that were asked for go there.
 */
export class AskedPages {
  readonly #layout: RamLayout;
  readonly #blocks: ReadonlyMap<string, number>;
  readonly #came: readonly DirtyBitmap[];
  readonly #missing = new Set<number>();

  constructor(layout: RamLayout) {
    const { blocks, pageBits } = layout;
    this.#layout = layout;
    this.#blocks = new Map(blocks.map(({ name }, index) => [name, index]));
    this.#came = blocks.map(({ usedBytes }) => new DirtyBitmap(usedBytes / 2 ** pageBits));
  }

  /** Pages that were asked for and have not come. */
  get missing(): number {
    return this.#missing.size;
  }

  /** The destination asks. What the guest does not have is left to QEMU to refuse. */
  ask({ block, offsetBytes, lengthBytes }: PageRequest): void {
    const index = this.#blocks.get(block);
    if (index === undefined) return;
    const came = this.#came[index]!;
    const pageBytes = 2 ** this.#layout.pageBits;
    const first = Math.floor(offsetBytes / pageBytes);
    const end = Math.min(came.pageCount, Math.ceil((offsetBytes + lengthBytes) / pageBytes));
    for (let page = first; page < end; page++) {
      if (!came.has(page)) this.#missing.add(index * PAGES_PER_BLOCK + page);
    }
  }

  /** Pages have come, by either channel. */
  take(block: number, runs: readonly PageRun[]): void {
    for (const { first, count } of runs) {
      this.#came[block]!.set(first, count);
      if (this.#missing.size === 0) continue;
      for (let page = first; page < first + count; page++) {
        this.#missing.delete(block * PAGES_PER_BLOCK + page);
      }
    }
  }
}

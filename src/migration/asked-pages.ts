import type { BatchPages } from '../page/batch-map.ts';
import { DirtyBitmap } from '../page/bitmap.ts';
import { pageCountOf, type RamLayout } from '../page/block.ts';
import type { PageRequest } from '../stream/page-request.ts';

/**
 * Pages that the destination has asked a source QEMU for, and that have not come from it.
 *
 * A QEMU with a second channel may end the first one while a page is on its way in the other; but
 * only pages that were asked for go there.
 */
export class AskedPages {
  readonly #pageBytes: number;
  readonly #blocks: ReadonlyMap<string, number>;
  readonly #asked: readonly DirtyBitmap[];
  readonly #came: readonly DirtyBitmap[];
  #missing = 0;

  constructor({ blocks, pageBits }: RamLayout) {
    this.#pageBytes = 2 ** pageBits;
    this.#blocks = new Map(blocks.map(({ name }, index) => [name, index]));
    const none = () => blocks.map((block) => new DirtyBitmap(pageCountOf(block, pageBits)));
    this.#asked = none();
    this.#came = none();
  }

  /** Pages that were asked for and have not come. */
  get missing(): number {
    return this.#missing;
  }

  /** The destination asks. What is no page of the guest is left to QEMU to refuse. */
  ask({ block, offsetBytes, lengthBytes }: PageRequest): void {
    const index = this.#blocks.get(block) ?? -1;
    const came = this.#came[index];
    const page = offsetBytes / this.#pageBytes;
    const isPage = lengthBytes === this.#pageBytes && Number.isInteger(page);
    if (came === undefined || !isPage || page >= came.pageCount || came.has(page)) return;
    const asked = this.#asked[index]!;
    if (asked.has(page)) return;
    asked.set(page);
    this.#missing++;
  }

  /** Pages have come, by any channel. */
  take({ block, runs }: BatchPages): void {
    const [asked, came] = [this.#asked[block]!, this.#came[block]!];
    for (const { first, count } of runs) {
      for (let page = first; this.#missing > 0 && page < first + count; page++) {
        if (asked.has(page) && !came.has(page)) this.#missing--;
      }
      came.set(first, count);
    }
  }
}

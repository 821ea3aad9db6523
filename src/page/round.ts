import { DirtyBitmap } from './bitmap.ts';

/**
 * Chooses the pages of a round: those that were dirty in three rounds in a row are left for the
 * last one, because they will be dirty again before that. A page is left only for as long as it
 * goes on like that, and none is forgotten.
 *
 * Needs three bits for each page.
 */
export class RoundChoice {
  /** Pages that are still to be sent, beside those that become dirty. Not to be changed. */
  readonly left: DirtyBitmap;
  /** Pages that were dirty in the last round, and in the last two. */
  readonly #once: Uint32Array;
  readonly #twice: Uint32Array;

  /** @throws {RangeError} As `DirtyBitmap`. */
  constructor(pageCount: number) {
    this.left = new DirtyBitmap(pageCount);
    this.#once = new Uint32Array(this.left.words.length);
    this.#twice = new Uint32Array(this.left.words.length);
  }

  /**
   * Turns what became dirty since the round before into what this round sends: pages that were left
   * are added, those that are hot are taken out. All that it takes out is in `left`.
   *
   * @throws {RangeError} If `dirty` has not as many pages; then nothing has changed.
   * @throws {TypeError} If other threads share it: take the pages from it first.
   */
  next(dirty: DirtyBitmap): void {
    this.#check(dirty);
    splitWords(dirty.words, this.left.words, this.#once, this.#twice);
  }

  /** The same for the last round, which sends all there is. */
  last(dirty: DirtyBitmap): void {
    this.#check(dirty);
    dirty.merge(this.left);
    this.left.clearAll();
    this.#once.fill(0);
    this.#twice.fill(0);
  }

  #check(dirty: DirtyBitmap): void {
    if (dirty.pageCount !== this.left.pageCount) {
      throw new RangeError(
        `Cannot choose pages: "dirty" must have ${this.left.pageCount} pages: ` +
          `has ${dirty.pageCount}`,
      );
    }
    if (dirty.words.buffer instanceof SharedArrayBuffer) {
      throw new TypeError('Cannot choose pages: "dirty" must not be shared between threads');
    }
  }
}

function splitWords(
  dirty: Uint32Array,
  left: Uint32Array,
  once: Uint32Array,
  twice: Uint32Array,
): void {
  for (let word = 0; word < dirty.length; word++) {
    const now = dirty[word]!;
    const hot = now & twice[word]!;
    dirty[word] = (now | left[word]!) & ~hot;
    left[word] = hot;
    twice[word] = now & once[word]!;
    once[word] = now;
  }
}

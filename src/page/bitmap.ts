import { native } from '../native.ts';

/* Fixed by the engine: an array has at most 2^32 elements */
const PAGES_MAX = 2 ** 37;

/* Chosen by us */

/** Runs that `runs()` asks for at a time. */
const RUNS_TOGETHER = 512;

/** Pages of guest memory, side by side. */
export interface PageRun {
  /** Page index of the first. */
  readonly first: number;
  /** How many, at least 1. */
  readonly count: number;
}

/** Adds a run, to the last one if it is its neighbour. */
export function pushRun(runs: PageRun[], run: PageRun): void {
  const last = runs.at(-1);
  if (last !== undefined && last.first + last.count === run.first) {
    runs[runs.length - 1] = { first: last.first, count: last.count + run.count };
  } else {
    runs.push(run);
  }
}

/**
 * A bit per page of a RAM block: written since last read. The layout is that of KVM_GET_DIRTY_LOG:
 * page p is bit p % 64 of word p / 64, words are little-endian.
 *
 * Where the words lie in a SharedArrayBuffer, other threads may set and clear pages meanwhile, by a
 * `DirtyBitmap` of their own over the same words or by `Atomics`: no change gets lost. What asks
 * for many pages (`count`, `findRuns`…) then finds each 64 of them as they were at some time.
 *
 * What looks at a page or a few is JavaScript; what walks over many words (`count`, `findRuns`,
 * `endOf`, `merge`, `takeFrom`) is the addon's.
 */
export class DirtyBitmap {
  /** Pages of the RAM block. */
  readonly pageCount: number;
  /**
   * Two elements for each 64 pages, the lower first. Bits past `pageCount` are clear; those that
   * somebody sets here nevertheless count for nothing.
   */
  readonly words: Uint32Array;
  readonly #isShared: boolean;

  /**
   * @param pageCount 0 to 2^37.
   * @param words What the bitmap begins with, and is kept in; bits past `pageCount` are cleared.
   *   All pages are clear if absent.
   * @throws {RangeError} If `words` has not 2 * ceil(pageCount / 64) elements, aligned to 8 bytes,
   *   or there is not enough memory.
   */
  constructor(pageCount: number, words?: Uint32Array) {
    checkPageCount(pageCount);
    const length = 2 * Math.ceil(pageCount / 64);
    if (words !== undefined && (words.length !== length || words.byteOffset % 8 !== 0)) {
      throw new RangeError(
        `Cannot make bitmap: "words" must have ${length} elements, aligned to 8 bytes: ` +
          `has ${words.length}, at ${words.byteOffset}`,
      );
    }
    this.pageCount = pageCount;
    this.words = words ?? new Uint32Array(length);
    this.#isShared = this.words.buffer instanceof SharedArrayBuffer;
    this.#clearPastEnd();
  }

  /** Whether a page is set. @throws {RangeError} If there is no such page. */
  has(page: number): boolean {
    if (!(Number.isInteger(page) && page >= 0 && page < this.pageCount)) {
      throw new RangeError(
        `Cannot look at page: "page" must be an integer below ${this.pageCount}: is ${page}`,
      );
    }
    return ((this.words[Math.floor(page / 32)]! >>> (page % 32)) & 1) === 1;
  }

  /** Sets `count` pages. @throws {RangeError} If there are no such pages; then none is set. */
  set(first: number, count: number = 1): void {
    this.#write('set', first, count, 0xffff_ffff);
  }

  /** Clears `count` pages. @throws {RangeError} If there are no such pages; then none is. */
  clear(first: number, count: number = 1): void {
    this.#write('clear', first, count, 0);
  }

  setAll(): void {
    this.set(0, this.pageCount);
  }

  clearAll(): void {
    this.words.fill(0);
  }

  /** Sets what is set in `other`. @throws {RangeError} If it has not as many pages. */
  merge(other: DirtyBitmap): void {
    this.#checkSize('merge bitmaps', other);
    native.mergeBits(this.words, other.words);
    this.#clearPastEnd();
  }

  /**
   * Moves all pages that are set in `shared` here, while other threads set pages in it: each page
   * that one of them sets is found here, now or after a later call, and none is found twice. What a
   * thread wrote before it set a page is seen by who finds the page here.
   *
   * @throws {RangeError} If `shared` has not as many pages.
   */
  takeFrom(shared: DirtyBitmap): void {
    this.#checkSize('take pages', shared);
    native.takeBits(this.words, shared.words);
    this.#clearPastEnd();
  }

  /**
   * Counts the pages that are set, from `from` to below `to`.
   *
   * @throws {RangeError} If there are no such pages.
   */
  count(from: number = 0, to: number = this.pageCount): number {
    this.#checkRange('count pages', from, to);
    return native.countBits(this.words, from, to);
  }

  /** Whether no page is set. Looks at words up to the first in which one is. */
  isEmpty(): boolean {
    return native.findBit(this.words, 0, this.pageCount, 1) < 0;
  }

  /**
   * Finds the first runs of pages that are set, ascending, from `from` to below `to`: those that
   * cross a limit are cut there. Allocates nothing.
   *
   * @param runs Receives each run's first page and its number of pages: two elements a run.
   * @returns How many runs were found. As many as `runs` holds: go on behind the last. Fewer: there
   *   are no more.
   * @throws {RangeError} If there are no such pages, or `runs` has no room.
   */
  findRuns(from: number, runs: Float64Array, to: number = this.pageCount): number {
    this.#checkRange('find runs', from, to);
    return native.findRuns(this.words, from, to, runs);
  }

  /**
   * All runs of pages that are set, ascending, from `from` to below `to`: those that cross a limit
   * are cut there. What is cleared meanwhile may be among them.
   *
   * @throws {RangeError} If there are no such pages.
   */
  *runs(from: number = 0, to: number = this.pageCount): Generator<PageRun, void, undefined> {
    const runs = new Float64Array(2 * RUNS_TOGETHER);
    let next = from;
    for (let found = RUNS_TOGETHER; found === RUNS_TOGETHER; ) {
      found = this.findRuns(next, runs, to);
      for (let run = 0; run < found; run++) {
        const [first, count] = [runs[2 * run]!, runs[2 * run + 1]!];
        next = first + count;
        yield { first, count };
      }
    }
  }

  /**
   * Finds where the next `pages` pages end that are set, from `from` on: what cuts a round into
   * batches.
   *
   * @returns The page index behind the last of them, `pageCount` if there are fewer; and how many
   *   they are.
   * @throws {RangeError} If there is no such page, or `pages` is no count.
   */
  endOf(from: number, pages: number): { end: number; count: number } {
    this.#checkRange('find page', from, this.pageCount);
    const place = native.findBit(this.words, from, this.pageCount, pages);
    return place < 0 ? { end: this.pageCount, count: -1 - place } : { end: place, count: pages };
  }

  /** Gives all pages of a run one value: that of all bits of `value`. */
  #write(task: string, first: number, count: number, value: number): void {
    this.#checkPages(task, first, count);
    if (count === 0) return;
    const begin = Math.floor(first / 32);
    const last = Math.floor((first + count - 1) / 32);
    const beginBits = -1 << (first % 32);
    const lastBits = -1 >>> (31 - ((first + count - 1) % 32));
    if (begin === last) {
      this.#writeBits(begin, beginBits & lastBits, value);
      return;
    }
    this.#writeBits(begin, beginBits, value);
    if (last - begin > 1) this.words.fill(value, begin + 1, last);
    this.#writeBits(last, lastBits, value);
  }

  #writeBits(word: number, bits: number, value: number): void {
    if (value !== 0) {
      if (this.#isShared) Atomics.or(this.words, word, bits);
      else this.words[word]! |= bits;
    } else if (this.#isShared) Atomics.and(this.words, word, ~bits);
    else this.words[word]! &= ~bits;
  }

  #clearPastEnd(): void {
    const inLast = this.pageCount % 64;
    if (inLast === 0) return;
    const last = this.words.length - 1;
    if (inLast <= 32) this.words[last] = 0;
    if (inLast % 32 !== 0) this.#writeBits(inLast < 32 ? last - 1 : last, -1 << (inLast % 32), 0);
  }

  #checkPages(task: string, first: number, count: number): void {
    const isRange = Number.isInteger(first) && first >= 0 && Number.isInteger(count) && count >= 0;
    if (isRange && first + count <= this.pageCount) return;
    throw new RangeError(
      `Cannot ${task} pages: "first" and "count" must be pages of ${this.pageCount}: ` +
        `are ${first} and ${count}`,
    );
  }

  #checkRange(task: string, from: number, to: number): void {
    if (Number.isInteger(from) && Number.isInteger(to) && from >= 0 && from <= to) {
      if (to <= this.pageCount) return;
    }
    throw new RangeError(
      `Cannot ${task}: "from" and "to" must be a range of ${this.pageCount} pages: ` +
        `are ${from} and ${to}`,
    );
  }

  #checkSize(task: string, other: DirtyBitmap): void {
    if (other.pageCount === this.pageCount) return;
    throw new RangeError(
      `Cannot ${task}: the other must have ${this.pageCount} pages: has ${other.pageCount}`,
    );
  }
}

function checkPageCount(pageCount: number): void {
  if (Number.isInteger(pageCount) && pageCount >= 0 && pageCount <= PAGES_MAX) return;
  throw new RangeError(
    `Cannot make bitmap: "pageCount" must be an integer from 0 to ${PAGES_MAX}: is ${pageCount}`,
  );
}

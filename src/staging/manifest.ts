import { StagingError } from '../errors.ts';
import type { PageRun } from '../page/bitmap.ts';
import type { RamLayout } from '../page/block.ts';
import {
  EXTENT_BYTES_MAX,
  EXTENT_RUNS_MAX,
  EXTENT_SPAN_PAGES_MAX,
  EXTENTS_AHEAD_MAX,
  EXTENTS_MAX,
  INTERMEDIARIES_MAX,
  SEAL_BYTES,
} from './limits.ts';

/** An extent that is at an intermediary, and the pages in it. */
export interface ExtentEntry {
  readonly kind: 'extent';
  /** Place among the extents of the attempt, from 0, never used again. */
  readonly number: number;
  /** Index of the intermediary. */
  readonly intermediary: number;
  /** Bytes of the sealed value. */
  readonly bytes: number;
  /** RAM block of all its pages. */
  readonly block: number;
  /** The pages, ascending. */
  readonly runs: readonly PageRun[];
  /** The stripe it belongs to; undefined without parity. */
  readonly stripe: number | undefined;
}

/** The parity of a stripe, or that it has none after all. */
export interface ParityEntry {
  readonly kind: 'parity';
  readonly stripe: number;
  /** Index of the intermediary; undefined if there is no parity. */
  readonly intermediary: number | undefined;
  /** Extents it is made of. */
  readonly members: readonly number[];
}

/** Extents that must not be asked for any more: their pages come again. */
export interface VoidEntry {
  readonly kind: 'void';
  readonly extents: readonly number[];
}

/** What the source tells the destination of what is staged. */
export type ManifestEntry = ExtentEntry | ParityEntry | VoidEntry;

/** Pages of one block, under one number. */
type PagesOfOne = Pick<ExtentEntry, 'number' | 'block' | 'runs'>;

/** What is kept of an extent. */
export interface ExtentPlace {
  readonly intermediary: number;
  readonly bytes: number;
  readonly block: number;
  readonly stripe: number | undefined;
}

const ROOM_FIRST = 1024;

/**
 * Which extent holds which page, and which pages came past all of them. A page is in one extent at
 * most, unless that one is void.
 *
 * Takes 4 bytes for every page of a block of which some are staged, and 21 for an extent.
 */
export class Manifest {
  readonly #pageCounts: readonly number[];
  /** Extents there may be: so many that every page can come twice. */
  readonly #extentsMax: number;
  /** One more than the number of the extent, for each page of a block. */
  readonly #extentOf: (Uint32Array | undefined)[];
  #intermediary = new Uint8Array(ROOM_FIRST);
  #bytes = new Uint16Array(ROOM_FIRST);
  #block = new Uint16Array(ROOM_FIRST);
  #first = new Float64Array(ROOM_FIRST);
  #span = new Uint32Array(ROOM_FIRST);
  #stripe = new Uint32Array(ROOM_FIRST);
  #extents = 0;
  #pages = 0;
  #nextDirect = EXTENTS_MAX;

  constructor(layout: RamLayout) {
    this.#pageCounts = layout.blocks.map(({ usedBytes }) => usedBytes / 2 ** layout.pageBits);
    const pages = this.#pageCounts.reduce((sum, count) => sum + count, 0);
    this.#extentsMax = Math.min(EXTENTS_MAX, 2 * pages + EXTENTS_AHEAD_MAX);
    this.#extentOf = this.#pageCounts.map(() => undefined);
  }

  /** Pages that came, or are in an extent which is not void. */
  get pages(): number {
    return this.#pages;
  }

  /** One more than the highest number of an extent. */
  get extents(): number {
    return this.#extents;
  }

  /**
   * Takes an extent in.
   *
   * Promise: if it throws, nothing has changed.
   *
   * @throws {StagingError} ERR_MANIFEST_EXTENT If its number was used, or a field is out of range.
   * @throws {StagingError} ERR_MANIFEST_PAGE If a page does not exist, or is in another extent.
   */
  add(entry: ExtentEntry): void {
    const { number, block } = entry;
    this.#checkFields(entry);
    this.#checkPages(entry);
    const { first } = entry.runs[0]!;
    const last = entry.runs.at(-1)!;
    this.#grow(number + 1);
    this.#fill(entry);
    this.#intermediary[number] = entry.intermediary;
    this.#bytes[number] = entry.bytes;
    this.#block[number] = block;
    this.#first[number] = first;
    this.#span[number] = last.first + last.count - first;
    this.#stripe[number] = entry.stripe === undefined ? 0 : entry.stripe + 1;
  }

  /**
   * Takes in pages that came straight from the source: no extent may have them any more.
   *
   * @returns A number for them, EXTENTS_MAX or more.
   * @throws {StagingError} ERR_MANIFEST_PAGE If a page does not exist, or came before.
   */
  addDirect(block: number, runs: readonly PageRun[]): number {
    const entry = { number: this.#nextDirect, block, runs };
    this.#checkPages(entry);
    this.#fill(entry);
    return this.#nextDirect++;
  }

  /** Where an extent is; undefined if there is none of that number, or it is void. */
  at(number: number): ExtentPlace | undefined {
    if (number >= this.#extents || this.#span[number] === 0) return undefined;
    const stripe = this.#stripe[number]!;
    return {
      intermediary: this.#intermediary[number]!,
      bytes: this.#bytes[number]!,
      block: this.#block[number]!,
      stripe: stripe === 0 ? undefined : stripe - 1,
    };
  }

  /** The extent that holds a page, or what `addDirect` returned of it; undefined if it is new. */
  find(block: number, page: number): number | undefined {
    const extent = this.#extentOf[block]?.[page] ?? 0;
    return extent === 0 ? undefined : extent - 1;
  }

  /** The pages of an extent, ascending. */
  pagesOf(number: number): PageRun[] {
    const place = this.at(number);
    if (place === undefined) return [];
    const pages = this.#extentOf[place.block]!;
    const runs: PageRun[] = [];
    const end = this.#first[number]! + this.#span[number]!;
    for (let page = this.#first[number]!; page < end; page++) {
      if (pages[page] !== number + 1) continue;
      const first = page;
      while (page < end && pages[page] === number + 1) page++;
      runs.push({ first, count: page - first });
    }
    return runs;
  }

  /** Makes an extent void: its pages may be in another one. Its number stays used. */
  remove(number: number): void {
    const place = this.at(number);
    if (place === undefined) return;
    for (const { first, count } of this.pagesOf(number)) {
      this.#extentOf[place.block]!.fill(0, first, first + count);
      this.#pages -= count;
    }
    this.#span[number] = 0;
  }

  /** Every extent that is not void, as it was told. */
  *entries(): Generator<ExtentEntry, void, undefined> {
    for (let number = 0; number < this.#extents; number++) {
      const place = this.at(number);
      if (place === undefined) continue;
      yield { kind: 'extent', number, ...place, runs: this.pagesOf(number) };
    }
  }

  /** Numbers of the extents at an intermediary. */
  *extentsAt(intermediary: number): Generator<number, void, undefined> {
    for (let number = 0; number < this.#extents; number++) {
      if (this.#span[number] !== 0 && this.#intermediary[number] === intermediary) yield number;
    }
  }

  #checkFields({ number, intermediary, bytes, block, runs, stripe }: ExtentEntry): void {
    const isWhole = [number, intermediary, bytes, block, stripe ?? 0].every(
      (value) => Number.isInteger(value) && value >= 0,
    );
    const isRight =
      isWhole &&
      number < Math.min(this.#extentsMax, this.#extents + EXTENTS_AHEAD_MAX) &&
      intermediary < INTERMEDIARIES_MAX &&
      bytes > SEAL_BYTES &&
      bytes <= EXTENT_BYTES_MAX &&
      block < this.#pageCounts.length &&
      (stripe ?? 0) < EXTENTS_MAX &&
      runs.length > 0 &&
      runs.length <= EXTENT_RUNS_MAX;
    // A number that was used stays so, even of an extent that is void.
    if (!isRight || (number < this.#extents && this.#bytes[number] !== 0)) {
      throw new StagingError(
        'ERR_MANIFEST_EXTENT',
        `Cannot take extent ${number} of ${bytes} bytes at intermediary ${intermediary}: ` +
          'a field is out of range, or the number was used',
      );
    }
  }

  #checkPages(entry: PagesOfOne): void {
    const pages = this.#pagesFor(entry.block);
    let at = 0;
    for (const { first, count } of entry.runs) {
      this.#checkRun(entry, { first, count }, at);
      at = first + count;
      for (let page = first; page < at; page++) {
        if (pages[page] !== 0) {
          throw wrongPage(entry, `page ${page} is in extent ${pages[page]! - 1} already`);
        }
      }
    }
  }

  #fill({ number, block, runs }: PagesOfOne): void {
    for (const { first, count } of runs) {
      this.#pagesFor(block).fill(number + 1, first, first + count);
      this.#pages += count;
    }
  }

  #checkRun(entry: PagesOfOne, { first, count }: PageRun, at: number): void {
    const isRun = Number.isInteger(first) && Number.isInteger(count) && first >= at && count > 0;
    const pages = this.#pageCounts[entry.block]!;
    if (!isRun || first + count > pages) {
      throw wrongPage(entry, `pages ${first} and ${count - 1} more do not exist, or not in order`);
    }
    if (first + count - entry.runs[0]!.first > EXTENT_SPAN_PAGES_MAX) {
      throw wrongPage(entry, `its pages lie more than ${EXTENT_SPAN_PAGES_MAX} apart`);
    }
  }

  #pagesFor(block: number): Uint32Array {
    this.#extentOf[block] ??= new Uint32Array(this.#pageCounts[block]!);
    return this.#extentOf[block]!;
  }

  #grow(extents: number): void {
    this.#extents = Math.max(this.#extents, extents);
    if (extents <= this.#bytes.length) return;
    const room = Math.min(this.#extentsMax, Math.max(extents, 2 * this.#bytes.length));
    this.#intermediary = grown(this.#intermediary, new Uint8Array(room));
    this.#bytes = grown(this.#bytes, new Uint16Array(room));
    this.#block = grown(this.#block, new Uint16Array(room));
    this.#first = grown(this.#first, new Float64Array(room));
    this.#span = grown(this.#span, new Uint32Array(room));
    this.#stripe = grown(this.#stripe, new Uint32Array(room));
  }
}

function grown<Column extends { set(from: Column): void }>(from: Column, to: Column): Column {
  to.set(from);
  return to;
}

function wrongPage({ number, block }: PagesOfOne, why: string): StagingError {
  return new StagingError(
    'ERR_MANIFEST_PAGE',
    `Cannot take extent ${number} of block ${block}: ${why}`,
  );
}

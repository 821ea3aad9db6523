import { closeSync, constants, fstatSync, openSync, type Stats } from 'node:fs';
import { getSystemErrorName } from 'node:util';
import { messageOf, PagelaneError } from '../errors.ts';
import { Compared, native, type PageHashes } from '../native.ts';
import { blockColumns, memoryBytes, pageCountOf, type RamLayout } from './block.ts';

/*
 * The destination QEMU's memory, compared with what was decoded
 *
 *   1. open      the files that QEMU maps, and room for a hash of each of their pages
 *   2. note      the hash of every page as it is decoded                                (addon)
 *   3. compare   all pages with the files, when QEMU has loaded everything
 */

/* Chosen by us */

/** Bytes of guest memory that a thread compares before another may take its turn. */
const PIECE_BYTES = 64 * 1024 * 1024;

/** A RAM block, and the file that the destination QEMU maps for it. */
export interface MappedMemory {
  /** QEMU's name of the block: `memory` of a `memory-backend-file` with `id=memory`. */
  readonly block: string;
  /** The file, `mem-path`, mapped with `share=on` from its beginning. */
  readonly path: string;
}

/** How memory is verified. */
export interface VerifyOptions {
  /** At least one block; what lies in others is counted as not verified. */
  readonly memory: readonly MappedMemory[];
  /** Comparisons at once. */
  readonly threads: number;
}

/** What came of verifying memory. */
export interface VerifiedFacts {
  /** Pages that were read again and compared with what was decoded last. */
  readonly pages: number;
  readonly differing: number;
  /** Pages of the guest that were not: in other blocks, never sent, or encoded by QEMU itself. */
  readonly unverified: number;
}

interface OpenBlock {
  readonly name: string;
  readonly index: number;
  readonly path: string;
  readonly pageCount: number;
  readonly file: number;
}

/** A stretch of a block. */
interface Piece {
  readonly block: OpenBlock;
  readonly firstPage: number;
  readonly pageCount: number;
}

/** The memory that QEMU loads, and the hash of every page that it should have. */
export class LoadedMemory {
  /** Where the decoder notes pages. */
  readonly hashes: PageHashes;
  readonly #layout: RamLayout;
  readonly #threads: number;
  readonly #blocks: OpenBlock[] = [];
  #isComparing = false;
  #isClosed = false;

  /**
   * Opens the files.
   *
   * @throws {PagelaneError} ERR_VERIFY_MEMORY If a block or its file cannot be verified.
   * @throws {Error} ERR_OUT_OF_MEMORY If there is no memory for the hashes.
   */
  constructor(layout: RamLayout, { memory, threads }: VerifyOptions) {
    this.#layout = layout;
    this.#threads = threads;
    try {
      for (const mapped of memory) this.#blocks.push(this.#openBlock(mapped));
      const isMapped = new Set(this.#blocks.map(({ index }) => index));
      const { names, usedBytes } = blockColumns(layout.blocks);
      const noted = usedBytes.map((bytes, index) => (isMapped.has(index) ? bytes : 0));
      this.hashes = new native.PageHashes(names, noted, layout.pageBits);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /**
   * Compares all pages.
   *
   * @throws {PagelaneError} ERR_VERIFY If a page differs; the error has `verified`.
   * @throws {PagelaneError} ERR_VERIFY_MEMORY If a file cannot be read.
   */
  async verify(): Promise<VerifiedFacts> {
    const pieces = piecesOf(this.#blocks, PIECE_BYTES >>> this.#layout.pageBits);
    const found: { piece: Piece; compared: Float64Array }[] = [];
    const work = async (): Promise<void> => {
      for (const piece of pieces) {
        if (this.#isClosed) return;
        found.push({ piece, compared: await this.#compare(piece) });
      }
    };
    this.#isComparing = true;
    try {
      for (const block of this.#blocks) checkFile(block, this.#layout.pageBits);
      const ends = await Promise.allSettled(Array.from({ length: this.#threads }, work));
      for (const end of ends) if (end.status === 'rejected') throw end.reason;
    } finally {
      this.#isComparing = false;
      this.close();
    }
    return this.#sumUp(found);
  }

  /** Closes the files, as soon as nothing reads them. */
  close(): void {
    this.#isClosed = true;
    if (this.#isComparing) return;
    for (const { file } of this.#blocks.splice(0)) closeSync(file);
  }

  #openBlock({ block: name, path }: MappedMemory): OpenBlock {
    const { blocks, pageBits } = this.#layout;
    const index = blocks.findIndex((each) => each.name === name);
    if (index < 0) {
      const names = blocks.map((each) => `"${each.name}"`).join(', ');
      throw memoryError(`QEMU has no RAM block "${name}"; it has ${names}`);
    }
    const pageCount = pageCountOf(blocks[index]!, pageBits);
    const block = { name, index, path, pageCount, file: openFile(path) };
    try {
      checkFile(block, pageBits);
    } catch (error) {
      closeSync(block.file);
      throw error;
    }
    return block;
  }

  async #compare({ block, firstPage, pageCount }: Piece): Promise<Float64Array> {
    const compared = new Float64Array(Compared.count);
    const { file, index } = block;
    await native.comparePages(this.hashes, file, index, firstPage, pageCount, compared);
    const error = compared[Compared.error]!;
    if (error === 0) return compared;
    const why = error < 0 ? 'it ends early' : getSystemErrorName(-error);
    throw memoryError(`"${block.path}" cannot be read: ${why}`);
  }

  #sumUp(found: readonly { piece: Piece; compared: Float64Array }[]): VerifiedFacts {
    const sum = (field: number): number =>
      found.reduce((all, { compared }) => all + compared[field]!, 0);
    const pages = sum(Compared.pages);
    const differing = sum(Compared.differing);
    const all = Math.ceil(memoryBytes(this.#layout) / 2 ** this.#layout.pageBits);
    const verified = { pages, differing, unverified: Math.max(0, all - pages) };
    if (differing === 0) return verified;
    const first = found
      .filter(({ compared }) => compared[Compared.differing]! > 0)
      .map(({ piece, compared }) => ({
        block: piece.block,
        page: compared[Compared.firstDiffering]!,
      }))
      .sort((a, b) => a.block.index - b.block.index || a.page - b.page)[0]!;
    throw new VerifyError(first.block.name, first.page, verified);
  }
}

/** Memory at the destination is not what was decoded for it. */
export class VerifyError extends PagelaneError {
  /** Block and index of the first page that differs. */
  readonly block: string;
  readonly pageIndex: number;
  readonly verified: VerifiedFacts;

  constructor(block: string, pageIndex: number, verified: VerifiedFacts) {
    const { pages, differing } = verified;
    super(
      'ERR_VERIFY',
      `${differing} of ${pages} pages in the memory of the destination QEMU differ from what was ` +
        `decoded, first page ${pageIndex} of block "${block}": throw its guest away`,
    );
    this.block = block;
    this.pageIndex = pageIndex;
    this.verified = verified;
  }
}

function memoryError(why: string, cause?: unknown): PagelaneError {
  return new PagelaneError('ERR_VERIFY_MEMORY', `Cannot verify memory: ${why}`, { cause });
}

function openFile(path: string): number {
  try {
    // A FIFO would make a plain open wait.
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    throw memoryError(`"${path}" cannot be opened: ${messageOf(cause)}`, cause);
  }
}

/** @throws {PagelaneError} ERR_VERIFY_MEMORY If the file cannot hold the block. */
function checkFile({ name, path, pageCount, file }: OpenBlock, pageBits: number): void {
  const stats: Stats = fstatSync(file);
  if (!stats.isFile()) throw memoryError(`"${path}" is no regular file`);
  const bytes = pageCount * 2 ** pageBits;
  if (stats.size < bytes) {
    throw memoryError(`"${path}" has ${stats.size} bytes, and block "${name}" ${bytes}`);
  }
}

function* piecesOf(blocks: readonly OpenBlock[], piecePages: number): Generator<Piece> {
  for (const block of blocks) {
    for (let firstPage = 0; firstPage < block.pageCount; firstPage += piecePages) {
      const pageCount = Math.min(piecePages, block.pageCount - firstPage);
      yield { block, firstPage, pageCount };
    }
  }
}

import { availableParallelism } from 'node:os';
import { DirtyLogError, messageOf } from '../errors.ts';
import { native } from '../native.ts';
import type { PageDigests, WriteTracker } from '../native-memory.ts';
import { typed } from './addon-error.ts';
import type { GuestMemory } from './memory.ts';
import { inPieces } from './pieces.ts';

/**
 * Says which pages of the guest's memory were written.
 *
 * Bitmaps are as KVM_GET_DIRTY_LOG has them: one for each block, a bit per page, lowest bit first;
 * a word per 32 pages, or two per 64. A page that is written while a log works is reported now or
 * the next time, or both.
 */
export interface DirtyLog {
  /** For messages: `callback`, `write protection`, `hash`. */
  readonly name: string;
  /**
   * What was last copied of each page, in a log that compares; undefined in a log that sees writes,
   * and while it is not started. If it is there, whoever reads pages to send them must `note` what
   * it has read, or the page stays dirty.
   */
  readonly digests?: PageDigests | undefined;
  /** Begins: what is written from now on will be reported. Begun before, it begins anew. */
  start(): void | Promise<void>;
  /**
   * Sets the bits of pages that were written since the last call, or since the start, and starts
   * anew. Bits that are set stay set. No bitmap may be touched until it is done.
   *
   * If it fails, some of what was written is not known any more: whatever is copied has to be
   * copied anew after another `start`.
   */
  collect(bitmaps: readonly Uint32Array[]): void | Promise<void>;
  /** Ends, and gives back what it took. A log may stop twice, and start again. */
  stop(): void | Promise<void>;
}

/* Chosen by us */

/** Pages a thread looks at in one go: 4 GiB in pages of 4 KiB; a GiB at least, any host page. */
const TRACKED_PIECE_PAGES = 2 ** 20;
/** Pages a thread reads in one go: 64 MiB in pages of 4 KiB. */
const COMPARED_PIECE_PAGES = 2 ** 14;

/**
 * The embedder's own log, such as KVM's.
 *
 * Cost: what `fill` costs, and a pass over its words.
 *
 * @param fill Sets the bits of a block's pages that were written since its last call, and forgets
 *   them. `words` are all 0, and always an even number of them, as KVM writes 64 pages at a time.
 *   What it throws becomes the cause of ERR_DIRTY_LOG_FAILED. At the start it is not called: dirty
 *   logging has to be on before.
 */
export function callbackDirtyLog(
  fill: (block: number, words: Uint32Array) => void | Promise<void>,
): DirtyLog {
  return new CallbackDirtyLog(fill);
}

/**
 * A log of what is written through `memory`'s own mappings: by this process through its views, by
 * all threads that attached, and by a hypervisor that runs in this process on these addresses.
 * What is written through other mappings, by other processes, or punched, is not seen.
 *
 * Needs Linux 6.7, memory mapped for writing, files alone, and no other userfaultfd on it; no right
 * where the system lets anybody have UFFD_USER_MODE_ONLY.
 *
 * Cost (bench/trials/dirty-log.ts measures it; bench/README.md has figures): the first write to a
 * page after each collect takes a fault that the kernel settles, about a microsecond of processor
 * time; collecting walks page tables in threads of the addon, from under a millisecond per GiB
 * if nothing was written to 10 if all was. Page tables take 2 MiB per GiB that is populated.
 *
 * `start` throws ERR_DIRTY_LOG_UNSUPPORTED, with the reason, where it cannot be done.
 */
export function writeProtectDirtyLog(memory: GuestMemory): DirtyLog {
  return new WriteProtectDirtyLog(memory);
}

/**
 * A log for any memory, whoever writes to it: compares all that is populated with digests of what
 * was last copied.
 *
 * The digests are XXH3 of 64 bits, seeded with a secret. Compared is what was copied, not what was
 * there at the last collect: that would miss a page that was changed, copied, and changed back. So
 * whoever copies must `note` it in `digests`.
 *
 * Cost (measured as above): the writer is not slowed down, but each collect reads all of the
 * memory that is populated: about 75 ms of processor time per GiB. 8 bytes are kept for a page.
 *
 * @param threads How many threads of the addon it may keep busy. @default as many processors as
 *   this process may use
 */
export function hashDirtyLog(
  memory: GuestMemory,
  { threads = availableParallelism() }: { threads?: number } = {},
): DirtyLog {
  if (!Number.isInteger(threads) || threads < 1) {
    throw new RangeError(`Cannot use ${threads} threads: must be 1 or more`);
  }
  return new HashDirtyLog(memory, threads);
}

class CallbackDirtyLog implements DirtyLog {
  readonly name = 'callback';
  readonly #fill: (block: number, words: Uint32Array) => void | Promise<void>;
  readonly #scratch: Uint32Array[] = [];
  #isStarted = false;

  constructor(fill: (block: number, words: Uint32Array) => void | Promise<void>) {
    this.#fill = fill;
  }

  start(): void {
    this.#isStarted = true;
  }

  async collect(bitmaps: readonly Uint32Array[]): Promise<void> {
    if (!this.#isStarted) throw notStarted();
    for (const [block, words] of bitmaps.entries()) {
      const filled = this.#scratchFor(block, words.length);
      try {
        await this.#fill(block, filled);
      } catch (cause) {
        const text = `Cannot collect writes of block ${block}: ${messageOf(cause)}`;
        throw new DirtyLogError('ERR_DIRTY_LOG_FAILED', text, { cause });
      }
      if (filled.length > words.length && filled[words.length] !== 0) {
        const text = `Cannot collect writes of block ${block}: bits are set past its end`;
        throw new DirtyLogError('ERR_DIRTY_LOG_FAILED', text);
      }
      for (let index = 0; index < words.length; index++) words[index]! |= filled[index]!;
    }
  }

  stop(): void {
    this.#isStarted = false;
    this.#scratch.length = 0;
  }

  #scratchFor(block: number, wordCount: number): Uint32Array {
    const evenCount = wordCount + (wordCount % 2);
    const known = this.#scratch[block];
    if (known?.length === evenCount) return known.fill(0);
    const scratch = new Uint32Array(evenCount);
    this.#scratch[block] = scratch;
    return scratch;
  }
}

class WriteProtectDirtyLog implements DirtyLog {
  readonly name = 'write protection';
  readonly #memory: GuestMemory;
  #tracker: WriteTracker | undefined;

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  async start(): Promise<void> {
    this.stop();
    const memory = this.#memory;
    const tracker = typed(() => new native.WriteTracker(memory.native));
    this.#tracker = tracker;
    try {
      for (const block of memory.layout.blocks.keys()) {
        const pages = memory.pageCount(block);
        await inPieces({ pages, piecePages: TRACKED_PIECE_PAGES }, (first, count) =>
          tracker.protect(block, first, count),
        );
      }
      memory.checkIntact();
    } catch (error) {
      this.stop();
      throw error;
    }
  }

  async collect(bitmaps: readonly Uint32Array[]): Promise<void> {
    const tracker = this.#tracker;
    if (tracker === undefined) throw notStarted();
    checkBitmaps(this.#memory, bitmaps);
    this.#memory.checkIntact();
    for (const [block, words] of bitmaps.entries()) {
      const pages = this.#memory.pageCount(block);
      await inPieces({ pages, piecePages: TRACKED_PIECE_PAGES }, (first, count) =>
        tracker.collect(block, first, count, words),
      );
    }
    this.#memory.checkIntact();
  }

  stop(): void {
    this.#tracker?.stop();
    this.#tracker = undefined;
  }
}

class HashDirtyLog implements DirtyLog {
  readonly name = 'hash';
  readonly #memory: GuestMemory;
  readonly #threads: number;
  #digests: PageDigests | undefined;

  constructor(memory: GuestMemory, threads: number) {
    this.#memory = memory;
    this.#threads = threads;
  }

  get digests(): PageDigests | undefined {
    return this.#digests;
  }

  start(): void {
    this.#digests = typed(() => new native.PageDigests(this.#memory.native));
  }

  async collect(bitmaps: readonly Uint32Array[]): Promise<void> {
    const digests = this.#digests;
    if (digests === undefined) throw notStarted();
    checkBitmaps(this.#memory, bitmaps);
    for (const [block, words] of bitmaps.entries()) {
      const pages = this.#memory.pageCount(block);
      const populated = new Uint32Array(Math.ceil(pages / 32));
      await this.#memory.scanPopulated(block, populated);
      const cut = { pages, piecePages: COMPARED_PIECE_PAGES, lanes: this.#threads };
      await inPieces(cut, (first, count) => digests.compare(block, first, count, populated, words));
    }
    this.#memory.checkIntact();
  }

  stop(): void {
    this.#digests = undefined;
  }
}

function notStarted(): DirtyLogError {
  return new DirtyLogError('ERR_DIRTY_LOG_STOPPED', 'Cannot collect writes: log is not started');
}

function checkBitmaps(memory: GuestMemory, bitmaps: readonly Uint32Array[]): void {
  const { blocks } = memory.layout;
  if (bitmaps.length !== blocks.length) {
    throw new RangeError(
      `Cannot collect writes: must have ${blocks.length} bitmaps: has ${bitmaps.length}`,
    );
  }
  for (const [block, { length }] of bitmaps.entries()) {
    const pages = memory.pageCount(block);
    if (length === Math.ceil(pages / 32) || length === Math.ceil(pages / 64) * 2) continue;
    const name = blocks[block]!.name;
    throw new RangeError(
      `Cannot collect writes of block "${name}": ${length} words must be for ${pages} pages`,
    );
  }
}

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type {
  MemoryTarget,
  NativeGuestMemory,
  PageDigests,
  WriteTracker,
} from './native-memory.ts';

/** Why `RamCutter.cut` stopped. */
export const CutStop = {
  /** All of the chunk is used; a record may be held in part. */
  Input: 0,
  /** The batch is full: seal it before the next cut. Nothing of the next record was used. */
  BatchFull: 1,
  /** The next page is already in this epoch: seal, then begin an epoch. Nothing of it was used. */
  PageAgain: 2,
  /** An EOS record was used: the body of the RAM section is over. */
  SectionEnd: 3,
  /**
   * The next record is not understood. Nothing of it was used; `takeHeld` has what earlier chunks
   * held of it.
   */
  Unknown: 4,
  /** The record names a block or a page that does not exist. */
  BadPage: 5,
} as const;
export type CutStop = (typeof CutStop)[keyof typeof CutStop];

/** How the literals of a batch are compressed. Values are on the wire: never renumber. */
export const Codec = { None: 0, Lz4: 1, Zstd: 2 } as const;
export type Codec = (typeof Codec)[keyof typeof Codec];

/** Bytes in front of the contents of a slot: room for frame and batch header, map, references. */
export const SLOT_ROOM_BYTES: number = 76 * 1024;

/** Bytes in front of a decoded batch that the writer may use for what it puts before it. */
export const DECODED_ROOM_BYTES: number = 1024;

/** Most numbers of batches in a stream. */
export const BATCHES_MAX: number = 2 ** 31 - 2;

/** Fields of the Int32Array that tells `encodeBatch` what to do. */
export const Order = {
  codec: 0,
  /** LZ4: acceleration 1..65537. zstd: level -131072..22. */
  level: 1,
  /** Number of the batch in its stream, from 0. */
  number: 2,
  /** All batches with a lower number are acknowledged; at most `number`. */
  base: 3,
  /** Sum of `OrderFlag`. */
  flags: 4,
  count: 5,
} as const;

/** What else `encodeBatch` may do with a store. */
export const OrderFlag = {
  /** Pages that were never sent before are kept as well. */
  Keeps: 1,
  /** Similar pages of the store help to compress (zstd only). */
  FindsSimilar: 2,
} as const;

/** Fields of the Int32Array that `RamCutter.seal` fills. */
export const Sealed = {
  /** Offset in the slot of the batch's first byte (its header; the map and literals follow). */
  start: 0,
  /** Offset in the slot behind the last literal. */
  end: 1,
  pages: 2,
  zeroPages: 3,
  rawPages: 4,
  blankPages: 5,
  foreignPages: 6,
  /** Pages that repeat one word of 8 bytes. */
  fillPages: 7,
  literalBytes: 8,
  count: 9,
} as const;

/** Fields of the Int32Array that `encodeBatch` fills. */
export const Encoded = {
  /** 1 if the result is in `out`, 0 if it stayed in `slot`. */
  inOut: 0,
  start: 1,
  end: 2,
  /** Codec that was used. */
  codec: 3,
  /** References and contents, before they were compressed. */
  literalBytes: 4,
  /** Pages that the store has as they are, and as they were. */
  samePages: 5,
  deltaPages: 6,
  deltaBytes: 7,
  /** Pages that were sent before. */
  againPages: 8,
  count: 9,
} as const;

/** Fields of the Int32Array that `encodePages` fills: those of `Encoded`, and one more. */
export const EncodedRange = {
  /** Pages of the range up to the first that did not fit, or to its end. */
  taken: 9,
  count: 10,
} as const;

/* Fixed by the protocol: docs/protocol.md, section 8 */

/** Bytes of a page's hash with a secret, and of the secret. */
export const PAGE_HASH_BYTES = 16;
export const HASH_SECRET_BYTES = 192;

/** Fields of the Int32Array that `inspectBatch` and `decodeBatch` fill. */
export const Decoded = {
  /** Bytes that `decodeBatch` needs for its output, DECODED_ROOM_BYTES included. */
  outputBytes: 0,
  /** Offset in the output of the first byte of the decoded records. */
  start: 1,
  /** Offset behind the last byte. */
  end: 2,
  /** 1 if the batch expects a RAM section to be open before it. */
  opensInside: 3,
  /** 1 if a RAM section is open behind it. */
  endsInside: 4,
  /** Offset of the first page record, -1 if there is none. */
  firstRecord: 5,
  /** 1 if the first page record says CONTINUE, and so relies on the block below. */
  firstContinues: 6,
  /** Block of the first page record, -1 if there is none. */
  firstBlock: 7,
  /** Offset and end of the last page record, -1 if there is none, and its block. */
  lastRecord: 8,
  lastRecordEnd: 9,
  lastBlock: 10,
  /** Last block of the source's stream before this batch, -1 if none was announced. */
  entryBlock: 11,
  pages: 12,
  zeroPages: 13,
  fillPages: 14,
  samePages: 15,
  deltaPages: 16,
  /** Place of the batch in its stream: `Order`. */
  number: 17,
  base: 18,
  count: 19,
} as const;

/** Fields of the Float64Array that `comparePages` fills. */
export const Compared = {
  /** Pages that were compared, and those of them that differ. */
  pages: 0,
  differing: 1,
  /** Pages whose contents never were known here: not decoded, or in an encoding of QEMU's. */
  unknown: 2,
  /** The first page that differs, if any does. */
  firstDiffering: 3,
  /** Why the file could not be read: an errno, or -1 if it ended early; 0 if it was. */
  error: 4,
  count: 5,
} as const;

/**
 * Cuts the bodies of QEMU's RAM sections into page batches.
 *
 * A batch is built inside a slot: a `Uint8Array` of SLOT_ROOM_BYTES and the literals' limit.
 * Page bytes go straight from the chunk into the slot; records may be cut anywhere between chunks.
 */
export interface RamCutter {
  /**
   * Names the RAM blocks, in the order of their indexes.
   *
   * @param names 1..255 bytes each.
   * @param usedBytes Bytes in use per block, as many as names.
   * @throws {RangeError} If a limit of docs/protocol.md section 8 is passed.
   */
  setBlocks(names: readonly string[], usedBytes: Float64Array): void;
  /**
   * Gives the slot for the next batch. The literals' limit is what the slot has behind its room.
   */
  begin(slot: Uint8Array): void;
  /**
   * Reads RAM records from `chunk[from, to)`.
   *
   * @returns `used * 8 + stop`: bytes used, and why it stopped (`CutStop`).
   */
  cut(chunk: Uint8Array, from: number, to: number): number;
  /**
   * Notes in the map that the source began a RAM section. False if the batch must be sealed first.
   */
  markSectionBegin(): boolean;
  /**
   * Notes in the map that the source ended a RAM section. False if the batch must be sealed first.
   */
  markSectionEnd(): boolean;
  /** Says whether a RAM section of the source is open where the next batch begins. */
  setInside(isInside: boolean): void;
  /** Map entries plus pages in the batch so far; 0 is an empty batch. */
  batchEntries(): number;
  /**
   * Ends the batch: writes header and map in front of the literals, but no checksum.
   * The next batch needs a slot of its own.
   */
  seal(sealed: Int32Array): void;
  /** Forgets which pages the epoch holds. */
  beginEpoch(): void;
  /**
   * Says whether pages that keep changing may be held from now on, so that only their last version
   * is sent. At most 1 MiB is held. A record of QEMU's own encoding ends it for good.
   */
  setHolding(mayHold: boolean): void;
  /**
   * Bounds how far a batch may reach from its next page on: to `pages` pages of one block,
   * ascending, `span` from the first to the last. With 0 pages it takes as many as it has room for.
   */
  setReach(pages: number, span: number): void;
  /** Pages that are held. */
  heldPages(): number;
  /**
   * Puts the pages that are held into the batch, inside a section.
   *
   * @returns `CutStop`: Input when none is held any more; BatchFull or PageAgain as `cut`.
   */
  release(): number;
  /** Bytes of a record that has begun in an earlier chunk and is not understood. */
  takeHeld(): Uint8Array;
  /** True while a record is held in part. */
  isInsideRecord(): boolean;
  /** Block of the last page record, -1 before the first. */
  lastBlock(): number;
}

/** RAM blocks as the decoder knows them: checks page indexes, writes names. */
export interface BlockTable {
  setBlocks(names: readonly string[], usedBytes: Float64Array): void;
  /** Gives the pages batches may refer to. @throws {RangeError} If its pages differ in size. */
  setStore(store: PageStore): void;
  /** Has every decoded page noted. @throws {RangeError} If the pages differ in size. */
  setHashes(hashes: PageHashes): void;
}

/** The hash of every guest page as it was decoded last. */
export interface PageHashes {
  readonly [hashesBrand]: true;
}
declare const hashesBrand: unique symbol;

/** Pages that the destination keeps for its source. */
export interface PageStore {
  readonly [storeBrand]: 'destination';
}

/** What the source knows of the pages that both ends keep. */
export interface StoreIndex {
  readonly [storeBrand]: 'source';
}
declare const storeBrand: unique symbol;

/** Everything the C++ addon exports. Arguments are checked there, not here. */
export interface Native {
  /** Which kernels were chosen, which others run here, and the libraries linked in. */
  features(): {
    zeroPage: string;
    zeroPageVariants: string[];
    fillPage: string;
    fillPageVariants: string[];
    delta: string;
    deltaVariants: string[];
    similarity: string;
    similarityVariants: string[];
    bitmap: string;
    bitmapVariants: string[];
    hash: string;
    hashVariants: string[];
    lz4: string;
    zstd: string;
    xxhash: string;
  };
  /**
   * Sets the number of worker threads, and where they run. More start at once; fewer remain when
   * those too many are idle. Another `cpuSet` or `priority` replaces all of them: the call waits
   * until each has done the batch it is at.
   *
   * @param count 1..256.
   * @param cpuSet Processors they run on, 0..8191; those of this thread if absent.
   * @param priority Their nice value, -20..19; that of this thread if absent.
   * @throws {Error} With `errno`, and `code` `ERR_THREAD_CPU_SET` or `ERR_THREAD_PRIORITY` if the
   *   system refuses it: then nothing has changed. `ERR_THREAD` if a thread could not be started:
   *   then there are fewer.
   */
  setThreads(count: number, cpuSet?: Uint32Array, priority?: number): void;
  /** Processors that this thread may use, ascending. */
  usableProcessors(): number[];
  /**
   * Marks the all-zero pages of `pages`.
   *
   * @param pages `pageCount * pageBytes` bytes.
   * @param pageBytes Bytes of a page, a multiple of 64.
   * @param bitmap One bit per page, lowest bit first; bits past the end are cleared.
   * @param variant One of `features().zeroPageVariants`; the chosen one if absent.
   * @returns How many pages are zero.
   * @throws {RangeError} If the sizes do not agree.
   */
  findZeroPages(
    pages: Uint8Array,
    pageBytes: number,
    bitmap: Uint32Array,
    variant?: string,
  ): number;
  /** Tells whether a page, a multiple of 64 bytes, is its first 8 bytes repeated. */
  isFillPage(page: Uint8Array, variant?: string): boolean;
  /**
   * Encodes `page` as its difference from `base`, both of one size: a multiple of 64 bytes.
   * native/kernel/delta.h has the format.
   *
   * @returns Bytes written to `out`, 0 if the pages are equal, -1 if `out` is too small.
   */
  encodeDelta(base: Uint8Array, page: Uint8Array, out: Uint8Array, variant?: string): number;
  /**
   * Applies a delta from the wire to `page`, which holds the base.
   *
   * @returns False if the delta is malformed; then `page` may have any content.
   */
  applyDelta(delta: Uint8Array, page: Uint8Array): boolean;
  /**
   * Finds the features by which similar pages are found; native/kernel/similarity.h says how.
   *
   * @param features Receives 4.
   */
  findFeatures(page: Uint8Array, features: Uint32Array, variant?: string): void;
  /**
   * Makes every further write of the peer of a unix socket fail; what it wrote before can be read.
   *
   * @param fd A socket of this process.
   * @returns False if it is no unix socket, or not open: then nothing has happened.
   */
  refuseMore(fd: number): boolean;
  /** XXH3_64 of `bytes`; all of `features().hashVariants` give the same. */
  hash64(bytes: Uint8Array, seed: bigint, variant?: string): bigint;
  /**
   * Finds the first runs of pages that are set, ascending. Of all functions on bitmaps: `words` are
   * 64-bit words as `DirtyBitmap` has them, and may be shared between threads.
   *
   * @param to Pages at and behind it are not looked at; at least `from`.
   * @param runs Receives each run's first page and its number of pages.
   * @param variant One of `features().bitmapVariants`; the chosen one if absent.
   * @returns How many runs; there are no more if `runs` is not full.
   * @throws {RangeError} If the sizes do not agree.
   */
  findRuns(
    words: Uint32Array,
    from: number,
    to: number,
    runs: Float64Array,
    variant?: string,
  ): number;
  /** Counts the pages from `from` to below `to` that are set. */
  countBits(words: Uint32Array, from: number, to: number, variant?: string): number;
  /**
   * Finds the place behind the `pages`-th page that is set.
   *
   * @returns The page index behind it; if there are fewer, -1 - how many there are.
   */
  findBit(words: Uint32Array, from: number, to: number, pages: number, variant?: string): number;
  /** Sets in `into` what is set in `from`, a bitmap of the same size. */
  mergeBits(into: Uint32Array, from: Uint32Array): void;
  /** Moves what is set in `from` to `into`: an atomic exchange of each 32-bit word. */
  takeBits(into: Uint32Array, from: Uint32Array): void;
  RamCutter: new (pageBits: number) => RamCutter;
  BlockTable: new (pageBits: number, hasFooter: boolean, sectionId: number) => BlockTable;
  /** `slotCount` pages, all zero. Memory is taken as they are used. */
  PageStore: new (
    pageBits: number,
    slotCount: number,
  ) => PageStore;
  /** An index of as many slots, all empty, for the pages of the blocks. */
  StoreIndex: new (
    names: readonly string[],
    usedBytes: Float64Array,
    pageBits: number,
    slotCount: number,
  ) => StoreIndex;
  /** Room for the pages of the blocks: what is in none is not noted. */
  PageHashes: new (
    names: readonly string[],
    usedBytes: Float64Array,
    pageBits: number,
  ) => PageHashes;
  GuestMemory: {
    /**
     * Maps blocks: each from a file descriptor, which is not needed any more afterwards, or, where
     * `files` has -1, from an array that may be shared between threads.
     *
     * @throws {Error} With `code` `ERR_MEMORY_…`, and `errno` if the system refused.
     */
    new (
      names: readonly string[],
      usedBytes: Float64Array,
      files: Int32Array,
      offsets: Float64Array,
      buffers: readonly (Uint8Array | undefined)[],
      isWritable: boolean,
      pageBits: number,
    ): NativeGuestMemory;
    /** Attaches to memory of this process. @throws {Error} ERR_MEMORY_CLOSED */
    new (id: number, buffers: readonly (Uint8Array | undefined)[]): NativeGuestMemory;
  };
  /** @throws {Error} ERR_DIRTY_LOG_UNSUPPORTED With `errno`, or ERR_MEMORY_CLOSED. */
  WriteTracker: new (
    memory: NativeGuestMemory,
  ) => WriteTracker;
  /** Digests of zeros. @throws {Error} ERR_OUT_OF_MEMORY, or ERR_MEMORY_CLOSED */
  PageDigests: new (
    memory: NativeGuestMemory,
  ) => PageDigests;
  /**
   * Makes a file without a path, of zeros; returns its descriptor.
   *
   * @param hugePageBytes 0 for pages of the usual size.
   * @throws {Error} ERR_MEMORY_CREATE With `errno`.
   */
  createMemoryFile(name: string, bytes: number, hugePageBytes: number): number;
  /**
   * Completes a sealed batch: pages that the store has are referred to, literals are compressed as
   * a whole, and a checksum is made of what the receiver will have decoded.
   *
   * `slot[start, end)` is what `seal` left; all of the slot is changed. With a codec, `out` (as
   * large as `slot`) gets the batch if that makes it smaller; else it stays uncompressed in `slot`.
   * Neither may be touched until the promise settles.
   *
   * @param order `Order`.
   * @param store What the receiver has, if anything may be referred to.
   * @param encoded Receives `Encoded` before the promise resolves.
   */
  encodeBatch(
    slot: Uint8Array,
    start: number,
    end: number,
    order: Int32Array,
    store: StoreIndex | undefined,
    out: Uint8Array,
    encoded: Int32Array,
  ): Promise<void>;
  /**
   * Checks header and map of a batch from the wire and says how much room it needs decoded.
   *
   * @throws {Error} With `code` `ERR_BATCH_…` if anything is out of its limits.
   */
  inspectBatch(blocks: BlockTable, batch: Uint8Array, decoded: Int32Array): void;
  /**
   * Writes the batch as QEMU's RAM records, section marks included, behind DECODED_ROOM_BYTES of
   * `output`.
   *
   * @throws Rejects with `code` `ERR_BATCH_…`; then `output` holds nothing of use.
   */
  decodeBatch(
    blocks: BlockTable,
    batch: Uint8Array,
    output: Uint8Array,
    decoded: Int32Array,
  ): Promise<void>;
  /**
   * Gathers pages of guest memory, those from `from` to below `end` whose bit is set, into a batch,
   * as many as fit in `slot`, and completes it as `encodeBatch` does. The guest may write to them
   * meanwhile: its dirty log then has them again.
   *
   * @param words Bit p % 32 of word p / 32 is page p. Not touched until the promise settles, as
   *   `slot` and `out`; begins at a multiple of 8 bytes.
   * @param sealed Receives `Sealed` of the batch, `encoded` receives `EncodedRange`.
   * @param digests Where what was read of each page is noted.
   * @throws {Error} ERR_MEMORY_CLOSED; rejects with ERR_MEMORY_LOST if a file was truncated.
   */
  encodePages(
    memory: NativeGuestMemory,
    block: number,
    words: Uint32Array,
    from: number,
    end: number,
    slot: Uint8Array,
    order: Int32Array,
    store: StoreIndex | undefined,
    out: Uint8Array,
    sealed: Int32Array,
    encoded: Int32Array,
    digests?: PageDigests,
  ): Promise<void>;
  /**
   * Hashes the pages from `from` to below `end` whose bit is set; others get zeros.
   *
   * @param secret HASH_SECRET_BYTES that whoever writes the pages does not know.
   * @param hashes Receives PAGE_HASH_BYTES for each page of the range.
   * @param digests Where what was hashed is noted.
   * @throws As `encodePages`.
   */
  hashPages(
    memory: NativeGuestMemory,
    block: number,
    words: Uint32Array,
    from: number,
    end: number,
    secret: Uint8Array,
    hashes: Uint8Array,
    digests?: PageDigests,
  ): Promise<void>;
  /** @throws {RangeError} If not all of `memory` is writable. */
  MemoryTarget: new (
    memory: NativeGuestMemory,
  ) => MemoryTarget;
  /**
   * Writes the pages of a batch to guest memory. Of a batch with anything wrong in it nothing is
   * written.
   *
   * @param decoded Receives `Decoded` before the promise resolves.
   * @throws Rejects with `code` `ERR_BATCH_…`, or ERR_MEMORY_LOST.
   */
  applyBatch(
    blocks: BlockTable,
    memory: MemoryTarget,
    batch: Uint8Array,
    decoded: Int32Array,
  ): Promise<void>;
  /**
   * Compares pages of a block with what `file`, a descriptor, has where they are, counted from the
   * file's beginning. The descriptor must stay open until the promise settles.
   *
   * @param compared Receives `Compared` before the promise resolves.
   */
  comparePages(
    hashes: PageHashes,
    file: number,
    block: number,
    firstPage: number,
    pageCount: number,
    compared: Float64Array,
  ): Promise<void>;
}

/** The addon, loaded. */
export const native: Native = load();

function load(): Native {
  const require = createRequire(import.meta.url);
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, 'binding.gyp'))) {
    const parent = dirname(directory);
    if (parent === directory) {
      throw new Error('Cannot load addon: package directory not found');
    }
    directory = parent;
  }
  const file =
    process.env['PAGELANE_ADDON'] ?? join(directory, 'build', 'Release', 'pagelane.node');
  if (!existsSync(file)) {
    throw new Error(`Cannot load addon: "${file}" is missing; run "npm run build:native"`);
  }
  return require(file) as Native;
}

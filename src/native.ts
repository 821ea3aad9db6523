import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

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

/** Bytes in front of the literals of a slot: room for frame header, batch header and map. */
export const SLOT_ROOM_BYTES: number = 66 * 1024;

/** Bytes in front of a decoded batch that the writer may use for what it puts before it. */
export const DECODED_ROOM_BYTES: number = 1024;

/** Fields of the Int32Array that `RamCutter.seal` and `encodeBatch` fill. */
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
  literalBytes: 7,
  count: 8,
} as const;

/** Fields of the Int32Array that `encodeBatch` fills. */
export const Encoded = {
  /** 1 if the result is in `out`, 0 if it stayed in `slot`. */
  inOut: 0,
  start: 1,
  end: 2,
  /** Codec that was used. */
  codec: 3,
  count: 4,
} as const;

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
  count: 14,
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
}

/** Everything the C++ addon exports. Arguments are checked there, not here. */
export interface Native {
  /** Which zero-page kernel was chosen, which others run here, and the libraries linked in. */
  features(): {
    zeroPage: string;
    zeroPageVariants: string[];
    lz4: string;
    zstd: string;
    xxhash: string;
  };
  /** Sets the number of worker threads, 1..256. Grows at once; shrinks when threads are idle. */
  setThreads(count: number): void;
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
  /** XXH3_64 of `bytes`. */
  hash64(bytes: Uint8Array, seed: bigint): bigint;
  RamCutter: new (pageBits: number) => RamCutter;
  BlockTable: new (pageBits: number, hasFooter: boolean, sectionId: number) => BlockTable;
  /**
   * Completes a sealed batch: checksum, and literals compressed as a whole.
   *
   * `slot[start, end)` is what `seal` left. With a codec, `out` (as large as `slot`) gets the batch
   * at the same distance from its room; if that is not smaller, the batch stays uncompressed in
   * `slot`. Neither may be touched until the promise settles.
   *
   * @param level LZ4: acceleration 1..65537. zstd: level -131072..22.
   * @param encoded Receives `Encoded` before the promise resolves.
   */
  encodeBatch(
    slot: Uint8Array,
    start: number,
    end: number,
    codec: Codec,
    level: number,
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

/** A named range of guest memory, as QEMU's stream announces it. */
export interface RamBlock {
  /** QEMU's `idstr`: `pc.ram`, `0000:00:02.0/vga.vram`. */
  readonly name: string;
  /** Bytes in use. */
  readonly usedBytes: number;
}

/** What both ends must know of the stream before the first page. */
export interface RamLayout {
  /** Bytes of a target page are `1 << pageBits`. */
  readonly pageBits: number;
  /** True if every section of the stream ends with a footer. */
  readonly hasFooter: boolean;
  /** Number by which the stream's sections refer to RAM. */
  readonly sectionId: number;
  readonly blocks: readonly RamBlock[];
}

/* Fixed by the protocol: docs/protocol.md, section 8 */

/** Most RAM blocks of a guest. */
export const BLOCKS_MAX: number = 4096;

/** Most bytes of a RAM block's name, in UTF-8. */
export const BLOCK_NAME_BYTES_MAX: number = 255;

/** Most bytes of a RAM block. */
export const BLOCK_BYTES_MAX: number = 2 ** 52;

/** Smallest and largest target page, as powers of two. */
export const PAGE_BITS_MIN: number = 10;
export const PAGE_BITS_MAX: number = 16;

/** The names of the blocks, and their sizes, as the addon takes them. */
export function blockColumns(blocks: readonly RamBlock[]): {
  names: string[];
  usedBytes: Float64Array;
} {
  return {
    names: blocks.map((block) => block.name),
    usedBytes: Float64Array.from(blocks, (block) => block.usedBytes),
  };
}

/** Pages of a block; the last one may be in use in part. */
export function pageCountOf({ usedBytes }: RamBlock, pageBits: number): number {
  return Math.ceil(usedBytes / 2 ** pageBits);
}

/** Sum of the blocks' bytes in use. */
export function memoryBytes(layout: RamLayout): number {
  return layout.blocks.reduce((sum, block) => sum + block.usedBytes, 0);
}

/* What the addon makes of guest memory: native.ts says how. */

/** Guest memory that batches are applied to, and which of its pages may hold anything. */
export interface MemoryTarget {
  /** Says that the pages with their bit set may hold something other than zeros. */
  addHeld(block: number, words: Uint32Array): void;
}

/**
 * RAM blocks mapped in this process. After `dispose` all but `id` and `dispose` throw
 * ERR_MEMORY_CLOSED.
 */
export interface NativeGuestMemory {
  /** By which another thread of this process may attach, while somebody holds the memory. */
  id(): number;
  /** True if a mapped file is or was shorter than its block, or could give no page. */
  isLost(): boolean;
  /**
   * A block's bytes, always the same array; detached by `dispose`, unless it was given as a buffer.
   *
   * @throws {Error} ERR_MEMORY_MAP If the system or the engine refuses.
   */
  view(block: number): Uint8Array;
  /**
   * Sets the bit of every page that may hold something; native/kernel/memory_holes.h says how.
   *
   * @param words A bit per page, lowest first: a word per 32 pages, or two per 64.
   */
  findPopulated(block: number, words: Uint32Array): void;
  /** The same, in a thread of the addon. */
  scanPopulated(block: number, words: Uint32Array): Promise<void>;
  /**
   * Makes pages read as zeros, and gives memory back to the system where that is possible.
   *
   * @throws {Error} ERR_MEMORY_READ_ONLY, or ERR_MEMORY_PUNCH with `errno`.
   */
  punch(block: number, firstPage: number, pageCount: number): void;
  dispose(): void;
}

/**
 * Says which pages were written through the mapping of this process; native/kernel/write_tracker.h
 * says how. Pieces of a block may be worked on at once, if none has pages of another: they begin
 * and end where a word of a bitmap does, and a host page.
 */
export interface WriteTracker {
  /** Protects what is no hole. */
  protect(block: number, firstPage: number, pageCount: number): Promise<void>;
  /** Sets bits in `words`, a bitmap of the block, and protects their pages anew. */
  collect(block: number, firstPage: number, pageCount: number, words: Uint32Array): Promise<void>;
  /** Takes the protection off, once the work on it is done. */
  stop(): void;
}

/** Digests of what was last copied of each page; native/kernel/page_digests.h has more. */
export interface PageDigests {
  /** Notes what was copied: whole pages of the block, from `firstPage` on. */
  note(block: number, firstPage: number, copies: Uint8Array): void;
  /**
   * Sets the bits of pages that differ from what was copied; pieces as for `WriteTracker`, without
   * regard to host pages.
   *
   * @param populated A bitmap of the block; pages without a bit are zeros.
   * @param words A bitmap of the block.
   */
  compare(
    block: number,
    firstPage: number,
    pageCount: number,
    populated: Uint32Array,
    words: Uint32Array,
  ): Promise<void>;
}

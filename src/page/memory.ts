import { constants as bufferLimits } from 'node:buffer';
import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { markAsUntransferable } from 'node:worker_threads';
import { MemoryError } from '../errors.ts';
import { native } from '../native.ts';
import type { NativeGuestMemory } from '../native-memory.ts';
import { asTyped, typed } from './addon-error.ts';
import { DirtyBitmap } from './bitmap.ts';
import {
  BLOCK_NAME_BYTES_MAX,
  BLOCKS_MAX,
  PAGE_BITS_MAX,
  PAGE_BITS_MIN,
  type RamLayout,
} from './block.ts';

/**
 * Where a RAM block of the guest is.
 *
 * A file is a regular one: on /dev/shm, hugetlbfs, a disk, or of `createMemoryFile`. It is mapped
 * shared. Size and offset are multiples of the guest's page, on hugetlbfs of the host's; without
 * `bytes` the block reaches to the file's end. A descriptor may be closed once the memory is made.
 *
 * A buffer stays the caller's. It must not be transferred to another thread; it can be shared with
 * one if it lies in a SharedArrayBuffer.
 */
export type MemoryBlockSource =
  | {
      readonly name: string;
      readonly path: string;
      readonly offset?: number;
      readonly bytes?: number;
    }
  | {
      readonly name: string;
      readonly file: number;
      readonly offset?: number;
      readonly bytes?: number;
    }
  | { readonly name: string; readonly buffer: Uint8Array };

export interface GuestMemoryOptions {
  /** Bytes of a guest page: a power of two, 1,024 to 65,536. @default 4096 */
  readonly pageBytes?: number;
  /** True to write into the memory, as a destination does. @default false */
  readonly isWritable?: boolean;
}

/** Guest memory as another worker_thread of this process can attach to it; can be posted there. */
export interface MemoryHandle {
  readonly id: number;
  readonly layout: RamLayout;
  readonly buffers: readonly (Uint8Array | undefined)[];
}

/** A guest's RAM blocks, mapped in this process. */
export class GuestMemory implements Disposable {
  /** What both ends of a migration must know of it. */
  readonly layout: RamLayout;
  readonly native: NativeGuestMemory;
  readonly #buffers: readonly (Uint8Array | undefined)[];

  /**
   * Maps the blocks.
   *
   * Promise: if it throws, nothing is mapped and no file is open.
   *
   * The pages of a file are no copy: what the hypervisor writes is seen here, and the other way
   * round. If the file is truncated meanwhile, or its file system is full, the process lives on and
   * `checkIntact` throws; SIGBUS is this library's for that, but only where its own mappings are.
   *
   * @throws {MemoryError} ERR_MEMORY_OPEN If a file is missing, not a regular one, or refused.
   * @throws {MemoryError} ERR_MEMORY_SIZE If a size or offset is no multiple of the page, a block
   *   has no page, or a file is shorter than asked for.
   * @throws {MemoryError} ERR_MEMORY_NAME If a name is not 1..255 bytes long, or there twice.
   * @throws {MemoryError} ERR_MEMORY_OVERLAP If two blocks have some memory in common.
   * @throws {MemoryError} ERR_MEMORY_MAP If the system refuses, for want of huge pages for example.
   * @throws {RangeError} If the number of blocks or `pageBytes` is out of range.
   */
  constructor(blocks: readonly MemoryBlockSource[], options?: GuestMemoryOptions);
  /** @internal */
  constructor(handle: MemoryHandle);
  constructor(
    source: readonly MemoryBlockSource[] | MemoryHandle,
    { pageBytes = 4096, isWritable = false }: GuestMemoryOptions = {},
  ) {
    if ('id' in source) {
      this.native = typed(() => new native.GuestMemory(source.id, source.buffers));
      this.layout = source.layout;
      this.#buffers = source.buffers;
      return;
    }
    const pageBits = checkPageBytes(pageBytes);
    checkNames(source);
    const opened: OpenedBlock[] = [];
    try {
      for (const block of source) opened.push(openBlock(block, isWritable));
      this.#buffers = opened.map(({ buffer }) => buffer);
      this.layout = {
        pageBits,
        hasFooter: false,
        sectionId: 0,
        blocks: opened.map(({ name, usedBytes }) => ({ name, usedBytes })),
      };
      this.native = typed(
        () =>
          new native.GuestMemory(
            opened.map(({ name }) => name),
            Float64Array.from(opened, ({ usedBytes }) => usedBytes),
            Int32Array.from(opened, ({ file }) => file),
            Float64Array.from(opened, ({ offset }) => offset),
            this.#buffers,
            isWritable,
            pageBits,
          ),
      );
    } finally {
      for (const { file, isOurs } of opened) if (isOurs) closeSync(file);
    }
    // Transferred, its memory would be gone from under us.
    for (const buffer of this.#buffers) {
      if (buffer !== undefined && !isShared(buffer)) markAsUntransferable(buffer.buffer);
    }
  }

  /**
   * The same memory, in another worker_thread of the process that made `handle`.
   *
   * Each GuestMemory is disposed of on its own; the memory is unmapped with the last.
   *
   * @throws {MemoryError} ERR_MEMORY_CLOSED If nobody holds it any more.
   */
  static attach(handle: MemoryHandle): GuestMemory {
    return new GuestMemory(handle);
  }

  /**
   * What `attach` needs in another thread.
   *
   * @throws {MemoryError} ERR_MEMORY_SHARE If a block is a buffer that is not shared.
   */
  get handle(): MemoryHandle {
    const own = this.#buffers.findIndex((buffer) => buffer !== undefined && !isShared(buffer));
    if (own !== -1) {
      const { name } = this.layout.blocks[own]!;
      throw new MemoryError(
        'ERR_MEMORY_SHARE',
        `Cannot share memory: block "${name}" must be of a SharedArrayBuffer or a file`,
      );
    }
    return { id: this.native.id(), layout: this.layout, buffers: this.#buffers };
  }

  /** Pages of a block. */
  pageCount(block: number): number {
    const found = this.layout.blocks[block];
    if (found === undefined) throw new RangeError(`Cannot count pages: no block ${block}`);
    return found.usedBytes / 2 ** this.layout.pageBits;
  }

  /**
   * A block's bytes. After `dispose` the array is empty, unless it is the buffer that was given.
   *
   * Of memory that is not writable, what is written to the view stays in the view, page by page.
   *
   * @throws {MemoryError} ERR_MEMORY_SIZE If the block is larger than an array can be.
   * @throws {MemoryError} ERR_MEMORY_CLOSED After `dispose`.
   */
  view(block: number): Uint8Array {
    const bytes = this.layout.blocks[block]?.usedBytes ?? 0;
    if (bytes > bufferLimits.MAX_LENGTH) {
      const most = `${bufferLimits.MAX_LENGTH} bytes at most`;
      throw new MemoryError('ERR_MEMORY_SIZE', `Cannot view ${bytes} bytes: an array has ${most}`);
    }
    return typed(() => this.native.view(block));
  }

  /**
   * Sets the bit of every page that may hold something; pages without a bit read as zeros. No page
   * is made for the question, and none is read but on hugetlbfs.
   *
   * What is written meanwhile may be missed: start the dirty log first.
   *
   * @param words A bit per page, lowest bit first: a word per 32 pages, or two per 64 as KVM has.
   *   Bits that are set stay set.
   * @throws {RangeError} If it has fewer or more words.
   * @throws {MemoryError} ERR_MEMORY_CLOSED After `dispose`.
   */
  findPopulated(block: number, words: Uint32Array): void {
    typed(() => this.native.findPopulated(block, words));
  }

  /**
   * As `findPopulated`, in a thread of the addon: for blocks so large that the script must not
   * wait. Either takes some 10 ms per GiB of populated pages of 4 KiB on tmpfs; holes take none.
   *
   * Promise: when it settles, nobody writes to `words` any more.
   */
  async scanPopulated(block: number, words: Uint32Array): Promise<void> {
    try {
      await this.native.scanPopulated(block, words);
    } catch (cause) {
      throw asTyped(cause);
    }
  }

  /** `scanPopulated` of every block, in their order. */
  async scanAllPopulated(): Promise<DirtyBitmap[]> {
    const bitmaps = this.layout.blocks.map((_, block) => new DirtyBitmap(this.pageCount(block)));
    for (const [block, { words }] of bitmaps.entries()) await this.scanPopulated(block, words);
    return bitmaps;
  }

  /**
   * Makes pages read as zeros, and gives their memory back to the system where that is possible.
   *
   * @throws {MemoryError} ERR_MEMORY_READ_ONLY, ERR_MEMORY_PUNCH, ERR_MEMORY_CLOSED
   */
  punch(block: number, firstPage: number, pageCount: number): void {
    typed(() => this.native.punch(block, firstPage, pageCount));
  }

  /**
   * Checks that all that was read and written so far was the guest's memory.
   *
   * @throws {MemoryError} ERR_MEMORY_LOST If a file was truncated, or could give no page: zeros may
   *   have been read in place of its contents.
   * @throws {MemoryError} ERR_MEMORY_CLOSED After `dispose`.
   */
  checkIntact(): void {
    if (!typed(() => this.native.isLost())) return;
    throw new MemoryError(
      'ERR_MEMORY_LOST',
      'Guest memory is lost: its file was truncated, or its file system is full',
    );
  }

  /** Lets go of the memory; it is unmapped when the work on it is done. Again, it does nothing. */
  dispose(): void {
    this.native.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * Makes a file of zeros that has no path (memfd_create), and returns its descriptor, which is the
 * caller's to close. It has the right to be sealed.
 *
 * @param hugePageBytes A size of huge pages that the system has; they are taken when it is mapped.
 * @throws {MemoryError} ERR_MEMORY_CREATE If the system refuses.
 */
export function createMemoryFile(name: string, bytes: number, hugePageBytes = 0): number {
  return typed(() => native.createMemoryFile(name, bytes, hugePageBytes));
}

interface OpenedBlock {
  readonly name: string;
  readonly usedBytes: number;
  /** -1 for a buffer. */
  readonly file: number;
  readonly isOurs: boolean;
  readonly offset: number;
  readonly buffer?: Uint8Array;
}

function openBlock(source: MemoryBlockSource, isWritable: boolean): OpenedBlock {
  if ('buffer' in source) {
    const { name, buffer } = source;
    return { name, usedBytes: buffer.length, file: -1, isOurs: false, offset: 0, buffer };
  }
  const { name, offset = 0 } = source;
  const isOurs = 'path' in source;
  const file = isOurs ? openFile(name, source.path, isWritable) : source.file;
  try {
    const usedBytes = source.bytes ?? sizeOf(name, file) - offset;
    if (!isSize(usedBytes) || !isSize(offset)) {
      throw new MemoryError(
        'ERR_MEMORY_SIZE',
        `Cannot map block "${name}": ${usedBytes} bytes at ${offset} must be within its file`,
      );
    }
    return { name, usedBytes, file, isOurs, offset };
  } catch (error) {
    if (isOurs) closeSync(file);
    throw error;
  }
}

/** A FIFO without a writer must not hold us up: it is refused once it is open. */
function openFile(name: string, path: string, isWritable: boolean): number {
  const access = isWritable ? constants.O_RDWR : constants.O_RDONLY;
  try {
    return openSync(path, access | constants.O_NONBLOCK);
  } catch (cause) {
    const text = `Cannot map block "${name}": "${path}" cannot be opened (${reasonOf(cause)})`;
    throw new MemoryError('ERR_MEMORY_OPEN', text, { cause });
  }
}

function sizeOf(name: string, file: number): number {
  try {
    return fstatSync(file).size;
  } catch (cause) {
    const text = `Cannot map block "${name}": file ${file} is not open (${reasonOf(cause)})`;
    throw new MemoryError('ERR_MEMORY_OPEN', text, { cause });
  }
}

function isSize(bytes: number): boolean {
  return Number.isSafeInteger(bytes) && bytes >= 0;
}

function checkPageBytes(pageBytes: number): number {
  const pageBits = Math.log2(pageBytes);
  if (Number.isInteger(pageBits) && pageBits >= PAGE_BITS_MIN && pageBits <= PAGE_BITS_MAX) {
    return pageBits;
  }
  const range = `${2 ** PAGE_BITS_MIN} to ${2 ** PAGE_BITS_MAX}`;
  throw new RangeError(`Cannot use pages of ${pageBytes} bytes: must be a power of two, ${range}`);
}

function checkNames(blocks: readonly MemoryBlockSource[]): void {
  if (blocks.length < 1 || blocks.length > BLOCKS_MAX) {
    throw new RangeError(`Cannot map ${blocks.length} blocks: must be 1 to ${BLOCKS_MAX}`);
  }
  const seen = new Set<string>();
  for (const { name } of blocks) {
    // The same bytes in QEMU's streams, on the wire and in the addon.
    const isText = /^[ -~]+$/.test(name);
    if (!isText || name.length > BLOCK_NAME_BYTES_MAX || seen.has(name)) {
      const rule = seen.has(name)
        ? 'is there twice'
        : `must be 1 to ${BLOCK_NAME_BYTES_MAX} ASCII characters`;
      throw new MemoryError('ERR_MEMORY_NAME', `Cannot map blocks: name "${name}" ${rule}`);
    }
    seen.add(name);
  }
}

function isShared(buffer: Uint8Array): boolean {
  return buffer.buffer instanceof SharedArrayBuffer;
}

function reasonOf(cause: unknown): string {
  return cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
}

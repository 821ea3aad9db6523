import { HASH_SECRET_BYTES, native, PAGE_HASH_BYTES } from '../native.ts';
import type { DirtyBitmap } from './bitmap.ts';
import type { GuestMemory } from './memory.ts';

/* Chosen by us */

/** Pages that are hashed at once. */
const PIECE_PAGES = 16_384;

/** Hashes of a block's pages from `from` to below `end`; zeros for those that take up no room. */
interface HashedPages {
  readonly block: number;
  readonly bitmap: DirtyBitmap;
  readonly from: number;
  readonly end: number;
  /** Overwritten when the next are asked for. */
  readonly hashes: Uint8Array;
}

/**
 * Sums up guest memory: equal for equal memory, whether or not its zeros take up room. It is no
 * proof against whoever writes the pages. Nothing may write to it meanwhile.
 *
 * @throws {Error} ERR_MEMORY_LOST, ERR_MEMORY_CLOSED
 */
export async function digestMemory(memory: GuestMemory): Promise<bigint> {
  const secret = new Uint8Array(new ArrayBuffer(HASH_SECRET_BYTES)).fill(0x5a);
  let digest = 0n;
  const zero = await hashOfZeros(memory, secret);
  for await (const { hashes } of hashMemory(memory, secret)) {
    forgetZeros(hashes, zero);
    digest = native.hash64(hashes, digest);
  }
  return digest;
}

/** Hashes all pages that take up room, block after block. Nothing may write to them meanwhile. */
export async function* hashMemory(
  memory: GuestMemory,
  secret: Uint8Array,
): AsyncGenerator<HashedPages> {
  const room = new Uint8Array(new ArrayBuffer(PIECE_PAGES * PAGE_HASH_BYTES));
  for (const [block, bitmap] of (await memory.scanAllPopulated()).entries()) {
    const { words, pageCount } = bitmap;
    for (let from = 0; from < pageCount; from += PIECE_PAGES) {
      const end = Math.min(pageCount, from + PIECE_PAGES);
      const hashes = room.subarray(0, (end - from) * PAGE_HASH_BYTES);
      await native.hashPages(memory.native, block, words, from, end, secret, hashes);
      yield { block, bitmap, from, end, hashes };
    }
  }
}

/** Gives pages of zeros the hash that pages have which take up no room. */
function forgetZeros(hashes: Uint8Array, zero: BigUint64Array): void {
  const halves = new BigUint64Array(hashes.buffer, hashes.byteOffset, hashes.length / 8);
  for (let at = 0; at < halves.length; at += 2) {
    if (halves[at] === zero[0] && halves[at + 1] === zero[1]) halves[at] = halves[at + 1] = 0n;
  }
}

/** The hash of a page of zeros, as `native.hashPages` makes it. */
export async function hashOfZeros(
  memory: GuestMemory,
  secret: Uint8Array,
): Promise<BigUint64Array> {
  const { pageBits } = memory.layout;
  const one = new native.GuestMemory(
    ['zeros'],
    Float64Array.of(2 ** pageBits),
    Int32Array.of(-1),
    Float64Array.of(0),
    [new Uint8Array(new ArrayBuffer(2 ** pageBits))],
    false,
    pageBits,
  );
  const hash = new Uint8Array(new ArrayBuffer(PAGE_HASH_BYTES));
  await native.hashPages(one, 0, Uint32Array.of(1, 0), 0, 1, secret, hash);
  one.dispose();
  return new BigUint64Array(hash.buffer);
}

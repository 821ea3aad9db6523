import { randomBytes } from 'node:crypto';
import { HASH_SECRET_BYTES, native, PAGE_HASH_BYTES } from '../native.ts';
import type { GuestMemory } from './memory.ts';
import { hashOfZeros } from './memory-digest.ts';

/* Chosen by us */

/** Pages that are looked at in one go. */
const PIECE_PAGES = 16_384;

/**
 * Makes memory read as zeros: what a guest begins with that knows nothing of its pages. Pages that
 * are zeros already are left alone, with the room that they take up.
 *
 * Reads what is populated, in the addon's threads. Nobody may write to it meanwhile.
 *
 * @throws {Error} ERR_MEMORY_READ_ONLY, ERR_MEMORY_PUNCH, ERR_MEMORY_LOST, ERR_MEMORY_CLOSED
 */
export async function clearMemory(memory: GuestMemory): Promise<void> {
  const secret = randomBytes(HASH_SECRET_BYTES);
  const zero = Buffer.from((await hashOfZeros(memory, secret)).buffer);
  const hashes = Buffer.alloc(PIECE_PAGES * PAGE_HASH_BYTES);
  for (const [block, bitmap] of (await memory.scanAllPopulated()).entries()) {
    const { words, pageCount } = bitmap;
    for (let from = 0; from < pageCount; from += PIECE_PAGES) {
      const end = Math.min(pageCount, from + PIECE_PAGES);
      if (bitmap.count(from, end) === 0) continue;
      const piece = hashes.subarray(0, (end - from) * PAGE_HASH_BYTES);
      await native.hashPages(memory.native, block, words, from, end, secret, piece);
      for (let page = from; page < end; page++) {
        const at = (page - from) * PAGE_HASH_BYTES;
        const isZero = zero.compare(piece, at, at + PAGE_HASH_BYTES) === 0;
        if (isZero) bitmap.clear(page);
      }
    }
    for (const { first, count } of bitmap.runs()) memory.punch(block, first, count);
  }
}

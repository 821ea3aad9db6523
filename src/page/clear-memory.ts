import { randomBytes } from 'node:crypto';
import { HASH_SECRET_BYTES, PAGE_HASH_BYTES } from '../native.ts';
import type { GuestMemory } from './memory.ts';
import { hashMemory, hashOfZeros } from './memory-digest.ts';

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
  for await (const { block, bitmap, from, end, hashes } of hashMemory(memory, secret)) {
    if (bitmap.count(from, end) === 0) continue;
    for (let page = from; page < end; page++) {
      const at = (page - from) * PAGE_HASH_BYTES;
      if (zero.compare(hashes, at, at + PAGE_HASH_BYTES) === 0) bitmap.clear(page);
    }
    for (const { first, count } of bitmap.runs(from, end)) memory.punch(block, first, count);
  }
}

import { describe, expect, test } from 'vitest';
import { ProtocolError } from '../../src/errors.ts';
import { hashDirtyLog } from '../../src/index.ts';
import { decodeHeld, HELD_PAGES_MAX, type HeldMessage } from '../../src/migration/guest-message.ts';
import { compareHeld, tellHeld, tellNothingMore } from '../../src/migration/held.ts';
import { HASH_SECRET_BYTES, PAGE_HASH_BYTES } from '../../src/native.ts';
import type { DirtyBitmap } from '../../src/page/bitmap.ts';
import type { GuestMemory } from '../../src/page/memory.ts';
import { Lane, type OutgoingMessage } from '../../src/session/lane.ts';
import { pagesIn, wordsFor } from '../support/guest-memory.ts';
import { createPrng, exactRandomBytes, integerBelow } from '../support/prng.ts';
import { openMemory, PAGE_BYTES } from './guest-support.ts';

const BLOCKS = [300, 64, 1];
const NEVER = (): Promise<void> => Promise.reject(new Error('The lane was full'));

/** A lane that keeps what is sent on it. */
function openEar(queuedBytes = 0): { lane: Lane; heard: HeldMessage[]; ear: { queued: number } } {
  const heard: HeldMessage[] = [];
  const ear = { queued: queuedBytes };
  const sender = {
    id: 0,
    get queuedBytes() {
      return ear.queued;
    },
    unackedBytes: 0,
    isUrgent: false,
    send: ({ buffer, start, end, isOrdered }: OutgoingMessage) => {
      expect(isOrdered).toBe(true);
      return heard.push(decodeHeld(buffer.slice(start, end)));
    },
    beginEpoch: () => {},
  };
  return { lane: new Lane(sender, { onMessage: undefined }, () => {}), heard, ear };
}

/** Every message but the last word, of which there is one, at the end. */
async function listen(memory: GuestMemory): Promise<HeldMessage[]> {
  const { lane, heard } = openEar();
  await tellHeld(memory, lane, NEVER);
  expect(heard.map(({ isLast }) => isLast).indexOf(true)).toBe(heard.length - 1);
  return heard.slice(0, -1);
}

/** Writes noise, one repeated byte or zeros to about `share` of all pages; the same of one seed. */
function write(memory: GuestMemory, seed: number, share: number): void {
  const random = createPrng(seed);
  for (const block of memory.layout.blocks.keys()) {
    const view = memory.view(block);
    for (let at = 0; at < view.length; at += PAGE_BYTES) {
      const page = view.subarray(at, at + PAGE_BYTES);
      if (random() >= share) continue;
      const kind = integerBelow(random, 3);
      if (kind === 0) page.set(exactRandomBytes(random, PAGE_BYTES));
      else page.fill(kind === 1 ? integerBelow(random, 256) : 0);
    }
  }
}

function pageOf(memory: GuestMemory, block: number, page: number): Uint8Array {
  return memory.view(block).subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
}

async function compareAll(
  memory: GuestMemory,
  held: readonly HeldMessage[],
  toSend: readonly DirtyBitmap[],
): Promise<number> {
  let equal = 0;
  for (const each of held) equal += await compareHeld(memory, each, toSend);
  return equal;
}

describe('what the destination holds', () => {
  test.each([1, 2, 3, 4, 5, 6])('leaves what differs to be sent, seed %i', async (seed) => {
    using here = openMemory(BLOCKS);
    using there = openMemory(BLOCKS);
    // The same to begin with, and then each something of its own.
    write(here, seed, 0.6);
    write(there, seed, 0.6);
    write(here, seed + 100, 0.1);
    write(there, seed + 200, 0.1);
    const before = await here.scanAllPopulated();
    const toSend = await here.scanAllPopulated();
    const equal = await compareAll(here, await listen(there), toSend);
    let cleared = 0;
    for (const [block, bitmap] of toSend.entries()) {
      for (let page = 0; page < bitmap.pageCount; page++) {
        const isSame = Buffer.compare(pageOf(here, block, page), pageOf(there, block, page)) === 0;
        // Nothing that differs may be left out.
        if (!bitmap.has(page))
          expect({ block, page, isSame }).toEqual({ block, page, isSame: true });
        if (before[block]!.has(page) && !bitmap.has(page)) cleared++;
      }
    }
    expect(equal).toBe(cleared);
    expect(equal).toBeGreaterThan(50);
  });

  test('is sent anew where it has become a hole', async () => {
    using here = openMemory([4]);
    using there = openMemory([4]);
    there.view(0).fill(1, 2 * PAGE_BYTES, 3 * PAGE_BYTES);
    const toSend = await here.scanAllPopulated();
    expect(toSend[0]!.count()).toBe(0);
    expect(await compareAll(here, await listen(there), toSend)).toBe(0);
    expect(pagesIn(toSend[0]!.words)).toEqual([2]);
  });

  test('is hashed with another secret each time', async () => {
    using there = openMemory([4]);
    there.view(0).fill(1);
    const [[one], [other]] = [await listen(there), await listen(there)];
    expect(one!.secret).not.toEqual(other!.secret);
    expect(one!.hashes).not.toEqual(other!.hashes);
    // Equal pages have equal hashes within one.
    expect(one!.hashes.slice(0, 16)).toEqual(one!.hashes.slice(16, 32));
  });

  test('is told in messages of a bounded length, none for what was never used', async () => {
    const pages = 2 * HELD_PAGES_MAX + 100;
    using there = openMemory([pages]);
    for (const page of [3, HELD_PAGES_MAX + 3, pages - 1]) pageOf(there, 0, page).fill(9);
    const told = (await listen(there)).map(({ firstPage, pageCount }) => [firstPage, pageCount]);
    // A message begins with a page that is held.
    const last = pages - 1;
    expect(told).toEqual([
      [3, HELD_PAGES_MAX],
      [HELD_PAGES_MAX + 3, HELD_PAGES_MAX],
      [last, 1],
    ]);
  });

  test('waits while a megabyte waits for a path', async () => {
    using there = openMemory([4]);
    there.view(0).fill(1);
    const { lane, heard, ear } = openEar(1024 * 1024);
    let asked = 0;
    await tellHeld(there, lane, async () => {
      expect(heard).toEqual([]);
      if (++asked === 3) ear.queued = 0;
    });
    expect(asked).toBe(3);
    expect(heard.map(({ pageCount }) => pageCount)).toEqual([4, 0]);
  });

  test('is nothing, if nothing is said', () => {
    const { lane, heard } = openEar();
    tellNothingMore(lane);
    expect(heard).toMatchObject([{ isLast: true, pageCount: 0 }]);
  });

  test('is noted in a log that compares', async () => {
    using here = openMemory([4]);
    using there = openMemory([4]);
    for (const memory of [here, there]) memory.view(0).fill(5, 0, 2 * PAGE_BYTES);
    const log = hashDirtyLog(here, { threads: 1 });
    await log.start();
    const toSend = await here.scanAllPopulated();
    for (const each of await listen(there)) {
      expect(await compareHeld(here, each, toSend, log.digests)).toBe(2);
    }
    // Page 0 is as it was compared, page 1 is not.
    here.view(0)[PAGE_BYTES + 7] = 6;
    const dirty = wordsFor(4);
    await log.collect([dirty]);
    expect(pagesIn(dirty)).toEqual([1]);
    await log.stop();
  });
});

describe('pages that the guest has not', () => {
  const secret = new Uint8Array(HASH_SECRET_BYTES);
  test.each([
    ['in no block', { block: 3, firstPage: 0, pageCount: 1 }],
    ['behind its end', { block: 1, firstPage: 64, pageCount: 1 }],
    ['across its end', { block: 1, firstPage: 60, pageCount: 5 }],
    ['far away', { block: 0, firstPage: Number.MAX_SAFE_INTEGER, pageCount: 1 }],
  ])('are refused: %s', async (_where, place) => {
    using here = openMemory(BLOCKS);
    const toSend = await here.scanAllPopulated();
    const hashes = new Uint8Array(place.pageCount * PAGE_HASH_BYTES).fill(1);
    const held = { isLast: false, secret, hashes, ...place };
    const error = await compareHeld(here, held, toSend).catch((cause: unknown) => cause);
    expect(error).toBeInstanceOf(ProtocolError);
    expect(error).toMatchObject({ code: 'ERR_MESSAGE' });
    expect(toSend.map((bitmap) => bitmap.count())).toEqual([0, 0, 0]);
  });
});

import { describe, expect, test } from 'vitest';
import { GuestMemory } from '../../src/index.ts';
import { clearMemory } from '../../src/page/clear-memory.ts';
import { createPrng, exactRandomBytes, integerBelow } from '../support/prng.ts';
import {
  isEqual,
  move,
  openGuestEnds,
  openMemory,
  PAGE_BYTES,
  SmallGuest,
} from './guest-support.ts';

const BLOCKS = [600, 64, 1];
const NOTHING = { pause: () => {}, resume: () => {} };

function openBuffers(): GuestMemory {
  const blocks = BLOCKS.map((pages, block) => ({
    name: `block-${block}`,
    buffer: new Uint8Array(pages * PAGE_BYTES),
  }));
  return new GuestMemory(blocks, { isWritable: true });
}

const KINDS = { files: () => openMemory(BLOCKS), buffers: openBuffers } as const;

/** Writes noise and zeros to some pages of every block. */
function litter(memory: GuestMemory, seed: number): void {
  const random = createPrng(seed);
  for (const block of memory.layout.blocks.keys()) {
    const view = memory.view(block);
    for (let left = view.length / PAGE_BYTES / 2 + 1; left > 0; left--) {
      const at = integerBelow(random, view.length / PAGE_BYTES) * PAGE_BYTES;
      if (random() < 0.3) view.fill(0, at, at + PAGE_BYTES);
      else view.set(exactRandomBytes(random, PAGE_BYTES), at);
    }
  }
}

describe.each(Object.entries(KINDS))('memory of %s that was used before', (_kind, open) => {
  test.each([1, 2, 3])('is the guest’s after it has come, seed %i', async (seed) => {
    await using ends = await openGuestEnds();
    using memory = openMemory(BLOCKS);
    using there = open();
    const guest = new SmallGuest(memory, seed);
    guest.write(200);
    litter(there, seed);
    const { source } = await move(
      ends,
      { source: memory, dirtyLog: guest.dirtyLog, downtimeMs: 5000, ...NOTHING },
      { memory: there, start: () => {} },
    );
    expect(source.error).toBeUndefined();
    expect(source.heldPages).toBe(0);
    expect(isEqual(memory, there)).toBe(true);
  });

  test('takes the guest after an attempt that failed', async () => {
    await using ends = await openGuestEnds();
    using memory = openMemory(BLOCKS);
    using there = open();
    const guest = new SmallGuest(memory, 4);
    guest.write(400);
    const options = { source: memory, dirtyLog: guest.dirtyLog, downtimeMs: 5000, ...NOTHING };
    const broken = (): never => {
      throw new Error('No');
    };
    const first = await move(
      ends,
      { ...options, deviceState: broken },
      { memory: there, ...start },
    );
    expect(first.source).toMatchObject({ outcome: 'failed', guest: 'source' });
    // The guest gives some of it back.
    memory.punch(0, 0, 300);
    const { source } = await move(ends, options, { memory: there, ...start });
    expect(source.error).toBeUndefined();
    expect(isEqual(memory, there)).toBe(true);
  });
});

const start = { start: () => {} };

test('clearMemory() leaves pages alone that are zeros', async () => {
  using memory = openMemory([64]);
  const view = memory.view(0);
  view.fill(0, 0, 10 * PAGE_BYTES);
  view.fill(1, 20 * PAGE_BYTES, 23 * PAGE_BYTES);
  await clearMemory(memory);
  // Before it is read: that makes pages of holes.
  const [populated] = await memory.scanAllPopulated();
  expect([populated!.count(0, 10), populated!.count(20, 23)]).toEqual([10, 0]);
  expect(view.every((byte) => byte === 0)).toBe(true);
});

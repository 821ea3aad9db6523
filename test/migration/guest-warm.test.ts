import { describe, expect, test } from 'vitest';
import type { GuestResult, IncomingGuest } from '../../src/index.ts';
import {
  type GuestEnds,
  isEqual,
  move,
  openGuestEnds,
  openMemory,
  SmallGuest,
} from './guest-support.ts';

const BLOCKS = [3000, 64];
const NOTHING = { pause: () => {}, resume: () => {} };

async function warm(
  ends: GuestEnds,
  guest: SmallGuest,
  there: ReturnType<typeof openMemory>,
  holdsEarlier = false,
): Promise<GuestResult> {
  const [source] = await Promise.all([
    ends.source.warmGuest({ source: guest.memory, name: 'vm' }),
    ends.destination
      .acceptGuest()
      .then((incoming) => (incoming as IncomingGuest).keep({ memory: there, holdsEarlier })),
  ]);
  return source;
}

describe('a guest whose memory is there already', () => {
  test('sends what has changed since it was copied ahead', async () => {
    await using ends = await openGuestEnds();
    using memory = openMemory(BLOCKS);
    using there = openMemory(BLOCKS);
    const guest = new SmallGuest(memory, 1);
    guest.write(4000);
    const copied = await warm(ends, guest, there);
    expect(copied.error).toBeUndefined();
    expect(copied).toMatchObject({ outcome: 'completed', guest: 'source' });
    expect(isEqual(memory, there)).toBe(true);
    guest.write(150);
    const options = { source: memory, dirtyLog: guest.dirtyLog, downtimeMs: 300, ...NOTHING };
    const { source } = await move(ends, options, {
      memory: there,
      holdsEarlier: true,
      start: () => {},
    });
    expect(source.error).toBeUndefined();
    expect(isEqual(memory, there)).toBe(true);
    expect(source.heldPages).toBeGreaterThan(1500);
    expect(source.roundFacts[0]!.pages - source.pages.zero).toBeLessThanOrEqual(150);
  });

  test.each([1, 2, 3, 4])('comes whole from memory of any earlier time, seed %i', async (seed) => {
    await using ends = await openGuestEnds();
    using memory = openMemory(BLOCKS);
    using there = openMemory(BLOCKS);
    const guest = new SmallGuest(memory, seed);
    const stranger = new SmallGuest(there, seed);
    stranger.write(2000);
    guest.write(1500);
    const timer = setInterval(() => guest.isRunning && guest.write(20), 1);
    const pause = (): void => {
      guest.isRunning = false;
    };
    const { source } = await move(
      ends,
      { source: memory, dirtyLog: guest.dirtyLog, downtimeMs: 50, pause, resume: () => {} },
      { memory: there, holdsEarlier: true, start: () => {} },
    );
    clearInterval(timer);
    expect(source.error).toBeUndefined();
    expect(isEqual(memory, there)).toBe(true);
  });

  test('is copied ahead again, and only what changed', async () => {
    await using ends = await openGuestEnds();
    using memory = openMemory(BLOCKS);
    using there = openMemory(BLOCKS);
    const guest = new SmallGuest(memory, 5);
    guest.write(4000);
    await warm(ends, guest, there);
    guest.write(10);
    const again = await warm(ends, guest, there, true);
    expect(again.roundFacts).toHaveLength(1);
    // Where the copy has zeros nothing is held, and zeros are sent again, as a fact.
    expect(again.roundFacts[0]!.pages - again.pages.zero).toBeLessThanOrEqual(10);
    expect(isEqual(memory, there)).toBe(true);
  });
});

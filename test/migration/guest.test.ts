import { describe, expect, test } from 'vitest';
import {
  callbackDirtyLog,
  type DirtyLog,
  hashDirtyLog,
  type JournalEntry,
  writeProtectDirtyLog,
} from '../../src/index.ts';
import { isEqual, move, openGuestEnds, openMemory, SmallGuest } from './guest-support.ts';

const BLOCKS = [700, 64, 1];

const LOGS: Readonly<Record<string, (guest: SmallGuest) => DirtyLog>> = {
  callback: (guest) => callbackDirtyLog((block, words) => guest.takeDirty(block, words)),
  'write protection': (guest) => writeProtectDirtyLog(guest.memory),
  hash: (guest) => hashDirtyLog(guest.memory, { threads: 1 }),
};

describe('migrateGuest()', () => {
  test('moves a guest that stands still', async () => {
    await using ends = await openGuestEnds();
    using memory = openMemory(BLOCKS);
    using there = openMemory(BLOCKS);
    const guest = new SmallGuest(memory, 1);
    guest.write(500);
    const calls: string[] = [];
    const { source, destination } = await move(
      ends,
      {
        source: memory,
        dirtyLog: guest.dirtyLog,
        downtimeMs: 300,
        pause: () => void calls.push('pause'),
        resume: () => void calls.push('resume'),
        deviceState: () => Buffer.from('registers'),
        discard: () => void calls.push('discard'),
      },
      {
        memory: there,
        load: (state) => void calls.push(`load ${Buffer.from(state).toString()}`),
        start: () => void calls.push('start'),
      },
    );
    expect(source.error).toBeUndefined();
    expect(source).toMatchObject({ outcome: 'completed', guest: 'destination' });
    expect(destination).toMatchObject({ outcome: 'completed', guest: 'destination' });
    expect(calls).toEqual(['pause', 'load registers', 'start', 'discard']);
    expect(isEqual(memory, there)).toBe(true);
  });

  const ways = Object.keys(LOGS).flatMap((log) => [1, 2, 3, 4].map((seed) => [log, seed] as const));
  test.each(ways)('moves a guest that writes all the time, %s, seed %i', async (log, seed) => {
    await using ends = await openGuestEnds();
    using memory = openMemory(BLOCKS);
    using there = openMemory(BLOCKS);
    const guest = new SmallGuest(memory, seed);
    guest.write(500);
    let pages = 20;
    const timer = setInterval(() => guest.isRunning && guest.write(Math.floor(pages)), 1);
    const { source, destination } = await move(
      ends,
      {
        source: memory,
        dirtyLog: LOGS[log]!(guest),
        // However slow the machine is: a guest that is slowed down comes to an end.
        maxRounds: 10_000,
        maxBytesFactor: 10_000,
        throttle: (percent) => {
          pages = 20 * (1 - percent / 100);
        },
        downtimeMs: 50,
        pause: () => {
          guest.isRunning = false;
        },
        resume: () => {
          guest.isRunning = true;
        },
      },
      { memory: there, start: () => {} },
    );
    clearInterval(timer);
    expect(source.error).toBeUndefined();
    expect(destination.guest).toBe('destination');
    expect(guest.isRunning).toBe(false);
    expect(isEqual(memory, there)).toBe(true);
  });

  test.each(['copying', 'committed'] as const)(
    'does not begin by a journal that is "%s", and says whose the guest is',
    async (state) => {
      await using ends = await openGuestEnds();
      using memory = openMemory([10]);
      const guest = new SmallGuest(memory, 1);
      const earlier: JournalEntry = {
        v: 1,
        side: 'source',
        state,
        migration: 'ab'.repeat(16),
        attempt: 1,
        name: 'vm',
        isSettled: false,
        context: {},
      };
      const journal = { read: async () => earlier, write: async () => {} };
      const calls: string[] = [];
      const accepting = ends.destination.acceptGuest().catch(() => {});
      const result = await ends.source.migrateGuest({
        source: memory,
        dirtyLog: guest.dirtyLog,
        downtimeMs: 50,
        pause: () => void calls.push('pause'),
        resume: () => void calls.push('resume'),
        journal,
      });
      expect(result.error).toMatchObject({ code: 'ERR_HANDOVER_STATE' });
      expect(result.guest).toBe(state === 'copying' ? 'source' : 'unknown');
      expect(calls).toEqual([]);
      await ends.source.close();
      await accepting;
    },
  );
});

test('a hook that fails to run the guest again is told of', async () => {
  await using ends = await openGuestEnds();
  using memory = openMemory([10]);
  using there = openMemory([10]);
  const guest = new SmallGuest(memory, 1);
  const { source } = await move(
    ends,
    {
      source: memory,
      dirtyLog: guest.dirtyLog,
      downtimeMs: 50,
      pause: () => {},
      resume: () => {
        throw new Error('No processor');
      },
      deviceState: () => {
        throw new Error('No registers');
      },
    },
    { memory: there, start: () => {} },
  );
  expect(source).toMatchObject({ outcome: 'failed', guest: 'source' });
  expect(source.error?.message).toBe('No registers');
  expect(source.fallbacks.join('; ')).toContain('"resume" of the guest failed: No processor');
});

test('options out of their range are refused before anything is said', async () => {
  await using ends = await openGuestEnds();
  using memory = openMemory([10]);
  const guest = new SmallGuest(memory, 1);
  const options = { source: memory, dirtyLog: guest.dirtyLog, pause() {}, resume() {} };
  const wrong = [
    { downtimeMs: 0 },
    { downtimeMs: 1, maxRounds: 0 },
    { downtimeMs: 1, maxRounds: 1e7 },
  ];
  for (const each of wrong) {
    expect(() => ends.source.migrateGuest({ ...options, ...each })).toThrow(RangeError);
  }
});

test('a migration that is given up while its journal is read never begins', async () => {
  await using ends = await openGuestEnds();
  using memory = openMemory([10]);
  const guest = new SmallGuest(memory, 1);
  const abort = new AbortController();
  const written: JournalEntry[] = [];
  const journal = {
    read: async () => {
      abort.abort();
      await new Promise((resolve) => setTimeout(resolve, 20));
      return undefined;
    },
    write: async (entry: JournalEntry) => void written.push(entry),
  };
  const options = { dirtyLog: guest.dirtyLog, downtimeMs: 50, pause() {}, resume() {} };
  const { signal } = abort;
  const result = await ends.source.migrateGuest({ ...options, source: memory, journal, signal });
  expect(result).toMatchObject({ outcome: 'cancelled', guest: 'source' });
  await new Promise((resolve) => setTimeout(resolve, 60));
  expect(written).toEqual([]);
});

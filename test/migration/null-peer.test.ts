import { afterEach, describe, expect, test } from 'vitest';
import {
  callbackDirtyLog,
  type DirtyLog,
  type GuestMemory,
  type GuestResult,
  hashDirtyLog,
  type MoveOptions,
  migrateToNull,
  writeProtectDirtyLog,
} from '../../src/index.ts';
import { openMemory, SmallGuest } from './guest-support.ts';

const BLOCKS = [700, 64];

const LOGS: Readonly<Record<string, (guest: SmallGuest) => DirtyLog>> = {
  callback: (guest) => callbackDirtyLog((block, words) => guest.takeDirty(block, words)),
  'write protection': (guest) => writeProtectDirtyLog(guest.memory),
  hash: (guest) => hashDirtyLog(guest.memory, { threads: 1 }),
};

const open: GuestMemory[] = [];
afterEach(() => {
  for (const memory of open.splice(0)) memory.dispose();
});

/** A guest with something in it, and what is done to it. */
function makeGuest(): { guest: SmallGuest; calls: string[]; options: MoveOptions } {
  const memory = openMemory(BLOCKS);
  open.push(memory);
  const guest = new SmallGuest(memory, 1);
  guest.write(500);
  const calls: string[] = [];
  const options = {
    source: memory,
    dirtyLog: guest.dirtyLog,
    downtimeMs: 10_000,
    pause: () => {
      guest.isRunning = false;
      calls.push('pause');
    },
    resume: () => {
      guest.isRunning = true;
      calls.push('resume');
    },
    deviceState: () => {
      calls.push('state');
      return Buffer.alloc(3 * 1024 * 1024 + 5, 7);
    },
    discard: () => void calls.push('discard'),
  };
  return { guest, calls, options };
}

function migrate(options: MoveOptions): Promise<GuestResult> {
  return migrateToNull({ ...options, threads: 2 });
}

describe('migrateToNull()', () => {
  test.each(Object.keys(LOGS))('goes through all of a migration, log %s', async (log) => {
    const { guest, calls, options } = makeGuest();
    const rounds: number[] = [];
    const result = await migrate({
      ...options,
      dirtyLog: LOGS[log]!(guest),
      onRound: ({ round }) => {
        // Something is left for the next one.
        if (guest.isRunning) guest.write(30);
        rounds.push(round);
      },
    });
    expect(result.error).toBeUndefined();
    expect(result).toMatchObject({
      outcome: 'completed',
      guest: 'destination',
      wireBytes: 0,
      paths: [],
      digest: { equal: true },
    });
    expect(calls).toEqual(['pause', 'state', 'discard']);
    expect(rounds).toEqual(result.roundFacts.map(({ round }) => round));
    expect(rounds).toEqual(rounds.map((_, index) => index + 1));
    expect(rounds.length).toBeGreaterThan(1);
    const { switchover, rest, state, commit } = result.downtimeMs;
    // Each is rounded.
    expect(Math.abs(rest! + state! + commit! - switchover!)).toBeLessThanOrEqual(2);
  });

  test('sends nothing of memory that was never used', async () => {
    const { options } = makeGuest();
    using memory = openMemory([1000]);
    const result = await migrate({ ...options, source: memory, dirtyLog: hashDirtyLog(memory) });
    expect(result).toMatchObject({ outcome: 'completed', heldPages: 0 });
    expect(result.roundFacts.map(({ pages }) => pages)).toEqual([0, 0]);
  });

  test('leaves the guest alone if it is cancelled before', async () => {
    const { calls, options } = makeGuest();
    const result = await migrate({ ...options, signal: AbortSignal.abort() });
    expect(result).toMatchObject({ outcome: 'cancelled', guest: 'source' });
    expect(result.error).toMatchObject({ code: 'ERR_CANCELLED' });
    expect(calls).not.toContain('pause');
    expect(calls).not.toContain('discard');
  });

  test('goes on to its end if it is cancelled when the guest is paused', async () => {
    const { calls, options } = makeGuest();
    const cancelling = new AbortController();
    const deviceState = (): Uint8Array => {
      cancelling.abort();
      return new Uint8Array(1);
    };
    const result = await migrate({ ...options, deviceState, signal: cancelling.signal });
    expect(result).toMatchObject({ outcome: 'completed', guest: 'destination' });
    expect(calls).toEqual(['pause', 'discard']);
  });

  const broken = (): never => {
    throw new Error('No');
  };
  test.each<readonly [string, Partial<MoveOptions>, RegExp]>([
    ['a log that does not start', { dirtyLog: log({ start: broken }) }, /^No$/],
    ['a log that does not collect', { dirtyLog: log({ collect: broken }) }, /^No$/],
    ['a guest that does not pause', { pause: broken }, /^No$/],
    ['a guest without state', { deviceState: broken }, /^No$/],
    ['a listener that throws', { onRound: broken }, /^No$/],
    [
      'too much state',
      { deviceState: () => new Uint8Array(256 * 2 ** 20 + 1) },
      /268435457 bytes, more than 268435456/,
    ],
  ])('resumes the guest after %s', async (_what, wrong, says) => {
    const { guest, calls, options } = makeGuest();
    const result = await migrate({ ...options, ...wrong });
    expect(result).toMatchObject({ outcome: 'failed', guest: 'source' });
    expect(result.error!.message).toMatch(says);
    expect(guest.isRunning).toBe(true);
    expect(calls.at(-1)).toBe('resume');
    expect(calls).not.toContain('discard');
  });

  test('stops the log, and one that cannot stop does no harm', async () => {
    const { options } = makeGuest();
    let stops = 0;
    const stop = (): never => {
      stops++;
      throw new Error('No');
    };
    const result = await migrate({ ...options, dirtyLog: log({ stop }) });
    expect(result.outcome).toBe('completed');
    expect(stops).toBe(1);
  });

  test('refuses threads that there cannot be, before anything is done', () => {
    const { calls, options } = makeGuest();
    expect(() => migrateToNull({ ...options, threads: 0 })).toThrow(RangeError);
    expect(calls).toEqual([]);
  });
});

function log(parts: Partial<DirtyLog>): DirtyLog {
  return { name: 'own', start: () => {}, collect: () => {}, stop: () => {}, ...parts };
}

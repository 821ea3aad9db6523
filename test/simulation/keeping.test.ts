import { afterAll, expect, test } from 'vitest';
import { native } from '../../src/native.ts';
import { type Conduct, type Seen, SOUND, simulateKeeping } from './keeping.ts';

/*
 * What both ends keep of earlier pages is the same when it is referred to, however batches travel.
 */

const SEEDS = 300;

/** A broken end is found by one of so many seeds; most of them find it. */
const BROKEN_SEEDS = 40;

afterAll(() => native.setThreads(2));

test(`memory arrives as it was sent, seeds 1 to ${SEEDS}`, async () => {
  const all: Seen = { batches: 0, same: 0, delta: 0, prefixes: 0, kept: 0, overtaking: 0 };
  for (let seed = 1; seed <= SEEDS; seed++) {
    try {
      const seen = await simulateKeeping(seed);
      for (const name of Object.keys(all) as (keyof Seen)[]) all[name] += seen[name];
    } catch (cause) {
      throw new Error(`seed ${seed}: ${String(cause)}`, { cause });
    }
  }
  // A network that never reorders, or a store that is never used, shows nothing.
  expect(all.batches).toBeGreaterThan(20 * SEEDS);
  for (const name of ['same', 'delta', 'prefixes', 'kept', 'overtaking'] as const) {
    expect([name, all[name] > 3 * SEEDS]).toEqual([name, true]);
  }
});

const BROKEN: readonly (readonly [string, Partial<Conduct>])[] = [
  ['a base that is one too high', { baseOf: (acked, number) => Math.min(number, acked + 1) }],
  ['an ack before the batch arrives', { acksWhen: 'sent' }],
  ['a destination that does not wait', { honoursBase: false }],
  [
    'a base one too high that nobody looks at',
    { baseOf: (acked, number) => Math.min(number, acked + 1), honoursBase: false },
  ],
];

test.each(BROKEN)('%s is found', async (_, broken) => {
  let found = 0;
  for (let seed = 1; seed <= BROKEN_SEEDS; seed++) {
    await simulateKeeping(seed, { ...SOUND, ...broken }).catch((error: unknown) => {
      expect(String(error)).toMatch(/Cannot decode batch|differs/);
      found++;
    });
  }
  expect(found).toBeGreaterThan(BROKEN_SEEDS / 2);
});

import { describe, expect, test } from 'vitest';
import { simulate } from './delivery.ts';

describe('Session on a simulated network', () => {
  test('is the same with the same seed', async () => {
    expect((await simulate(7)).log).toBe((await simulate(7)).log);
    expect((await simulate(7)).log).not.toBe((await simulate(8)).log);
  });

  test('has every kind of harm in it, and what comes of it', async () => {
    const sums = new Map<string, number>();
    for (let seed = 1; seed <= 40; seed++) {
      for (const [name, count] of Object.entries((await simulate(seed)).counts)) {
        sums.set(name, (sums.get(name) ?? 0) + count);
      }
    }
    for (const [name, sum] of sums) expect(sum, name).toBeGreaterThan(10);
    expect(sums.size).toBe(11);
  });

  test.each(['epochs ignored', 'lost frames not sent again'] as const)(
    'finds the fault: %s',
    async (canary) => {
      let found = 0;
      for (let seed = 1; seed <= 20; seed++) {
        if ((await simulate(seed, canary)).wrong.length > 0) found++;
      }
      expect(found).toBeGreaterThan(5);
    },
  );
});

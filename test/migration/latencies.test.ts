import { expect, test } from 'vitest';
import { Latencies } from '../../src/migration/latencies.ts';
import { createPrng } from '../support/prng.ts';

test('nothing is said of nothing', () => {
  expect(new Latencies().facts()).toEqual({
    ...{ count: 0, medianMs: undefined, p99Ms: undefined, maxMs: undefined },
  });
});

test.each([1, 100, 4096, 4097, 100_000])('median, 99th of 100 and most of %i waits', (count) => {
  const random = createPrng(count);
  const latencies = new Latencies();
  const all = Float64Array.from({ length: count }, () => random() * 100);
  for (const each of all) latencies.add(each);
  const facts = latencies.facts();
  expect(facts.count).toBe(count);
  expect(facts.maxMs).toBe(Math.max(...all));
  const sorted = all.sort();
  // Of many a sample is kept.
  const slack = count > 4096 ? 3 : 0;
  expect(Math.abs(facts.medianMs! - sorted[Math.floor(count / 2)]!)).toBeLessThanOrEqual(slack);
  expect(Math.abs(facts.p99Ms! - sorted[Math.floor(0.99 * count)]!)).toBeLessThanOrEqual(slack);
});

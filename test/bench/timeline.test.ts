import { describe, expect, test } from 'vitest';
import { intervalsOf, missingMs, outageMs, timeToReachMs } from '../../bench/support/timeline.ts';

/** Intervals of 100 ms from 1000 ms on, with these rates. */
function intervals(...rates: number[]) {
  return rates.map((mbit, index) => ({
    beginMs: 1000 + index * 100,
    endMs: 1100 + index * 100,
    mbit,
  }));
}

describe('intervalsOf()', () => {
  test('counts each arrival in its interval, and those outside in none', () => {
    const arrivalsMs = [99, 250, 100, 199.9, 301, 400];
    const span = { beginMs: 100, endMs: 399, spanMs: 100 };
    expect(intervalsOf(arrivalsMs, 1000, span)).toEqual([
      { beginMs: 100, endMs: 200, mbit: 0.16 },
      { beginMs: 200, endMs: 300, mbit: 0.08 },
    ]);
  });

  test('has no interval if there is no time', () => {
    expect(intervalsOf([5], 1000, { beginMs: 10, endMs: 5, spanMs: 100 })).toEqual([]);
  });
});

describe('outageMs()', () => {
  const limits = { fromMs: 1150, toMs: 1450, mbit: 90 };

  test('sums up the parts of slow intervals that lie in the span', () => {
    expect(outageMs(intervals(0, 50, 89, 90, 0, 0), limits)).toBe(50 + 100 + 50);
  });

  test('is 0 if enough arrives', () => {
    expect(outageMs(intervals(0, 95, 95, 95, 95, 0), limits)).toBe(0);
  });
});

describe('timeToReachMs()', () => {
  test('ends with the first of two fast intervals', () => {
    const rates = intervals(100, 20, 100, 20, 100, 100);
    expect(timeToReachMs(rates, { fromMs: 1100, mbit: 90 })).toBe(400);
  });

  test('is infinite if it stays slow', () => {
    const rates = intervals(100, 100, 20, 100);
    expect(timeToReachMs(rates, { fromMs: 1200, mbit: 90 })).toBe(Number.POSITIVE_INFINITY);
  });
});

describe('missingMs()', () => {
  test('waits for what was sent before the fault, not for what was sent after', () => {
    expect(missingMs([10, 20, 30], [15, 500, 900], 25)).toBe(475);
  });

  test('is 0 if all of it was there', () => {
    expect(missingMs([10, 20], [15, 18], 20)).toBe(0);
  });
});

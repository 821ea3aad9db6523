import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ParitySum, rebuild, stripePlaces, xorInto } from '../../src/staging/parity.ts';
import {
  choosePlace,
  NO_PLACE,
  NO_PLACE_NOW,
  type PlaceState,
} from '../../src/staging/placement.ts';
import { BusyRate } from '../../src/staging/rate.ts';

const BYTES = 65_000;

const place = fc.record({
  isUsable: fc.boolean(),
  hasSlot: fc.boolean(),
  inFlightBytes: fc.integer({ min: 0, max: 10 * BYTES }),
  bytesPerSecond: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 2e9 })),
  freeBytes: fc.oneof(fc.constant(Infinity), fc.integer({ min: 0, max: 3 * BYTES })),
});

describe('placement', () => {
  test('never where it must not be, and somewhere whenever it can', () => {
    fc.assert(
      fc.property(
        fc.array(place, { maxLength: 6 }),
        fc.double({ min: 1, max: 1e12 }),
        (all, more) => {
          const remainingBytes = BYTES + (Number.isNaN(more) ? 0 : more);
          const at = choosePlace(all, { bytes: BYTES, remainingBytes });
          const able = all.filter(({ isUsable, freeBytes }) => isUsable && freeBytes >= BYTES);
          if (at === NO_PLACE) expect(able).toEqual([]);
          else if (at === NO_PLACE_NOW) expect(able).not.toEqual([]);
          else {
            expect(able).toContain(all[at]);
            expect(all[at]!.hasSlot).toBe(true);
          }
          // While much remains, nobody who has a slot is left idle.
          const endless = choosePlace(all, { bytes: BYTES, remainingBytes: Infinity });
          expect(endless >= 0).toBe(able.some(({ hasSlot }) => hasSlot));
        },
      ),
    );
  });

  test('who is as fast as another but has less under way is taken', () => {
    const base = { isUsable: true, hasSlot: true, bytesPerSecond: 1e8, freeBytes: Infinity };
    const places = [5, 2, 9].map((count) => ({ ...base, inFlightBytes: count * BYTES }));
    expect(choosePlace(places, { bytes: BYTES, remainingBytes: 1e12 })).toBe(1);
  });

  test('near the end a slow one is not begun with', () => {
    const fast = { isUsable: true, hasSlot: false, inFlightBytes: BYTES, bytesPerSecond: 1e9 };
    const slow = { isUsable: true, hasSlot: true, inFlightBytes: 0, bytesPerSecond: 1e6 };
    const places = [fast, slow].map((each) => ({ ...each, freeBytes: Infinity }));
    expect(choosePlace(places, { bytes: BYTES, remainingBytes: BYTES })).toBe(NO_PLACE_NOW);
    expect(choosePlace(places, { bytes: BYTES, remainingBytes: 1e9 })).toBe(1);
  });

  test('shares follow rates, and all is done within 1.1 of the best there can be', () => {
    const rate = fc.integer({ min: 10, max: 1000 });
    fc.assert(
      fc.property(fc.array(rate, { minLength: 1, maxLength: 5 }), (rates) => {
        const count = 2000;
        const doneMs = scheduleMs(
          rates.map((each) => each * 1e5),
          count,
        );
        const bestMs = (count * BYTES) / rates.reduce((sum, each) => sum + each * 100, 0);
        expect(doneMs).toBeLessThan(1.1 * bestMs);
      }),
      { numRuns: 30 },
    );
  });
});

/** Places extents as slots are free, four for each; milliseconds until the last is there. */
function scheduleMs(rates: readonly number[], count: number): number {
  const queues: number[][] = rates.map(() => []);
  let nowMs = 0;
  let placed = 0;
  let endMs = 0;
  for (;;) {
    for (const queue of queues) while (queue.length > 0 && queue[0]! <= nowMs) queue.shift();
    while (placed < count) {
      const places = queues.map(
        (queue, at): PlaceState => ({
          ...{ isUsable: true, hasSlot: queue.length < 4, inFlightBytes: queue.length * BYTES },
          ...{ bytesPerSecond: rates[at]!, freeBytes: Infinity },
        }),
      );
      const remainingBytes = (count - placed) * BYTES;
      const at = choosePlace(places, { bytes: BYTES, remainingBytes });
      if (at < 0) break;
      const doneMs = Math.max(nowMs, queues[at]!.at(-1) ?? 0) + (BYTES * 1000) / rates[at]!;
      queues[at]!.push(doneMs);
      endMs = Math.max(endMs, doneMs);
      placed++;
    }
    if (placed === count) return endMs;
    nowMs = Math.min(...queues.filter((queue) => queue.length > 0).map((queue) => queue[0]!));
  }
}

describe('a rate', () => {
  test('is that of the time it was busy', () => {
    const rate = new BusyRate();
    let nowMs = 0;
    for (let time = 0; time < 40; time++) {
      rate.begin(nowMs);
      nowMs += 10;
      rate.end(10_000, nowMs);
      nowMs += 500; // idle
    }
    expect(rate.bytesPerSecond).toBeCloseTo(1_000_000);
  });

  test('is unknown at first, and follows a change', () => {
    const rate = new BusyRate();
    expect(rate.bytesPerSecond).toBe(0);
    for (let time = 0; time < 400; time++) {
      rate.begin(10 * time);
      rate.end(time < 200 ? 10_000 : 1000, 10 * time + 10);
    }
    expect(rate.bytesPerSecond).toBeLessThan(110_000);
  });
});

describe('parity', () => {
  const value = fc.uint8Array({ minLength: 1, maxLength: 65_526 });

  test('any one of a stripe can be had from all others', () => {
    fc.assert(
      fc.property(fc.array(value, { minLength: 1, maxLength: 5 }), (all) => {
        const sum = new ParitySum();
        for (const [at, each] of all.entries()) sum.add(at, each);
        for (const [lost, wanted] of all.entries()) {
          const others = all.filter((_, at) => at !== lost);
          const found = rebuild([sum.value(), ...others], wanted.length);
          expect(Buffer.compare(found, wanted)).toBe(0);
        }
      }),
      { numRuns: 50 },
    );
  });

  test('is the same whatever the alignment', () => {
    const bytes = Uint8Array.from({ length: 1003 }, (_, at) => at * 7);
    for (let at = 0; at < 4; at++) {
      const shifted = new Uint8Array(1010).subarray(at, at + 1003);
      shifted.set(bytes);
      const sum = new Uint8Array(1003).fill(0x5a);
      xorInto(sum, shifted);
      expect(sum).toEqual(bytes.map((byte) => byte ^ 0x5a));
    }
  });

  test('each extent of a stripe is elsewhere, and parity goes round', () => {
    const parityAt = [0, 1, 2].map((stripe) => stripePlaces(stripe, [4, 5, 7]).at(-1));
    expect(new Set(parityAt).size).toBe(3);
    for (let stripe = 0; stripe < 9; stripe++) {
      expect([...stripePlaces(stripe, [4, 5, 7])].sort()).toEqual([4, 5, 7]);
    }
  });
});

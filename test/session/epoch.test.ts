import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { codeOf } from '../../src/errors.ts';
import { SEQUENCE_WINDOW } from '../../src/frame/limits.ts';
import { EpochOrder } from '../../src/session/epoch.ts';

interface Item {
  readonly sequence: number;
  readonly epoch: number;
}

/** Items of a lane whose epochs have the given lengths. */
function itemsOf(lengths: readonly number[]): Item[] {
  const items: Item[] = [];
  for (const length of lengths) {
    const epoch = items.length;
    for (let left = length; left > 0; left--) items.push({ sequence: items.length, epoch });
  }
  return items;
}

/** A lane in some order of arrival. */
const arrivals = fc
  .array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 12 })
  .chain((lengths) => {
    const items = itemsOf(lengths);
    return fc.shuffledSubarray(items, { minLength: items.length });
  });

function deliverAll(items: readonly Item[]): Item[] {
  const order = new EpochOrder<Item>();
  const delivered: Item[] = [];
  for (const item of items) order.add(item, item, (one) => delivered.push(one));
  return delivered;
}

function codeOfAll(items: readonly Item[]): string {
  try {
    deliverAll(items);
  } catch (error) {
    return codeOf(error);
  }
  return 'none';
}

describe('EpochOrder', () => {
  test('delivers everything once, and nothing before what its epoch comes after', () => {
    fc.assert(
      fc.property(arrivals, (items) => {
        const delivered = deliverAll(items);
        expect(delivered.length).toBe(items.length);
        const seen = new Set<number>();
        for (const { sequence, epoch } of delivered) {
          for (let below = 0; below < epoch; below++) expect(seen.has(below)).toBe(true);
          seen.add(sequence);
        }
        expect(seen.size).toBe(items.length);
      }),
    );
  });

  test('holds nothing longer than it must', () => {
    fc.assert(
      fc.property(arrivals, (items) => {
        const order = new EpochOrder<Item>();
        const arrived: Item[] = [];
        const delivered = new Set<Item>();
        for (const item of items) {
          arrived.push(item);
          order.add(item, item, (one) => delivered.add(one));
          // Slow and obvious: deliver again and again whatever may be.
          const free = new Set<Item>();
          const may = (one: Item): boolean =>
            Array.from({ length: one.epoch }, (_, below) => below).every((below) =>
              [...free].some(({ sequence }) => sequence === below),
            );
          for (let round = 0; round < arrived.length; round++) {
            for (const one of arrived) if (may(one)) free.add(one);
          }
          expect(delivered).toEqual(free);
        }
        expect(order.heldEpochs).toBe(0);
        expect(order.base).toBe(items.length);
      }),
      { numRuns: 40 },
    );
  });

  test('keeps, inside an epoch, the order of arrival', () => {
    const delivered = deliverAll([
      { sequence: 3, epoch: 1 },
      { sequence: 1, epoch: 1 },
      { sequence: 0, epoch: 0 },
      { sequence: 2, epoch: 1 },
    ]);
    expect(delivered.map(({ sequence }) => sequence)).toEqual([0, 3, 1, 2]);
  });

  test('knows what it has, delivered or held', () => {
    const order = new EpochOrder<Item>();
    order.add({ sequence: 2, epoch: 2 }, { sequence: 2, epoch: 2 }, () => {});
    expect([0, 1, 2, 3].map((sequence) => order.has(sequence))).toEqual([
      false,
      false,
      true,
      false,
    ]);
    expect(order.heldEpochs).toBe(1);
  });

  test.each([
    [
      'an epoch that fell, behind a delivered one',
      [
        [0, 0],
        [1, 1],
        [2, 0],
      ],
    ],
    [
      'an epoch that fell, behind a held one',
      [
        [2, 2],
        [3, 1],
      ],
    ],
    [
      'an epoch that begins below a held sequence of an earlier one',
      [
        [3, 1],
        [4, 2],
      ],
    ],
    [
      'a sequence at the begin of a later epoch',
      [
        [2, 2],
        [2, 1],
      ],
    ],
    [
      'a delivered sequence inside a later epoch',
      [
        [0, 0],
        [2, 0],
        [3, 1],
      ],
    ],
  ])('refuses %s', (_what, pairs) => {
    const items = pairs.map(([sequence, epoch]) => ({ sequence: sequence!, epoch: epoch! }));
    expect(codeOfAll(items.slice(0, -1))).toBe('none');
    expect(codeOfAll(items)).toBe('ERR_FRAME_EPOCH');
  });

  test('refuses, of any lane with one epoch made wrong, what contradicts the rest', () => {
    fc.assert(
      fc.property(arrivals, fc.nat(), fc.nat(), (items, at, epoch) => {
        const index = at % items.length;
        const item = items[index]!;
        const wrong = { ...item, epoch: epoch % (item.sequence + 1) };
        const all = items.with(index, wrong);
        // Either somebody notices, or the lane as it is now has epochs that never fall.
        const sorted = all.toSorted((one, other) => one.sequence - other.sequence);
        const isLawful = sorted.every((one, place) => {
          const before = sorted[place - 1];
          const isSame = before !== undefined && one.epoch === before.epoch;
          return isSame || one.epoch >= (before?.sequence ?? -1) + 1;
        });
        expect(codeOfAll(all)).toBe(isLawful ? 'none' : 'ERR_FRAME_EPOCH');
      }),
    );
  });

  test('refuses what is too far ahead of what is missing', () => {
    const far = { sequence: SEQUENCE_WINDOW, epoch: 0 };
    expect(codeOfAll([far])).toBe('ERR_WINDOW_EXCEEDED');
    expect(codeOfAll([{ sequence: 0, epoch: 0 }, far])).toBe('none');
    const near = { sequence: SEQUENCE_WINDOW - 1, epoch: SEQUENCE_WINDOW - 1 };
    expect(codeOfAll([near])).toBe('none');
  });
});

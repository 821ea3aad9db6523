import { expect, test } from 'vitest';
import { SlotPool } from '../../src/page/slot-pool.ts';

test('SlotPool take() gives slots of its size until all are out', () => {
  const pool = new SlotPool({ slotBytes: 100, countMax: 3 });
  expect(pool.freeCount).toBe(3);
  const slots = [pool.take(), pool.take(), pool.take()];
  expect(slots.map((slot) => slot?.length)).toEqual([100, 100, 100]);
  expect(new Set(slots).size).toBe(3);
  expect(pool.freeCount).toBe(0);
  expect(pool.take()).toBeUndefined();
});

test('SlotPool take() gives what came back last', () => {
  const pool = new SlotPool({ slotBytes: 8, countMax: 2 });
  const [first, second] = [pool.take()!, pool.take()!];
  pool.give(first);
  pool.give(second);
  expect(pool.freeCount).toBe(2);
  expect(pool.take()).toBe(second);
  expect(pool.take()).toBe(first);
});

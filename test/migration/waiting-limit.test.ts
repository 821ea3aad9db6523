import { expect, test } from 'vitest';
import { rateOf, WaitingLimit } from '../../src/migration/waiting-limit.ts';

const MIB = 1024 * 1024;

test.each([
  ['not known yet', 0, MIB],
  ['1 Gb/s', 125e6, MIB],
  ['100 Mb/s', 12.5e6, 375_000],
  ['10 Mb/s', 1.25e6, MIB / 4],
])('of paths of %s', (_, rate, bytes) => {
  expect(
    new WaitingLimit(
      () => rate,
      () => 0,
    ).bytes,
  ).toBe(bytes);
});

test('it follows the paths, and does not ask all the time', () => {
  let nowMs = 0;
  let asked = 0;
  const rates = [12.5e6, 125e6];
  const limit = new WaitingLimit(
    () => rates[asked++]!,
    () => nowMs,
  );
  expect(limit.bytes).toBe(375_000);
  nowMs = 49;
  expect(limit.bytes).toBe(375_000);
  expect(asked).toBe(1);
  nowMs = 50;
  expect(limit.bytes).toBe(MIB);
});

test.each([
  ['not known yet', 0, MIB],
  ['10 Mb/s', 1.25e6, MIB / 16],
  ['100 Mb/s', 12.5e6, 187_500],
  ['1 Gb/s', 125e6, MIB],
])('in a post-copy less waits; of paths of %s', (_, rate, bytes) => {
  const limit = new WaitingLimit(
    () => rate,
    () => 0,
  );
  expect(limit.bytes).toBeGreaterThanOrEqual(bytes);
  limit.beginPostcopy();
  expect(limit.bytes).toBe(bytes);
});

test('the rate of paths is what is measured, and what is allowed', () => {
  const path = {
    state: 'open',
    isParked: false,
    bytesPerSecond: 100,
    maxBytesPerSecond: undefined,
  };
  const rate = (paths: object[], maxBytesPerSecond?: number) =>
    rateOf({ pathReports: () => paths, maxBytesPerSecond } as never);
  expect(rate([path, path])).toBe(200);
  expect(rate([path, { ...path, maxBytesPerSecond: 30 }])).toBe(130);
  expect(rate([path, { ...path, isParked: true }, { ...path, state: 'lost' }])).toBe(100);
  expect(rate([path, path], 150)).toBe(150);
  expect(rate([path], 150)).toBe(100);
  expect(rate([{ ...path, bytesPerSecond: 0 }])).toBe(0);
  expect(rate([{ ...path, bytesPerSecond: 0, maxBytesPerSecond: 9 }])).toBe(9);
  expect(rate([{ ...path, bytesPerSecond: 0 }], 7)).toBe(7);
  expect(rate([])).toBe(0);
});

import { expect, test } from 'vitest';
import { WaitingLimit } from '../../src/migration/waiting-limit.ts';

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

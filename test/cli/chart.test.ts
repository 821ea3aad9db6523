import fc from 'fast-check';
import { expect, test } from 'vitest';
import { drawRounds, type RoundBar } from '../../src/cli/chart.ts';

const MB = 1e6;
const MiB = 2 ** 20;

const ROUNDS: readonly RoundBar[] = [
  { round: 1, bytesPerSecond: 125 * MB, remainingBytes: 512 * MiB },
  { round: 2, bytesPerSecond: 100 * MB, remainingBytes: 128 * MiB },
  { round: 3, bytesPerSecond: 50 * MB, remainingBytes: 24 * MiB },
  { round: 4, bytesPerSecond: 0, remainingBytes: 0 },
];

test('rounds are drawn as bars', () => {
  expect(drawRounds(ROUNDS, { columns: 64 })).toBe(
    [
      'round        rate                        left',
      '    1    1 Gbit/s █████████████████   512 MiB █████████████████',
      '    2  800 Mbit/s █████████████▋      128 MiB ████▎',
      '    3  400 Mbit/s ██████▊            24.0 MiB ▊',
      '    4     0 bit/s                         0 B',
      '',
    ].join('\n'),
  );
});

test('where only plain characters are wanted, there are no others', () => {
  const text = drawRounds(ROUNDS, { columns: 64, isAscii: true, roundsMax: 2 });
  expect(text).toMatch(/^[\n -~]+$/);
  expect(text).toBe(
    [
      'round      rate                         left',
      '    1  1 Gbit/s ###################  512 MiB ###################',
      '... 2 more',
      '    4   0 bit/s                          0 B',
      '',
    ].join('\n'),
  );
});

test('a narrow terminal has the figures', () => {
  expect(drawRounds(ROUNDS.slice(0, 2), { columns: 30 })).toBe(
    [
      'round        rate     left',
      '    1    1 Gbit/s  512 MiB',
      '    2  800 Mbit/s  128 MiB',
      '',
    ].join('\n'),
  );
});

test('of many rounds the first and the last are drawn', () => {
  const rounds = Array.from({ length: 99 }, (_, index) => ({ ...ROUNDS[0]!, round: index + 1 }));
  const lines = drawRounds(rounds, { columns: 80 }).trimEnd().split('\n');
  expect(lines).toHaveLength(1 + 20 + 1);
  expect(lines[11]).toBe('… 79 more');
  expect(lines.filter((line) => /█/.test(line)).map((line) => Number.parseInt(line, 10))).toEqual([
    ...[1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    ...[90, 91, 92, 93, 94, 95, 96, 97, 98, 99],
  ]);
  expect(drawRounds([], { columns: 80 })).toBe('');
});

const bar = fc.record({
  round: fc.nat(10_000),
  bytesPerSecond: fc.double({ min: 0, max: 1e12, noNaN: true }),
  remainingBytes: fc.nat(2 ** 30).map((value) => value * 4096),
});

test('no line is longer than the terminal, and a bar is there for whatever is not 0', () => {
  fc.assert(
    fc.property(
      fc.array(bar, { minLength: 1, maxLength: 50 }),
      fc.integer({ min: 44, max: 250 }),
      fc.boolean(),
      (rounds, columns, isAscii) => {
        const lines = drawRounds(rounds, { columns, isAscii, roundsMax: 100 }).split('\n');
        for (const line of lines) expect(line.length).toBeLessThanOrEqual(columns);
        expect(lines).toHaveLength(1 + rounds.length + 1);
        if (columns < 70) return;
        for (const [index, { remainingBytes }] of rounds.entries()) {
          expect(/[#█-▏]$/.test(lines[index + 1]!)).toBe(remainingBytes > 0);
        }
      },
    ),
  );
});

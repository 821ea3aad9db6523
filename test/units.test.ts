import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { formatRate, parseRate, parseSize } from '../src/units.ts';

describe('parseRate()', () => {
  test.each([
    ['8kbit', 1000],
    ['200mbit', 25_000_000],
    ['1gbit', 125_000_000],
    ['2.5gbit', 312_500_000],
    ['1KB', 1000],
    ['125MB', 125_000_000],
    ['1.5GB', 1_500_000_000],
    ['1KiB', 1024],
    ['100MiB', 104_857_600],
    ['1GiB', 1_073_741_824],
  ])('%s is %i bytes a second', (text, bytesPerSecond) => {
    expect(parseRate(text)).toBe(bytesPerSecond);
  });

  test.each(['', 'off', '1', '1bit', '1Gbit', '1mb', '1mib', '-1mbit', '.5gbit', '1e3MB', '1 MB'])(
    'refuses "%s"',
    (text) => {
      expect(() => parseRate(text)).toThrow(SyntaxError);
      expect(() => parseRate(text)).toThrow(`Cannot read rate "${text}": expected for example`);
    },
  );

  test.each(['0mbit', '0.001kbit', '0.0KB', '99999999GiB', `${'9'.repeat(400)}MB`])(
    'refuses %s, which is no rate to send at',
    (text) => {
      expect(() => parseRate(text)).toThrow(SyntaxError);
      expect(() => parseRate(text)).toThrow('bytes per second');
    },
  );

  test('returns whole bytes', () => {
    fc.assert(
      fc.property(
        fc.double({ min: 0.01, max: 1e6, noNaN: true }),
        fc.constantFrom('kbit', 'mbit', 'gbit', 'KB', 'MB', 'GB', 'KiB', 'MiB', 'GiB'),
        (amount, unit) => {
          expect(Number.isSafeInteger(parseRate(`${amount.toFixed(3)}${unit}`))).toBe(true);
        },
      ),
    );
  });
});

describe('parseSize()', () => {
  test.each([
    ['1KB', 1000],
    ['4GB', 4_000_000_000],
    ['1KiB', 1024],
    ['512MiB', 536_870_912],
    ['2GiB', 2_147_483_648],
    ['1.5GiB', 1_610_612_736],
    ['0.5TB', 500_000_000_000],
    ['1TiB', 1_099_511_627_776],
  ])('%s is %i bytes', (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  test.each([
    ...['', '1', '0', 'off', '1B', '1kb', '1Gib', '1gb', '-1GiB', '.5GiB', '1e3MB', '1 MB', 'GiB'],
    ...['0MiB', '0.0KB', '0.0001KB', '99999999TiB', `${'9'.repeat(400)}MB`],
  ])('refuses "%s"', (text) => {
    expect(() => parseSize(text)).toThrow(SyntaxError);
    expect(() => parseSize(text)).toThrow(`Cannot read size "${text}": expected for example`);
  });

  test('returns whole bytes', () => {
    fc.assert(
      fc.property(
        fc.double({ min: 0.01, max: 8000, noNaN: true }),
        fc.constantFrom('KB', 'MB', 'GB', 'TB', 'KiB', 'MiB', 'GiB', 'TiB'),
        (amount, unit) => {
          expect(Number.isSafeInteger(parseSize(`${amount.toFixed(3)}${unit}`))).toBe(true);
        },
      ),
    );
  });
});

describe('formatRate()', () => {
  test.each([
    [0, '0 bit/s'],
    [100, '800 bit/s'],
    [1250, '10 kbit/s'],
    [25_000_000, '200 Mbit/s'],
    [125_000_000, '1 Gbit/s'],
    [187_500_000, '1.5 Gbit/s'],
    [12_345_678, '98.8 Mbit/s'],
    [15_432_097, '123 Mbit/s'],
    [1e15, '8000 Tbit/s'],
  ])('%i bytes a second are %s', (bytesPerSecond, text) => {
    expect(formatRate(bytesPerSecond)).toBe(text);
  });
});

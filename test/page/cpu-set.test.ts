import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { formatCpuSet, parseCpuSet } from '../../src/page/cpu-set.ts';

describe('parseCpuSet()', () => {
  test.each([
    ['0', [0]],
    ['0-3,8', [0, 1, 2, 3, 8]],
    ['8,0-3', [0, 1, 2, 3, 8]],
    ['2-2', [2]],
    ['1,1-2,0-1', [0, 1, 2]],
    [' 0-1, 4 \n', [0, 1, 4]],
    ['8191', [8191]],
    ['007', [7]],
  ])('reads "%s"', (text, processors) => {
    expect(parseCpuSet(text)).toEqual(processors);
  });

  test.each([
    ['', '"" is neither N nor N-M'],
    ['all', '"all" is neither N nor N-M'],
    ['0,', '"" is neither N nor N-M'],
    ['-1', '"-1" is neither N nor N-M'],
    ['0-', '"0-" is neither N nor N-M'],
    ['0-1-2', '"0-1-2" is neither N nor N-M'],
    ['0-7:2', '"0-7:2" is neither N nor N-M'],
    ['0x1', '"0x1" is neither N nor N-M'],
    ['1.5', '"1.5" is neither N nor N-M'],
    ['0 1', '"0 1" is neither N nor N-M'],
    ['3-1', '"3-1" ends before it begins'],
    ['8192', "a processor's number must be below 8192"],
    ['0-99999999999999999999', "a processor's number must be below 8192"],
  ])('refuses "%s", and says why', (text, why) => {
    const message = `Cannot read processors "${text}": expected a list as 0-3,8: ${why}`;
    expect(() => parseCpuSet(text)).toThrow(new SyntaxError(message));
  });

  const processors = fc.array(fc.nat(8191), { minLength: 1, maxLength: 40 });
  const ranges = fc.array(
    fc.tuple(fc.nat(300), fc.nat(20)).map(([first, more]) => ({ first, last: first + more })),
    { minLength: 1, maxLength: 12 },
  );

  test('reads what formatCpuSet() writes, each processor once and in order', () => {
    fc.assert(
      fc.property(processors, (set) => {
        const expected = [...new Set(set)].sort((a, b) => a - b);
        expect(parseCpuSet(formatCpuSet(set))).toEqual(expected);
      }),
    );
  });

  test('is the union of its parts, in any order and however they overlap', () => {
    fc.assert(
      fc.property(ranges, (parts) => {
        const expected = new Set<number>();
        for (const { first, last } of parts) {
          for (let processor = first; processor <= last; processor++) expected.add(processor);
        }
        const text = parts.map(({ first, last }) => `${first}-${last}`).join(',');
        expect(new Set(parseCpuSet(text))).toEqual(expected);
      }),
    );
  });

  test('gives numbers or a SyntaxError, whatever the text', () => {
    const texts = fc.string({ unit: fc.constantFrom(...'0123456789-,, :\nx'), maxLength: 12 });
    fc.assert(
      fc.property(texts, (text) => {
        try {
          const set = parseCpuSet(text);
          expect(set.length).toBeGreaterThan(0);
          expect(set.every((each) => Number.isInteger(each) && each >= 0 && each < 8192)).toBe(
            true,
          );
        } catch (error) {
          expect(error).toBeInstanceOf(SyntaxError);
        }
      }),
    );
  });
});

describe('formatCpuSet()', () => {
  test.each([
    [[], ''],
    [[5], '5'],
    [[3, 1, 2, 0, 8, 8], '0-3,8'],
    [[0, 2, 4], '0,2,4'],
    [[0, 1], '0-1'],
  ])('writes %j as "%s"', (set, text) => {
    expect(formatCpuSet(set)).toBe(text);
  });
});

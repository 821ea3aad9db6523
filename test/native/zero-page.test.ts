import { expect, test } from 'vitest';
import { native } from '../../src/native.ts';
import { naiveZeroPages } from '../naive/zero-page.ts';
import { createPrng, integerBelow } from '../support/prng.ts';

const { zeroPage, zeroPageVariants } = native.features();
const PAGE_SIZES = [64, 128, 192, 256, 448, 512, 576, 1024, 4096, 4160];

function find(pages: Uint8Array, pageBytes: number, variant?: string): boolean[] {
  const count = pages.length / pageBytes;
  const bitmap = new Uint32Array(new ArrayBuffer(Math.ceil(count / 32) * 4)).fill(0xffff_ffff);
  const zeroCount = native.findZeroPages(pages, pageBytes, bitmap, variant);
  const bits = Array.from(
    { length: bitmap.length * 32 },
    (_, bit) => ((bitmap[bit >> 5]! >>> (bit & 31)) & 1) === 1,
  );
  expect(bits.slice(count)).not.toContain(true);
  expect(zeroCount).toBe(bits.filter((bit) => bit).length);
  return bits.slice(0, count);
}

test('features() names the chosen variant among those that run', () => {
  expect(zeroPageVariants).toContain('portable');
  expect(zeroPageVariants).toContain(zeroPage);
});

test.each(zeroPageVariants)('findZeroPages() %s sees one set bit at every place', (variant) => {
  for (const pageBytes of PAGE_SIZES) {
    // An odd offset: pages in a stream lie anywhere.
    const buffer = new ArrayBuffer(pageBytes + 3);
    const page = new Uint8Array(buffer, 3, pageBytes);
    expect(find(page, pageBytes, variant)).toEqual([true]);
    for (let at = 0; at < pageBytes; at++) {
      page[at] = 1 << (at % 8);
      if (find(page, pageBytes, variant)[0] !== false) {
        expect.fail(`byte ${at} of ${pageBytes} was missed`);
      }
      page[at] = 0;
    }
  }
});

test.each(zeroPageVariants)('findZeroPages() %s reads nothing outside its pages', (variant) => {
  for (const pageBytes of PAGE_SIZES) {
    const bytes = new Uint8Array(new ArrayBuffer(pageBytes + 2)).fill(0xff);
    const page = bytes.subarray(1, 1 + pageBytes).fill(0);
    expect(find(page, pageBytes, variant)).toEqual([true]);
  }
});

const SEEDS = [1, 2, 3, 4, 5, 6, 7, 8];
const CASES = zeroPageVariants.flatMap((variant) => SEEDS.map((seed) => ({ variant, seed })));

test.each(CASES)('findZeroPages() $variant agrees with the naive one, seed $seed', (trial) => {
  const random = createPrng(trial.seed);
  const pageBytes = PAGE_SIZES[integerBelow(random, PAGE_SIZES.length)]!;
  const count = integerBelow(random, 100);
  const pages = new Uint8Array(new ArrayBuffer(count * pageBytes));
  for (let page = 0; page < count; page++) {
    for (let left = integerBelow(random, 3); left > 0; left--) {
      pages[page * pageBytes + integerBelow(random, pageBytes)] = integerBelow(random, 256);
    }
  }
  expect(find(pages, pageBytes, trial.variant)).toEqual(naiveZeroPages(pages, pageBytes));
});

test.each(zeroPageVariants)('findZeroPages() %s agrees, whichever pages are zero', (variant) => {
  // Zero pages side by side are tested in turn, others in step: every pattern of ten.
  for (const [pageBytes, setByte] of [
    [64, 8],
    [1088, 1087],
    [1024, 512],
  ] as const) {
    for (let pattern = 0; pattern < 1024; pattern++) {
      const pages = new Uint8Array(new ArrayBuffer(10 * pageBytes));
      for (let page = 0; page < 10; page++) {
        if (((pattern >> page) & 1) === 1) pages[page * pageBytes + setByte] = 1;
      }
      const bitmap = new Uint32Array(1);
      native.findZeroPages(pages, pageBytes, bitmap, variant);
      if (bitmap[0] !== (~pattern & 1023)) expect.fail(`pattern ${pattern} of ${pageBytes} bytes`);
    }
  }
});

test('findZeroPages() clears the words that no page has', () => {
  const bitmap = new Uint32Array(4).fill(0xffff_ffff);
  expect(native.findZeroPages(new Uint8Array(64), 64, bitmap)).toBe(1);
  expect([...bitmap]).toEqual([1, 0, 0, 0]);
  expect(native.findZeroPages(new Uint8Array(0), 4096, new Uint32Array(0))).toBe(0);
});

import { describe, expect, test } from 'vitest';
import { native } from '../../src/native.ts';
import { NaiveBitmap } from '../naive/bitmap.ts';
import { createPrng, integerBelow } from '../support/prng.ts';

const { bitmap: chosen, bitmapVariants: variants } = native.features();

/** Words of a bitmap in a buffer of exactly their size, so that no overrun hides. */
function exactWords(words: readonly number[]): Uint32Array {
  const exact = new Uint32Array(new ArrayBuffer(4 * words.length));
  exact.set(words);
  return exact;
}

/** Pages set at random: from one of a thousand to nearly all, single ones and in runs. */
function randomBitmap(seed: number): NaiveBitmap {
  const random = createPrng(seed);
  const bitmap = new NaiveBitmap(1 + integerBelow(random, 20_000));
  const longest = [1, 2, 9, 64, 700][seed % 5]!;
  const gap = [1, 3, 12, 150, 2000][integerBelow(random, 5)]!;
  for (let page = integerBelow(random, gap + 1); page < bitmap.pageCount; ) {
    const count = Math.min(1 + integerBelow(random, longest), bitmap.pageCount - page);
    bitmap.set(page, count);
    page += count + integerBelow(random, 2 * gap);
  }
  return bitmap;
}

/** All runs of a range, asked for a few at a time. */
function findAll(
  words: Uint32Array,
  { from, to, together }: { from: number; to: number; together: number },
  variant?: string,
): { first: number; count: number }[] {
  const runs = new Float64Array(new ArrayBuffer(16 * together));
  const all: { first: number; count: number }[] = [];
  for (let at = from, found = together; found === together; ) {
    found = native.findRuns(words, at, to, runs, variant);
    for (let run = 0; run < found; run++) {
      all.push({ first: runs[2 * run]!, count: runs[2 * run + 1]! });
      at = runs[2 * run]! + runs[2 * run + 1]!;
    }
  }
  return all;
}

test('features() names the chosen variant among those that run', () => {
  expect(variants[0]).toBe('portable');
  expect(variants).toContain(chosen);
});

describe.each(variants)('%s', (variant) => {
  test.each(Array.from({ length: 40 }, (_, seed) => seed))('is the naive one, seed %i', (seed) => {
    const random = createPrng(seed + 1000);
    const bitmap = randomBitmap(seed);
    const words = exactWords(bitmap.words());
    for (let trial = 0; trial < 8; trial++) {
      const from = trial === 0 ? 0 : integerBelow(random, bitmap.pageCount + 1);
      const to =
        trial === 0 ? bitmap.pageCount : from + integerBelow(random, bitmap.pageCount - from + 1);
      const together = [1, 2, 7, 100, 30_000][integerBelow(random, 5)]!;
      expect(findAll(words, { from, to, together }, variant)).toEqual(bitmap.runs(from, to));
      const count = bitmap.count(from, to);
      expect(native.countBits(words, from, to, variant)).toBe(count);
      const pages = integerBelow(random, count + 2);
      const { end } = bitmap.endOf(from, pages);
      const wanted = pages > count ? -1 - count : end;
      expect(native.findBit(words, from, to, pages, variant)).toBe(wanted);
    }
  });

  test('finds a run of every length at every place of a word', () => {
    for (let first = 60; first < 130; first++) {
      for (let count = 1; count < 140; count++) {
        const bitmap = new NaiveBitmap(320);
        bitmap.set(first, count);
        const words = exactWords(bitmap.words());
        const runs = new Float64Array(4);
        const found = native.findRuns(words, 0, 320, runs, variant);
        if (found !== 1 || runs[0] !== first || runs[1] !== count) {
          expect.fail(`${count} pages from ${first}: found ${found}: ${runs.join(', ')}`);
        }
      }
    }
  });

  test('finds runs that cross blocks, and one that is everything', () => {
    const words = new Uint32Array(new ArrayBuffer(4 * 2 * 500)).fill(0xffff_ffff);
    const all = { from: 0, to: 32_000, together: 10 };
    expect(findAll(words, all, variant)).toEqual([{ first: 0, count: 32_000 }]);
    const some = { from: 8191, to: 24_577, together: 10 };
    expect(findAll(words, some, variant)).toEqual([{ first: 8191, count: 16_386 }]);
    for (const page of [8191, 8192, 16_383, 24_576]) words[page >>> 5]! ^= 1 << (page & 31);
    expect(findAll(words, { ...all, together: 1 }, variant)).toEqual([
      { first: 0, count: 8191 },
      { first: 8193, count: 8190 },
      { first: 16_384, count: 8192 },
      { first: 24_577, count: 7423 },
    ]);
  });

  test('finds every second page, and no pattern at all', () => {
    const random = createPrng(3);
    for (const fill of [() => 0x5555_5555, () => 0xaaaa_aaaa, () => random() * 2 ** 32]) {
      const words = new Uint32Array(new ArrayBuffer(4 * 512)).map(fill);
      const bitmap = new NaiveBitmap(512 * 32);
      for (let page = 0; page < bitmap.pageCount; page++) {
        if (((words[page >>> 5]! >>> (page & 31)) & 1) === 1) bitmap.set(page, 1);
      }
      const range = { from: 0, to: bitmap.pageCount, together: 1000 };
      expect(findAll(words, range, variant)).toEqual(bitmap.runs(0, bitmap.pageCount));
      expect(native.countBits(words, 0, bitmap.pageCount, variant)).toBe(bitmap.pages.size);
    }
  });

  test('writes nothing behind the runs that fit', () => {
    const words = new Uint32Array(512).fill(0x1111_1111);
    for (let room = 1; room < 40; room++) {
      const memory = new Float64Array(2 * room + 8).fill(-1);
      const runs = memory.subarray(0, 2 * room);
      expect(native.findRuns(words, 0, 512 * 32, runs, variant)).toBe(room);
      expect(runs).not.toContain(-1);
      expect([...memory.subarray(2 * room)]).toEqual(Array(8).fill(-1));
    }
  });
});

test('mergeBits() and takeBits() work on words of any number, shared or not', () => {
  const random = createPrng(8);
  const fresh = (length: number): Uint32Array =>
    new Uint32Array(
      random() < 0.5 ? new ArrayBuffer(4 * length) : new SharedArrayBuffer(4 * length),
    ).map(() => (random() < 0.5 ? 0 : random() * 2 ** 32));
  for (let length = 0; length < 80; length += 2) {
    const [into, from] = [fresh(length), fresh(length)];
    const both = into.map((word, index) => word | from[index]!);
    const copy = into.slice();
    native.mergeBits(copy, from);
    expect([...copy]).toEqual([...both]);
    native.takeBits(into, from);
    expect([...into]).toEqual([...both]);
    expect(from.every((word) => word === 0)).toBe(true);
  }
});

type Callable = (...args: unknown[]) => unknown;

const NOT_WORDS: readonly unknown[] = [
  undefined,
  null,
  7,
  'words',
  {},
  [0, 0],
  new ArrayBuffer(8),
  new Int32Array(2),
  new Uint8Array(8),
  new BigUint64Array(1),
  new Proxy(new Uint32Array(2), {}),
  Object.create(Uint32Array.prototype),
  new Uint32Array(3),
  new Uint32Array(new ArrayBuffer(16), 4, 2),
];
const NOT_PAGES: readonly unknown[] = [undefined, null, '1', 1n, -1, 0.5, Number.NaN, 65, 2 ** 53];

function refuses(call: Callable, good: readonly unknown[], at: number, bad: readonly unknown[]) {
  for (const value of bad) {
    const args = good.with(at, value);
    expect(() => call(...args), `argument ${at}`).toThrow(/^Cannot /);
  }
}

test('arguments that are wrong are refused', () => {
  const runs = new Float64Array(2);
  const calls: readonly [Callable, readonly unknown[]][] = [
    [native.findRuns as Callable, [new Uint32Array(2), 0, 64, runs]],
    [native.countBits as Callable, [new Uint32Array(2), 0, 64]],
    [native.findBit as Callable, [new Uint32Array(2), 0, 64, 1]],
  ];
  for (const [call, good] of calls) {
    call(...good);
    refuses(call, good, 0, [...NOT_WORDS, new Uint32Array(0)]);
    refuses(call, good, 1, NOT_PAGES);
    refuses(call, good.with(1, 64), 2, [...NOT_PAGES, 63]);
    const withVariant = [...good, undefined];
    refuses(call, withVariant, good.length, ['none', 1, null]);
  }
  const find = native.findRuns as Callable;
  const roomless = [new Float64Array(0), new Float64Array(3), new Float32Array(2), undefined];
  const shared = new Float64Array(new SharedArrayBuffer(16));
  refuses(find, calls[0]![1], 3, [...roomless, shared]);
  refuses(native.findBit as Callable, calls[2]![1], 3, [undefined, -1, 0.5, 2 ** 53]);
  for (const call of [native.mergeBits, native.takeBits] as Callable[]) {
    refuses(call, [new Uint32Array(2), new Uint32Array(2)], 0, [...NOT_WORDS, new Uint32Array(4)]);
    refuses(call, [new Uint32Array(2), new Uint32Array(2)], 1, [...NOT_WORDS, new Uint32Array(4)]);
  }
});

test('words that were given away hold no page', () => {
  const words = new Uint32Array(new ArrayBuffer(8));
  structuredClone(words.buffer, { transfer: [words.buffer] });
  expect(native.countBits(words, 0, 0)).toBe(0);
  expect(() => native.countBits(words, 0, 1)).toThrow('must hold one bit per page');
});

import { once } from 'node:events';
import { setImmediate } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DirtyBitmap } from '../../src/page/bitmap.ts';
import { NaiveBitmap } from '../naive/bitmap.ts';

const PAGES = 300;
const page = fc.nat(PAGES);
const range = fc.tuple(page, page).map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const);

const step = fc.oneof(
  fc.tuple(fc.constant('set' as const), range),
  fc.tuple(fc.constant('clear' as const), range),
  fc.tuple(fc.constantFrom('setAll' as const, 'clearAll' as const), range),
);

function sharedWords(pageCount: number): Uint32Array {
  return new Uint32Array(new SharedArrayBuffer(8 * Math.ceil(pageCount / 64)));
}

describe.each([
  ['memory of its own', (pageCount: number) => new DirtyBitmap(pageCount)],
  ['shared memory', (pageCount: number) => new DirtyBitmap(pageCount, sharedWords(pageCount))],
])('in %s', (_, open) => {
  test('does what a set of page indexes does', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: PAGES, max: PAGES + 130 }),
        fc.array(step, { maxLength: 12 }),
        range,
        fc.nat(40),
        (pageCount, steps, [from, to], pages) => {
          const bitmap = open(pageCount);
          const naive = new NaiveBitmap(pageCount);
          for (const [name, [first, end]] of steps) {
            if (name === 'set' || name === 'clear') {
              bitmap[name](first, end - first);
              naive[name](first, end - first);
            } else {
              bitmap[name]();
              naive[name === 'setAll' ? 'set' : 'clear'](0, pageCount);
            }
          }
          expect([...bitmap.words]).toEqual(naive.words());
          expect(bitmap.count()).toBe(naive.pages.size);
          expect(bitmap.count(from, to)).toBe(naive.count(from, to));
          expect(bitmap.isEmpty()).toBe(naive.pages.size === 0);
          expect([...bitmap.runs()]).toEqual(naive.runs(0, pageCount));
          expect(bitmap.endOf(from, pages)).toEqual(naive.endOf(from, pages));
          const runs = new Float64Array(2 * PAGES);
          const found = bitmap.findRuns(from, runs, to);
          const wanted = naive.runs(from, to).flatMap(({ first, count }) => [first, count]);
          expect([...runs.subarray(0, 2 * found)]).toEqual(wanted);
          for (const each of [
            0,
            Math.min(from, pageCount - 1),
            Math.min(to, pageCount - 1),
            pageCount - 1,
          ]) {
            expect(bitmap.has(each)).toBe(naive.pages.has(each));
          }
        },
      ),
    );
  });

  test('merge() adds, takeFrom() moves', () => {
    fc.assert(
      fc.property(fc.array(range), fc.array(range), (ours, theirs) => {
        const [one, two, other] = [open(PAGES), open(PAGES), open(PAGES)];
        for (const [first, end] of ours)
          for (const each of [one, two]) each.set(first, end - first);
        for (const [first, end] of theirs) other.set(first, end - first);
        const both = new NaiveBitmap(PAGES);
        for (const [first, end] of [...ours, ...theirs]) both.set(first, end - first);
        const wasSet = [...other.words];
        one.merge(other);
        expect([...one.words]).toEqual(both.words());
        expect([...other.words]).toEqual(wasSet);
        two.takeFrom(other);
        expect([...two.words]).toEqual(both.words());
        expect(other.isEmpty()).toBe(true);
      }),
    );
  });
});

test('a batch is cut at the page behind the last one it has room for', () => {
  const bitmap = new DirtyBitmap(10_000);
  for (let first = 3; first < 10_000; first += 10) bitmap.set(first, 2);
  const runs = new Float64Array(2 * 256);
  const seen: number[] = [];
  const batches: number[] = [];
  for (let from = 0; from < bitmap.pageCount; ) {
    const { end, count } = bitmap.endOf(from, 255);
    const found = bitmap.findRuns(from, runs, end);
    for (let run = 0; run < found; run++) {
      for (let each = 0; each < runs[2 * run + 1]!; each++) seen.push(runs[2 * run]! + each);
    }
    batches.push(count);
    from = end;
  }
  expect(batches).toEqual([...Array(7).fill(255), 2000 - 7 * 255]);
  expect(seen).toEqual([...bitmap.runs()].flatMap(({ first }) => [first, first + 1]));
});

test('runs() goes on behind the runs it asks for at a time', () => {
  const bitmap = new DirtyBitmap(4096);
  for (let first = 0; first < 4096; first += 2) bitmap.set(first);
  const runs = [...bitmap.runs()];
  expect(runs).toHaveLength(2048);
  expect(runs.every(({ first, count }, index) => first === 2 * index && count === 1)).toBe(true);
});

test('an empty bitmap has no page', () => {
  const bitmap = new DirtyBitmap(0);
  bitmap.setAll();
  expect(bitmap.words).toHaveLength(0);
  expect([bitmap.isEmpty(), bitmap.count(), [...bitmap.runs()]]).toEqual([true, 0, []]);
  expect(bitmap.endOf(0, 1)).toEqual({ end: 0, count: 0 });
  expect(() => bitmap.has(0)).toThrow(RangeError);
});

test.each([1, 31, 32, 33, 63, 64, 65, 100])('bits past %i pages count for nothing', (pageCount) => {
  const words = new Uint32Array(2 * Math.ceil(pageCount / 64)).fill(0xffff_ffff);
  const bitmap = new DirtyBitmap(pageCount, words);
  const full = new NaiveBitmap(pageCount);
  full.set(0, pageCount);
  expect([...words]).toEqual(full.words());
  bitmap.clearAll();
  words.fill(0xffff_ffff);
  expect(bitmap.count()).toBe(pageCount);
  expect([...bitmap.runs()]).toEqual([{ first: 0, count: pageCount }]);
  const other = new DirtyBitmap(pageCount);
  other.merge(bitmap);
  expect([...other.words]).toEqual(full.words());
  other.takeFrom(bitmap);
  expect([...other.words]).toEqual(full.words());
});

test('ranges that are none are refused, and change nothing', () => {
  const bitmap = new DirtyBitmap(100);
  const runs = new Float64Array(2);
  const bad: readonly [number, number][] = [
    [-1, 1],
    [0, 101],
    [100, 1],
    [99, 2],
    [0.5, 1],
    [0, 1.5],
    [Number.NaN, 1],
    [0, Number.NaN],
    [0, -1],
    [2 ** 53, 1],
  ];
  for (const [first, count] of bad) {
    expect(() => bitmap.set(first, count)).toThrow(RangeError);
    expect(() => bitmap.clear(first, count)).toThrow(RangeError);
  }
  for (const [from, to] of [
    [-1, 1],
    [0, 101],
    [2, 1],
    [0.5, 1],
    [0, Number.NaN],
  ] as const) {
    expect(() => bitmap.count(from, to)).toThrow('"from" and "to" must be a range of 100 pages');
    expect(() => bitmap.findRuns(from, runs, to)).toThrow(RangeError);
  }
  for (const each of [-1, 100, 0.5, Number.NaN]) expect(() => bitmap.has(each)).toThrow(RangeError);
  for (const each of [-1, 101, 0.5]) expect(() => bitmap.endOf(each, 1)).toThrow(RangeError);
  for (const each of [-1, 0.5]) expect(() => bitmap.endOf(0, each)).toThrow(RangeError);
  expect(() => bitmap.findRuns(0, new Float64Array(1))).toThrow('two elements per run');
  expect(() => bitmap.merge(new DirtyBitmap(99))).toThrow('must have 100 pages: has 99');
  expect(() => bitmap.takeFrom(new DirtyBitmap(101))).toThrow('must have 100 pages: has 101');
  expect(bitmap.isEmpty()).toBe(true);
});

test('sizes that do not fit are refused', () => {
  for (const pageCount of [-1, 0.5, Number.NaN, 2 ** 37 + 1, 2 ** 40]) {
    expect(() => new DirtyBitmap(pageCount)).toThrow('"pageCount" must be an integer from 0 to');
  }
  for (const length of [0, 2, 3, 5, 6]) {
    expect(() => new DirtyBitmap(100, new Uint32Array(length))).toThrow('must have 4 elements');
  }
  const aside = new Uint32Array(new ArrayBuffer(24), 4, 4);
  expect(() => new DirtyBitmap(100, aside)).toThrow('aligned to 8 bytes');
});

test('page indexes above 2^32 are found', () => {
  const pageCount = 2 ** 33 + 77; // a gigabyte of zeros, of which a few pages are touched
  const bitmap = new DirtyBitmap(pageCount);
  bitmap.set(2 ** 33 - 1, 70);
  bitmap.set(pageCount - 1);
  const from = 2 ** 33 - 1_000_000;
  expect(bitmap.has(2 ** 33 + 68)).toBe(true);
  expect(bitmap.count(from)).toBe(71);
  const runs = new Float64Array(6);
  expect(bitmap.findRuns(from, runs)).toBe(2);
  expect([...runs]).toEqual([2 ** 33 - 1, 70, pageCount - 1, 1, 0, 0]);
  expect(bitmap.endOf(from, 70)).toEqual({ end: 2 ** 33 + 69, count: 70 });
});

/** A thread that sets each page that is `own` modulo 2 again as soon as it was taken. */
const SETTER = `
  const { parentPort, workerData } = require('node:worker_threads');
  const { words, times, own } = workerData;
  parentPort.once('message', () => {
    for (let page = own, left = times; left > 0; page = (page + 2) % (32 * words.length)) {
      const bit = 1 << (page & 31);
      if ((Atomics.load(words, page >>> 5) & bit) !== 0) continue;
      Atomics.or(words, page >>> 5, bit);
      left--;
    }
    parentPort.postMessage('done');
  });
  parentPort.postMessage('ready');
`;

test('takeFrom() loses no page that other threads set, and finds none twice', {
  timeout: 60_000,
}, async () => {
  const [pages, times] = [1024, 100_000];
  const shared = new DirtyBitmap(pages, sharedWords(pages));
  const workers = [0, 1].map(
    (own) => new Worker(SETTER, { eval: true, workerData: { words: shared.words, times, own } }),
  );
  try {
    await Promise.all(workers.map((worker) => once(worker, 'message')));
    let running = workers.length;
    for (const worker of workers) {
      worker.once('message', () => {
        running--;
      });
      worker.postMessage('go');
    }
    const now = new DirtyBitmap(pages);
    let taken = 0;
    for (let isOver = false; !isOver; await setImmediate()) {
      isOver = running === 0;
      for (let turn = 0; turn < 100; turn++) {
        now.clearAll();
        now.takeFrom(shared);
        taken += now.count();
      }
    }
    expect(taken).toBe(workers.length * times);
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
});

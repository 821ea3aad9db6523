import fc from 'fast-check';
import { expect, test } from 'vitest';
import { DirtyBitmap } from '../../src/page/bitmap.ts';
import { RoundChoice } from '../../src/page/round.ts';

const PAGES = 70;

function bitmapOf(pages: Iterable<number>): DirtyBitmap {
  const bitmap = new DirtyBitmap(PAGES);
  for (const page of pages) bitmap.set(page);
  return bitmap;
}

function pagesOf(bitmap: DirtyBitmap): number[] {
  return Array.from({ length: PAGES }, (_, page) => page).filter((page) => bitmap.has(page));
}

/** Few pages, so that some are dirty again and again. */
const rounds = fc.array(fc.uniqueArray(fc.oneof(fc.nat(7), fc.nat(PAGES - 1)), { maxLength: 20 }), {
  maxLength: 12,
});

test('what is hot is left, all else is sent, and nothing is lost', () => {
  fc.assert(
    fc.property(rounds, (dirtyRounds) => {
      const choice = new RoundChoice(PAGES);
      let left = new Set<number>();
      for (const [round, dirtyPages] of dirtyRounds.entries()) {
        const history = dirtyRounds.slice(Math.max(0, round - 2), round + 1);
        const isHot = (page: number): boolean =>
          history.length === 3 && history.every((each) => each.includes(page));
        const all = [...new Set([...dirtyPages, ...left])].sort((a, b) => a - b);
        const dirty = bitmapOf(dirtyPages);
        choice.next(dirty);
        expect(pagesOf(dirty)).toEqual(all.filter((page) => !isHot(page)));
        expect(pagesOf(choice.left)).toEqual(all.filter(isHot));
        left = new Set(all.filter(isHot));
      }
      const last = bitmapOf([1, 2]);
      choice.last(last);
      expect(pagesOf(last)).toEqual([...new Set([1, 2, ...left])].sort((a, b) => a - b));
      expect(choice.left.isEmpty()).toBe(true);
    }),
  );
});

test('a page that is always dirty is sent three times, however many rounds there are', () => {
  const choice = new RoundChoice(PAGES);
  let sent = 0;
  for (let round = 0; round < 20; round++) {
    const dirty = bitmapOf([5]);
    choice.next(dirty);
    sent += dirty.count();
  }
  const dirty = bitmapOf([]);
  choice.last(dirty);
  expect(sent + dirty.count()).toBe(3);
});

test('bitmaps that do not fit are refused', () => {
  const choice = new RoundChoice(PAGES);
  const shared = new DirtyBitmap(PAGES, new Uint32Array(new SharedArrayBuffer(16)));
  for (const call of ['next', 'last'] as const) {
    expect(() => choice[call](new DirtyBitmap(PAGES + 1))).toThrow('must have 70 pages: has 71');
    expect(() => choice[call](shared)).toThrow(TypeError);
  }
});

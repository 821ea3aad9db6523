import { expect, test } from 'vitest';
import { AskedPages } from '../../src/migration/asked-pages.ts';
import { createPrng, integerBelow } from '../support/prng.ts';

const LAYOUT = {
  pageBits: 12,
  hasFooter: true,
  sectionId: 2,
  blocks: [
    { name: 'pc.ram', usedBytes: 200 * 4096 },
    { name: 'vga.vram', usedBytes: 10 * 4096 },
  ],
};

const request = (block: string, first: number, count = 1) => {
  return { block, offsetBytes: first * 4096, lengthBytes: count * 4096 };
};

test('what was asked for is missing until it comes, and not if it came before', () => {
  const asked = new AskedPages(LAYOUT);
  asked.take(0, [{ first: 3, count: 2 }]);
  asked.ask(request('pc.ram', 2, 4));
  expect(asked.missing).toBe(2);
  asked.ask(request('pc.ram', 2));
  asked.ask(request('vga.vram', 2));
  expect(asked.missing).toBe(3);
  asked.take(0, [{ first: 0, count: 10 }]);
  expect(asked.missing).toBe(1);
  asked.take(1, [{ first: 2, count: 1 }]);
  expect(asked.missing).toBe(0);
});

test('what the guest does not have is never missing', () => {
  const asked = new AskedPages(LAYOUT);
  asked.ask(request('nothing', 0));
  asked.ask(request('vga.vram', 10, 2 ** 20));
  asked.ask(request('vga.vram', 2 ** 45));
  asked.ask(request('vga.vram', 9, 2 ** 20));
  expect(asked.missing).toBe(1);
});

test.each([1, 2, 3, 4, 5, 6])(
  'is what sets say, whatever comes in which order: seed %i',
  (seed) => {
    const random = createPrng(seed);
    const asked = new AskedPages(LAYOUT);
    const came = new Set<string>();
    const missing = new Set<string>();
    for (let turn = 0; turn < 500; turn++) {
      const block = integerBelow(random, 2);
      const { name, usedBytes } = LAYOUT.blocks[block]!;
      const first = integerBelow(random, usedBytes / 4096);
      const count = 1 + integerBelow(random, Math.min(5, usedBytes / 4096 - first));
      const pages = Array.from({ length: count }, (_, index) => `${block}:${first + index}`);
      if (random() < 0.5) {
        asked.ask(request(name, first, count));
        for (const page of pages) if (!came.has(page)) missing.add(page);
      } else {
        asked.take(block, [{ first, count }]);
        for (const page of pages) came.add(page);
        for (const page of pages) missing.delete(page);
      }
      expect(asked.missing).toBe(missing.size);
    }
  },
);

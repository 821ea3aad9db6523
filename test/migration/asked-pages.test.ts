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
    { name: 'rom', usedBytes: 3 * 4096 + 1 },
  ],
};

const request = (block: string, page: number) => {
  return { block, offsetBytes: page * 4096, lengthBytes: 4096 };
};

test('what was asked for is missing until it comes, and not if it came before', () => {
  const asked = new AskedPages(LAYOUT);
  asked.take({ block: 0, runs: [{ first: 3, count: 2 }] });
  for (let page = 2; page < 6; page++) asked.ask(request('pc.ram', page));
  expect(asked.missing).toBe(2);
  asked.ask(request('pc.ram', 2));
  asked.ask(request('vga.vram', 2));
  expect(asked.missing).toBe(3);
  asked.take({ block: 0, runs: [{ first: 0, count: 10 }] });
  expect(asked.missing).toBe(1);
  asked.take({ block: 0, runs: [{ first: 0, count: 10 }] });
  asked.take({ block: 1, runs: [{ first: 2, count: 1 }] });
  expect(asked.missing).toBe(0);
});

test('the last page of a block may be in use in part', () => {
  const asked = new AskedPages(LAYOUT);
  asked.ask(request('rom', 3));
  expect(asked.missing).toBe(1);
  asked.take({ block: 2, runs: [{ first: 3, count: 1 }] });
  expect(asked.missing).toBe(0);
});

test.each([
  ['in no block', request('nothing', 0)],
  ['behind the end of its block', request('vga.vram', 10)],
  ['far behind it', request('vga.vram', 2 ** 45)],
  ['of many pages', { block: 'vga.vram', offsetBytes: 0, lengthBytes: 2 ** 32 - 1 }],
  ['of parts of two', { block: 'vga.vram', offsetBytes: 100, lengthBytes: 4096 }],
  ['of nothing', { block: 'vga.vram', offsetBytes: 0, lengthBytes: 0 }],
])('what is no page is never missing: %s', (_, asking) => {
  const asked = new AskedPages(LAYOUT);
  asked.ask(asking);
  expect(asked.missing).toBe(0);
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
        for (let page = first; page < first + count; page++) asked.ask(request(name, page));
        for (const page of pages) if (!came.has(page)) missing.add(page);
      } else {
        asked.take({ block: block, runs: [{ first, count }] });
        for (const page of pages) came.add(page);
        for (const page of pages) missing.delete(page);
      }
      expect(asked.missing).toBe(missing.size);
    }
  },
);

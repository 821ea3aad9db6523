import { expect, test } from 'vitest';
import { Sealed, SLOT_ROOM_BYTES } from '../../src/native.ts';
import { pagesOf } from '../../src/page/batch-map.ts';
import { LITERAL_BYTES_MAX } from '../../src/page/encode.ts';
import { PreemptReader } from '../../src/stream/preempt-reader.ts';
import { createPrng, integerBelow } from '../support/prng.ts';
import { PAGE_BYTES, StreamBuilder } from '../support/qemu-stream.ts';
import { cutAnywhere } from './support.ts';

const BLOCKS = [
  { name: 'pc.ram', pages: 40_000 },
  { name: 'vga.vram', pages: 64 },
];
const LAYOUT = {
  pageBits: 12,
  hasFooter: true,
  sectionId: 2,
  blocks: BLOCKS.map(({ name, pages }) => ({ name, usedBytes: pages * PAGE_BYTES })),
};
const EOS = 0x10;

/** Pages as a batch says, and what it holds of their contents, in its order. */
type Batch = { readonly pages: readonly string[]; readonly contents: Buffer };

/** Reads in chunks; now and then there is no slot. */
function readAll(chunks: Iterable<Uint8Array>, isBusy = () => false): Batch[] {
  const found: Batch[] = [];
  const reader = new PreemptReader(LAYOUT, {
    takeSlot: () => {
      const room = SLOT_ROOM_BYTES + LITERAL_BYTES_MAX;
      return isBusy() ? undefined : new Uint8Array(new ArrayBuffer(room));
    },
    pages: (slot, sealed) => {
      const end = sealed[Sealed.end]!;
      const { block, runs } = pagesOf(slot.subarray(sealed[Sealed.start], end));
      const pages = runs.flatMap(({ first, count }) =>
        Array.from({ length: count }, (_, index) => `${block}:${first + index}`),
      );
      const literalBytes = sealed[Sealed.literalBytes]!;
      found.push({ pages, contents: Buffer.from(slot.slice(end - literalBytes, end)) });
    },
  });
  for (const chunk of chunks) {
    for (let at = 0; at < chunk.length; ) at = reader.push(chunk, at);
  }
  return found;
}

/** Different pages with contents of their own, as the guest might want them. */
function wantedPages(seed: number) {
  const random = createPrng(seed);
  const builder = new StreamBuilder({ blocks: BLOCKS });
  const pages = new Map<string, Buffer>();
  while (pages.size < 80) {
    const block = random() < 0.8 ? 0 : 1;
    const page = integerBelow(random, BLOCKS[block]!.pages);
    const key = `${block}:${page}`;
    if (pages.has(key)) continue;
    const bytes = Buffer.from(Array.from({ length: PAGE_BYTES }, () => integerBelow(random, 256)));
    builder.page(block, page, { kind: 'page', bytes }, random() < 0.5);
    pages.set(key, bytes);
  }
  return { random, pages, bytes: builder.u64(EOS).bytes() };
}

test.each([1, 2, 3, 4, 5, 6, 7, 8])('every page once, however it is cut: seed %i', (seed) => {
  const { random, pages, bytes } = wantedPages(seed);
  const found = readAll(cutAnywhere(bytes, random, 9000), () => random() < 0.3);
  expect(found.flatMap((batch) => batch.pages)).toEqual([...pages.keys()]);
  const contents = Buffer.concat(found.map((batch) => batch.contents));
  expect(contents.equals(Buffer.concat([...pages.values()]))).toBe(true);
});

test('what is whole is given at once: there may be nothing more for long', () => {
  const builder = new StreamBuilder({ blocks: BLOCKS });
  const chunks = [7, 5, 9].map((page, index) => {
    const before = builder.bytes().length;
    builder.page(0, page, { kind: 'page', bytes: Buffer.alloc(PAGE_BYTES, index + 1) });
    return builder.bytes().slice(before);
  });
  const found = readAll(chunks);
  expect(found.map((batch) => batch.pages)).toEqual([['0:7'], ['0:5'], ['0:9']]);
});

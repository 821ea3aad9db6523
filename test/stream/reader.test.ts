import { expect, test } from 'vitest';
import { StreamError } from '../../src/errors.ts';
import { createPrng } from '../support/prng.ts';
import { loadStream, PAGE_BYTES, randomStream, StreamBuilder } from '../support/qemu-stream.ts';
import { cutAnywhere, readAll, shuffledInEpochs, writeAll } from './support.ts';

const SEEDS = Array.from({ length: 40 }, (_, index) => index + 1);

test.each(SEEDS)('in the order of the stream the output is the input, seed %i', async (seed) => {
  const random = createPrng(seed);
  const hasFooter = seed % 4 !== 0;
  const input = randomStream(random, { hasFooter });
  const chunkBytes = seed % 3 === 0 ? 7 : 5000;
  const { found, layout } = readAll(cutAnywhere(input, random, chunkBytes), {
    flushEachChunk: seed % 2 === 0,
    literalBytes: seed % 5 === 0 ? 8 * PAGE_BYTES : 64 * PAGE_BYTES,
  });
  const order = found.map((_, index) => index);
  const output = await writeAll(found, layout, order, {
    codec: seed % 2 === 0 ? 'zstd' : 'lz4',
    storeSlots: (seed % 3) * 20,
  });
  expect(Buffer.compare(output, input)).toBe(0);
});

test.each(SEEDS)(
  'in any order that keeps epochs QEMU loads the same memory, seed %i',
  async (seed) => {
    const random = createPrng(seed);
    const hasFooter = seed % 4 !== 0;
    const input = randomStream(random, { hasFooter });
    const { found, layout } = readAll([input], { literalBytes: 4 * PAGE_BYTES });
    const output = await writeAll(found, layout, shuffledInEpochs(found, random));
    const expected = loadStream(input, { hasFooter });
    const loaded = loadStream(output, { hasFooter });
    expect(loaded.pages).toEqual(expected.pages);
    expect(loaded.commands).toEqual(expected.commands);
    expect(Buffer.compare(loaded.tail, expected.tail)).toBe(0);
  },
);

test('order that breaks epochs is noticed by the check above', async () => {
  const random = createPrng(7);
  const input = randomStream(random);
  const { found, layout } = readAll([input], { literalBytes: 4 * PAGE_BYTES });
  const lawless = found.map((item) => ({ ...item, epoch: item.kind === 'pages' ? 3 : item.epoch }));
  const output = await writeAll(lawless, layout, shuffledInEpochs(lawless, random));
  let same = true;
  try {
    expect(loadStream(output).pages).toEqual(loadStream(input).pages);
  } catch {
    same = false;
  }
  expect(same).toBe(false);
});

test('every cut of a small stream into two chunks gives the same', async () => {
  const builder = new StreamBuilder({ blocks: [{ name: 'pc.ram', pages: 3 }] });
  builder.header().subsection('configuration/uuid', new Uint8Array(16)).command(1).ramStart();
  builder.partBegin().page(0, 0, { kind: 'page', bytes: new Uint8Array(PAGE_BYTES).fill(3) });
  builder.page(0, 2, { kind: 'zero' }).partEnd();
  builder
    .partBegin(3)
    .page(0, 2, { kind: 'xbzrle', bytes: Uint8Array.of(1, 2, 3) })
    .partEnd();
  const input = builder.tail(Uint8Array.of(1, 2, 3)).bytes();
  for (let cut = 0; cut <= input.length; cut++) {
    const { found, layout } = readAll([input.slice(0, cut), input.slice(cut)]);
    const order = found.map((_, index) => index);
    const output = await writeAll(found, layout, order, { codec: 'none' });
    expect(Buffer.compare(output, input), `cut at ${cut}`).toBe(0);
  }
});

const BLOCKS = [
  { name: 'pc.ram', pages: 8 },
  { name: 'rom', pages: 2 },
];

test('an unknown section makes the rest verbatim, and QEMU still knows its block', async () => {
  const filled = (value: number) => {
    const bytes = Uint8Array.from({ length: PAGE_BYTES }, (_, index) => value + (index % 7));
    return { kind: 'page', bytes } as const;
  };
  const builder = new StreamBuilder({ blocks: BLOCKS }).header().ramStart();
  builder.partBegin();
  for (let page = 0; page < 8; page++) builder.page(0, page, filled(page + 1));
  builder.page(1, 0, filled(77)).partEnd();
  const known = builder.bytes().length;
  builder.raw([2]).u32(99).raw(new Uint8Array(50));
  builder.partBegin().page(1, 1, { kind: 'zero' }).partEnd();
  const input = builder.bytes();
  const { found, layout, reader } = readAll([input], { literalBytes: 2 * PAGE_BYTES });
  expect(reader.fallback).toContain('type 2');
  // The last batch comes first: QEMU's last block would be another one.
  const pages = found.flatMap((item, index) => (item.kind === 'pages' ? [index] : []));
  const order = found.map((_, index) => index);
  order.splice(order.indexOf(pages[0]!), pages.length, ...pages.toReversed());
  const output = await writeAll(found, layout, order);
  const tail = input.slice(known);
  expect(Buffer.compare(output.slice(-tail.length), tail)).toBe(0);
  const end = Buffer.from([3, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0x10, 0x7e, 0, 0, 0, 2]);
  const head = Buffer.concat([output.slice(0, output.length - tail.length), end]);
  const loaded = loadStream(new Uint8Array(head));
  expect(loaded.pages.get('rom:0')!.length).toBe(2);
  const inOrder = await writeAll(
    found,
    layout,
    found.map((_, index) => index),
  );
  expect(Buffer.compare(inOrder, input)).toBe(0);
});

test.each([
  ['post-copy discard', 6],
  ['packaged', 7],
  ['listen', 4],
])('%s makes the rest verbatim as post-copy', async (_, command) => {
  const builder = new StreamBuilder({ blocks: BLOCKS }).header().command(1);
  const advice = new Uint8Array(16);
  advice[6] = 0x10;
  advice[14] = 0x10;
  builder.command(3, advice).ramStart().partBegin().page(0, 1, { kind: 'zero' }).partEnd();
  builder.command(command, [0, 0, 0, 1]).raw([1, 2, 3]);
  const { found, layout, reader } = readAll([builder.bytes()]);
  expect(reader.fallback).toBe('post-copy');
  const output = await writeAll(
    found,
    layout,
    found.map((__, index) => index),
  );
  expect(Buffer.compare(output, builder.bytes())).toBe(0);
});

test('page sizes, addresses, early device state and dirty bitmaps are followed', async () => {
  const builder = new StreamBuilder({ blocks: BLOCKS }).header();
  const names = Buffer.from('\0\0\0\x01\x0fx-ignore-shared', 'latin1');
  builder.subsection('configuration/capabilities', names);
  builder.section(4, 5, 'virtio-mem-device-early', 1);
  builder.u64(0).u64(1024).u64(8).u32(0).u64(0).raw(new Uint8Array(16)).footer(5);
  builder.section(1, 7, 'dirty-bitmap', 1).raw([0x1c]).text('node').text('map').u32(65536).raw([0]);
  builder.raw([0x01]).footer(7);
  builder.ramStart(() => [0, 0, 0, 0, 0, 0, 0x20, 0]);
  builder.partBegin().page(0, 0, { kind: 'zero' }).partEnd();
  builder.raw([2]).u32(7).raw([0x40]).u64(0).u32(8).u64(5).raw([1, 2, 3, 4, 5]).raw([1]).footer(7);
  builder.partBegin(3).page(1, 0, { kind: 'zero' }).partEnd().tail(new Uint8Array(3));
  const { found, layout, reader } = readAll([builder.bytes()]);
  expect(reader.fallback).toBeUndefined();
  expect(layout!.blocks.map((block) => block.name)).toEqual(['pc.ram', 'rom']);
  const output = await writeAll(
    found,
    layout,
    found.map((_, index) => index),
  );
  expect(Buffer.compare(output, builder.bytes())).toBe(0);
});

test('blocks with page sizes of their own are told from those without', () => {
  const builder = new StreamBuilder({ blocks: BLOCKS }).header();
  const advice = new Uint8Array(16);
  advice[5] = 0x20;
  advice[6] = 0x10;
  builder.command(3, advice).ramStart((block) => {
    return block.name === 'rom' ? [0, 0, 0, 0, 0, 0x20, 0, 0] : [];
  });
  builder.partBegin().page(1, 1, { kind: 'zero' }).partEnd();
  const { layout, reader } = readAll([builder.bytes()]);
  expect(reader.fallback).toBeUndefined();
  expect(layout!.blocks.length).toBe(2);
});

test('what is no migration stream is refused with its place', () => {
  expect(() => readAll([Buffer.from('GET / HTTP/1.1')])).toThrow(StreamError);
  expect(() => readAll([Buffer.from('Q')])).not.toThrow();
  expect(() => readAll([Buffer.from('QEVX')])).toThrow(/5145564d/);
  const old = new StreamBuilder({ blocks: BLOCKS }).u32(0x5145564d).u32(2).bytes();
  expect(() => readAll([old])).toThrow(/version is 2/);
  const bad = new StreamBuilder({ blocks: BLOCKS }).header().ramStart();
  bad.partBegin().u64(0x8n | 0x20n);
  expect(() => readAll([bad.bytes()])).toThrow(/ERR_STREAM_PAGE|did not announce/);
});

test('a recovered post-copy, which has no header, is carried verbatim', () => {
  const builder = new StreamBuilder({ blocks: BLOCKS }).command(10, Buffer.from('\x06pc.ram'));
  const { reader, found } = readAll([builder.bytes().slice(0, 1), builder.bytes().slice(1)]);
  expect(reader.fallback).toBe('post-copy');
  expect(
    Buffer.concat(found.map((item) => (item.kind === 'bytes' ? item.data : new Uint8Array()))),
  ).toEqual(Buffer.from(builder.bytes()));
});

test('a stream that stops before the end of RAM is truncated', () => {
  const builder = new StreamBuilder({ blocks: BLOCKS }).header().ramStart().partBegin();
  const { reader } = readAll([builder.bytes()]);
  expect(() => reader.end()).toThrow(/ended early/);
});

import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { Decoded, Sealed, SLOT_ROOM_BYTES } from '../../src/native.ts';
import { pagesOf as runsOf } from '../../src/page/batch-map.ts';
import type { RamLayout } from '../../src/page/block.ts';
import { BatchDecoder } from '../../src/page/decode.ts';
import { BatchEncoder, LITERAL_BYTES_MAX } from '../../src/page/encode.ts';
import { StreamReader } from '../../src/stream/reader.ts';
import type { BytesPlace } from '../../src/stream/sink.ts';
import { createPrng, integerBelow } from '../support/prng.ts';
import { PAGE_BYTES, postcopyAdvice, StreamBuilder } from '../support/qemu-stream.ts';
import { cutAnywhere } from './support.ts';

const BLOCKS = [
  { name: 'pc.ram', pages: 40_000 },
  { name: 'vga.vram', pages: 64 },
];
const SEEDS = Array.from({ length: 12 }, (_, index) => index + 1);
const COMMAND = { returnPath: 1, ping: 2, advise: 3, discard: 6, package: 7 } as const;

function begin(): StreamBuilder {
  const builder = new StreamBuilder({ blocks: BLOCKS }).header();
  builder.command(COMMAND.returnPath).command(COMMAND.ping, [0, 0, 0, 1]);
  return builder.command(COMMAND.advise, postcopyAdvice(PAGE_BYTES)).ramStart();
}

/** What QEMU writes when it switches: what the destination must forget, and the package. */
function switchOver(builder: StreamBuilder, packageBytes = 700): StreamBuilder {
  builder.command(COMMAND.discard, [0, 6, ...Buffer.from('pc.ram'), ...new Uint8Array(17)]);
  builder.command(COMMAND.ping, [0, 0, 0, 2]);
  builder.command(COMMAND.package, [0, 0, packageBytes >> 8, packageBytes & 255]);
  // It holds what looks like sections; nobody may read it.
  builder.raw(new Uint8Array(packageBytes).fill(2));
  return builder.command(COMMAND.ping, [0, 0, 0, 4]);
}

type Expected = Map<string, string>;

interface Postcopy {
  readonly stream: Uint8Array;
  /** Contents of the pages behind the switch, by block and page. */
  readonly pages: Expected;
  /** Where the switch begins. */
  readonly switchAt: number;
}

/** A post-copy made of a seed: pages in the order in which a guest might ask for them. */
function randomPostcopy(seed: number): Postcopy {
  const random = createPrng(seed);
  const builder = begin().partBegin();
  for (let page = 0; page < 5; page++) builder.page(0, page, { kind: 'zero' });
  builder.partEnd();
  const switchAt = builder.bytes().length;
  switchOver(builder).partBegin();
  const pages: Expected = new Map();
  for (let turn = 0; turn < 60; turn++) {
    const block = random() < 0.8 ? 0 : 1;
    const first = integerBelow(random, BLOCKS[block]!.pages);
    const count = 1 + integerBelow(random, turn % 10 === 0 ? 300 : 12);
    for (let page = first; page < Math.min(first + count, BLOCKS[block]!.pages); page++) {
      if (pages.has(`${block}:${page}`)) continue;
      if (random() < 0.02) builder.partEnd().partBegin();
      const isZero = random() < 0.5;
      const bytes = Uint8Array.from(
        { length: PAGE_BYTES },
        (_, at) => page + at * block + (at % 7),
      );
      builder.page(block, page, isZero ? { kind: 'zero' } : { kind: 'page', bytes });
      const content = isZero ? new Uint8Array(PAGE_BYTES) : bytes;
      pages.set(`${block}:${page}`, Buffer.from(content).toString('base64'));
    }
  }
  // The last page may come in the END section.
  builder.partEnd().partBegin(3).partEnd().raw([0]);
  return { stream: builder.bytes(), pages, switchAt };
}

type Found =
  | { readonly kind: 'bytes'; data: Buffer; place: BytesPlace }
  | { readonly kind: 'pages'; readonly batch: Buffer; sealed: Int32Array; isPostcopy: boolean }
  | { readonly kind: 'switch' }
  | { readonly kind: 'end' };

/** Slots that are used again: what is found has copies. */
const idle: Uint8Array[] = [];

function newSlot(): Uint8Array {
  return new Uint8Array(new ArrayBuffer(SLOT_ROOM_BYTES + LITERAL_BYTES_MAX));
}

interface ReadOptions {
  readonly isBusy?: () => boolean;
  readonly batchPages?: () => number;
}

/** Reads a whole stream; bytes that come in pieces are joined. */
function readAll(
  chunks: Iterable<Uint8Array>,
  { isBusy = () => false, batchPages }: ReadOptions = {},
): { found: Found[]; layout: RamLayout | undefined; reader: StreamReader; unused: number } {
  const found: Found[] = [];
  let layout: RamLayout | undefined;
  let isPostcopy = false;
  let slots = 0;
  const reader = new StreamReader(
    {
      takeSlot: () => {
        if (isBusy()) return undefined;
        slots++;
        return idle.pop() ?? newSlot();
      },
      layout: (seen) => {
        layout = seen;
      },
      bytes: (data, place) => {
        const last = found.at(-1);
        if (last?.kind !== 'bytes') found.push({ kind: 'bytes', data: Buffer.from(data), place });
        else {
          last.data = Buffer.concat([last.data, data]);
          last.place = { ...place, isInsideBefore: last.place.isInsideBefore };
        }
      },
      pages: (slot, sealed) => {
        slots--;
        const batch = Buffer.from(slot.slice(sealed[Sealed.start], sealed[Sealed.end]));
        found.push({ kind: 'pages', batch, sealed: sealed.slice(), isPostcopy });
        idle.push(slot);
      },
      epoch: () => {},
      postcopy: (slot) => {
        if (isBusy()) return false;
        if (slot !== undefined) {
          slots--;
          idle.push(slot);
        }
        isPostcopy = true;
        found.push({ kind: 'switch' });
        return true;
      },
      end: () => found.push({ kind: 'end' }),
      ...(batchPages && { batchPages }),
    },
    { readsPostcopy: true },
  );
  for (const chunk of chunks) {
    for (let at = 0; at < chunk.length; ) at = reader.push(chunk, at);
  }
  return { found, layout, reader, unused: slots };
}

/** Pages of a batch, in its order, with their contents. */
async function pagesOf(
  { batch, sealed }: { readonly batch: Buffer; readonly sealed: Int32Array },
  layout: RamLayout,
): Promise<[string, string][]> {
  const encoder = new BatchEncoder({ codec: 'lz4', threads: 1, now: () => 0 });
  const slot = newSlot();
  slot.set(batch, sealed[Sealed.start]);
  const { buffer, start, end } = await encoder.encode(slot, sealed, 0);
  const decoder = new BatchDecoder(layout, 0, { isOrdered: false });
  const { output, decoded } = await decoder.decode(new Uint8Array(buffer.slice(start, end)), 0);
  const records = output.slice(decoded[Decoded.firstRecord], decoded[Decoded.end]);
  const view = new DataView(records.buffer);
  const pages: [string, string][] = [];
  let block = decoded[Decoded.firstBlock]!;
  for (let at = 0; at < records.length; ) {
    const header = view.getBigUint64(at);
    at += 8;
    if ((header & 0x20n) === 0n) {
      const nameBytes = records[at]!;
      const name = Buffer.from(records.slice(at + 1, at + 1 + nameBytes)).toString();
      block = BLOCKS.findIndex((each) => each.name === name);
      at += 1 + nameBytes;
    }
    const isZero = (header & 2n) !== 0n;
    const bytes = isZero ? new Uint8Array(PAGE_BYTES) : records.slice(at, at + PAGE_BYTES);
    pages.push([`${block}:${header >> 12n}`, Buffer.from(bytes).toString('base64')]);
    at += isZero ? 1 : PAGE_BYTES;
  }
  return pages;
}

test.each(SEEDS)('every page once, in batches of one block, ascending: seed %i', async (seed) => {
  const { stream, pages, switchAt } = randomPostcopy(seed);
  const { found, layout, reader } = readAll([stream]);
  const seen: Expected = new Map();
  for (const item of found) {
    if (item.kind !== 'pages' || !item.isPostcopy) continue;
    const batch = await pagesOf(item, layout!);
    expect(batch.length).toBeLessThanOrEqual(128);
    const numbers = batch.map(([key]) => Number(key.split(':')[1]));
    expect(new Set(batch.map(([key]) => key.split(':')[0])).size).toBe(1);
    expect(numbers).toEqual([...new Set(numbers)].sort((one, other) => one - other));
    expect(numbers.at(-1)! - numbers[0]!).toBeLessThan(32_768);
    for (const [key, content] of batch) {
      expect(seen.has(key)).toBe(false);
      seen.set(key, content);
    }
  }
  expect(seen).toEqual(pages);
  expect(found.at(-1)).toEqual({ kind: 'end' });
  expect(reader.isPastMemory).toBe(true);
  expect(reader.fallback).toBeUndefined();
  expect(reader.offsetBytes).toBe(stream.length);
  expect(() => reader.end()).not.toThrow();
  // All bytes that are no pages, in their places; the package among them.
  const at = found.findIndex(({ kind }) => kind === 'switch');
  const after = found.slice(at).flatMap((item) => (item.kind === 'bytes' ? [item.data] : []));
  const packageEnd = switchAt + switchOver(new StreamBuilder({ blocks: BLOCKS })).bytes().length;
  expect(after[0]).toEqual(Buffer.from(stream.slice(switchAt, packageEnd)));
  expect(after.slice(1)).toEqual([
    Buffer.from([3, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0x10, 0x7e, 0, 0, 0, 2, 0]),
  ]);
});

/** What was found, short enough to be compared. */
function digestsOf(found: readonly Found[]): string[] {
  return found.map((item) => {
    const bytes = item.kind === 'bytes' ? item.data : item.kind === 'pages' ? item.batch : '';
    const rest = JSON.stringify({ ...item, data: undefined, batch: undefined });
    return `${rest} ${bytes.length} ${createHash('sha1').update(bytes).digest('hex')}`;
  });
}

test.each(SEEDS)('however it is cut, and however often there is no slot: seed %i', (seed) => {
  const random = createPrng(seed);
  const { stream } = randomPostcopy(seed);
  const whole = readAll([stream]);
  const chunkBytes = [40, 300, 4096, 100_000][seed % 4]!;
  const cut = readAll(cutAnywhere(stream, random, chunkBytes));
  expect(digestsOf(cut.found)).toEqual(digestsOf(whole.found));
  const isBusy = () => random() < 0.5;
  const halting = readAll(cutAnywhere(stream, random, chunkBytes), { isBusy });
  expect(digestsOf(halting.found)).toEqual(digestsOf(whole.found));
  // No slot is lost at the switch.
  for (const { unused } of [whole, cut, halting]) expect(unused).toBeLessThanOrEqual(1);
});

test('every cut of a small post-copy into two chunks gives the same', () => {
  const builder = switchOver(begin(), 20).partBegin();
  builder.page(0, 9, { kind: 'zero' }).page(0, 7, { kind: 'zero' });
  builder.page(1, 3, { kind: 'page', bytes: new Uint8Array(PAGE_BYTES).fill(251) }).partEnd();
  const stream = builder.partBegin(3).page(0, 8, { kind: 'zero' }).partEnd().raw([0]).bytes();
  const whole = digestsOf(readAll([stream]).found);
  const rawFrom = stream.indexOf(251);
  for (let cut = 1; cut < stream.length; cut++) {
    // Inside of a page one cut is as another.
    if (cut > rawFrom + 20 && cut < rawFrom + PAGE_BYTES - 20) continue;
    const { found } = readAll([stream.slice(0, cut), stream.slice(cut)]);
    expect(digestsOf(found), `cut at ${cut}`).toEqual(whole);
  }
});

const REFUSED = expect.objectContaining({ code: 'ERR_STREAM_POSTCOPY' });

test.each([
  ['2 MiB for all of memory', 2 * 1024 * 1024],
  ['several sizes', 2 * 1024 * 1024 + PAGE_BYTES],
  ['64 KiB', 65_536],
])('a post-copy of huge pages is left as it is: %s', (_, hostBytes) => {
  const builder = new StreamBuilder({ blocks: BLOCKS }).header().command(COMMAND.returnPath);
  builder.command(COMMAND.advise, postcopyAdvice(hostBytes));
  const left: string[] = [];
  const reader = new StreamReader(
    {
      takeSlot: () => undefined,
      layout: () => {},
      bytes: () => {},
      pages: () => {},
      epoch: () => {},
      postcopy: () => true,
      leavesPostcopy: (why) => void left.push(why),
    },
    { readsPostcopy: true },
  );
  expect(reader.push(builder.bytes(), 0)).toBe(builder.bytes().length);
  expect(left).toEqual([expect.stringContaining('larger pages')]);
  // Its first discard is not understood any more, as without staging.
  const discard = Uint8Array.of(8, 0, 6, 0, 1, 0);
  expect(reader.push(discard, 0)).toBe(discard.length);
  expect(reader.fallback).toBe('post-copy');
});

test.each([
  ['a section that is not known', (builder: StreamBuilder) => builder.raw([2]).u32(99)],
  ['a section of device state', (builder: StreamBuilder) => builder.section(4, 9, 'cpu', 1)],
  [
    'a record that QEMU does not send then',
    (builder: StreamBuilder) => builder.partBegin().u64(0x80n),
  ],
])('after the switch nothing is carried that is not understood: %s', (_, add) => {
  const builder = add(switchOver(begin()));
  expect(() => readAll([builder.raw(new Uint8Array(40)).bytes()])).toThrow(REFUSED);
});

test('a stream that stops after the switch is truncated', () => {
  const { stream } = randomPostcopy(3);
  const { reader } = readAll([stream.slice(0, -1)]);
  expect(() => reader.end()).toThrow(/ended early/);
});

test('a pre-copy is read as ever', () => {
  const builder = begin().partBegin().page(0, 1, { kind: 'zero' }).partEnd();
  const stream = builder
    .partBegin(3)
    .partEnd()
    .tail(Uint8Array.of(1, 2, 3))
    .bytes();
  const { found, reader } = readAll([stream]);
  expect(found.some(({ kind }) => kind === 'switch' || kind === 'end')).toBe(false);
  expect(reader.fallback).toBeUndefined();
  expect(() => reader.end()).not.toThrow();
});

test('a recovered post-copy, which has no header, is carried verbatim', () => {
  const builder = new StreamBuilder({ blocks: BLOCKS }).command(10, Buffer.from('\x06pc.ram'));
  const { reader, found } = readAll([builder.bytes()]);
  expect(reader.fallback).toBe('post-copy');
  expect(found).toHaveLength(1);
});

test.each([
  [1, 1],
  [5, 5],
  [1000, 128],
])('batches have no more pages than the sink wants, %i, and no more than %i', (wanted, most) => {
  const builder = switchOver(begin().partBegin().page(0, 0, { kind: 'zero' }).partEnd());
  builder.partBegin();
  for (let page = 1; page <= 300; page++) builder.page(0, page, { kind: 'zero' });
  const stream = builder.partEnd().partBegin(3).partEnd().raw([0]).bytes();
  const { found } = readAll([stream], { batchPages: () => wanted });
  const counts = found.flatMap((each) =>
    each.kind === 'pages' && each.isPostcopy
      ? [runsOf(each.batch).runs.reduce((sum, { count }) => sum + count, 0)]
      : [],
  );
  expect(Math.max(...counts)).toBe(most);
  expect(counts.reduce((sum, count) => sum + count, 0)).toBe(300);
});

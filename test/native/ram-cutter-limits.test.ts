import { expect, test } from 'vitest';
import { Codec, CutStop, native, Sealed, SLOT_ROOM_BYTES } from '../../src/native.ts';
import type { NaiveTarget } from '../naive/batch.ts';
import { type RamRecord, RamWriter } from '../naive/ram-stream.ts';
import { createPrng, integerBelow } from '../support/prng.ts';
import { CutDriver, carry, openCutter } from './cutting.ts';

/* Fixed by the protocol: docs/protocol.md, section 8 */
const ZERO_PAGES_MAX = 16384;
const BODY_BYTES_MAX = 1 << 20;
const MAP_ENTRIES_MAX = 4096;
const BATCH_HEADER_BYTES = 40;

/* Chosen by us: what the cutter leaves of a map for the encoder, which may split each page off its
 * run, and names pages of the store */
const PREFIX_ENTRIES_MAX = 128;
const SEALED_ENTRIES_MAX = MAP_ENTRIES_MAX - 256 - PREFIX_ENTRIES_MAX;

const LARGE: NaiveTarget = {
  pageBits: 12,
  hasFooter: false,
  sectionId: 7,
  blocks: [
    { name: 'pc.ram', usedBytes: 2 ** 40 },
    { name: 'other', usedBytes: 2 ** 30 },
  ],
};

function slotOf(literalBytes: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new ArrayBuffer(SLOT_ROOM_BYTES + literalBytes));
}

/** Feeds records until one is not taken; returns how many were, and why it stopped. */
function fill(literalBytes: number, recordAt: (index: number) => RamRecord, target = LARGE) {
  const cutter = openCutter(target);
  cutter.begin(slotOf(literalBytes));
  const writer = new RamWriter(target);
  for (let index = 0; index < 20_000; index++) writer.record(recordAt(index));
  const stream = writer.stream();
  const result = cutter.cut(stream, 0, stream.length);
  const sealed = new Int32Array(Sealed.count);
  const entries = cutter.batchEntries();
  cutter.seal(sealed);
  return { stop: result % 8, pages: sealed[Sealed.pages]!, entries, sealed };
}

const RAW = Uint8Array.from({ length: 4096 }, (_, index) => index % 251);

test('RamCutter stops at the zero pages of a batch', () => {
  const found = fill(BODY_BYTES_MAX, (page) => ({ kind: 'zero', block: 0, page }));
  expect(found).toMatchObject({ stop: CutStop.BatchFull, pages: ZERO_PAGES_MAX });
  expect(found.entries).toBe(ZERO_PAGES_MAX + 1);
});

test('RamCutter stops at the raw pages of a batch, and at the slot', () => {
  const at = (page: number): RamRecord => ({ kind: 'raw', block: 0, page, bytes: RAW });
  expect(fill(BODY_BYTES_MAX, at)).toMatchObject({ stop: CutStop.BatchFull, pages: 256 });
  expect(fill(2 * BODY_BYTES_MAX, at)).toMatchObject({ stop: CutStop.BatchFull, pages: 256 });
  expect(fill(9 * 4096 - 1, at)).toMatchObject({ stop: CutStop.BatchFull, pages: 8 });
});

test('RamCutter counts blank and foreign pages as pages', () => {
  const blank = fill(BODY_BYTES_MAX, (page) => ({ kind: 'blank', block: 0, page }));
  expect(blank).toMatchObject({ stop: CutStop.BatchFull, pages: 256 });
  const bytes = Uint8Array.of(1);
  const foreign = fill(BODY_BYTES_MAX, (page) => ({ kind: 'xbzrle', block: 0, page, bytes }));
  expect(foreign).toMatchObject({ stop: CutStop.BatchFull, pages: 256 });
});

test('RamCutter counts pages that repeat one word as pages, and their words once a run', () => {
  const word = (page: number): Uint8Array => RAW.slice(0, 8).fill(1 + ((page >> 3) % 200), 0, 3);
  const at = (page: number): RamRecord => ({
    kind: 'raw',
    block: 0,
    page,
    bytes: new Uint8Array(Buffer.alloc(4096, word(page))),
  });
  const found = fill(BODY_BYTES_MAX, at);
  expect(found).toMatchObject({ stop: CutStop.BatchFull, pages: 256 });
  expect(found.sealed[Sealed.fillPages]).toBe(256);
  expect(found.sealed[Sealed.literalBytes]).toBe((256 / 8) * 8);
});

test('RamCutter stops at the entries of the map', () => {
  const found = fill(BODY_BYTES_MAX, (index) => ({ kind: 'zero', block: 0, page: index * 2 }));
  expect(found).toMatchObject({ stop: CutStop.BatchFull, pages: SEALED_ENTRIES_MAX });
  const mapBytes = 16 * SEALED_ENTRIES_MAX;
  expect(found.sealed[Sealed.start]).toBe(SLOT_ROOM_BYTES - mapBytes - BATCH_HEADER_BYTES);
});

test('RamCutter marks say when the map is full', () => {
  const cutter = openCutter(LARGE);
  cutter.begin(slotOf(8192));
  for (let left = SEALED_ENTRIES_MAX / 2; left > 0; left--) {
    expect(cutter.markSectionBegin()).toBe(true);
    expect(cutter.markSectionEnd()).toBe(true);
  }
  expect(cutter.markSectionBegin()).toBe(false);
  expect(cutter.batchEntries()).toBe(SEALED_ENTRIES_MAX);
  cutter.seal(new Int32Array(Sealed.count));
  cutter.begin(slotOf(8192));
  expect(cutter.markSectionBegin()).toBe(true);
});

test('RamCutter keeps a held record when the batch is full, wherever it was cut', () => {
  const bytes = Uint8Array.from({ length: 1024 }, (_, index) => index | 1);
  const target = { ...LARGE, pageBits: 10 };
  const writer = new RamWriter(target);
  for (const page of [1, 2]) writer.record({ kind: 'raw', block: 0, page, bytes });
  const last = new RamWriter(target);
  last.record({ kind: 'raw', block: 0, page: 3, names: true, bytes });
  const stream = Buffer.concat([writer.stream(), last.stream()]);
  const lastBytes = last.stream().length;
  for (let cut = stream.length - lastBytes + 1; cut < stream.length; cut++) {
    const cutter = openCutter(target);
    cutter.begin(slotOf(2048));
    expect(cutter.cut(stream, 0, cut)).toBe(cut * 8);
    expect(cutter.cut(stream, cut, stream.length)).toBe(CutStop.BatchFull);
    expect(cutter.isInsideRecord()).toBe(true);
    cutter.seal(new Int32Array(Sealed.count));
    const slot = slotOf(2048);
    cutter.begin(slot);
    expect(cutter.cut(stream, cut, stream.length)).toBe((stream.length - cut) * 8);
    expect(Buffer.compare(slot.subarray(SLOT_ROOM_BYTES, SLOT_ROOM_BYTES + 1024), bytes)).toBe(0);
  }
});

test('RamCutter takes no record whose length the map cannot say', () => {
  const target = { ...LARGE, pageBits: 16 };
  const record = (byteCount: number): Uint8Array =>
    new RamWriter(target)
      .record({ kind: 'xbzrle', block: 0, page: 0, bytes: new Uint8Array(byteCount).fill(5) })
      .stream();
  for (const [byteCount, stop] of [
    [65532, CutStop.Input],
    [65533, CutStop.Unknown],
  ] as const) {
    const cutter = openCutter(target);
    cutter.begin(slotOf(2 * 65536));
    const bytes = record(byteCount);
    expect(cutter.cut(bytes, 0, bytes.length) % 8).toBe(stop);
  }
});

test.each([10, 12, 16])('RamCutter carries the longest records, page bits %i', async (pageBits) => {
  const target = { ...LARGE, pageBits, hasFooter: true };
  const pageBytes = 1 << pageBits;
  const bytes = new Uint8Array(Math.min(pageBytes, 65532)).fill(9);
  const bound = pageBytes + (pageBytes >> 12) + (pageBytes >> 14) + 13;
  const writer = new RamWriter(target).begin();
  writer.record({ kind: 'xbzrle', block: 0, page: 0, bytes });
  const zlib = new Uint8Array(Math.min(bound, 65531)).fill(8);
  for (let page = 1; page < 9; page++)
    writer.record({ kind: 'compress', block: 1, page, bytes: zlib });
  const stream = writer.end().stream();
  const driver = new CutDriver(target, 2 * pageBytes);
  for (let at = 0; at < stream.length; at += 777) driver.push(stream.slice(at, at + 777));
  expect(Buffer.compare(await carry(driver, target, Codec.Lz4, 1), stream)).toBe(0);
});

const SEEDS = [1, 2, 3, 4, 5];

test.each(SEEDS)('RamCutter epochs forget pages wherever they lie, seed %i', (seed) => {
  const random = createPrng(seed);
  const edges = [0, 1, 63, 64, 32767, 32768, 65535, 2 ** 28 - 1];
  const cutter = openCutter(LARGE);
  cutter.begin(slotOf(8192));
  const held = new Set<number>();
  for (let step = 0; step < 2000; step++) {
    if (random() < 0.02 || cutter.batchEntries() > 4000) {
      cutter.seal(new Int32Array(Sealed.count));
      cutter.begin(slotOf(8192));
      if (random() < 0.5) {
        cutter.beginEpoch();
        held.clear();
      }
    }
    const page =
      random() < 0.5 ? edges[integerBelow(random, edges.length)]! : integerBelow(random, 2 ** 28);
    const record = new RamWriter(LARGE).record({ kind: 'zero', block: 0, page }).stream();
    const expected = held.has(page) ? CutStop.PageAgain : CutStop.Input;
    expect(cutter.cut(record, 0, record.length) % 8).toBe(expected);
    held.add(page);
  }
});

test('RamCutter setBlocks() with the largest block works or says that memory is out', () => {
  const cutter = new native.RamCutter(10);
  try {
    cutter.setBlocks(['a'], Float64Array.of(2 ** 52));
  } catch (error) {
    expect(error).toMatchObject({ code: 'ERR_OUT_OF_MEMORY' });
  }
  cutter.setBlocks(['a'], Float64Array.of(1024));
  cutter.begin(slotOf(2048));
  const target = { ...LARGE, pageBits: 10, blocks: [{ name: 'a', usedBytes: 1024 }] };
  const record = new RamWriter(target).record({ kind: 'zero', block: 0, page: 0 }).stream();
  expect(cutter.cut(record, 0, record.length)).toBe(record.length * 8);
});

test('RamCutter setReach() bounds a batch to one block, ascending pages, and a span', () => {
  const zero = (page: number, block = 0): RamRecord => ({ kind: 'zero', block, page });
  const records = [zero(1), zero(2), zero(4), zero(5), zero(15), zero(14), zero(15), zero(16, 1)];
  const writer = new RamWriter(LARGE);
  for (const record of records) writer.record(record);
  const stream = writer.stream();
  const cutter = openCutter(LARGE);
  cutter.setReach(3, 10);
  const sealed = new Int32Array(Sealed.count);
  const pages: number[] = [];
  for (let at = 0; at < stream.length; ) {
    cutter.begin(slotOf(BODY_BYTES_MAX));
    const result = cutter.cut(stream, at, stream.length);
    at += Math.floor(result / 8);
    cutter.seal(sealed);
    pages.push(sealed[Sealed.pages]!);
    if (result % 8 === CutStop.PageAgain) cutter.beginEpoch();
  }
  // Three pages; then 5, for 15 is too far; 15, 14 descends; 15 is there already; another block.
  expect(pages).toEqual([3, 1, 1, 1, 1, 1]);
});

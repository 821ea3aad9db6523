import { expect, test } from 'vitest';
import { Codec, CutStop, native, Sealed, SLOT_ROOM_BYTES } from '../../src/native.ts';
import { be64, blockId, type NaiveTarget, naiveDecode, parseBatch } from '../naive/batch.ts';
import { RamWriter, randomRamStream } from '../naive/ram-stream.ts';
import { createPrng, integerBelow } from '../support/prng.ts';
import { CutDriver, carry, chunksOf, encode, openCutter, SMALL, TARGET } from './cutting.ts';

const SEEDS = Array.from({ length: 30 }, (_, index) => index + 1);

function newSlot(target: NaiveTarget): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new ArrayBuffer(SLOT_ROOM_BYTES + (4 << target.pageBits)));
}

/** One small section of every kind of record, without header and footer. */
function smallStream(): Uint8Array<ArrayBuffer> {
  const raw = Uint8Array.from({ length: 1024 }, (_, index) => index);
  return new RamWriter(SMALL)
    .begin()
    .record({ kind: 'raw', block: 0, page: 0, bytes: raw })
    .record({ kind: 'raw', block: 0, page: 1, bytes: raw })
    .record({ kind: 'zero', block: 0, page: 2 })
    .record({ kind: 'blank', block: 1, page: 1 })
    .record({ kind: 'xbzrle', block: 1, page: 0, names: true, bytes: raw.subarray(0, 9) })
    .end()
    .begin()
    .record({ kind: 'compress', block: 0, page: 39, bytes: raw.subarray(5, 60) })
    .record({ kind: 'zero', block: 0, page: 2 })
    .record({ kind: 'zero', block: 0, page: 2 })
    .end()
    .stream();
}

test('RamCutter cut() yields the same stream whatever the one cut', async () => {
  const stream = smallStream();
  for (let cut = 1; cut < stream.length; cut++) {
    const driver = new CutDriver(SMALL, 4096);
    driver.push(stream.slice(0, cut));
    driver.push(stream.slice(cut));
    const output = await carry(driver, SMALL, Codec.None, 0);
    if (Buffer.compare(output, stream) !== 0) expect.fail(`differs if cut at ${cut}`);
    expect(driver.batches.at(-1)!.epoch).toBe(2);
  }
});

test('RamCutter cut() yields the same stream byte by byte, sealed at every byte', async () => {
  const stream = smallStream();
  const driver = new CutDriver(SMALL, 4096);
  for (const byte of stream) {
    driver.push(Uint8Array.of(byte));
    driver.seal();
  }
  expect(Buffer.compare(await carry(driver, SMALL, Codec.None, 0), stream)).toBe(0);
});

test.each(SEEDS)(
  'RamCutter: what is cut, encoded and decoded is the stream, seed %i',
  async (seed) => {
    const random = createPrng(seed);
    const target = { ...(seed % 2 === 0 ? TARGET : SMALL), hasFooter: seed % 3 !== 0 };
    const stream = randomRamStream(random, target, { sections: 6, recordsMax: 400 });
    const driver = new CutDriver(target, [1 << 20, 64 << 10, 8 << 10][seed % 3]);
    const chunkBytes = [30, 5000, 200_000][integerBelow(random, 3)]!;
    for (const chunk of chunksOf(stream, random, chunkBytes)) {
      driver.push(chunk);
      if (random() < 0.05) driver.seal();
    }
    const codec = [Codec.None, Codec.Lz4, Codec.Zstd][seed % 3]!;
    const output = await carry(driver, target, codec, 1);
    expect(Buffer.compare(output, stream)).toBe(0);
  },
);

test.each(SEEDS)(
  'RamCutter: no epoch has a page twice, and the naive decoder agrees, seed %i',
  async (seed) => {
    const random = createPrng(seed);
    const stream = randomRamStream(random, SMALL, { sections: 5, recordsMax: 300, runChance: 0.5 });
    const driver = new CutDriver(SMALL);
    for (const chunk of chunksOf(stream, random, 3000)) driver.push(chunk);
    driver.seal();
    const seen = new Set<string>();
    const parts: Uint8Array[] = [];
    for (const batch of driver.batches) {
      const bytes = await encode(batch, seed % 2 === 0 ? Codec.None : Codec.Lz4, 1);
      parts.push(naiveDecode(SMALL, bytes));
      let pages = 0;
      for (const entry of parseBatch(bytes).entries) {
        for (let index = 0; index < entry.count; index++, pages++) {
          const key = `${batch.epoch} ${entry.block} ${entry.firstPage + index}`;
          expect(seen.has(key)).toBe(false);
          seen.add(key);
        }
      }
      expect(pages).toBe(batch.sealed[Sealed.pages]);
    }
    expect(Buffer.compare(Buffer.concat(parts), stream)).toBe(0);
  },
);

test('RamCutter merges pages that follow each other into runs, and says what it holds', () => {
  const cutter = openCutter(SMALL);
  const slot = newSlot(SMALL);
  cutter.begin(slot);
  cutter.setInside(true);
  const raw = Uint8Array.from({ length: 1024 }, (_, index) => index % 7);
  const writer = new RamWriter(SMALL);
  for (let page = 0; page < 3; page++) writer.record({ kind: 'raw', block: 0, page, bytes: raw });
  writer.record({ kind: 'blank', block: 0, page: 3 });
  for (let page = 4; page < 9; page++) writer.record({ kind: 'zero', block: 0, page });
  writer.record({ kind: 'zero', block: 0, page: 9, names: true });
  writer.record({ kind: 'zero', block: 0, page: 10 });
  writer.record({ kind: 'xbzrle', block: 0, page: 11, bytes: raw.subarray(0, 5) });
  const stream = writer.stream();
  expect(cutter.lastBlock()).toBe(-1);
  expect(cutter.cut(stream, 0, stream.length)).toBe(stream.length * 8 + CutStop.Input);
  expect(cutter.lastBlock()).toBe(0);
  expect(cutter.batchEntries()).toBe(5 + 12);
  const sealed = new Int32Array(Sealed.count);
  cutter.seal(sealed);
  expect(cutter.batchEntries()).toBe(0);
  const start = SLOT_ROOM_BYTES - 5 * 16 - 40;
  const literals = 3 * 1024 + 8;
  expect([...sealed]).toEqual([start, SLOT_ROOM_BYTES + literals, 12, 7, 3, 1, 1, 0, literals]);
  const { entries, opensInside, lastBlock } = parseBatch(slot.subarray(start, sealed[1]));
  expect(entries.map(({ kind, flags, count }) => [kind, flags, count])).toEqual([
    [0x11, 0, 3],
    [0x12, 0, 1],
    [0x10, 0, 5],
    [0x10, 1, 2],
    [0x13, 0, 1],
  ]);
  expect([opensInside, lastBlock]).toEqual([true, -1]);
});

/** Records that are not understood, or that name what is not there; all begin a stream. */
const WRONG: readonly [string, CutStop, Uint8Array][] = [
  ['FULL', CutStop.Unknown, be64(0x1n)],
  ['MEM_SIZE', CutStop.Unknown, be64(0x4n)],
  ['HOOK', CutStop.Unknown, be64(0x80n)],
  ['MULTIFD_FLUSH', CutStop.Unknown, be64(0x200n)],
  ['no flag', CutStop.Unknown, be64(0n)],
  ['CONTINUE alone', CutStop.Unknown, be64(0x20n)],
  ['EOS with CONTINUE', CutStop.Unknown, be64(0x30n)],
  ['EOS with an address', CutStop.Unknown, be64(0x410n)],
  ['two kinds', CutStop.Unknown, be64(0xan)],
  ['ZERO with a fill', CutStop.Unknown, Buffer.concat([be64(0x2n), blockId('a'), Buffer.of(1)])],
  ['XBZRLE of kind 2', CutStop.Unknown, foreign(0x40n, [2, 0, 1])],
  ['XBZRLE too long', CutStop.Unknown, foreign(0x40n, [1, 4, 1])],
  ['COMPRESS too long', CutStop.Unknown, foreign(0x100n, [0, 0, 4, 14])],
  ['COMPRESS far too long', CutStop.Unknown, foreign(0x100n, [255, 255, 255, 255])],
  ['unknown block', CutStop.BadPage, Buffer.concat([be64(0x8n), blockId('b')])],
  ['empty name', CutStop.BadPage, Buffer.concat([be64(0x8n), Buffer.of(0)])],
  ['longest unknown name', CutStop.BadPage, Buffer.concat([be64(0x2n), blockId('y'.repeat(255))])],
  ['CONTINUE before any block', CutStop.BadPage, be64(0x28n)],
  ['page behind the end', CutStop.BadPage, Buffer.concat([be64(0xa008n), blockId('a')])],
  ['largest page', CutStop.BadPage, Buffer.concat([be64(0xffff_ffff_ffff_fc08n), blockId('a')])],
];

function foreign(flag: bigint, head: readonly number[]): Uint8Array {
  return Buffer.concat([be64(flag), blockId('a'), Uint8Array.from(head)]);
}

test.each(WRONG)(
  'RamCutter cut() uses nothing of a record it cannot take: %s',
  (_, stop, record) => {
    for (let cut = 0; cut < record.length; cut++) {
      const cutter = openCutter(SMALL);
      cutter.begin(newSlot(SMALL));
      const head = record.slice(0, cut);
      expect(cutter.cut(head, 0, head.length)).toBe(cut * 8 + CutStop.Input);
      expect(cutter.isInsideRecord()).toBe(cut > 0);
      const rest = Uint8Array.of(...record.subarray(cut), 1, 2, 3);
      expect(cutter.cut(rest, 0, rest.length)).toBe(stop);
      // A second try says the same: nothing was used up by the first.
      expect(cutter.cut(rest, 0, rest.length)).toBe(stop);
      expect(Buffer.compare(cutter.takeHeld(), head)).toBe(0);
      expect(cutter.isInsideRecord()).toBe(false);
      expect(cutter.takeHeld()).toHaveLength(0);
      expect(cutter.batchEntries()).toBe(0);
    }
  },
);

test('RamCutter cut() reads only chunk[from, to)', () => {
  const record = new RamWriter(SMALL).record({ kind: 'zero', block: 0, page: 3 }).stream();
  const chunk = Uint8Array.of(0xff, 0xff, ...record, ...be64(0x10n), 0xff);
  const cutter = openCutter(SMALL);
  cutter.begin(newSlot(SMALL));
  expect(cutter.cut(chunk, 2, 2)).toBe(0);
  expect(cutter.cut(chunk, 2, 2 + record.length)).toBe(record.length * 8);
  const used = 8 * 8 + CutStop.SectionEnd;
  expect(cutter.cut(chunk, 2 + record.length, chunk.length)).toBe(used);
});

test('RamCutter takeHeld() gives back all of a record that is partly there', () => {
  const bytes = Uint8Array.from({ length: 1024 }, (_, index) => index | 1);
  const record = new RamWriter(SMALL).record({ kind: 'raw', block: 0, page: 0, bytes }).stream();
  const cutter = openCutter(SMALL);
  cutter.begin(newSlot(SMALL));
  for (const byte of record.subarray(0, 700)) cutter.cut(Uint8Array.of(byte), 0, 1);
  expect(Buffer.compare(cutter.takeHeld(), record.subarray(0, 700))).toBe(0);
  expect(cutter.batchEntries()).toBe(0);
  expect(cutter.cut(record, 0, record.length)).toBe(record.length * 8);
});

test('RamCutter setBlocks() begins anew: names, pages and epoch', () => {
  const record = new RamWriter(SMALL).record({ kind: 'zero', block: 0, page: 3 }).stream();
  const cutter = openCutter(SMALL);
  cutter.begin(newSlot(SMALL));
  expect(cutter.cut(record, 0, record.length) % 8).toBe(CutStop.Input);
  expect(cutter.cut(record, 0, record.length)).toBe(CutStop.PageAgain);
  cutter.seal(new Int32Array(Sealed.count));
  cutter.setBlocks(['z', 'a'], Float64Array.of(1, 4 * 1024));
  expect(cutter.lastBlock()).toBe(-1);
  cutter.begin(newSlot(SMALL));
  expect(cutter.cut(record, 0, record.length)).toBe(record.length * 8);
  expect(cutter.lastBlock()).toBe(1);
  expect(native.features().lz4).toMatch(/^1\./);
});

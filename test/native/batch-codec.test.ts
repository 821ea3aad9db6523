import { expect, test } from 'vitest';
import { Codec, Decoded, Encoded, native, Sealed } from '../../src/native.ts';
import { type NaiveTarget, naiveDecode, parseBatch } from '../naive/batch.ts';
import { RamWriter, randomRamStream } from '../naive/ram-stream.ts';
import { createPrng, exactRandomBytes } from '../support/prng.ts';
import {
  CutDriver,
  decode,
  encode,
  encodeWire,
  openTable,
  orderOf,
  SMALL,
  TARGET,
} from './cutting.ts';

const LEVELS: readonly [string, Codec, number][] = [
  ['none', Codec.None, 0],
  ['lz4 1', Codec.Lz4, 1],
  ['lz4 65537', Codec.Lz4, 65537],
  ['zstd 1', Codec.Zstd, 1],
  ['zstd -131072', Codec.Zstd, -131072],
  ['zstd 9', Codec.Zstd, 9],
  ['zstd 22', Codec.Zstd, 22],
];

/** Text, which is no page that repeats one word. */
function textPage(byteCount: number): Uint8Array {
  return new Uint8Array(Buffer.alloc(byteCount, 'all work and no play '));
}

function batchesOf(target: NaiveTarget, stream: Uint8Array): CutDriver['batches'] {
  const driver = new CutDriver(target);
  driver.push(stream);
  driver.seal();
  return driver.batches;
}

test.each(LEVELS)('encodeBatch() with %s decodes to the same records', async (_, codec, level) => {
  const random = createPrng(11);
  const table = openTable(TARGET);
  const stream = randomRamStream(random, TARGET, { sections: 8, recordsMax: 500 });
  const parts: Uint8Array[] = [];
  for (const batch of batchesOf(TARGET, stream)) {
    parts.push((await decode(table, await encode(batch, codec, level))).records);
  }
  expect(Buffer.compare(Buffer.concat(parts), stream)).toBe(0);
});

test('encodeBatch() makes text smaller, and leaves noise in the slot', async () => {
  const random = createPrng(3);
  const text = textPage(4096);
  const noise = (): Uint8Array => exactRandomBytes(random, 4096);
  for (const codec of [Codec.Lz4, Codec.Zstd]) {
    for (const [bytesOf, isSmaller] of [
      [() => text, true],
      [noise, false],
    ] as const) {
      const writer = new RamWriter(TARGET).begin();
      for (let page = 0; page < 20; page++) {
        writer.record({ kind: 'raw', block: 0, page, bytes: bytesOf() });
      }
      const [batch] = batchesOf(TARGET, writer.end().stream());
      const wire = await encode(batch!, codec, 1);
      const parsed = parseBatch(wire);
      expect(parsed.codec).toBe(isSmaller ? codec : Codec.None);
      expect(parsed.wire.length < 20 * 4096).toBe(isSmaller);
      expect(parsed.literalBytes).toBe(20 * 4096);
    }
  }
});

test.each([1, 3, 5, 7])(
  'zstd %i: letters that never repeat shrink, noise is left',
  async (level) => {
    const random = createPrng(9);
    const letters = (): Uint8Array =>
      exactRandomBytes(random, 4096).map((byte) => 97 + (byte % 16));
    const noise = (): Uint8Array => exactRandomBytes(random, 4096);
    for (const [bytesOf, codec, share] of [
      [letters, Codec.Zstd, 0.6],
      [noise, Codec.None, 1.01],
    ] as const) {
      const writer = new RamWriter(TARGET).begin();
      for (let page = 0; page < 20; page++) {
        writer.record({ kind: 'raw', block: 0, page, bytes: bytesOf() });
      }
      const [batch] = batchesOf(TARGET, writer.end().stream());
      const parsed = parseBatch(await encode(batch!, Codec.Zstd, level));
      expect(parsed.codec).toBe(codec);
      expect(parsed.wire.length).toBeLessThan(20 * 4096 * share);
    }
  },
);

test('encodeBatch() gives one checksum under every codec', async () => {
  const stream = randomRamStream(createPrng(5), SMALL, { sections: 1, recordsMax: 200 });
  const [batch] = batchesOf(SMALL, stream);
  const checksums = new Set<bigint>();
  for (const [, codec, level] of LEVELS) {
    checksums.add(parseBatch(await encode(batch!, codec, level)).checksum);
  }
  expect(checksums.size).toBe(1);
});

test('encodeBatch() says where the batch is, and what it holds', async () => {
  const bytes = textPage(1024);
  const writer = new RamWriter(SMALL).begin();
  const stream = writer.record({ kind: 'raw', block: 0, page: 0, bytes }).end().stream();
  const [batch] = batchesOf(SMALL, stream);
  const { sealed } = batch!;
  const [start, end] = [sealed[Sealed.start]!, sealed[Sealed.end]!];
  const { encoded } = await encodeWire(batch!, orderOf(Codec.Zstd, 1));
  const facts = [Codec.Zstd, 1024, 0, 0, 0, 0];
  expect([...encoded]).toEqual([1, start, encoded[Encoded.end], ...facts]);
  expect(encoded[Encoded.end]).toBeLessThan(end);
  const plain = await encodeWire(batch!, orderOf(Codec.None, 0));
  expect([...plain.encoded]).toEqual([0, start, end, Codec.None, 1024, 0, 0, 0, 0]);
});

test('decodeBatch() tells where its records are', async () => {
  const writer = new RamWriter(SMALL).begin();
  writer.record({ kind: 'zero', block: 0, page: 1 }).end();
  writer.begin().record({ kind: 'zero', block: 0, page: 2 });
  writer.record({ kind: 'zero', block: 0, page: 3 });
  const bytes = new Uint8Array(1024).fill(6);
  writer
    .record({ kind: 'raw', block: 1, page: 0, bytes })
    .record({ kind: 'zero', block: 1, page: 1 });
  const stream = writer.stream();
  const driver = new CutDriver(SMALL);
  const half = 5 + 11 + 13;
  driver.push(stream.subarray(0, half));
  driver.seal();
  driver.push(stream.subarray(half));
  driver.seal();
  const table = openTable(SMALL);
  const [first, second] = await Promise.all(
    driver.batches.map(async (batch) => decode(table, await encode(batch, Codec.None, 0))),
  );
  const room = 1024;
  const one = { opensInside: 0, endsInside: 0, firstRecord: room + 5, firstContinues: 0 };
  expect(fields(first!.decoded)).toMatchObject({ ...one, lastRecord: room + 5, entryBlock: -1 });
  expect(fields(first!.decoded)).toMatchObject({ lastRecordEnd: room + 16, firstBlock: 0 });
  const end = room + stream.length - half;
  expect(fields(second!.decoded)).toEqual({
    outputBytes: end,
    start: room,
    end,
    opensInside: 0,
    endsInside: 1,
    firstRecord: room + 5,
    firstContinues: 1,
    firstBlock: 0,
    lastRecord: end - 9,
    lastRecordEnd: end,
    lastBlock: 1,
    entryBlock: 0,
    pages: 4,
    zeroPages: 3,
    fillPages: 1,
    samePages: 0,
    deltaPages: 0,
    number: 0,
    base: 0,
  });
});

function fields(decoded: Int32Array): Record<string, number> {
  const names = Object.keys(Decoded).filter((name) => name !== 'count');
  return Object.fromEntries(names.map((name) => [name, decoded[Decoded[name as 'pages']]!]));
}

test('decodeBatch() of a batch without pages writes its marks', async () => {
  const stream = new RamWriter(SMALL).begin().end().begin().end().stream();
  const [batch] = batchesOf(SMALL, stream);
  const { records, decoded } = await decode(openTable(SMALL), await encode(batch!, Codec.Lz4, 1));
  expect(Buffer.compare(records, stream)).toBe(0);
  expect(fields(decoded)).toMatchObject({ firstRecord: -1, lastRecord: -1, lastRecordEnd: -1 });
  expect(fields(decoded)).toMatchObject({ firstBlock: -1, lastBlock: -1, pages: 0 });
});

test('decodeBatch() rejects an output that is too small, by every missing byte', async () => {
  const stream = new RamWriter(SMALL).begin().record({ kind: 'zero', block: 0, page: 1 }).stream();
  const [batch] = batchesOf(SMALL, stream);
  const wire = await encode(batch!, Codec.None, 0);
  const table = openTable(SMALL);
  const decoded = new Int32Array(Decoded.count);
  for (
    let byteCount = 0;
    byteCount < 1024 + stream.length;
    byteCount += byteCount < 1000 ? 97 : 1
  ) {
    const output = new Uint8Array(new ArrayBuffer(byteCount));
    const done = native.decodeBatch(table, wire, output, decoded);
    await expect(done).rejects.toMatchObject({ code: 'ERR_BATCH_OUTPUT' });
  }
});

test('decodeBatch() uses the blocks as they were when it was called', async () => {
  const stream = randomRamStream(createPrng(8), TARGET, { sections: 3, recordsMax: 200 });
  const table = openTable(TARGET);
  const parts: Promise<Uint8Array>[] = [];
  for (const batch of batchesOf(TARGET, stream)) {
    const wire = await encode(batch, Codec.Lz4, 1);
    expect(Buffer.compare(naiveDecode(TARGET, wire), (await decode(table, wire)).records)).toBe(0);
    parts.push(decode(table, wire).then(({ records }) => records));
    table.setBlocks([], new Float64Array(0));
    expect(() => native.inspectBatch(table, wire, new Int32Array(Decoded.count))).toThrow(
      'must be',
    );
    table.setBlocks(
      TARGET.blocks.map((block) => block.name),
      Float64Array.from(TARGET.blocks, (block) => block.usedBytes),
    );
  }
  expect(Buffer.compare(Buffer.concat(await Promise.all(parts)), stream)).toBe(0);
});

test('batches are right while the number of threads changes under them', async () => {
  const random = createPrng(21);
  const stream = randomRamStream(random, TARGET, { sections: 10, recordsMax: 300 });
  const table = openTable(TARGET);
  const batches = batchesOf(TARGET, stream);
  const work = Array.from({ length: 200 }, async (_, index) => {
    if (index % 3 === 0) native.setThreads(1 + Math.floor(random() * 8));
    const batch = batches[index % batches.length]!;
    const wire = await encode({ ...batch, slot: batch.slot.slice() }, (index % 3) as Codec, 1);
    const { records } = await decode(table, wire);
    native.setThreads(1 + Math.floor(random() * 8));
    return [index % batches.length, Buffer.from(records).toString('base64')] as const;
  });
  const seen = new Map<number, string>();
  for (const [index, records] of await Promise.all(work)) {
    expect(seen.get(index) ?? records).toBe(records);
    seen.set(index, records);
  }
  native.setThreads(2);
});

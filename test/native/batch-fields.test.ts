import { expect, test } from 'vitest';
import { Codec, Decoded, native } from '../../src/native.ts';
import { naiveChecksum, naiveDecode, naiveLiterals, parseBatch } from '../naive/batch.ts';
import { RamWriter } from '../naive/ram-stream.ts';
import { createPrng, exactRandomBytes, integerBelow } from '../support/prng.ts';
import { CutDriver, encode, openTable, SMALL } from './cutting.ts';

/*
 * Batches that are not as they should be. What the decoder accepts must be what the naive decoder
 * reads in it; all else must be an error with a code.
 */

const table = openTable(SMALL);
const CODES = /^ERR_BATCH_(HEADER|MAP|PAGE_INDEX|LITERALS|CODEC|CHECKSUM|OUTPUT)$/;

/** One batch with every kind of entry; compressed, if wanted, as a whole. */
async function sample(codec: Codec): Promise<Uint8Array<ArrayBuffer>> {
  const text = Uint8Array.from(Buffer.from('abcdefgh'.repeat(128)));
  const stream = new RamWriter(SMALL)
    .begin()
    .record({ kind: 'raw', block: 0, page: 0, bytes: text })
    .record({ kind: 'raw', block: 0, page: 1, bytes: text })
    .record({ kind: 'zero', block: 0, page: 38 })
    .record({ kind: 'zero', block: 0, page: 39 })
    .record({ kind: 'blank', block: 1, page: 1 })
    .record({ kind: 'xbzrle', block: 1, page: 0, names: true, bytes: text.subarray(0, 33) })
    .end()
    .begin()
    .record({ kind: 'compress', block: 0, page: 20, bytes: text.subarray(0, 44) })
    .stream();
  const driver = new CutDriver(SMALL);
  driver.push(stream);
  driver.seal();
  return encode(driver.batches[0]!, codec, 1);
}

/** Gives a changed batch the checksum that fits, as far as its sizes allow. */
function reseal(batch: Uint8Array): void {
  const view = new DataView(batch.buffer);
  if (view.getUint32(8, true) > batch.length - 32 || view.getUint8(1) > 1) return;
  let literals: Uint8Array;
  try {
    literals = naiveLiterals(parseBatch(batch));
  } catch {
    return;
  }
  view.setBigUint64(24, naiveChecksum(batch, literals), true);
}

/** The records, or the code of the error; inspecting and decoding must agree as far as they can. */
async function attempt(batch: Uint8Array): Promise<Uint8Array | string> {
  const decoded = new Int32Array(Decoded.count);
  let inspected = '';
  try {
    native.inspectBatch(table, batch, decoded);
  } catch (error) {
    inspected = (error as { code: string }).code;
    expect(inspected).toMatch(CODES);
  }
  const outputBytes = inspected === '' ? decoded[Decoded.outputBytes]! : 8192;
  const output = new Uint8Array(new ArrayBuffer(outputBytes));
  try {
    await native.decodeBatch(table, batch, output, decoded);
  } catch (error) {
    const { code } = error as { code: string };
    expect(code).toMatch(CODES);
    if (inspected !== '') expect(code).toBe(inspected);
    return code;
  }
  expect(inspected).toBe('');
  return output.subarray(decoded[Decoded.start]!, decoded[Decoded.end]!);
}

async function checkAgainstNaive(batch: Uint8Array): Promise<boolean> {
  const result = await attempt(batch);
  if (typeof result === 'string') return false;
  expect(Buffer.compare(result, naiveDecode(SMALL, batch))).toBe(0);
  return true;
}

const HEADER: readonly [string, number, number][] = [
  ['kind', 0, 1],
  ['codec', 1, 1],
  ['flags', 2, 1],
  ['page bits', 3, 1],
  ['last block', 4, 2],
  ['zero', 6, 2],
  ['map bytes', 8, 4],
  ['literal bytes', 12, 4],
  ['wire bytes', 16, 4],
  ['page count', 20, 4],
  ['checksum', 24, 8],
];

const ENTRY: readonly [string, number, number][] = [
  ['kind', 0, 1],
  ['flags', 1, 1],
  ['block', 2, 2],
  ['count', 4, 2],
  ['length', 6, 2],
  ['first page', 8, 8],
];

function* valuesFor(width: number, now: bigint): Generator<bigint> {
  for (let bits = 0n; bits <= BigInt(width * 8); bits++) {
    for (const near of [-1n, 0n, 1n]) yield BigInt.asUintN(width * 8, (1n << bits) + near);
  }
  for (const near of [-16n, -3n, -2n, -1n, 1n, 2n, 3n, 16n]) {
    yield BigInt.asUintN(width * 8, now + near);
  }
  for (const limit of [4096n, 16384n, 65536n, 0x100000n, 0x200000n]) {
    for (const near of [-1n, 0n, 1n, 16n]) yield BigInt.asUintN(width * 8, limit + near);
  }
}

function load(batch: Uint8Array, at: number, width: number): bigint {
  let value = 0n;
  for (let index = width - 1; index >= 0; index--)
    value = value * 256n + BigInt(batch[at + index]!);
  return value;
}

function store(batch: Uint8Array, at: number, width: number, value: bigint): void {
  for (let index = 0; index < width; index++)
    batch[at + index] = Number((value >> BigInt(index * 8)) & 255n);
}

async function tryField(batch: Uint8Array, at: number, width: number): Promise<void> {
  const now = load(batch, at, width);
  for (const value of valuesFor(width, now)) {
    for (const isResealed of [true, false]) {
      const changed = new Uint8Array(new ArrayBuffer(batch.length));
      changed.set(batch);
      store(changed, at, width, value);
      if (isResealed && at !== 24) reseal(changed);
      const isTaken = await checkAgainstNaive(changed);
      if (isTaken && !isResealed && value !== now) expect.fail(`took ${value} unsealed`);
    }
  }
}

test.each(HEADER)(
  'decodeBatch() survives every value of header field "%s"',
  async (_, at, width) => {
    await tryField(await sample(Codec.None), at, width);
    await tryField(await sample(Codec.Lz4), at, width);
  },
);

test.each(ENTRY)('decodeBatch() survives every value of map field "%s"', async (_, at, width) => {
  const batch = await sample(Codec.None);
  const { entries } = parseBatch(batch);
  expect(entries.map(({ kind }) => kind)).toEqual([1, 0x11, 0x10, 0x12, 0x13, 2, 1, 0x14]);
  for (let entry = 0; entry < entries.length; entry++) {
    await tryField(batch, 32 + entry * 16 + at, width);
  }
});

test('decodeBatch() checks the lengths inside foreign records', async () => {
  const batch = await sample(Codec.None);
  const literals = 32 + 8 * 16;
  for (const [at, width] of [
    [literals + 2048, 1],
    [literals + 2049, 1],
    [literals + 2050, 1],
    [literals + 2048 + 36, 4],
  ] as const) {
    for (let value = 0; value < 256; value++) {
      const changed = batch.slice();
      store(changed, at, width, BigInt(value) << BigInt(width * 8 - 8));
      reseal(changed);
      const result = await attempt(changed);
      const isSame = Buffer.compare(changed, batch) === 0;
      if (isSame) expect(result).toBeInstanceOf(Uint8Array);
      else expect(result).toBe('ERR_BATCH_LITERALS');
    }
  }
});

/** What must be refused, by name, and with which code. */
const REFUSED: readonly [string, string, number, number, bigint][] = [
  ['another message', 'ERR_BATCH_HEADER', 0, 1, 3n],
  ['an unknown codec', 'ERR_BATCH_CODEC', 1, 1, 3n],
  ['unknown flags', 'ERR_BATCH_HEADER', 2, 1, 2n],
  ['other page bits', 'ERR_BATCH_HEADER', 3, 1, 12n],
  ['a last block that is not valid', 'ERR_BATCH_HEADER', 4, 2, 1n],
  ['half a map entry', 'ERR_BATCH_HEADER', 8, 4, 8n * 16n + 1n],
  ['a map too long', 'ERR_BATCH_HEADER', 8, 4, 65552n],
  ['a map behind the end', 'ERR_BATCH_HEADER', 8, 4, 65536n],
  ['literals too long', 'ERR_BATCH_LITERALS', 12, 4, 0x100001n],
  ['literals that are not there', 'ERR_BATCH_LITERALS', 16, 4, 1n],
  ['fewer pages than the map', 'ERR_BATCH_MAP', 20, 4, 6n],
  ['an unknown entry', 'ERR_BATCH_MAP', 32, 1, 3n],
  ['an unknown kind of page', 'ERR_BATCH_MAP', 48, 1, 0x15n],
  ['a page outside of sections', 'ERR_BATCH_MAP', 32, 1, 0x10n],
  ['a section that ends before it begins', 'ERR_BATCH_MAP', 32, 1, 2n],
  ['a mark with a field', 'ERR_BATCH_MAP', 40, 8, 1n << 63n],
  ['flags of a page', 'ERR_BATCH_MAP', 49, 1, 2n],
  ['a block that is not there', 'ERR_BATCH_PAGE_INDEX', 50, 2, 2n],
  ['no pages', 'ERR_BATCH_MAP', 52, 2, 0n],
  ['a run past the end', 'ERR_BATCH_PAGE_INDEX', 68, 2, 3n],
  ['a length where there is none', 'ERR_BATCH_MAP', 54, 2, 1n],
  ['a page past the end', 'ERR_BATCH_PAGE_INDEX', 72, 8, 40n],
  ['a page index that wraps', 'ERR_BATCH_PAGE_INDEX', 72, 8, 0xffff_ffff_ffff_ffffn],
  ['two pages in a foreign record', 'ERR_BATCH_MAP', 32 + 4 * 16 + 4, 2, 2n],
  ['a record shorter than its head', 'ERR_BATCH_MAP', 32 + 4 * 16 + 6, 2, 2n],
  ['a record longer than a page', 'ERR_BATCH_MAP', 32 + 4 * 16 + 6, 2, 1028n],
  ['another checksum', 'ERR_BATCH_CHECKSUM', 24, 8, 1n],
];

test.each(REFUSED)('decodeBatch() refuses %s with %s', async (_, code, at, width, value) => {
  const changed = await sample(Codec.None);
  store(changed, at, width, value);
  expect(await attempt(changed)).toBe(code);
});

test.each([Codec.None, Codec.Lz4, Codec.Zstd])(
  'decodeBatch() notices every flipped bit, codec %i',
  async (codec) => {
    const batch = await sample(codec);
    const original = await attempt(batch);
    expect(original).toBeInstanceOf(Uint8Array);
    for (let bit = 0; bit < batch.length * 8; bit++) {
      const changed = new Uint8Array(new ArrayBuffer(batch.length));
      changed.set(batch);
      changed[bit >> 3]! ^= 1 << (bit & 7);
      const result = await attempt(changed);
      if (typeof result === 'string') continue;
      // A compressed form may say the same in another way; a plain one may not.
      expect(codec).not.toBe(Codec.None);
      expect(Buffer.compare(result, original as Uint8Array)).toBe(0);
    }
  },
);

test.each([Codec.None, Codec.Lz4, Codec.Zstd])(
  'decodeBatch() refuses every other length, codec %i',
  async (codec) => {
    const batch = await sample(codec);
    for (let byteCount = 0; byteCount < batch.length + 40; byteCount++) {
      if (byteCount === batch.length) continue;
      const changed = new Uint8Array(new ArrayBuffer(byteCount));
      changed.set(batch.subarray(0, byteCount));
      const result = await attempt(changed);
      expect(result).toMatch(/^ERR_BATCH_(HEADER|LITERALS)$/);
    }
    expect(await attempt(new Uint8Array(2 * 1024 * 1024 + 1))).toBe('ERR_BATCH_HEADER');
  },
);

/** Sets the compressed literals of a batch to `wire`. */
function withWire(batch: Uint8Array, codec: Codec, wire: Uint8Array): Uint8Array<ArrayBuffer> {
  const head = 32 + new DataView(batch.buffer).getUint32(8, true);
  const changed = new Uint8Array(new ArrayBuffer(head + wire.length));
  changed.set(batch.subarray(0, head));
  changed.set(wire, head);
  changed[1] = codec;
  new DataView(changed.buffer).setUint32(16, wire.length, true);
  return changed;
}

/** A zstd frame that stores its content as one raw block. */
function rawFrame(content: Uint8Array, descriptor: readonly number[]): Uint8Array {
  const size = content.length * 8 + 1;
  const block = [size & 255, (size >> 8) & 255, size >> 16];
  return Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, ...descriptor, ...block, ...content);
}

test('decodeBatch() takes one zstd frame that states its size, and no other', async () => {
  const batch = await sample(Codec.None);
  const content = parseBatch(batch).wire;
  const size = [content.length & 255, content.length >> 8, 0, 0];
  const plain = rawFrame(content, [0xa0, ...size]);
  const frames: readonly [string, Uint8Array, boolean][] = [
    ['one segment', plain, true],
    ['window of 1 MiB', rawFrame(content, [0x80, 10 << 3, ...size]), true],
    ['window of 1.125 MiB', rawFrame(content, [0x80, (10 << 3) | 1, ...size]), false],
    ['window of 2 TiB', rawFrame(content, [0x80, 31 << 3, ...size]), false],
    ['no size', rawFrame(content, [0x00, 10 << 3]), false],
    ['a dictionary', rawFrame(content, [0xa1, 5, ...size]), false],
    ['another size', rawFrame(content, [0xa0, size[0]! ^ 1, size[1]!, 0, 0]), false],
    ['a frame behind', Uint8Array.of(...plain, 0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0), false],
    ['a frame before', Uint8Array.of(0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0, ...plain), false],
    [
      'an empty frame behind',
      Uint8Array.of(...plain, ...rawFrame(new Uint8Array(0), [0x20, 0])),
      false,
    ],
    ['a byte behind', Uint8Array.of(...plain, 0), false],
    ['nothing', new Uint8Array(0), false],
  ];
  for (const [name, frame, isTaken] of frames) {
    const result = await attempt(withWire(batch, Codec.Zstd, frame));
    const expected = isTaken ? 'records' : 'ERR_BATCH_LITERALS';
    expect([name, typeof result === 'string' ? result : 'records']).toEqual([name, expected]);
  }
});

const SEEDS = Array.from({ length: 20 }, (_, index) => index + 1);

test.each(SEEDS)(
  'decodeBatch() survives noise in the literals and in the map, seed %i',
  async (seed) => {
    const random = createPrng(seed);
    for (const codec of [Codec.None, Codec.Lz4, Codec.Zstd]) {
      const batch = await sample(codec);
      for (let round = 0; round < 60; round++) {
        const changed = new Uint8Array(new ArrayBuffer(batch.length));
        changed.set(batch);
        const byteCount = 1 + integerBelow(random, 12);
        const at = 32 + integerBelow(random, changed.length - 32 - byteCount);
        changed.set(exactRandomBytes(random, byteCount), at);
        if (random() < 0.5) reseal(changed);
        if (codec === Codec.Zstd) await attempt(changed);
        else await checkAgainstNaive(changed);
      }
      const noise = exactRandomBytes(random, 1 + integerBelow(random, 3000));
      expect(await attempt(withWire(batch, Codec.Lz4, noise))).toMatch(CODES);
      expect(await attempt(withWire(batch, Codec.Zstd, noise))).toMatch(CODES);
    }
  },
);

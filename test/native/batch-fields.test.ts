import { expect, test } from 'vitest';
import { Codec, Decoded, native, OrderFlag } from '../../src/native.ts';
import {
  BASE_AT,
  BATCH_HEADER_BYTES,
  CHECKSUM_AT,
  type NaiveStore,
  NUMBER_AT,
  naiveDecode,
  parseBatch,
  sealNaively,
} from '../naive/batch.ts';
import { type ForgedEntry, forgeBatch, forgeProbe } from '../naive/forge.ts';
import { RamWriter } from '../naive/ram-stream.ts';
import { createPrng, exactRandomBytes, integerBelow } from '../support/prng.ts';
import { CutDriver, columns, encode, openTable, SMALL } from './cutting.ts';

/*
 * Batches that are not as they should be. What the decoder accepts must be what the naive decoder
 * reads in it; all else must be an error with a code, and must leave the store as it was.
 */

const PAGE_BYTES = 1 << SMALL.pageBits;
const SLOTS = 16;
const CODES = /^ERR_BATCH_(HEADER|MAP|PAGE_INDEX|LITERALS|CODEC|CHECKSUM|REFERENCE|OUTPUT)$/;
const table = openTable(SMALL, new native.PageStore(SMALL.pageBits, SLOTS));

/** Text of its own for each page; no two words of it are equal. */
function textPage(value: number): Uint8Array<ArrayBuffer> {
  const text = Array.from({ length: 128 }, (_, index) => `${value}:${index}      `.slice(0, 8));
  const page = new Uint8Array(new ArrayBuffer(PAGE_BYTES));
  page.set(Buffer.from(text.join('')));
  return page;
}

function cutOne(stream: Uint8Array): CutDriver['batches'][0] {
  const driver = new CutDriver(SMALL);
  driver.push(stream);
  driver.seal();
  return driver.batches[0]!;
}

/** Eight pages, which the store then has in its first slots. */
function firstStream(): Uint8Array {
  const writer = new RamWriter(SMALL).begin();
  for (let page = 10; page < 18; page++) {
    writer.record({ kind: 'raw', block: 0, page, bytes: textPage(page) });
  }
  return writer.end().stream();
}

/** Every kind of record, and pages that are like what the store has. */
function secondStream(): Uint8Array {
  const changed = textPage(12);
  changed.fill(7, 100, 120);
  const word = new Uint8Array(Buffer.alloc(PAGE_BYTES, 'abcdefgh'));
  return new RamWriter(SMALL)
    .begin()
    .record({ kind: 'raw', block: 0, page: 0, bytes: textPage(100) })
    .record({ kind: 'raw', block: 0, page: 1, bytes: textPage(101) })
    .record({ kind: 'raw', block: 0, page: 30, bytes: textPage(13) })
    .record({ kind: 'raw', block: 0, page: 31, bytes: textPage(14) })
    .record({ kind: 'raw', block: 0, page: 12, bytes: changed })
    .record({ kind: 'raw', block: 0, page: 20, bytes: word })
    .record({ kind: 'raw', block: 0, page: 21, bytes: word })
    .record({ kind: 'zero', block: 0, page: 38 })
    .record({ kind: 'zero', block: 0, page: 39 })
    .record({ kind: 'blank', block: 1, page: 1 })
    .record({ kind: 'xbzrle', block: 1, page: 0, names: true, bytes: word.subarray(0, 33) })
    .end()
    .begin()
    .record({ kind: 'compress', block: 0, page: 22, bytes: word.subarray(0, 44) })
    .stream();
}

const KINDS = [1, 0x11, 0x16, 0x17, 0x15, 0x10, 0x12, 0x13, 2, 1, 0x14];
const entryAt = (kind: number): number => BATCH_HEADER_BYTES + 16 * KINDS.indexOf(kind);

interface Pair {
  /** Fills the store's first slots. */
  readonly first: Uint8Array<ArrayBuffer>;
  /** Relies on it. */
  readonly second: Uint8Array<ArrayBuffer>;
}

async function samplePair(codec: Codec): Promise<Pair> {
  const store = new native.StoreIndex(...columns(SMALL), SMALL.pageBits, SLOTS);
  const place = { store, flags: OrderFlag.Keeps | OrderFlag.FindsSimilar };
  const first = await encode(cutOne(firstStream()), Codec.None, 0, place);
  const next = { ...place, number: 1, base: 1 };
  return { first, second: await encode(cutOne(secondStream()), codec, 1, next) };
}

const PAIR = await samplePair(Codec.None);
const PRIMED: NaiveStore = new Map();
naiveDecode(SMALL, PAIR.first, PRIMED);

/** Brings the store to where the samples begin. */
async function prime(): Promise<void> {
  const entries = Array.from({ length: SLOTS }, (_, slot) => {
    const contents = PRIMED.get(slot) ?? new Uint8Array(PAGE_BYTES);
    return { kind: 0x11, flags: 2, firstPage: slot, slots: [slot], contents };
  });
  await decodeInto(forgeBatch({ pageBits: SMALL.pageBits, entries }));
}

/** One batch with every kind of page; compressed, if wanted, as a whole. */
async function sample(codec: Codec): Promise<Uint8Array<ArrayBuffer>> {
  await prime();
  return codec === Codec.None ? PAIR.second : (await samplePair(codec)).second;
}

/** Gives a changed batch the checksum that fits, as far as its sizes allow. */
function reseal(batch: Uint8Array): void {
  const view = new DataView(batch.buffer);
  const isFit =
    view.getUint32(8, true) <= batch.length - BATCH_HEADER_BYTES &&
    view.getUint32(12, true) <= 1 << 21;
  if (!isFit) return;
  const pages = parseBatch(batch).entries.reduce((sum, { count }) => sum + count, 0);
  if (pages > 2000) return;
  try {
    sealNaively(batch, { pageBytes: PAGE_BYTES, store: PRIMED });
  } catch {
    // It stays as it was, and is refused.
  }
}

async function decodeInto(batch: Uint8Array, outputBytes?: number): Promise<Uint8Array> {
  const decoded = new Int32Array(Decoded.count);
  if (outputBytes === undefined) native.inspectBatch(table, batch, decoded);
  const output = new Uint8Array(new ArrayBuffer(outputBytes ?? decoded[Decoded.outputBytes]!));
  await native.decodeBatch(table, batch, output, decoded);
  return output.subarray(decoded[Decoded.start]!, decoded[Decoded.end]!);
}

/** Whether the store holds what it should, by a batch that shows all of it. */
async function expectStore(store: NaiveStore): Promise<void> {
  const probe = forgeProbe(SMALL.pageBits, { store, count: SLOTS });
  expect(Buffer.compare(await decodeInto(probe), naiveDecode(SMALL, probe, store))).toBe(0);
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
  try {
    const records = await decodeInto(batch, inspected === '' ? undefined : 8192);
    expect(inspected).toBe('');
    return records;
  } catch (error) {
    const { code } = error as { code: string };
    expect(code).toMatch(CODES);
    if (inspected !== '') expect(code).toBe(inspected);
    await expectStore(PRIMED);
    return code;
  }
}

async function checkAgainstNaive(batch: Uint8Array): Promise<boolean> {
  const result = await attempt(batch);
  if (typeof result === 'string') return false;
  const store = new Map(PRIMED);
  expect(Buffer.compare(result, naiveDecode(SMALL, batch, store))).toBe(0);
  await expectStore(store);
  await prime();
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
  ['number', NUMBER_AT, 4],
  ['base', BASE_AT, 4],
  ['checksum', CHECKSUM_AT, 8],
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
      if (isResealed && at !== CHECKSUM_AT) reseal(changed);
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
  expect(entries.map(({ kind }) => kind)).toEqual(KINDS);
  for (let entry = 0; entry < entries.length; entry++) {
    await tryField(batch, BATCH_HEADER_BYTES + entry * 16 + at, width);
  }
});

/** Where the references of the sample are: one for each slot it names. */
const REFERENCES_AT = BATCH_HEADER_BYTES + 16 * KINDS.length;
const REFERENCES = ['kept pages', 'same pages', 'base of a delta', 'kept delta'];

test.each([...REFERENCES.entries()])(
  'decodeBatch() survives every value of reference %i: %s',
  async (index) => {
    await tryField(await sample(Codec.None), REFERENCES_AT + 4 * index, 4);
  },
);

test.each(ENTRY)(
  'decodeBatch() survives every value of prefix field "%s"',
  async (_, at, width) => {
    const pages = [
      { kind: 3, count: 2, firstPage: 4 },
      { kind: 0x10, firstPage: 3 },
    ];
    await tryField(forge(...pages), BATCH_HEADER_BYTES + at, width);
  },
);

test('decodeBatch() checks the lengths inside foreign records', async () => {
  const batch = await sample(Codec.None);
  const { xbzrle, compress } = foreignAt(batch);
  for (const [at, width] of [
    [xbzrle, 1],
    [xbzrle + 1, 1],
    [xbzrle + 2, 1],
    [compress, 4],
  ] as const) {
    for (let value = 0; value < 256; value++) {
      const changed = batch.slice();
      store(changed, at, width, BigInt(value) << BigInt(width * 8 - 8));
      reseal(changed);
      const result = await attempt(changed);
      const isSame = Buffer.compare(changed, batch) === 0;
      if (isSame) expect(result).toBeInstanceOf(Uint8Array);
      else expect(result).toBe('ERR_BATCH_LITERALS');
      if (isSame) await prime();
    }
  }
});

/** The last contents are those of the two foreign records. */
function foreignAt(batch: Uint8Array): { xbzrle: number; compress: number } {
  const [xbzrleBytes, compressBytes] = [3 + 33, 4 + 44];
  const compress = batch.length - compressBytes;
  return { xbzrle: compress - xbzrleBytes, compress };
}

test('decodeBatch() survives every byte of a delta', async () => {
  const batch = await sample(Codec.None);
  const delta = foreignAt(batch).xbzrle - 8 - parseBatch(batch).entries[3]!.length;
  for (let at = delta; at < foreignAt(batch).xbzrle - 8; at++) await tryField(batch, at, 1);
});

/** A batch of these entries, which relies on the primed store, with the checksum that fits. */
function forge(...entries: readonly ForgedEntry[]): Uint8Array<ArrayBuffer> {
  return forgeBatch({ pageBits: SMALL.pageBits, number: 1, base: 1, store: PRIMED, entries });
}

/** What must be refused, by name, and with which code. */
const REFUSED: readonly [string, string, number, number, bigint][] = [
  ['another message', 'ERR_BATCH_HEADER', 0, 1, 3n],
  ['an unknown codec', 'ERR_BATCH_CODEC', 1, 1, 3n],
  ['unknown flags', 'ERR_BATCH_HEADER', 2, 1, 2n],
  ['other page bits', 'ERR_BATCH_HEADER', 3, 1, 12n],
  ['a last block that is not valid', 'ERR_BATCH_HEADER', 4, 2, 1n],
  ['bytes that must be zero', 'ERR_BATCH_HEADER', 6, 2, 1n],
  ['half a map entry', 'ERR_BATCH_HEADER', 8, 4, 11n * 16n + 1n],
  ['a map too long', 'ERR_BATCH_HEADER', 8, 4, 65552n],
  ['a map behind the end', 'ERR_BATCH_HEADER', 8, 4, 65536n],
  ['literals too long', 'ERR_BATCH_LITERALS', 12, 4, 0x10_2001n],
  ['literals that are not there', 'ERR_BATCH_LITERALS', 16, 4, 1n],
  ['fewer pages than the map', 'ERR_BATCH_MAP', 20, 4, 6n],
  ['a number past the last', 'ERR_BATCH_HEADER', NUMBER_AT, 4, 2n ** 31n - 1n],
  ['a number below its base', 'ERR_BATCH_REFERENCE', NUMBER_AT, 4, 0n],
  ['a base above its number', 'ERR_BATCH_REFERENCE', BASE_AT, 4, 2n],
  ['another number', 'ERR_BATCH_CHECKSUM', NUMBER_AT, 4, 2n],
  ['another base', 'ERR_BATCH_CHECKSUM', BASE_AT, 4, 0n],
  ['an unknown mark', 'ERR_BATCH_MAP', entryAt(1), 1, 4n],
  ['an unknown kind of page', 'ERR_BATCH_MAP', entryAt(0x11), 1, 0x18n],
  ['a page outside of sections', 'ERR_BATCH_MAP', entryAt(1), 1, 0x10n],
  ['a section that ends before it begins', 'ERR_BATCH_MAP', entryAt(1), 1, 2n],
  ['a mark with a field', 'ERR_BATCH_MAP', entryAt(1) + 8, 8, 1n << 63n],
  ['unknown flags of a page', 'ERR_BATCH_MAP', entryAt(0x11) + 1, 1, 4n],
  ['same pages that are kept', 'ERR_BATCH_MAP', entryAt(0x16) + 1, 1, 2n],
  ['fill pages that are kept', 'ERR_BATCH_MAP', entryAt(0x15) + 1, 1, 2n],
  ['zero pages that are kept', 'ERR_BATCH_MAP', entryAt(0x10) + 1, 1, 2n],
  ['a blank page that is kept', 'ERR_BATCH_MAP', entryAt(0x12) + 1, 1, 3n],
  ['a foreign record that is kept', 'ERR_BATCH_MAP', entryAt(0x13) + 1, 1, 3n],
  ['a block that is not there', 'ERR_BATCH_PAGE_INDEX', entryAt(0x11) + 2, 2, 2n],
  ['no pages', 'ERR_BATCH_MAP', entryAt(0x11) + 4, 2, 0n],
  ['a run past the end', 'ERR_BATCH_PAGE_INDEX', entryAt(0x10) + 4, 2, 3n],
  ['a length where there is none', 'ERR_BATCH_MAP', entryAt(0x11) + 6, 2, 1n],
  ['a length of same pages', 'ERR_BATCH_MAP', entryAt(0x16) + 6, 2, 1n],
  ['a length of fill pages', 'ERR_BATCH_MAP', entryAt(0x15) + 6, 2, 8n],
  ['a page past the end', 'ERR_BATCH_PAGE_INDEX', entryAt(0x10) + 8, 8, 40n],
  ['a page index that wraps', 'ERR_BATCH_PAGE_INDEX', entryAt(0x10) + 8, 8, 2n ** 64n - 1n],
  ['two pages in a foreign record', 'ERR_BATCH_MAP', entryAt(0x13) + 4, 2, 2n],
  ['two pages in a delta', 'ERR_BATCH_MAP', entryAt(0x17) + 4, 2, 2n],
  ['a delta as long as a page', 'ERR_BATCH_MAP', entryAt(0x17) + 6, 2, 1024n],
  ['a record shorter than its head', 'ERR_BATCH_MAP', entryAt(0x13) + 6, 2, 2n],
  ['a record longer than a page', 'ERR_BATCH_MAP', entryAt(0x13) + 6, 2, 1028n],
  ['pages kept past the last slot', 'ERR_BATCH_REFERENCE', REFERENCES_AT, 4, BigInt(SLOTS)],
  ['a run kept past the last slot', 'ERR_BATCH_REFERENCE', REFERENCES_AT, 4, BigInt(SLOTS - 1)],
  ['pages like no slot', 'ERR_BATCH_REFERENCE', REFERENCES_AT + 4, 4, 2n ** 32n - 1n],
  ['a run like no slots', 'ERR_BATCH_REFERENCE', REFERENCES_AT + 4, 4, BigInt(SLOTS - 1)],
  ['a delta of no slot', 'ERR_BATCH_REFERENCE', REFERENCES_AT + 8, 4, BigInt(SLOTS)],
  ['a delta kept in no slot', 'ERR_BATCH_REFERENCE', REFERENCES_AT + 12, 4, BigInt(SLOTS)],
  ['another checksum', 'ERR_BATCH_CHECKSUM', CHECKSUM_AT, 8, 1n],
];

test.each(REFUSED)('decodeBatch() refuses %s with %s', async (_, code, at, width, value) => {
  const changed = (await sample(Codec.None)).slice();
  store(changed, at, width, value);
  expect(await attempt(changed)).toBe(code);
});

const PREFIX_PAGES_MAX = (512 * 1024) / PAGE_BYTES;

test.each<[string, string, ForgedEntry]>([
  ['of no pages', 'ERR_BATCH_MAP', { kind: 3, count: 0 }],
  ['with flags', 'ERR_BATCH_MAP', { kind: 3, count: 1, flags: 1 }],
  ['with a block', 'ERR_BATCH_MAP', { kind: 3, count: 1, block: 1 }],
  ['with a length', 'ERR_BATCH_MAP', { kind: 3, count: 1, length: 1 }],
  ['of too many pages', 'ERR_BATCH_MAP', { kind: 3, count: PREFIX_PAGES_MAX + 1 }],
  ['past the last slot', 'ERR_BATCH_REFERENCE', { kind: 3, count: 1, firstPage: SLOTS }],
  ['beyond 32 bits', 'ERR_BATCH_REFERENCE', { kind: 3, count: 1, firstPage: 2n ** 32n }],
  [
    'with an end past the last slot',
    'ERR_BATCH_REFERENCE',
    { kind: 3, count: SLOTS, firstPage: 1 },
  ],
])('decodeBatch() refuses a prefix %s', async (_, code, entry) => {
  await prime();
  expect(await attempt(forge(entry))).toBe(code);
  expect(await attempt(forge({ kind: 3, count: SLOTS }))).toBeInstanceOf(Uint8Array);
});

test('decodeBatch() counts the pages of all prefixes', async () => {
  await prime();
  const entries = Array.from({ length: PREFIX_PAGES_MAX / SLOTS }, () => ({
    kind: 3,
    count: SLOTS,
  }));
  expect(await attempt(forge(...entries))).toBeInstanceOf(Uint8Array);
  expect(await attempt(forge(...entries, { kind: 3, count: 1 }))).toBe('ERR_BATCH_MAP');
});

test.each<[string, ForgedEntry]>([
  ['same pages', { kind: 0x16, slots: [0] }],
  ['a delta', { kind: 0x17, slots: [0] }],
  ['pages to keep', { kind: 0x11, flags: 2, slots: [0], contents: textPage(1) }],
  ['a prefix', { kind: 3, count: 1 }],
])('decodeBatch() without a store refuses %s', async (_, entry) => {
  const batch = forge(entry);
  expect(await attempt(batch)).toBeInstanceOf(Uint8Array);
  const output = new Uint8Array(8192);
  const done = native.decodeBatch(openTable(SMALL), batch, output, new Int32Array(Decoded.count));
  await expect(done).rejects.toMatchObject({ code: 'ERR_BATCH_REFERENCE' });
});

test.each([
  ['ends in a count', [0x80]],
  ['ends behind a count', [1]],
  ['changes nothing', [0, 0]],
  ['has a count longer than it need be', [0x80, 0, 1, ...new Uint8Array(8)]],
  ['has two runs that touch', [0, 1, ...new Uint8Array(8), 0, 1, ...new Uint8Array(8)]],
  ['ends in a word', [0, 1, ...new Uint8Array(7)]],
  ['skips past the page', [0x80, 1, 1, ...new Uint8Array(8)]],
  ['changes past the page', [0x7f, 2, ...new Uint8Array(16)]],
])('decodeBatch() refuses a delta that %s', async (_, delta) => {
  await prime();
  const contents = Uint8Array.from(delta);
  const entry = { kind: 0x17, flags: 2, slots: [0, 0], length: contents.length, contents };
  expect(await attempt(forge(entry))).toBe('ERR_BATCH_LITERALS');
});

test('decodeBatch() keeps nothing of a batch whose checksum is wrong', async () => {
  await prime();
  const good = forge({ kind: 0x11, flags: 2, slots: [3], contents: textPage(200) });
  const bad = good.slice();
  bad[CHECKSUM_AT]! ^= 1;
  expect(await attempt(bad)).toBe('ERR_BATCH_CHECKSUM');
  expect(await attempt(good)).toBeInstanceOf(Uint8Array);
  await expectStore(new Map(PRIMED).set(3, textPage(200)));
});

test('decodeBatch() reads what a slot held before the batch, wherever it keeps', async () => {
  await prime();
  const raw = { kind: 0x11, flags: 2, slots: [5], contents: textPage(201) };
  const same = { kind: 0x16, firstPage: 1, slots: [5] };
  const batch = forge(raw, same);
  const store = new Map(PRIMED);
  const expected = naiveDecode(SMALL, batch, store);
  expect(Buffer.compare((await attempt(batch)) as Uint8Array, expected)).toBe(0);
  await expectStore(store);
});

test.each([Codec.None, Codec.Lz4, Codec.Zstd])(
  'decodeBatch() notices every flipped bit, codec %i',
  async (codec) => {
    const batch = await sample(codec);
    const original = await attempt(batch);
    expect(original).toBeInstanceOf(Uint8Array);
    await prime();
    for (let bit = 0; bit < batch.length * 8; bit++) {
      const changed = new Uint8Array(new ArrayBuffer(batch.length));
      changed.set(batch);
      changed[bit >> 3]! ^= 1 << (bit & 7);
      const result = await attempt(changed);
      if (typeof result === 'string') continue;
      // A compressed form may say the same in another way; a plain one may not.
      expect(codec).not.toBe(Codec.None);
      expect(Buffer.compare(result, original as Uint8Array)).toBe(0);
      await prime();
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
  const head = BATCH_HEADER_BYTES + new DataView(batch.buffer).getUint32(8, true);
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
    ['window of 2 MiB', rawFrame(content, [0x80, 11 << 3, ...size]), true],
    ['window of 2.25 MiB', rawFrame(content, [0x80, (11 << 3) | 1, ...size]), false],
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
    if (typeof result !== 'string') await prime();
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
        const at = BATCH_HEADER_BYTES + integerBelow(random, changed.length - 40 - byteCount);
        changed.set(exactRandomBytes(random, byteCount), at);
        if (random() < 0.5) reseal(changed);
        if (codec !== Codec.Zstd) await checkAgainstNaive(changed);
        else if (typeof (await attempt(changed)) !== 'string') await prime();
      }
      const noise = exactRandomBytes(random, 1 + integerBelow(random, 3000));
      expect(await attempt(withWire(batch, Codec.Lz4, noise))).toMatch(CODES);
      expect(await attempt(withWire(batch, Codec.Zstd, noise))).toMatch(CODES);
    }
  },
);

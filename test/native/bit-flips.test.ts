import { expect, test } from 'vitest';
import { FrameDecoder } from '../../src/frame/decode.ts';
import { encodeHeader, FrameType } from '../../src/frame/header.ts';
import { HEADER_BYTES } from '../../src/frame/limits.ts';
import { Codec, Decoded, native, OrderFlag } from '../../src/native.ts';
import { BatchDecoder } from '../../src/page/decode.ts';
import { BATCH_HEADER_BYTES, type NaiveStore, naiveDecode } from '../naive/batch.ts';
import { forgeBatch, forgeProbe } from '../naive/forge.ts';
import { createPrng, exactRandomBytes, integerBelow } from '../support/prng.ts';
import { decode, openTable } from './cutting.ts';
import { guestOf, KeepingEnds, kindsOf, type PageWrite, type SentBatch } from './keeping.ts';

/*
 * One bit changes, somewhere between the hash of a page at the source and its bytes in QEMU's
 * stream at the destination. Whatever bit it is, no page comes out that did not go in.
 *
 * Found is what is an error. A bit of a compressed form, or of a page that only helped to compress,
 * may change nothing that is decoded: such a batch is taken, and its pages are right.
 */

const PAGE_BITS = 10;
const PAGE_BYTES = 1 << PAGE_BITS;
const SLOTS = 16;
const GUEST = guestOf(PAGE_BITS, 64);
const FLIPS_PER_SAMPLE = 50;

/** Two batches of one source: the second relies on what the first has kept. */
interface Sample {
  readonly first: SentBatch;
  readonly second: SentBatch;
  readonly random: () => number;
  readonly kept: NaiveStore;
}

/** How one flip ended. */
type Verdict = 'found' | 'harmless' | 'wrong';

function textPage(random: () => number): Uint8Array {
  const words = Array.from({ length: PAGE_BYTES }, () => `word ${integerBelow(random, 40)} `);
  return new Uint8Array(Buffer.from(words.join('')).subarray(0, PAGE_BYTES));
}

function changed(page: Uint8Array): Uint8Array {
  const copy = page.slice();
  copy.fill(0x2a, 500, 520);
  return copy;
}

/** Pages of the second batch: new, same, changed, shifted, filled, zero. */
function secondPages(pages: readonly Uint8Array[], random: () => number): PageWrite[] {
  const shifted = new Uint8Array([1, ...pages[3]!.subarray(0, -1)]);
  return [
    [20, exactRandomBytes(random, PAGE_BYTES)],
    [21, textPage(random)],
    [22, pages[0]!],
    [23, pages[1]!],
    [2, changed(pages[2]!)],
    [3, shifted],
    [30, new Uint8Array(PAGE_BYTES).fill(7)],
    [31, new Uint8Array(PAGE_BYTES)],
  ];
}

async function makeSample(seed: number, codec: Codec): Promise<Sample> {
  const random = createPrng(seed);
  const ends = new KeepingEnds(GUEST, SLOTS);
  const pages = Array.from({ length: 8 }, (_, index) =>
    index % 4 === 3 ? textPage(random) : exactRandomBytes(random, PAGE_BYTES),
  );
  const first = await ends.send(
    pages.map((bytes, page) => [page, bytes]),
    { base: 0 },
  );
  const flags = OrderFlag.Keeps | OrderFlag.FindsSimilar;
  const second = await ends.send(secondPages(pages, random), { base: 1, codec, flags });
  expect(kindsOf(second)).toEqual(expect.arrayContaining(['11+', '16', '17+', '15', '10']));
  const kept: NaiveStore = new Map();
  naiveDecode(GUEST, first.batch, kept);
  return { first, second, random, kept };
}

function flipped(bytes: Uint8Array, from: number, to: number, random: () => number) {
  const copy = new Uint8Array(new ArrayBuffer(bytes.length));
  copy.set(bytes);
  const bit = 8 * from + integerBelow(random, 8 * (to - from));
  copy[bit >> 3]! ^= 1 << (bit & 7);
  return copy;
}

const literalsAt = ({ parsed }: SentBatch): number => BATCH_HEADER_BYTES + parsed.map.length;

/** What the destination makes of a batch after `first`, its store changed by `spoil` before. */
async function verdictOn(sample: Sample, batch: Uint8Array, spoil?: Uint8Array): Promise<Verdict> {
  const table = openTable(GUEST, new native.PageStore(PAGE_BITS, SLOTS));
  await decode(table, sample.first.batch);
  if (spoil !== undefined) await decode(table, spoil);
  let records: Uint8Array;
  try {
    ({ records } = await decode(table, batch));
  } catch (error) {
    expect((error as { code: string }).code).toMatch(/^ERR_BATCH_/);
    return 'found';
  }
  const isRight = Buffer.compare(records, sample.second.stream) === 0;
  return isRight ? 'harmless' : 'wrong';
}

/** Reads the payload of a frame that came over the wire; undefined if the frame is refused. */
function receive(frame: Uint8Array): Uint8Array | undefined {
  let received: Uint8Array | undefined;
  const decoder = new FrameDecoder({
    allocate: (bytes) => new Uint8Array(new ArrayBuffer(bytes)),
    onFrame: (_, payload) => {
      received = payload;
    },
  });
  decoder.stage = 'session';
  try {
    decoder.push(frame);
  } catch (error) {
    expect((error as { code: string }).code).toMatch(/^ERR_FRAME_/);
    return undefined;
  }
  expect(received).toBeDefined();
  return received;
}

function frameOf(payload: Uint8Array): Uint8Array {
  const frame = new Uint8Array(HEADER_BYTES + payload.length);
  const { length } = payload;
  encodeHeader(frame, 0, {
    type: FrameType.Data,
    flags: 0,
    lane: 0,
    length,
    sequence: 9,
    epoch: 4,
  });
  frame.set(payload, HEADER_BYTES);
  return frame;
}

/** Flips a bit of a slot that the second batch refers to, by a batch that is right in itself. */
function spoilStore({ second, kept, random }: Sample, slots: readonly number[]): Uint8Array {
  const slot = slots[integerBelow(random, slots.length)]!;
  const contents = flipped(kept.get(slot)!, 0, PAGE_BYTES, random);
  const entries = [{ kind: 0x11, flags: 2, slots: [slot], contents }];
  return forgeBatch({ pageBits: PAGE_BITS, number: second.number, entries });
}

/** The same through what a migration uses, which looks at numbers and bases too. */
async function verdictOfDecoder(sample: Sample, payload: Uint8Array): Promise<Verdict> {
  const decoder = new BatchDecoder(GUEST, SLOTS);
  await decoder.decode(sample.first.batch, 0);
  try {
    const { output, decoded } = await decoder.decode(payload, 1);
    const records = output.subarray(decoded[Decoded.start]!, decoded[Decoded.end]!);
    return Buffer.compare(records, sample.second.stream) === 0 ? 'harmless' : 'wrong';
  } catch (error) {
    expect((error as { code: string }).code).toMatch(/^ERR_BATCH_/);
    return 'found';
  }
}

interface Point {
  readonly name: string;
  readonly codecs: readonly Codec[];
  readonly flips: number;
  readonly flip: (sample: Sample) => Promise<Verdict>;
}

const COMPRESSED = [Codec.Lz4, Codec.Zstd];
const [SAME_SLOTS, DELTA_SLOT, PREFIX_SLOT] = [[0, 1], 2, 3];

const POINTS: readonly Point[] = [
  {
    name: 'contents, once their pages were hashed',
    codecs: [Codec.None],
    flips: 2000,
    flip: (sample) => {
      const { second, random } = sample;
      const { batch } = second;
      return verdictOn(sample, flipped(batch, literalsAt(second) + 16, batch.length, random));
    },
  },
  {
    name: 'the encoded batch, before it is framed',
    codecs: COMPRESSED,
    flips: 2000,
    flip: (sample) => {
      const { batch } = sample.second;
      return verdictOn(sample, flipped(batch, 0, batch.length, sample.random));
    },
  },
  {
    name: 'the frame on the wire',
    codecs: [Codec.None, ...COMPRESSED],
    flips: 2000,
    flip: async (sample) => {
      const frame = frameOf(sample.second.batch);
      const payload = receive(flipped(frame, 0, frame.length, sample.random));
      return payload === undefined ? 'found' : verdictOn(sample, payload);
    },
  },
  {
    name: 'the payload in the buffer of the receiver',
    codecs: [Codec.None],
    flips: 1500,
    flip: (sample) => {
      const payload = receive(frameOf(sample.second.batch))!;
      return verdictOfDecoder(sample, flipped(payload, 0, payload.length, sample.random));
    },
  },
  {
    name: 'a page in the store of the destination, same or base of a delta',
    codecs: [Codec.None, ...COMPRESSED],
    flips: 1200,
    flip: (sample) =>
      verdictOn(sample, sample.second.batch, spoilStore(sample, [...SAME_SLOTS, DELTA_SLOT])),
  },
  {
    name: 'a page in the store of the destination that helped to compress',
    codecs: [Codec.Zstd],
    flips: 300,
    flip: (sample) => verdictOn(sample, sample.second.batch, spoilStore(sample, [PREFIX_SLOT])),
  },
  {
    name: 'map and references, as a store of the source that went wrong would make them',
    codecs: [Codec.None],
    flips: 1000,
    flip: (sample) => {
      const { second, random } = sample;
      return verdictOn(
        sample,
        flipped(second.batch, BATCH_HEADER_BYTES, literalsAt(second) + 16, random),
      );
    },
  },
];

/** Points, by index, where a compressed form is flipped; and where only its help is. */
const COMPRESSED_POINTS = [1, 2];
const MAY_BE_HARMLESS = [...COMPRESSED_POINTS, 5];

test('10,000 flipped bits: none gives a page that did not go in', async () => {
  const counts = POINTS.map(() => ({ injected: 0, found: 0, harmless: 0, wrong: 0 }));
  let seed = 1;
  for (const [index, { codecs, flips, flip }] of POINTS.entries()) {
    const count = counts[index]!;
    while (count.injected < flips) {
      const sample = await makeSample(seed, codecs[seed % codecs.length]!);
      seed++;
      for (let left = FLIPS_PER_SAMPLE; left > 0 && count.injected < flips; left--) {
        const verdict = await flip(sample);
        count.injected++;
        count[verdict]++;
      }
    }
  }
  const sum = (of: 'injected' | 'found' | 'harmless' | 'wrong'): number =>
    counts.reduce((all, count) => all + count[of], 0);
  expect(sum('injected')).toBe(10_000);
  expect(sum('wrong')).toBe(0);
  expect(sum('found') + sum('harmless')).toBe(10_000);
  const strict = counts.filter((_, index) => !MAY_BE_HARMLESS.includes(index));
  for (const { injected, found } of strict) expect(found).toBe(injected);
  for (const index of COMPRESSED_POINTS) {
    expect(counts[index]!.harmless).toBeLessThan(counts[index]!.injected / 50);
  }
});

test('a batch that nothing happened to is taken: the check above is not blind', async () => {
  for (const codec of [Codec.None, ...COMPRESSED]) {
    const sample = await makeSample(7, codec);
    expect(await verdictOn(sample, sample.second.batch)).toBe('harmless');
    expect(await verdictOfDecoder(sample, receive(frameOf(sample.second.batch))!)).toBe('harmless');
    const other = { ...sample, second: { ...sample.second, stream: new Uint8Array(1) } };
    expect(await verdictOn(other, sample.second.batch)).toBe('wrong');
  }
});

test('a batch that is refused leaves the store as it was', async () => {
  const { first, second, random, kept } = await makeSample(3, Codec.None);
  const table = openTable(GUEST, new native.PageStore(PAGE_BITS, SLOTS));
  await decode(table, first.batch);
  const probe = forgeProbe(PAGE_BITS, { store: kept, count: SLOTS });
  const inside = naiveDecode(GUEST, probe, kept);
  for (let left = 300; left > 0; left--) {
    const { batch } = second;
    await expect(decode(table, flipped(batch, 0, batch.length, random))).rejects.toThrow();
    expect(Buffer.compare((await decode(table, probe)).records, inside)).toBe(0);
  }
});

import { describe, expect, test, vi } from 'vitest';
import { Codec, native } from '../../src/native.ts';
import { BatchDecoder } from '../../src/page/decode.ts';
import { BatchEncoder, type EncodedBatch } from '../../src/page/encode.ts';
import { defaultStoreBytes, openStoreIndex, storeSlots } from '../../src/page/store.ts';
import { forgeBatch } from '../naive/forge.ts';
import { decode, openTable } from '../native/cutting.ts';
import { cutSection, guestOf, KeepingEnds, type PageWrite, sectionOf } from '../native/keeping.ts';
import { createPrng, exactRandomBytes } from '../support/prng.ts';

const PAGE_BITS = 12;
const GUEST = guestOf(PAGE_BITS, 64);
const WINDOW = 16384;
const GiB = 2 ** 30;

const random = createPrng(4);
const noise = (): Uint8Array => exactRandomBytes(random, 1 << PAGE_BITS);

describe('storeSlots()', () => {
  const layout = (pageBits: number, ...usedBytes: number[]) => ({
    pageBits,
    hasFooter: true,
    sectionId: 2,
    blocks: usedBytes.map((bytes, index) => ({ name: `b${index}`, usedBytes: bytes })),
  });

  test.each([
    ['as many as fit', layout(12, GiB), 8 * 4096, 8],
    ['whole pages only', layout(12, GiB), 8 * 4096 + 4095, 8],
    ['never more than the guest has pages', layout(12, 10 * 4096, 5 * 4096), GiB, 15],
    ['a page that is used in part counts', layout(12, 4096 * 3 + 1), GiB, 4],
    ['none without room for a page', layout(16, GiB), 65_535, 0],
    ['none if nothing may be kept', layout(12, GiB), 0, 0],
    ['none for a guest without memory', layout(12), GiB, 0],
    ['at most what a reference can name', layout(10, 2 ** 52), 2 ** 52, 2 ** 31],
  ])('%s', (_, each, storeBytes, slots) => {
    expect(storeSlots(each, storeBytes)).toBe(slots);
  });
});

test('defaultStoreBytes() is a quarter of what this process can still get', () => {
  vi.spyOn(process, 'availableMemory').mockReturnValue(4 * GiB + 3);
  expect(defaultStoreBytes()).toBe(GiB);
  vi.restoreAllMocks();
  expect(Number.isSafeInteger(defaultStoreBytes())).toBe(true);
});

test('a store of no slots is none', () => {
  expect(openStoreIndex(GUEST, 0)).toBeUndefined();
  expect(openStoreIndex(GUEST, 1)).toBeInstanceOf(native.StoreIndex);
});

/** Lets a test end each decoding in the addon, in whatever order it likes. */
function holdDecoding(): { started: () => number; end: (index: number) => Promise<void> } {
  const real = native.decodeBatch.bind(native);
  const held: (() => Promise<void>)[] = [];
  vi.spyOn(native, 'decodeBatch').mockImplementation(
    (...args) =>
      new Promise((resolve, reject) => {
        held.push(() => real(...args).then(resolve, reject));
      }),
  );
  const settle = () => new Promise((resolve) => setImmediate(resolve));
  return {
    started: () => held.length,
    end: async (index) => {
      await held[index]!();
      await settle();
    },
  };
}

describe('BatchDecoder decode()', () => {
  /** Three batches that keep a page each, and one that refers to all. */
  async function fourBatches() {
    const ends = new KeepingEnds(GUEST, 8);
    const pages = [noise(), noise(), noise()];
    const sent = [];
    for (const [page, bytes] of pages.entries())
      sent.push(await ends.send([[page, bytes]], { base: 0 }));
    const again = pages.map((bytes, page): PageWrite => [20 + page, bytes]);
    sent.push(await ends.send(again, { base: 3 }));
    expect(sent[3]!.parsed.wire.length).toBe(4);
    return sent;
  }

  test.each([[[0, 1, 2]], [[2, 1, 0]], [[1, 2, 0]]])(
    'waits for all that a batch relies on, which end in the order %j',
    async (order) => {
      const sent = await fourBatches();
      const decoder = new BatchDecoder(GUEST, 8);
      const { started, end } = holdDecoding();
      try {
        const works = sent.map(({ batch }, index) => decoder.decode(batch, index));
        await new Promise((resolve) => setImmediate(resolve));
        for (const index of order) {
          expect(started()).toBe(3);
          await end(index);
        }
        expect(started()).toBe(4);
        await end(3);
        const { output, decoded } = await works[3]!;
        expect(Buffer.compare(output.subarray(decoded[1]!, decoded[2]!), sent[3]!.stream)).toBe(0);
        await Promise.all(works);
      } finally {
        vi.restoreAllMocks();
      }
    },
  );

  test('takes batches in any order, as long as what they rely on is here', async () => {
    const sent = await fourBatches();
    const decoder = new BatchDecoder(GUEST, 8);
    for (const index of [2, 0, 1, 3]) await decoder.decode(sent[index]!.batch, index);
  });

  test('refuses a batch that relies on one that is not here', async () => {
    const sent = await fourBatches();
    const decoder = new BatchDecoder(GUEST, 8);
    for (const index of [0, 2]) await decoder.decode(sent[index]!.batch, index);
    await expect(decoder.decode(sent[3]!.batch, 77)).rejects.toMatchObject({
      name: 'ProtocolError',
      code: 'ERR_BATCH_REFERENCE',
      sequence: 77,
      message: 'Cannot decode batch: it relies on all before 3, and 1 is not here',
    });
  });

  test('refuses a number that came before, at once and later', async () => {
    const [first] = await fourBatches();
    const decoder = new BatchDecoder(GUEST, 8);
    const [one, other] = [decoder.decode(first!.batch, 0), decoder.decode(first!.batch, 1)];
    await expect(other).rejects.toMatchObject({ code: 'ERR_BATCH_NUMBER', sequence: 1 });
    await one;
    await expect(decoder.decode(first!.batch, 2)).rejects.toMatchObject({
      code: 'ERR_BATCH_NUMBER',
      message: 'Cannot decode batch: number 0 came before, or is too far ahead',
    });
  });

  test('refuses a number that is too far ahead, and takes the last that is not', async () => {
    const decoder = new BatchDecoder(GUEST, 8);
    const at = (number: number) =>
      forgeBatch({ pageBits: PAGE_BITS, number, entries: [{ kind: 0x10 }] });
    await decoder.decode(at(WINDOW - 1), 0);
    for (const number of [WINDOW, 2 ** 31 - 2]) {
      await expect(decoder.decode(at(number), 0)).rejects.toMatchObject({
        code: 'ERR_BATCH_NUMBER',
      });
    }
    await decoder.decode(at(0), 0);
    await decoder.decode(at(WINDOW), 0);
  });

  test('without slots refuses every reference', async () => {
    const [first] = await fourBatches();
    const decoder = new BatchDecoder(GUEST, 0);
    await expect(decoder.decode(first!.batch, 0)).rejects.toMatchObject({
      code: 'ERR_BATCH_REFERENCE',
    });
  });
});

describe('BatchEncoder acked()', () => {
  class Sender {
    readonly encoder = new BatchEncoder({
      codec: 'none',
      threads: 1,
      now: () => performance.now(),
    });
    /** Encoded bytes that wait for a path: only then are pages kept. */
    waitingBytes = 1;
    readonly table = openTable(GUEST, new native.PageStore(PAGE_BITS, 64));

    /** Lets batches wait for paths until that is believed. */
    async slowDown(): Promise<void> {
      while (!this.encoder.choice.isNetworkLimit) {
        this.encoder.acked(await this.send([63, noise()]));
      }
    }

    async send(...pages: readonly PageWrite[]): Promise<EncodedBatch> {
      const stream = sectionOf(GUEST, pages);
      const { slot, sealed } = cutSection(GUEST, stream);
      const batch = await this.encoder.encode(slot, sealed, this.waitingBytes);
      const { records } = await decode(this.table, batch.buffer.slice(batch.start, batch.end));
      expect(Buffer.compare(records, stream)).toBe(0);
      return batch;
    }
  }

  test('lets later batches refer, once all below are acked too', async () => {
    const sender = new Sender();
    sender.encoder.openStore(GUEST, 64);
    await sender.slowDown();
    const [one, two] = [noise(), noise()];
    const first = await sender.send([1, one]);
    const second = await sender.send([2, two]);
    const pages: PageWrite[] = [
      [10, one],
      [12, two],
    ];
    expect((await sender.send(...pages)).facts.samePages).toBe(0);
    sender.encoder.acked(second);
    expect((await sender.send(...pages)).facts.samePages).toBe(0);
    sender.encoder.acked(first);
    const last = await sender.send(...pages);
    expect(last).toMatchObject({ number: first.number + 4, codec: Codec.None });
    expect(last.facts).toMatchObject({ pages: 2, samePages: 2, deltaPages: 0, againPages: 2 });
    expect(last.facts.literalBytes).toBe(8);
  });

  test('changes nothing where there is no store', async () => {
    const sender = new Sender();
    await sender.slowDown();
    const page = noise();
    sender.encoder.acked(await sender.send([1, page]));
    const { facts } = await sender.send([2, page]);
    expect(facts).toMatchObject({ samePages: 0, againPages: 0, literalBytes: 4096 });
  });

  test('a store that is opened late knows what came after', async () => {
    const sender = new Sender();
    await sender.slowDown();
    const page = noise();
    sender.encoder.acked(await sender.send([1, page]));
    sender.encoder.openStore(GUEST, 64);
    sender.encoder.acked(await sender.send([1, page]));
    const { facts } = await sender.send([1, page]);
    expect(facts).toMatchObject({ samePages: 1, againPages: 1 });
  });

  test('while paths wait for batches, keeps only pages that come again', async () => {
    const sender = new Sender();
    sender.encoder.openStore(GUEST, 64);
    sender.waitingBytes = 0;
    const page = noise();
    const same: number[] = [];
    for (let left = 10; left > 0; left--) {
      const batch = await sender.send([1, page]);
      same.push(batch.facts.samePages);
      sender.encoder.acked(batch);
    }
    expect(same).toEqual([0, 0, 1, 1, 1, 1, 1, 1, 1, 1]);
  });

  test('an opened store of no slots is none', async () => {
    const sender = new Sender();
    sender.encoder.openStore(GUEST, 0);
    await sender.slowDown();
    const page = noise();
    sender.encoder.acked(await sender.send([1, page]));
    expect((await sender.send([1, page])).facts.samePages).toBe(0);
  });
});

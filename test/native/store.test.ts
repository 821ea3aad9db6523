import { describe, expect, test } from 'vitest';
import { Codec, Encoded, native, OrderFlag } from '../../src/native.ts';
import { forgeBatch } from '../naive/forge.ts';
import { createPrng, exactRandomBytes, integerBelow } from '../support/prng.ts';
import { CutDriver, decode, encode, openTable } from './cutting.ts';
import {
  countsOf,
  cutSection,
  guestOf,
  KeepingEnds,
  kindsOf,
  type PageWrite,
  referencesOf,
  type SendOptions,
  type SentBatch,
  sectionOf,
} from './keeping.ts';

const PAGE_BITS = 12;
const PAGE_BYTES = 1 << PAGE_BITS;
const GUEST = guestOf(PAGE_BITS, 64);
const ALL: SendOptions = {
  base: 0,
  codec: Codec.Zstd,
  flags: OrderFlag.Keeps | OrderFlag.FindsSimilar,
};

const random = createPrng(1);
const noise = (byteCount = PAGE_BYTES): Uint8Array => exactRandomBytes(random, byteCount);

/** The page with one word in every `stride` bytes changed. */
function changed(page: Uint8Array, stride: number): Uint8Array {
  const copy = page.slice();
  for (let at = 0; at < copy.length; at += stride) copy[at]! ^= 0x55;
  return copy;
}

describe('pages that the destination has acknowledged', () => {
  test('are referred to wherever the same content comes again, as a run', async () => {
    const ends = new KeepingEnds(GUEST, 64);
    const pages = [noise(), noise(), noise()];
    const first = await ends.sendAndDeliver(
      pages.map((bytes, index) => [index, bytes]),
      { base: 0 },
    );
    expect(kindsOf(first)).toEqual(['11+']);
    expect(referencesOf(first)).toEqual([0]);
    const again = await ends.sendAndDeliver(
      pages.map((bytes, index) => [20 + index, bytes]),
      { base: 1 },
    );
    expect(kindsOf(again)).toEqual(['16']);
    expect(referencesOf(again)).toEqual([0]);
    expect(again.parsed.literalBytes).toBe(4);
    expect(countsOf(again)).toEqual({ same: 3, delta: 0, again: 0 });
    const scattered = await ends.sendAndDeliver(
      [2, 1, 0].map((index, place) => [30 + place, pages[index]!]),
      { base: 1 },
    );
    expect(referencesOf(scattered)).toEqual([2, 1, 0]);
  });

  test('are sent as what changed in them, and kept again where they were', async () => {
    const ends = new KeepingEnds(GUEST, 64);
    let page = noise();
    await ends.sendAndDeliver([[7, page]], { base: 0 });
    for (let number = 1; number < 6; number++) {
      page = changed(page, 1024);
      const sent = await ends.sendAndDeliver([[7, page]], { base: number });
      expect(kindsOf(sent)).toEqual(['17+']);
      expect(referencesOf(sent)).toEqual([0, 0]);
      expect(sent.encoded[Encoded.deltaBytes]).toBeLessThan(64);
      expect(countsOf(sent)).toEqual({ same: 0, delta: 1, again: 1 });
    }
  });

  test('help to compress where too much of them changed', async () => {
    const ends = new KeepingEnds(GUEST, 64);
    const page = noise();
    await ends.sendAndDeliver([[7, page]], { ...ALL });
    const shifted = new Uint8Array([1, 2, 3, ...page.subarray(0, -3)]);
    const sent = await ends.sendAndDeliver([[7, shifted]], { ...ALL, base: 1, flags: 1 });
    expect(kindsOf(sent)).toEqual(['3', '11+']);
    expect(sent.encoded[Encoded.codec]).toBe(Codec.Zstd);
    expect(sent.parsed.wire.length).toBeLessThan(PAGE_BYTES / 20);
  });

  test('help to compress similar pages elsewhere', async () => {
    const ends = new KeepingEnds(GUEST, 64);
    const page = noise();
    await ends.sendAndDeliver([[7, page]], { ...ALL });
    const moved = new Uint8Array([...noise(256), ...page.subarray(0, -256)]);
    const alone = await ends.sendAndDeliver([[8, moved]], { ...ALL, base: 1, flags: 0 });
    expect(kindsOf(alone)).toEqual(['11']);
    const sent = await ends.sendAndDeliver([[9, moved]], { ...ALL, base: 1 });
    expect(kindsOf(sent)).toEqual(['3', '11+']);
    expect(sent.parsed.wire.length).toBeLessThan(PAGE_BYTES / 8);
    expect(alone.parsed.wire.length).toBe(PAGE_BYTES);
  });

  test('are those of batches below the base, and no others', async () => {
    const [one, two] = [noise(), noise()];
    for (const [base, kinds] of [
      [0, ['11', '11']],
      [1, ['16', '11']],
      [2, ['16', '16']],
    ] as const) {
      const ends = new KeepingEnds(GUEST, 64);
      await ends.sendAndDeliver([[1, one]], { base: 0 });
      await ends.sendAndDeliver([[2, two]], { base: 0 });
      const last = await ends.sendAndDeliver(
        [
          [3, one],
          [5, two],
        ],
        { base, flags: 0 },
      );
      expect(kindsOf(last)).toEqual(kinds);
    }
  });
});

describe('a slot is not filled anew', () => {
  test('while a batch that refers to it may still be on its way', async () => {
    const ends = new KeepingEnds(GUEST, 1);
    const page = noise();
    await ends.sendAndDeliver([[1, page]], { base: 0 });
    const refers = await ends.send([[2, page]], { base: 1 });
    expect(kindsOf(refers)).toEqual(['16']);
    const next = changed(page, 1024);
    const overtakes = await ends.send([[1, next]], { base: 1 });
    expect(kindsOf(overtakes)).toEqual(['17']);
    await ends.deliver(overtakes);
    await ends.deliver(refers);
    const last = changed(next, 512);
    const keeps = await ends.sendAndDeliver([[1, last]], { base: 3 });
    expect(kindsOf(keeps)).toEqual(['17+']);
    expect(kindsOf(await ends.sendAndDeliver([[9, last]], { base: 4 }))).toEqual(['16']);
  });

  test('while a batch with a delta of it may still be on its way', async () => {
    const ends = new KeepingEnds(GUEST, 1);
    const page = noise();
    await ends.sendAndDeliver([[1, page]], { base: 0 });
    const same = await ends.sendAndDeliver([[2, page]], { base: 1 });
    // The slot is in use by the batch before: so this delta is not kept there.
    const delta = await ends.send([[1, changed(page, 1024)]], { base: 1 });
    expect([kindsOf(same), kindsOf(delta)]).toEqual([['16'], ['17']]);
    const overtakes = await ends.send([[1, changed(page, 512)]], { base: 2 });
    expect(kindsOf(overtakes)).toEqual(['17']);
    await ends.deliver(overtakes);
    await ends.deliver(delta);
    const last = await ends.sendAndDeliver([[1, changed(page, 256)]], { base: 4 });
    expect(kindsOf(last)).toEqual(['17+']);
  });

  test('while a batch that has it as prefix may still be on its way', async () => {
    const ends = new KeepingEnds(GUEST, 1);
    const page = noise();
    await ends.sendAndDeliver([[1, page]], { ...ALL });
    const moved = new Uint8Array([...noise(64), ...page.subarray(0, -64)]);
    const refers = await ends.send([[2, moved]], { ...ALL, base: 1 });
    expect(kindsOf(refers)).toEqual(['3', '11']);
    const overtakes = await ends.send([[1, changed(page, 1024)]], { base: 1 });
    expect(kindsOf(overtakes)).toEqual(['17']);
    await ends.deliver(overtakes);
    await ends.deliver(refers);
  });

  test('while the batch that filled it may still be on its way', async () => {
    const ends = new KeepingEnds(GUEST, 1);
    const [one, two] = [noise(), noise()];
    const fills = await ends.send([[1, one]], { base: 0 });
    const again = await ends.send([[1, two]], { base: 0 });
    expect([kindsOf(fills), kindsOf(again)]).toEqual([['11+'], ['11']]);
    await ends.deliver(again);
    await ends.deliver(fills);
    expect(kindsOf(await ends.sendAndDeliver([[5, one]], { base: 2 }))).toEqual(['16']);
  });

  test('in whatever order the threads come to the batches that refer to it', async () => {
    const ends = new KeepingEnds(GUEST, 1);
    const page = noise();
    await ends.sendAndDeliver([[1, page]], { base: 0 });
    const later = await ends.send([[3, page]], { base: 1, number: 2 });
    const sooner = await ends.sendAndDeliver([[2, page]], { base: 1, number: 1 });
    expect([kindsOf(later), kindsOf(sooner)]).toEqual([['16'], ['16']]);
    const overtakes = await ends.send([[1, changed(page, 1024)]], { base: 2 });
    expect(kindsOf(overtakes)).toEqual(['17']);
    await ends.deliver(overtakes);
    await ends.deliver(later);
  });

  test('with a page of the same batch that another page of it is like', async () => {
    const ends = new KeepingEnds(GUEST, 1);
    const page = noise();
    await ends.sendAndDeliver([[1, page]], { base: 0 });
    const next = changed(page, 1024);
    const both = await ends.sendAndDeliver(
      [
        [0, page],
        [1, next],
      ],
      { base: 1 },
    );
    expect(kindsOf(both)).toEqual(['16', '17']);
    // The other way round the slot is the changed page's, and the page that it was is gone.
    const other = new KeepingEnds(GUEST, 1);
    await other.sendAndDeliver([[1, page]], { base: 0 });
    const swapped = await other.sendAndDeliver(
      [
        [1, next],
        [2, page],
      ],
      { base: 1 },
    );
    expect(kindsOf(swapped)).toEqual(['17+', '11']);
  });
});

test('a page that changes twice before an ack is sent anew, and then as what changed', async () => {
  const ends = new KeepingEnds(GUEST, 8);
  const versions = [noise()];
  while (versions.length < 5) versions.push(changed(versions.at(-1)!, 512));
  const sendVersion = (version: number, base: number) =>
    ends.send([[3, versions[version]!]], { base });
  await ends.deliver(await sendVersion(0, 0));
  const sent = [await sendVersion(1, 1), await sendVersion(2, 1), await sendVersion(3, 1)];
  expect(sent.map(kindsOf)).toEqual([['17+'], ['11'], ['11']]);
  for (const batch of sent.toReversed()) await ends.deliver(batch);
  // The store has version 1: that is what the next one is compared with.
  const last = await sendVersion(4, 4);
  expect(kindsOf(last)).toEqual(['17+']);
  await ends.deliver(last);
});

test.each([1, 3, 16])('a store of %i slots serves a guest of 64 pages', async (slots) => {
  const ends = new KeepingEnds(GUEST, slots);
  let pages = Array.from({ length: 64 }, () => noise());
  let delta = 0;
  for (let number = 0; number < 24; number++) {
    const dirty = [0, ...Array.from({ length: 12 }, () => integerBelow(random, 64))];
    pages = pages.map((page, index) => (dirty.includes(index) ? changed(page, 1024) : page));
    const sent = await ends.sendAndDeliver(
      [...new Set(dirty)].map((page) => [page, pages[page]!]),
      { base: number },
    );
    expect(Math.max(0, ...referencesOf(sent))).toBeLessThan(slots);
    delta += countsOf(sent).delta;
  }
  expect(delta).toBeGreaterThan(0);
});

test('a full store keeps what was sent before in place of what was not', async () => {
  const ends = new KeepingEnds(GUEST, 2);
  const pages = Array.from({ length: 6 }, () => noise());
  await ends.sendAndDeliver(
    [0, 1, 2, 3].map((page) => [page, pages[page]!]),
    { base: 0 },
  );
  const fresh = await ends.sendAndDeliver([[4, pages[4]!]], { base: 1 });
  expect(kindsOf(fresh)).toEqual(['11']);
  const again = await ends.sendAndDeliver([[3, pages[5]!]], { base: 2 });
  expect(kindsOf(again)).toEqual(['11+']);
  // What was in that slot is not known any more: the page is sent with its bytes.
  const evicted = referencesOf(again)[0]!;
  const lost = await ends.sendAndDeliver([[9, pages[evicted]!]], { base: 3 });
  expect(kindsOf(lost)).toEqual(['11']);
});

describe('without keeping', () => {
  test('nothing is kept that was not', async () => {
    const ends = new KeepingEnds(GUEST, 8);
    const page = noise();
    for (let number = 0; number < 3; number++) {
      const sent = await ends.sendAndDeliver([[number, page]], { base: number, flags: 0 });
      expect(kindsOf(sent)).toEqual(['11']);
    }
  });

  test('what was kept is referred to, and kept up to date', async () => {
    const ends = new KeepingEnds(GUEST, 8);
    const page = noise();
    await ends.sendAndDeliver([[0, page]], { base: 0 });
    const same = await ends.sendAndDeliver([[1, page]], { base: 1, flags: 0 });
    expect(kindsOf(same)).toEqual(['16']);
    const next = changed(page, 1024);
    const sent = await ends.sendAndDeliver([[0, next]], { base: 2, flags: 0 });
    expect(kindsOf(sent)).toEqual(['17+']);
    const again = await ends.sendAndDeliver([[5, next]], { base: 3, flags: 0 });
    expect(kindsOf(again)).toEqual(['16']);
  });

  test('a batch without a store refers to nothing', async () => {
    const page = noise();
    const sealed = cutSection(GUEST, sectionOf(GUEST, [[0, page]]));
    for (const codec of [Codec.None, Codec.Lz4, Codec.Zstd]) {
      const batch = await encode(sealed, codec, 1, { number: 9, base: 9, flags: 3 });
      await decode(openTable(GUEST), batch);
    }
  });
});

/**
 * Where XXH3_64 with seed 0 reads a word of a page with a key whose low half can be met, its high
 * half counts only in a sum with that of the next stripe.
 *
 * Source: xxHash, XXH3_scalarRound() and the first bytes of XXH3_kSecret.
 */
const COLLIDING_WORDS = [
  { at: 0, low: [0xb8, 0xfe, 0x6c, 0x39] },
  { at: 64, low: [0x7c, 0x01, 0x81, 0x2c] },
] as const;

function collidingPages(byteCount: number): [Uint8Array, Uint8Array] {
  const one = noise(byteCount);
  for (const { at, low } of COLLIDING_WORDS) one.set([...low, 1, 0, 0, 0], at);
  const other = one.slice();
  other[COLLIDING_WORDS[0].at + 4] = 2;
  other[COLLIDING_WORDS[1].at + 4] = 0;
  return [one, other];
}

test.each([10, 12, 16])(
  'pages of one hash and other bytes are told apart, bits %i',
  async (bits) => {
    const [one, other] = collidingPages(1 << bits);
    expect(native.hash64(one, 0n)).toBe(native.hash64(other, 0n));
    expect(Buffer.compare(one, other)).not.toBe(0);
    const ends = new KeepingEnds(guestOf(bits, 8), 8);
    await ends.sendAndDeliver([[0, one]], { base: 0 });
    const sent = await ends.sendAndDeliver([[1, other]], { base: 1 });
    expect(kindsOf(sent)).toEqual(['11']);
    // Of its own earlier version too: by bytes it is another page.
    const changes = await ends.sendAndDeliver([[0, other]], { base: 2 });
    expect(kindsOf(changes)).toEqual(['17']);
    expect(kindsOf(await ends.sendAndDeliver([[2, one]], { base: 3 }))).toEqual(['16']);
  },
);

const BITS = [10, 11, 12, 13, 14, 15, 16];

describe.each(BITS)('pages of 2^%i bytes', (pageBits) => {
  const pageBytes = 1 << pageBits;
  const guest = guestOf(pageBits, 64);
  const filled = (word: string): Uint8Array => new Uint8Array(Buffer.alloc(pageBytes, word));

  test('that repeat a word are runs of 8 bytes, each word a run', async () => {
    const ends = new KeepingEnds(guest, 8);
    const words = ['ABCDEFGH', 'ABCDEFGH', 'ABCDEFGX', '\u0001', 'ABCDEFGH'];
    const sent = await ends.sendAndDeliver(
      words.map((word, page) => [page, filled(word)]),
      { base: 0 },
    );
    expect(kindsOf(sent)).toEqual(['15', '15', '15', '15']);
    const runs = sent.parsed.entries.filter(({ kind }) => kind === 0x15);
    expect(runs.map(({ count }) => count)).toEqual([2, 1, 1, 1]);
    expect(sent.parsed.literalBytes).toBe(4 * 8);
    // They cost no more the second time, and are not kept.
    const again = await ends.sendAndDeliver([[9, filled('ABCDEFGH')]], { base: 1 });
    expect(kindsOf(again)).toEqual(['15']);
  });

  test('that nearly repeat a word are not', async () => {
    for (const at of [0, 7, 8, pageBytes / 2 - 1, pageBytes / 2, pageBytes - 9, pageBytes - 1]) {
      const page = filled('ABCDEFGH');
      page[at]! ^= 1;
      const sent = await new KeepingEnds(guest, 8).sendAndDeliver([[1, page]], { base: 0 });
      expect(kindsOf(sent)).toEqual(['11+']);
    }
  });

  test('are kept, and referred to as same, delta and prefix', async () => {
    const ends = new KeepingEnds(guest, 8);
    const [page, other] = [noise(pageBytes), noise(pageBytes)];
    await ends.sendAndDeliver(
      [
        [0, page],
        [1, other],
      ],
      ALL,
    );
    const shifted = new Uint8Array([9, ...other.subarray(0, -1)]);
    const sent = await ends.sendAndDeliver(
      [
        [5, other],
        [0, changed(page, 512)],
        [1, shifted],
      ],
      { ...ALL, base: 1 },
    );
    expect(kindsOf(sent)).toEqual(['3', '16', '17+', '11']);
    expect(sent.parsed.wire.length).toBeLessThan(pageBytes / 4 + 128);
  });

  test('whose every word changed are deltas only where nothing is compressed', async () => {
    const ends = new KeepingEnds(guest, 8);
    const page = noise(pageBytes);
    await ends.sendAndDeliver([[0, page]], { base: 0 });
    const half = changed(page.subarray(0, pageBytes / 2), 8);
    const next = new Uint8Array([...half, ...page.subarray(pageBytes / 2)]);
    const lz4 = await ends.sendAndDeliver([[0, next]], { base: 1, codec: Codec.Lz4, flags: 0 });
    expect(kindsOf(lz4)).toEqual(['11+']);
    const last = changed(next, 16);
    const none = await ends.sendAndDeliver([[0, last]], { base: 2 });
    expect(kindsOf(none)).toEqual(['17+']);
    const all = await ends.sendAndDeliver([[0, changed(last, 8)]], { base: 3 });
    expect(kindsOf(all)).toEqual(['11+']);
  });
});

const LEVELS: readonly (readonly [string, Codec, number])[] = [
  ['none', Codec.None, 0],
  ['lz4 1', Codec.Lz4, 1],
  ['lz4 4', Codec.Lz4, 4],
  ['lz4 65537', Codec.Lz4, 65537],
  ['zstd -131072', Codec.Zstd, -131072],
  ['zstd -1', Codec.Zstd, -1],
  ['zstd 1', Codec.Zstd, 1],
  ['zstd 3', Codec.Zstd, 3],
  ['zstd 12', Codec.Zstd, 12],
  ['zstd 22', Codec.Zstd, 22],
];

/** A page of words, some of them common to all pages. */
function mixedPage(): Uint8Array {
  const words = Array.from({ length: PAGE_BYTES / 8 }, () =>
    integerBelow(random, 3) === 0 ? [...noise(8)] : [1, 0, integerBelow(random, 20), 0, 0, 0, 9, 9],
  );
  return Uint8Array.from(words.flat());
}

test.each(LEVELS)('every kind of reference comes back with %s', async (_, codec, level) => {
  const ends = new KeepingEnds(GUEST, 40);
  let pages = Array.from({ length: 64 }, mixedPage);
  const options = { codec, level, flags: 3 };
  await ends.sendAndDeliver(
    pages.map((bytes, page) => [page, bytes]),
    { ...options, base: 0 },
  );
  let [same, delta] = [0, 0];
  for (let base = 1; base < 6; base++) {
    pages = pages.map((page, index) => {
      if (index % 5 === 0) return changed(page, 700);
      if (index % 5 === 1) return pages[(index + 7 * base) % 64]!;
      if (index % 5 === 2) return new Uint8Array([base, ...page.subarray(0, -1)]);
      return page;
    });
    const sent = await ends.sendAndDeliver(
      pages.map((bytes, page) => [page, bytes]),
      { ...options, base },
    );
    same += countsOf(sent).same;
    delta += countsOf(sent).delta;
    const hasPrefix = kindsOf(sent).includes('3');
    expect(hasPrefix).toBe(codec === Codec.Zstd);
  }
  expect(same).toBeGreaterThan(50);
  expect(delta).toBeGreaterThan(20);
});

describe('a store that differs', () => {
  /** Two batches, and a destination whose slot 0 was changed between them. */
  async function decodeWithOther(second: SendOptions, next: (page: Uint8Array) => Uint8Array) {
    const ends = new KeepingEnds(GUEST, 4);
    const page = noise();
    await ends.sendAndDeliver([[0, page]], ALL);
    const sent = await ends.send([[0, next(page)]], second);
    const contents = page.slice();
    contents[2000]! ^= 1;
    const entries = [{ kind: 0x11, flags: 2, slots: [0], contents }];
    await decode(ends.table, forgeBatch({ pageBits: PAGE_BITS, entries }));
    return { kinds: kindsOf(sent), done: decode(ends.table, sent.batch) };
  }

  test('is found where a page is the same', async () => {
    const { kinds, done } = await decodeWithOther({ base: 1 }, (page) => page);
    expect(kinds).toEqual(['16']);
    await expect(done).rejects.toMatchObject({ code: 'ERR_BATCH_CHECKSUM' });
  });

  test('is found where a page is a delta', async () => {
    const { kinds, done } = await decodeWithOther({ base: 1 }, (page) => changed(page, 1024));
    expect(kinds).toEqual(['17+']);
    await expect(done).rejects.toMatchObject({ code: 'ERR_BATCH_CHECKSUM' });
  });

  test('is found where a page helped to compress', async () => {
    const shift = (page: Uint8Array) => new Uint8Array([1, ...page.subarray(0, -1)]);
    const { kinds, done } = await decodeWithOther({ ...ALL, base: 1 }, shift);
    expect(kinds).toEqual(['3', '11+']);
    const code = expect.stringMatching(/^ERR_BATCH_(CHECKSUM|LITERALS)$/);
    await expect(done).rejects.toMatchObject({ code });
  });
});

test('the largest batches fit: every page of a full one kept, none of them in a run', async () => {
  const guest = guestOf(10, 4096);
  const ends = new KeepingEnds(guest, 2048);
  const pages = Array.from({ length: 1024 }, () => noise(1024));
  const first = await ends.sendAndDeliver(
    pages.map((bytes, page) => [2 * page, bytes]),
    { base: 0 },
  );
  expect(first.parsed.entries.length).toBe(1024 + 2);
  const sent = await ends.sendAndDeliver(
    pages.map((bytes, page) => [2 * page, changed(bytes, 512)]),
    { ...ALL, base: 1 },
  );
  expect(countsOf(sent)).toEqual({ same: 0, delta: 1024, again: 1024 });
  const shifted = pages.map(
    (bytes, page): PageWrite => [2 * page, new Uint8Array([5, ...bytes.subarray(0, -1)])],
  );
  // As much as may help to compress: one run of slots, and then as many runs as there may be.
  const oneRun = await ends.sendAndDeliver(shifted, { ...ALL, base: 2 });
  expect(prefixCounts(oneRun)).toEqual([512]);
  const manyRuns = await ends.sendAndDeliver(
    pages.flatMap((bytes, page): PageWrite[] => (page % 2 === 0 ? [[2 * page, bytes]] : [])),
    { ...ALL, base: 3, flags: OrderFlag.Keeps },
  );
  expect(prefixCounts(manyRuns)).toEqual(Array.from({ length: 128 }, () => 1));
});

/** Pages of each prefix entry. */
function prefixCounts({ parsed }: SentBatch): number[] {
  return parsed.entries.filter(({ kind }) => kind === 3).map(({ count }) => count);
}

test('a batch of as many entries as the cutter makes has room for what the encoder adds', async () => {
  const guest = guestOf(PAGE_BITS, 20_000);
  const ends = new KeepingEnds(guest, 400);
  const raw = Array.from({ length: 256 }, (_, index) => [index, noise()] as const);
  await ends.sendAndDeliver(raw, ALL);
  const zero = new Uint8Array(PAGE_BYTES);
  const scattered = Array.from({ length: 4000 }, (_, index) => [1000 + 2 * index, zero] as const);
  const shifted = raw.map(
    ([page, bytes]) => [page, new Uint8Array([7, ...bytes.subarray(0, -1)])] as const,
  );
  const driver = new CutDriver(guest);
  driver.push(sectionOf(guest, [...shifted, ...scattered]));
  driver.seal();
  const [full] = driver.batches;
  const batch = await encode(full!, Codec.Zstd, 1, {
    store: ends.index,
    number: 1,
    base: 1,
    flags: 3,
  });
  const { records } = await decode(ends.table, batch);
  expect(records.length).toBeGreaterThan(256 * PAGE_BYTES);
});

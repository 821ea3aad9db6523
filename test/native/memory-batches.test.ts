import { closeSync, ftruncateSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import {
  type BlockTable,
  Codec,
  Decoded,
  Encoded,
  EncodedRange,
  HASH_SECRET_BYTES,
  native,
  Order,
  OrderFlag,
  PAGE_HASH_BYTES,
  Sealed,
  SLOT_ROOM_BYTES,
} from '../../src/native.ts';
import type { NativeGuestMemory } from '../../src/native-memory.ts';
import { GuestMemory } from '../../src/page/memory.ts';
import { createPrng, exactRandomBytes, integerBelow } from '../support/prng.ts';

const PAGE_BYTES = 4096;
const PAGES = 300;
const SECRET = exactRandomBytes(createPrng(99), HASH_SECRET_BYTES);

function openGuest(pages: number = PAGES): { guest: GuestMemory; file: number } {
  const file = native.createMemoryFile('guest', pages * PAGE_BYTES, 0);
  return { guest: new GuestMemory([{ name: 'ram', file }], { isWritable: true }), file };
}

function openTable(pages: number = PAGES, slots = 0): BlockTable {
  const table = new native.BlockTable(12, false, 0);
  table.setBlocks(['ram'], Float64Array.of(pages * PAGE_BYTES));
  if (slots > 0) table.setStore(new native.PageStore(12, slots));
  return table;
}

/** Contents of each kind there is: zeros, a repeated word, text, noise, and a page seen before. */
function fillPage(page: Uint8Array, random: () => number): void {
  const kind = integerBelow(random, 4);
  if (kind === 0) page.fill(0);
  else if (kind === 1) page.fill(integerBelow(random, 256));
  else if (kind === 2) for (let at = 0; at < page.length; at++) page[at] = 97 + (at % 17);
  else page.set(exactRandomBytes(random, page.length));
}

function pageOf(bytes: Uint8Array, index: number): Uint8Array {
  return bytes.subarray(index * PAGE_BYTES, (index + 1) * PAGE_BYTES);
}

interface Sent {
  readonly batch: Uint8Array;
  readonly sealed: Int32Array;
  readonly encoded: Int32Array;
}

interface Way {
  readonly codec?: Codec;
  readonly number?: number;
  readonly base?: number;
  readonly flags?: number;
  readonly store?: InstanceType<typeof native.StoreIndex>;
  readonly literalBytes?: number;
}

async function encodeRange(
  memory: NativeGuestMemory,
  words: Uint32Array,
  [from, end]: readonly [number, number],
  way: Way = {},
): Promise<Sent> {
  const { codec = Codec.None, number = 0, base = 0, flags = 0, store } = way;
  const slotBytes = SLOT_ROOM_BYTES + (way.literalBytes ?? 512 * 1024);
  const slot = new Uint8Array(new ArrayBuffer(slotBytes));
  const out = new Uint8Array(new ArrayBuffer(slotBytes));
  const order = new Int32Array(Order.count);
  order[Order.codec] = codec;
  order[Order.level] = codec === Codec.None ? 0 : 1;
  order[Order.number] = number;
  order[Order.base] = base;
  order[Order.flags] = flags;
  const sealed = new Int32Array(Sealed.count);
  const encoded = new Int32Array(EncodedRange.count);
  const into = [slot, order, store, out, sealed, encoded] as const;
  await native.encodePages(memory, 0, words, from, end, ...into);
  const bytes = encoded[Encoded.inOut] === 1 ? out : slot;
  const batch = bytes.slice(encoded[Encoded.start], encoded[Encoded.end]);
  return { batch, sealed, encoded };
}

/** Sends the pages whose bits are set, one batch after another. */
async function send(
  memory: NativeGuestMemory,
  words: Uint32Array,
  take: (batch: Uint8Array) => Promise<unknown>,
  way: Way = {},
): Promise<Sent[]> {
  const sent: Sent[] = [];
  let from = 0;
  let number = way.number ?? 0;
  while (from < PAGES) {
    const part = await encodeRange(memory, words, [from, PAGES], { ...way, number });
    from += part.encoded[EncodedRange.taken]!;
    number++;
    sent.push(part);
    await take(part.batch);
  }
  return sent;
}

function allWords(pages: number = PAGES): Uint32Array {
  const words = new Uint32Array(2 * Math.ceil(pages / 64));
  for (let page = 0; page < pages; page++) words[page >>> 5]! |= 1 << (page & 31);
  return words;
}

describe('pages of guest memory', () => {
  const codecs = Object.entries(Codec);
  test.each(codecs)(
    'arrive as they are, those that are set and no others, %s',
    async (_, codec) => {
      const random = createPrng(codec);
      const { guest, file } = openGuest();
      const there = openGuest();
      const view = guest.view(0);
      const thereView = there.guest.view(0);
      for (let page = 0; page < PAGES; page++) fillPage(pageOf(view, page), random);
      const before = exactRandomBytes(random, thereView.length);
      thereView.set(before);
      const target = new native.MemoryTarget(there.guest.native);
      target.addHeld(0, allWords());
      const words = new Uint32Array(10);
      for (let page = 0; page < PAGES; page++)
        if (random() < 0.7) words[page >>> 5]! |= 1 << (page & 31);
      const table = openTable();
      const decoded = new Int32Array(Decoded.count);
      const sent = await send(
        guest.native,
        words,
        (batch) => native.applyBatch(table, target, batch, decoded),
        { codec },
      );
      for (let page = 0; page < PAGES; page++) {
        const isSet = ((words[page >>> 5]! >>> (page & 31)) & 1) === 1;
        const wanted = isSet ? pageOf(view, page) : pageOf(before, page);
        expect(Buffer.compare(pageOf(thereView, page), wanted), `page ${page}`).toBe(0);
      }
      const pages = sent.reduce((sum, { sealed }) => sum + sealed[Sealed.pages]!, 0);
      const set = [...words].reduce(
        (sum, word) => sum + (word >>> 0).toString(2).replaceAll('0', '').length,
        0,
      );
      expect(pages).toBe(set);
      for (const each of [guest, there.guest]) each.dispose();
      for (const each of [file, there.file]) closeSync(each);
    },
  );

  test('that changed are sent as what changed, and arrive', async () => {
    const random = createPrng(7);
    const { guest, file } = openGuest();
    const there = openGuest();
    const view = guest.view(0);
    for (let page = 0; page < PAGES; page++) fillPage(pageOf(view, page), random);
    const table = openTable(PAGES, PAGES);
    const store = new native.StoreIndex(['ram'], Float64Array.of(PAGES * PAGE_BYTES), 12, PAGES);
    const target = new native.MemoryTarget(there.guest.native);
    const decoded = new Int32Array(Decoded.count);
    const take = (batch: Uint8Array): Promise<void> =>
      native.applyBatch(table, target, batch, decoded);
    let number = 0;
    const counts = { same: 0, delta: 0 };
    for (let round = 0; round < 6; round++) {
      const way = { codec: Codec.Lz4, number, base: number, flags: OrderFlag.Keeps, store };
      const sent = await send(guest.native, allWords(), take, way);
      number += sent.length;
      for (const { encoded } of sent) {
        counts.same += encoded[Encoded.samePages]!;
        counts.delta += encoded[Encoded.deltaPages]!;
      }
      expect(Buffer.compare(there.guest.view(0), view), `round ${round}`).toBe(0);
      for (let page = 0; page < PAGES; page++) {
        if (random() < 0.3) view[page * PAGE_BYTES + integerBelow(random, PAGE_BYTES)]! ^= 0x41;
        else if (random() < 0.1) fillPage(pageOf(view, page), random);
      }
    }
    expect(counts.same).toBeGreaterThan(PAGES);
    expect(counts.delta).toBeGreaterThan(50);
    for (const each of [guest, there.guest]) each.dispose();
    for (const each of [file, there.file]) closeSync(each);
  });

  test('of zeros make no page where there was none, and clear one where there was', async () => {
    const { guest, file } = openGuest();
    const there = openGuest();
    pageOf(there.guest.view(0), 5).fill(9);
    const held = allWords().fill(0);
    held[0] = 1 << 5;
    const target = new native.MemoryTarget(there.guest.native);
    target.addHeld(0, held);
    const decoded = new Int32Array(Decoded.count);
    const table = openTable();
    await send(guest.native, allWords(), (batch) =>
      native.applyBatch(table, target, batch, decoded),
    );
    const populated = new Uint32Array(held.length);
    there.guest.findPopulated(0, populated);
    expect([...populated]).toEqual([...held]);
    expect(there.guest.view(0).every((byte) => byte === 0)).toBe(true);
    for (const each of [guest, there.guest]) each.dispose();
    for (const each of [file, there.file]) closeSync(each);
  });
});

describe('a batch with one wrong bit', () => {
  test.each(Object.entries(Codec))(
    'changes nothing, or is as good as the right one, %s',
    async (_, codec) => {
      const random = createPrng(3);
      const { guest, file } = openGuest();
      for (let page = 0; page < 12; page++) fillPage(pageOf(guest.view(0), page), random);
      const { batch } = await encodeRange(guest.native, allWords(), [0, 12], { codec });
      const table = openTable();
      const decoded = new Int32Array(Decoded.count);
      const there = openGuest();
      const view = there.guest.view(0);
      let refused = 0;
      const headBits = 8 * Math.min(batch.length, 400);
      for (let flip = 0; flip < headBits + 400; flip++) {
        const bit =
          flip < headBits ? flip : headBits + integerBelow(random, 8 * batch.length - headBits);
        const target = new native.MemoryTarget(there.guest.native);
        target.addHeld(0, allWords());
        view.subarray(0, 16 * PAGE_BYTES).fill(0xee);
        const wrong = batch.slice();
        wrong[bit >>> 3]! ^= 1 << (bit & 7);
        const fault = await native.applyBatch(table, target, wrong, decoded).then(
          () => undefined,
          (error: { code: string }) => error.code,
        );
        const first = view.subarray(0, 12 * PAGE_BYTES);
        if (fault === undefined) {
          expect(
            Buffer.compare(first, guest.view(0).subarray(0, 12 * PAGE_BYTES)),
            `bit ${bit}`,
          ).toBe(0);
        } else {
          expect(fault).toMatch(/^ERR_BATCH_/);
          expect(
            first.every((byte) => byte === 0xee),
            `bit ${bit}`,
          ).toBe(true);
          refused++;
        }
      }
      expect(refused).toBeGreaterThan(headBits);
      for (const each of [guest, there.guest]) each.dispose();
      for (const each of [file, there.file]) closeSync(each);
    },
  );
});

describe('memory that is not there', () => {
  test('is an error: closed, truncated, or read-only', async () => {
    const { guest, file } = openGuest();
    const { batch } = await encodeRange(guest.native, allWords(), [0, 10]);
    const reader = new GuestMemory([{ name: 'ram', file }]);
    expect(() => new native.MemoryTarget(reader.native)).toThrow(/must be writable/);
    const target = new native.MemoryTarget(guest.native);
    ftruncateSync(file, 2 * PAGE_BYTES);
    await expect(encodeRange(guest.native, allWords(), [0, 10])).rejects.toMatchObject({
      code: 'ERR_MEMORY_LOST',
    });
    const decoded = new Int32Array(Decoded.count);
    await expect(native.applyBatch(openTable(), target, batch, decoded)).rejects.toMatchObject({
      code: 'ERR_MEMORY_LOST',
    });
    guest.dispose();
    await expect(encodeRange(guest.native, allWords(), [0, 10])).rejects.toMatchObject({
      code: 'ERR_MEMORY_CLOSED',
    });
    reader.dispose();
    closeSync(file);
  });

  test('is kept while a thread reads it', async () => {
    const { guest, file } = openGuest();
    guest.view(0).fill(7);
    const pending = encodeRange(guest.native, allWords(), [0, 100]);
    guest.dispose();
    closeSync(file);
    const { sealed } = await pending;
    expect(sealed[Sealed.fillPages]).toBe(100);
  });
});

test('hashPages() tells pages apart, and only with its secret', async () => {
  const { guest, file } = openGuest();
  const view = guest.view(0);
  pageOf(view, 1).fill(1);
  pageOf(view, 2).fill(1);
  pageOf(view, 3).fill(2);
  const words = allWords();
  words[0]! &= ~(1 << 4);
  const hash = async (secret: Uint8Array): Promise<string[]> => {
    const hashes = new Uint8Array(new ArrayBuffer(6 * PAGE_HASH_BYTES));
    await native.hashPages(guest.native, 0, words, 0, 6, secret, hashes);
    return Array.from({ length: 6 }, (_, page) =>
      Buffer.from(hashes.subarray(page * 16, page * 16 + 16)).toString('hex'),
    );
  };
  const [zero, one, alsoOne, two, unset, alsoZero] = await hash(SECRET);
  expect(one).toBe(alsoOne);
  expect(zero).toBe(alsoZero);
  expect(new Set([zero, one, two, unset]).size).toBe(4);
  expect(unset).toBe('0'.repeat(32));
  const other = SECRET.slice();
  other[100]! ^= 1;
  const others = await hash(other);
  expect(others[1]).not.toBe(one);
  guest.dispose();
  closeSync(file);
});

test('arguments are checked', async () => {
  const { guest, file } = openGuest();
  const memory = guest.native;
  const cases: [RegExp, () => Promise<unknown>][] = [
    [/"end" must be/, () => encodeRange(memory, allWords(), [0, PAGES + 1])],
    [/"from" must be/, () => encodeRange(memory, allWords(), [11, 10])],
    [/a bit for every page/, () => encodeRange(memory, new Uint32Array(2), [0, 65])],
    [/multiple of 8 bytes/, () => encodeRange(memory, new Uint32Array(12).subarray(1), [0, 10])],
    [/room for two pages/, () => encodeRange(memory, allWords(), [0, 1], { literalBytes: 100 })],
    [/"base" must be/, () => encodeRange(memory, allWords(), [0, 1], { number: 1, base: 2 })],
    [/a GuestMemory/, () => encodeRange({} as NativeGuestMemory, allWords(), [0, 1])],
  ];
  for (const [message, call] of cases) await expect(call()).rejects.toThrow(message);
  const target = new native.MemoryTarget(memory);
  const decoded = new Int32Array(Decoded.count);
  const apply = async (): Promise<void> =>
    native.applyBatch(openTable(PAGES + 1), target, new Uint8Array(64), decoded);
  await expect(apply()).rejects.toThrow(/must be those of the memory/);
  expect(() => target.addHeld(1, allWords())).toThrow(RangeError);
  guest.dispose();
  closeSync(file);
});

test('buffers are kept while a thread works on them, and as long as a target has them', async () => {
  const make = (): NativeGuestMemory => {
    const buffer = new Uint8Array(new ArrayBuffer(PAGES * PAGE_BYTES)).fill(3);
    return new GuestMemory([{ name: 'ram', buffer }], { isWritable: true }).native;
  };
  const collect = globalThis.gc;
  const sent = encodeRange(make(), allWords(), [0, 100]);
  const target = new native.MemoryTarget(make());
  collect?.();
  const { batch, sealed } = await sent;
  expect(sealed[Sealed.fillPages]).toBe(100);
  collect?.();
  const decoded = new Int32Array(Decoded.count);
  await native.applyBatch(openTable(), target, batch, decoded);
  expect(decoded[Decoded.fillPages]).toBe(100);
});

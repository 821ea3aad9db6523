import { closeSync, ftruncateSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type BlockTable, Compared, native, type PageHashes } from '../../src/native.ts';
import type { NaiveTarget } from '../naive/batch.ts';
import { type ForgedEntry, forgeBatch } from '../naive/forge.ts';
import { createPrng, exactRandomBytes } from '../support/prng.ts';
import { columns, decode, openTable } from './cutting.ts';

const PAGE_BITS = 12;
const PAGE_BYTES = 1 << PAGE_BITS;
const PAGES = 600;
const BLOCKS = [
  { name: 'memory', usedBytes: PAGES * PAGE_BYTES },
  { name: 'pc.bios', usedBytes: 4 * PAGE_BYTES },
];
const GUEST: NaiveTarget = { pageBits: PAGE_BITS, hasFooter: true, sectionId: 2, blocks: BLOCKS };
const [NAMES, USED_BYTES] = columns(GUEST);

/** Pages of more than one read. */
const ALL = { firstPage: 0, pageCount: PAGES };

const Kind = { zero: 0x10, raw: 0x11, blank: 0x12, xbzrle: 0x13, fill: 0x15 } as const;
const NOTHING = { pages: 0, differing: 0, unknown: 0, firstDiffering: 0, error: 0 };

const random = createPrng(3);
const noise = (): Uint8Array => exactRandomBytes(random, PAGE_BYTES);
const raw = (firstPage: number, ...contents: Uint8Array[]): ForgedEntry => {
  const count = contents.length;
  return { kind: Kind.raw, firstPage, count, contents: new Uint8Array(Buffer.concat(contents)) };
};

let path: string;
let file: number;
let hashes: PageHashes;
let table: BlockTable;
beforeEach(() => {
  path = join(tmpdir(), `pagelane-hashes-${process.pid}`);
  file = openSync(path, 'w+');
  ftruncateSync(file, PAGES * PAGE_BYTES);
  hashes = new native.PageHashes(NAMES, USED_BYTES, PAGE_BITS);
  table = openTable(GUEST);
  table.setHashes(hashes);
});
afterEach(() => {
  closeSync(file);
  rmSync(path);
});

async function deliver(number: number, ...entries: ForgedEntry[]): Promise<void> {
  await decode(table, forgeBatch({ pageBits: PAGE_BITS, number, entries }));
}

function load(page: number, bytes: Uint8Array): void {
  writeSync(file, bytes, 0, bytes.length, page * PAGE_BYTES);
}

async function compare({ firstPage, pageCount } = ALL): Promise<typeof NOTHING> {
  const compared = new Float64Array(Compared.count);
  await native.comparePages(hashes, file, 0, firstPage, pageCount, compared);
  const [pages, differing, unknown, firstDiffering, error] = [...compared];
  return {
    pages: pages!,
    differing: differing!,
    unknown: unknown!,
    firstDiffering: firstDiffering!,
    error: error!,
  };
}

describe('what was decoded is compared with what a file has', () => {
  test('and is equal, however it was encoded; what never came is unknown', async () => {
    const [one, two] = [noise(), noise()];
    const word = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
    const fill = { kind: Kind.fill, firstPage: 590, contents: word };
    const blank = { kind: Kind.blank, firstPage: 20, count: 2 };
    await deliver(0, raw(5, one, two), blank, { kind: Kind.zero, firstPage: 300, count: 3 }, fill);
    load(5, one);
    load(6, two);
    for (let at = 0; at < PAGE_BYTES; at += 8) writeSync(file, word, 0, 8, 590 * PAGE_BYTES + at);
    expect(await compare()).toEqual({ ...NOTHING, pages: 8, unknown: PAGES - 8 });
    expect(await compare({ firstPage: 6, pageCount: 1 })).toEqual({ ...NOTHING, pages: 1 });
  });

  test('a flipped bit is found, and the first page of those that differ', async () => {
    const pages = Array.from({ length: 40 }, noise);
    await deliver(0, raw(100, ...pages));
    await deliver(1, { kind: Kind.zero, firstPage: 500, count: 20 });
    for (const [index, page] of pages.entries()) load(100 + index, page);
    const clean = { ...NOTHING, pages: 60, unknown: PAGES - 60 };
    expect(await compare()).toEqual(clean);
    const flipped = pages[39]!.slice();
    flipped[PAGE_BYTES - 1]! ^= 0x80;
    load(139, flipped);
    expect(await compare()).toEqual({ ...clean, differing: 1, firstDiffering: 139 });
    writeSync(file, Uint8Array.of(1), 0, 1, 519 * PAGE_BYTES);
    writeSync(file, Uint8Array.of(1), 0, 1, 501 * PAGE_BYTES + 77);
    expect(await compare()).toEqual({ ...clean, differing: 3, firstDiffering: 139 });
    const behind = { firstPage: 140, pageCount: PAGES - 140 };
    expect(await compare(behind)).toMatchObject({ differing: 2, firstDiffering: 501 });
  });

  test('the batch with the highest number counts, in whatever order they are decoded', async () => {
    const [old, last] = [noise(), noise()];
    await deliver(7, raw(1, last));
    await deliver(3, raw(1, old), { kind: Kind.zero, firstPage: 2, count: 1 });
    await deliver(9, raw(2, last));
    await deliver(8, { kind: Kind.zero, firstPage: 2, count: 2 });
    load(1, last);
    load(2, last);
    expect(await compare()).toEqual({ ...NOTHING, pages: 3, unknown: PAGES - 3 });
    await deliver(10, raw(1, old));
    expect(await compare()).toMatchObject({ differing: 1, firstDiffering: 1 });
  });

  test('also while batches are decoded by several threads at once', async () => {
    native.setThreads(4);
    const versions = Array.from({ length: 64 }, noise);
    const last = versions.at(-1)!;
    load(9, last);
    load(10, last);
    const numbers = [...versions.keys()].sort(() => random() - 0.5);
    const work = numbers.flatMap((number) => [
      deliver(number, raw(9, versions[number]!, versions[number]!)),
      compare({ firstPage: 8, pageCount: 4 }),
    ]);
    await Promise.all(work);
    expect(await compare()).toEqual({ ...NOTHING, pages: 2, unknown: PAGES - 2 });
  });

  test('a page that QEMU encoded itself is unknown until it comes whole', async () => {
    const page = noise();
    const record = Uint8Array.of(1, 0, 2, 0, 0);
    const foreign = {
      kind: Kind.xbzrle,
      firstPage: 4,
      length: record.length,
      contents: record,
    };
    await deliver(0, raw(4, page, page));
    await deliver(2, foreign);
    load(5, page);
    expect(await compare()).toEqual({ ...NOTHING, pages: 1, unknown: PAGES - 1 });
    await deliver(1, raw(4, page));
    expect(await compare()).toMatchObject({ pages: 1, differing: 0 });
    await deliver(3, raw(4, page));
    load(4, page);
    expect(await compare()).toMatchObject({ pages: 2, differing: 0 });
  });

  test('a batch whose checksum is wrong is not noted', async () => {
    const batch = forgeBatch({ pageBits: PAGE_BITS, entries: [raw(1, noise())] });
    batch[batch.length - 1]! ^= 1;
    await expect(decode(table, batch)).rejects.toMatchObject({ code: 'ERR_BATCH_CHECKSUM' });
    expect(await compare()).toEqual({ ...NOTHING, unknown: PAGES });
  });

  test('blocks without room are left out', async () => {
    const none = new native.PageHashes(NAMES, Float64Array.of(0, USED_BYTES[1]!), PAGE_BITS);
    table.setHashes(none);
    await deliver(0, raw(1, noise()));
    const compared = new Float64Array(Compared.count);
    expect(() => native.comparePages(none, file, 0, 0, 1, compared)).toThrow(RangeError);
    await native.comparePages(none, file, 1, 0, 4, compared);
    expect(compared[Compared.unknown]).toBe(4);
  });
});

describe('comparePages()', () => {
  test('says where a file ends early, or cannot be read', async () => {
    await deliver(0, { kind: Kind.zero, firstPage: 0, count: PAGES });
    ftruncateSync(file, (PAGES - 1) * PAGE_BYTES + 1);
    expect(await compare()).toMatchObject({ error: -1 });
    expect(await compare({ firstPage: 0, pageCount: PAGES - 1 })).toEqual({
      ...NOTHING,
      pages: PAGES - 1,
    });
    const compared = new Float64Array(Compared.count);
    await native.comparePages(hashes, 2 ** 31 - 1, 0, 0, 1, compared);
    expect(compared[Compared.error]).toBe(9); // EBADF
  });

  test('refuses pages beyond the block, and what are no hashes', () => {
    const compared = new Float64Array(Compared.count);
    const refused: readonly [number, number, number][] = [
      [0, 0, PAGES + 1],
      [0, PAGES, 1],
      [0, 0, 0],
      [2, 0, 1],
      [-1, 0, 1],
    ];
    for (const [block, firstPage, pageCount] of refused) {
      expect(() =>
        native.comparePages(hashes, file, block, firstPage, pageCount, compared),
      ).toThrow(RangeError);
    }
    const short = compared.subarray(1);
    expect(() => native.comparePages(hashes, file, 0, 0, 1, short)).toThrow(RangeError);
    const other = {} as PageHashes;
    expect(() => native.comparePages(other, file, 0, 0, 1, compared)).toThrow(TypeError);
    expect(() => table.setHashes(other)).toThrow(TypeError);
    const small = new native.PageHashes(NAMES, USED_BYTES, PAGE_BITS - 1);
    expect(() => table.setHashes(small)).toThrow(RangeError);
  });
});

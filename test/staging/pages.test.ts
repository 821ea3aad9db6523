import { expect, test } from 'vitest';
import { DirtyBitmap } from '../../src/page/bitmap.ts';
import { GuestMemory } from '../../src/page/memory.ts';
import { Gather } from '../../src/staging/gather.ts';
import { Intermediary } from '../../src/staging/intermediary.ts';
import { EXTENT_BYTES_MAX } from '../../src/staging/limits.ts';
import type { ManifestEntry } from '../../src/staging/manifest.ts';
import {
  applyTo,
  extentEncoder,
  extentLiteralBytes,
  scatterPages,
} from '../../src/staging/pages.ts';
import { Scatter } from '../../src/staging/scatter.ts';
import { createPrng, exactRandomBytes } from '../support/prng.ts';
import { RedisServer } from '../support/redis.ts';
import { newSeal, openAll, StagedGuest, scatterGuest, startGather } from './staged-guest.ts';

/** Contents that take the most room in a batch, each in its way. */
const patterns: Record<string, (page: Uint8Array, index: number) => void> = {
  'noise only': (page, index) => page.set(exactRandomBytes(createPrng(index), page.length)),
  'words in turn': (page, index) => page.fill(1 + (index % 250)),
  'words and zeros in turn': (page, index) => page.fill(index % 2 === 0 ? 0 : 1 + (index % 250)),
  'noise and words in turn': (page, index) => {
    if (index % 2 === 0) page.fill(1 + (index % 250));
    else page.set(exactRandomBytes(createPrng(index), page.length));
  },
  'zeros only': () => {},
};

const cases = Object.keys(patterns).flatMap((pattern) =>
  [1024, 4096, 16_384].map((pageBytes) => ({ pattern, pageBytes })),
);

test.each(cases)('$pattern fits extents, pages of $pageBytes bytes', async (each) => {
  const { pattern, pageBytes } = each;
  const pages = 1200;
  await using server = await RedisServer.start();
  await using intermediary = await Intermediary.open(server.address);
  const buffer = new Uint8Array(new ArrayBuffer(pages * pageBytes));
  for (let at = 0; at < pages; at++) {
    patterns[pattern]!(buffer.subarray(at * pageBytes, (at + 1) * pageBytes), at);
  }
  using memory = new GuestMemory([{ name: 'ram', buffer }], { pageBytes });
  const entries: ManifestEntry[] = [];
  const { layout } = memory;
  const where = { layout, seal: newSeal(), intermediaries: [intermediary] };
  await using scatter = await Scatter.open({ ...where, onEntry: (e) => entries.push(e) }, 1);
  const bitmap = new DirtyBitmap(pages);
  for (let at = 0; at < pages; at++) if (at % 7 !== 3) bitmap.set(at);
  const encoder = extentEncoder(pageBytes, { codec: 'none', threads: 1 });
  await scatterPages({ memory, block: 0, pages: bitmap }, encoder, { scatter, threads: 1 });
  expect(await scatter.verify()).toBe(true);
  // Acknowledged in any order; what is not full has the highest numbers.
  const extents = entries.filter((entry) => entry.kind === 'extent');
  const bytes = extents.sort((one, other) => one.number - other.number).map((each) => each.bytes);
  expect(Math.max(...bytes)).toBeLessThanOrEqual(EXTENT_BYTES_MAX);
  if (pattern === 'noise only' && pageBytes === 4096) {
    // 15 pages to an extent: no more fit.
    expect(Math.min(...bytes.slice(0, -2))).toBeGreaterThan(15 * 4096);
  }

  const arrived = new Uint8Array(new ArrayBuffer(buffer.length)).fill(0x77);
  using there = new GuestMemory([{ name: 'ram', buffer: arrived }], {
    pageBytes,
    isWritable: true,
  });
  await using gather = new Gather({ ...where, apply: await applyTo(there) });
  for (const entry of entries) gather.accept(entry);
  gather.complete();
  await gather.done();
  for (let at = 0; at < pages; at++) {
    const [begin, end] = [at * pageBytes, (at + 1) * pageBytes];
    const wanted = bitmap.has(at)
      ? buffer.subarray(begin, end)
      : new Uint8Array(pageBytes).fill(0x77);
    expect(Buffer.compare(arrived.subarray(begin, end), wanted), `page ${at}`).toBe(0);
  }
});

test('pages that are too large for an extent are refused', () => {
  expect(() => extentLiteralBytes(32_768)).toThrow(RangeError);
  expect(() => extentEncoder(65_536, { codec: 'none', threads: 1 })).toThrow(RangeError);
});

test('every key has a time to live, and what is not gathered is renewed', async () => {
  await using server = await RedisServer.start();
  using guest = new StagedGuest(2000, 5);
  using there = new StagedGuest(2000);
  const intermediaries = await openAll([server], { ttlMs: 1500 });
  const scattered = await scatterGuest(guest, intermediaries);
  const keys = await server.admin.keys('*');
  const left = await Promise.all(keys.map((key) => server.admin.pttl(key)));
  expect(Math.min(...left)).toBeGreaterThan(0);
  expect(Math.max(...left)).toBeLessThanOrEqual(1500);
  intermediaries[0]!.setLimit(1e6); // longer than they would live
  await using gather = await startGather(there, scattered, intermediaries);
  const facts = await gather.done();
  expect(facts).toMatchObject({ pages: 2000, badExtents: 0 });
  expect(Buffer.compare(there.bytes, guest.bytes)).toBe(0);
  await intermediaries[0]![Symbol.asyncDispose]();
});

test('a limit holds, and can be changed meanwhile', async () => {
  await using server = await RedisServer.start();
  await using intermediary = await Intermediary.open(server.address);
  intermediary.setLimit(1e6);
  const value = new Uint8Array(60_000);
  const beganMs = performance.now();
  const puts = Array.from({ length: 11 }, (_, at) => intermediary.put(`pl:${at}`, value));
  await Promise.all(puts);
  // The first passes at once, each other when the debt of those before it is paid.
  expect(performance.now() - beganMs).toBeGreaterThan(500);
  intermediary.setLimit(1000); // a minute for each
  const slow = [intermediary.put('pl:a', value), intermediary.put('pl:b', value)];
  intermediary.setLimit(undefined);
  await Promise.all(slow);
  expect(await server.admin.dbsize()).toBe(13);
});

test('limits of a scatter and of a gather hold, and can be changed meanwhile', async () => {
  await using server = await RedisServer.start();
  using guest = new StagedGuest(2000, 7);
  using there = new StagedGuest(2000);
  const intermediaries = await openAll([server]);
  const { layout } = guest.memory;
  const seal = newSeal();
  const entries: ManifestEntry[] = [];
  const onEntry = (entry: ManifestEntry): void => void entries.push(entry);
  await using scatter = await Scatter.open({ layout, seal, intermediaries, onEntry }, 1);
  const encoder = extentEncoder(4096, { codec: 'none', threads: 1 });
  scatter.setLimit(10_000); // all of it takes minutes
  const what = { memory: guest.memory, block: 0, pages: guest.bitmap };
  const scattered = scatterPages(what, encoder, { scatter, threads: 1 });
  await new Promise((done) => setTimeout(done, 300));
  expect(entries.length).toBeLessThan(3);
  scatter.setLimit(undefined);
  await scattered;
  expect(await scatter.verify()).toBe(true);

  await using gather = await startGather(there, { seal, entries }, intermediaries);
  gather.setLimit(10_000);
  await gather.want(0, 1999);
  await new Promise((done) => setTimeout(done, 300));
  const before = gather.facts();
  // The first fetches had begun before there was a limit.
  expect(before.extents).toBeLessThan(intermediaries[0]!.slots + 4);
  gather.setLimit(undefined);
  expect(await gather.done()).toMatchObject({ pages: 2000 });
  expect(Buffer.compare(there.bytes, guest.bytes)).toBe(0);
  await intermediaries[0]![Symbol.asyncDispose]();
});

test('pages that are void meanwhile come again, elsewhere', async () => {
  await using server = await RedisServer.start();
  using guest = new StagedGuest(1000, 6);
  using there = new StagedGuest(1000);
  const intermediaries = await openAll([server]);
  const first = await scatterGuest(guest, intermediaries);
  const gather = await startGather(there, { seal: first.seal, entries: [] }, intermediaries);
  await gather[Symbol.asyncDispose]();
  await using later = new Gather({
    ...{ layout: there.memory.layout, seal: first.seal, intermediaries },
    apply: await applyTo(there.memory),
    removes: false,
  });
  const extents = first.entries.filter((entry) => entry.kind === 'extent');
  const [moved, ...others] = extents;
  for (const entry of extents) later.accept(entry);
  later.accept({ kind: 'void', extents: [moved!.number] });
  const number = extents.length;
  const again = first.seal.seal(
    1,
    number,
    first.seal.open(1, moved!.number, await value(moved!.number)),
  );
  await intermediaries[0]!.put(`pl:guest:${first.seal.scope.attempt}:e${number}`, again);
  later.accept({ ...moved!, number });
  expect(() => later.accept({ ...others[0]!, number: number + 1 })).toThrow(/is in extent/);
  later.complete();
  await later.done();
  expect(Buffer.compare(there.bytes, guest.bytes)).toBe(0);
  await intermediaries[0]![Symbol.asyncDispose]();

  async function value(extent: number): Promise<Uint8Array> {
    return (await intermediaries[0]!.get(`pl:guest:${first.seal.scope.attempt}:e${extent}`))!;
  }
});

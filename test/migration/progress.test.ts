import { expect, test } from 'vitest';
import { sumOf, Tally } from '../../src/migration/progress.ts';
import { Codec } from '../../src/native.ts';
import { waitUntil } from '../support/lab/processes.ts';
import { PAGE_BYTES, StreamBuilder } from '../support/qemu-stream.ts';
import { smallStream, unfinishedStream } from '../support/small-stream.ts';
import { BOUND_MS, openEnds } from './support.ts';

const LAYOUT = {
  pageBits: 12,
  hasFooter: true,
  sectionId: 2,
  blocks: [
    { name: 'pc.ram', usedBytes: 100 * PAGE_BYTES },
    { name: 'rom', usedBytes: 2 * PAGE_BYTES },
  ],
};

const NO_PAGES = {
  pages: 0,
  zeroPages: 0,
  blankPages: 0,
  foreignPages: 0,
  fillPages: 0,
  samePages: 0,
  deltaPages: 0,
};

test('Tally counts pages by kind, and those of the round apart', () => {
  const tally = new Tally();
  expect([tally.phase, tally.round]).toEqual(['setup', 0]);
  tally.setLayout(LAYOUT);
  expect([tally.phase, tally.round, tally.memoryBytes]).toEqual(['precopy', 1, 102 * PAGE_BYTES]);
  const facts = { zeroPages: 3, blankPages: 2, foreignPages: 1 };
  tally.addPages({ ...facts, pages: 20, fillPages: 2, samePages: 3, deltaPages: 4 });
  expect(tally.pages).toEqual({ zero: 5, fill: 2, raw: 5, same: 3, delta: 4, foreign: 1 });
  expect(sumOf(tally.pages)).toBe(20);
  tally.beginRound();
  tally.addPages({ ...NO_PAGES, pages: 2 });
  expect(tally.round).toBe(2);
  expect(tally.roundBytes).toBe(2 * PAGE_BYTES);
  expect(tally.pageBytes).toBe(22 * PAGE_BYTES);
});

test('Tally counts what was sent again, and what did not have to be', () => {
  const tally = new Tally();
  tally.setLayout(LAYOUT);
  const facts = { ...NO_PAGES, deltaBytes: 0, againPages: 0, literalBytes: 0 };
  const add = (each: Partial<typeof facts>, wireBytes: number): void => {
    tally.addPages({ ...facts, ...each });
    tally.addResent({ ...facts, ...each }, wireBytes);
  };
  add({ pages: 10 }, 5000);
  expect([tally.resent, tally.savedBytes]).toEqual([{ pages: 0, wireBytes: 0 }, 0]);
  add(
    { pages: 12, zeroPages: 2, samePages: 3, deltaPages: 2, deltaBytes: 100, againPages: 4 },
    500,
  );
  expect(tally.resent).toEqual({ pages: 4, wireBytes: 200 });
  expect(tally.savedBytes).toBe(5 * PAGE_BYTES - 100);
  // Pages that are all zero now cost nothing worth counting, and divide by nothing.
  add({ pages: 5, zeroPages: 5 }, 120);
  expect(tally.resent).toEqual({ pages: 4, wireBytes: 200 });
});

test('Tally sums bytes by codec, and keeps a note once', () => {
  const tally = new Tally();
  tally.addCodec(Codec.Lz4, 100, 40);
  tally.addCodec(Codec.Lz4, 10, 5);
  tally.addCodec(Codec.None, 7, 7);
  expect(tally.codecs).toEqual({
    lz4: { pageBytes: 110, wireBytes: 45 },
    none: { pageBytes: 7, wireBytes: 7 },
  });
  tally.addFallback('so');
  tally.addFallback('so');
  expect(tally.fallbacks).toEqual(['so']);
  expect(tally.cpuSeconds).toBeGreaterThanOrEqual(0);
});

test('progress() goes through the phases at both ends, and never back', async () => {
  await using ends = await openEnds({ name: 'vm1', codec: 'lz4' });
  const { source, destination } = ends;
  destination.resume();
  source.resume();
  expect(source.progress()).toMatchObject({
    phase: 'setup',
    round: 0,
    memoryBytes: 0,
    pageBytes: 0,
    waitsFor: 'QEMU to begin the migration',
    pathsOpen: 1,
    pathsAll: 1,
    codec: 'lz4',
  });
  const stream = smallStream();
  const roundBytes = 64 * PAGE_BYTES;
  const untilPhase = (phase: string, bytes: number) =>
    waitUntil(
      `both ends to be in ${phase}`,
      () => [source, destination].every((end) => stands(end.progress(), phase, bytes)),
      { timeoutMs: BOUND_MS },
    );
  source.write(stream.slice(0, unfinishedStream().length));
  await untilPhase('precopy', roundBytes);
  expect(source.progress()).toMatchObject({ round: 1, memoryBytes: roundBytes });
  source.write(stream.slice(unfinishedStream().length));
  await untilPhase('switchover', 2 * roundBytes);
  expect(source.progress()).toMatchObject({ round: 2, pages: { raw: 128 } });
  expect(source.progress().streamBytes).toBe(stream.length);
  await waitUntil(
    'all of it to arrive',
    () => destination.progress().streamBytes === stream.length,
    {
      timeoutMs: BOUND_MS,
    },
  );
  const before = source.progress();
  const result = source.result;
  source.destroy();
  expect(before.wireBytes).toBeGreaterThan(0);
  expect((await result).wireBytes).toBeGreaterThanOrEqual(before.wireBytes);
});

function stands(
  { phase, pageBytes }: { phase: string; pageBytes: number },
  wanted: string,
  bytes: number,
): boolean {
  return phase === wanted && pageBytes >= bytes;
}

test('a note says from where on the stream was carried as plain bytes', async () => {
  await using ends = await openEnds();
  const stream = new StreamBuilder({ blocks: [{ name: 'pc.ram', pages: 4 }] })
    .header()
    .section(1, 7, 'spapr/htab', 1)
    .raw(new Uint8Array(100))
    .tail(new Uint8Array(100))
    .bytes();
  ends.destination.resume();
  ends.source.resume().end(stream);
  expect(await ends.source.result).toMatchObject({
    outcome: 'completed',
    fallbacks: ['carried as plain bytes from a point on: section "spapr/htab"'],
  });
});

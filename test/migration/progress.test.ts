import { expect, test } from 'vitest';
import { Tally } from '../../src/migration/progress.ts';
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

test('Tally counts pages by kind, and those of the round apart', () => {
  const tally = new Tally();
  expect([tally.phase, tally.round]).toEqual(['setup', 0]);
  tally.setLayout(LAYOUT);
  expect([tally.phase, tally.round, tally.memoryBytes]).toEqual(['precopy', 1, 102 * PAGE_BYTES]);
  tally.addPages({ pages: 10, zeroPages: 3, blankPages: 2, foreignPages: 1 });
  expect(tally.pages).toEqual({ zero: 5, raw: 4, foreign: 1 });
  tally.beginRound();
  tally.addPages({ pages: 2, zeroPages: 0, blankPages: 0, foreignPages: 0 });
  expect(tally.round).toBe(2);
  expect(tally.roundBytes).toBe(2 * PAGE_BYTES);
  expect(tally.pageBytes).toBe(12 * PAGE_BYTES);
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

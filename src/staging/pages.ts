import { BatchApplier } from '../page/apply.ts';
import { BATCH_HEADER_BYTES, MAP_ENTRY_BYTES } from '../page/batch-map.ts';
import { DirtyBitmap, type PageRun } from '../page/bitmap.ts';
import type { CodecName } from '../page/codec-choice.ts';
import { BatchEncoder } from '../page/encode.ts';
import type { GuestMemory } from '../page/memory.ts';
import {
  BATCH_PAGES_MAX,
  EXTENT_PLAIN_BYTES_MAX,
  PARTITION_PAGES,
  STAGED_PAGE_BYTES_MAX,
} from './limits.ts';
import type { Scatter } from './scatter.ts';

/* Fixed by the protocol: docs/protocol.md, section 7 */
const FILL_BYTES = 8;

/**
 * Bytes of page contents in a batch, so that it fits an extent whatever its pages are: each may
 * need an entry of its own in the map, and a word.
 *
 * @throws {RangeError} If two such pages do not fit.
 */
export function extentLiteralBytes(pageBytes: number): number {
  if (pageBytes > STAGED_PAGE_BYTES_MAX) {
    throw new RangeError(
      `Cannot stage pages of ${pageBytes} bytes: they must have at most ${STAGED_PAGE_BYTES_MAX}`,
    );
  }
  const facts = BATCH_HEADER_BYTES + BATCH_PAGES_MAX * (MAP_ENTRY_BYTES + FILL_BYTES) + 2;
  const pages = Math.floor((EXTENT_PLAIN_BYTES_MAX - facts) / pageBytes);
  return pages * pageBytes + BATCH_PAGES_MAX * FILL_BYTES;
}

/** An encoder whose batches fit extents. @throws {RangeError} If pages are too large for it. */
export function extentEncoder(
  pageBytes: number,
  { codec, threads }: { codec: CodecName; threads: number },
): BatchEncoder {
  const literalBytes = extentLiteralBytes(pageBytes);
  const now = (): number => performance.now();
  return new BatchEncoder({ codec, threads, literalBytes, now });
}

/**
 * What a gather needs to put pages into guest memory, in whatever order they come.
 *
 * @param memory Writable.
 * @throws {RangeError} If memory is not writable; {Error} ERR_OUT_OF_MEMORY, ERR_MEMORY_CLOSED.
 */
export async function applyTo(
  memory: GuestMemory,
): Promise<(batch: Uint8Array, extent: number) => Promise<number>> {
  const applier = await BatchApplier.open(memory, 0, { isOrdered: false });
  return (batch, extent) => applier.applyPages(batch, extent);
}

/** Pages of guest memory that are to be scattered. */
export interface StagedPages {
  readonly memory: GuestMemory;
  readonly block: number;
  /** Which of its pages; must not change meanwhile. */
  readonly pages: DirtyBitmap;
}

/**
 * Scatters pages of guest memory, and again what was lost meanwhile, until all of it is there. The
 * guest must not change them any more.
 *
 * Promise: on return every page is in an extent that its intermediary had a moment ago.
 *
 * @param encoder Made by `extentEncoder`.
 * @param how.threads As many as the encoder has.
 * @throws {StagingError} ERR_STAGING_EXHAUSTED, {MemoryError} ERR_MEMORY_LOST.
 */
export async function scatterAll(
  blocks: readonly StagedPages[],
  encoder: BatchEncoder,
  how: { readonly scatter: Scatter; readonly threads: number },
): Promise<void> {
  for (const each of blocks) await scatterPages(each, encoder, how);
  while (!(await how.scatter.verify())) {
    const lost = new Map<number, DirtyBitmap>();
    for (const { block, runs } of how.scatter.takeLostPages()) {
      const { pageCount } = blocks.find((each) => each.block === block)!.pages;
      const pages = lost.get(block) ?? new DirtyBitmap(pageCount);
      for (const { first, count } of runs) pages.set(first, count);
      lost.set(block, pages);
    }
    for (const [block, pages] of lost) {
      const { memory } = blocks.find((each) => each.block === block)!;
      await scatterPages({ memory, block, pages }, encoder, how);
    }
  }
}

/**
 * Scatters pages of a block of guest memory, which the guest must not change any more.
 *
 * @param encoder Made by `extentEncoder`.
 * @throws {StagingError} ERR_STAGING_EXHAUSTED, {MemoryError} ERR_MEMORY_LOST.
 */
export async function scatterPages(
  { memory, block, pages }: StagedPages,
  encoder: BatchEncoder,
  { scatter, threads }: { readonly scatter: Scatter; readonly threads: number },
): Promise<void> {
  let partition = 0;
  const work = async (_: unknown, lane: number): Promise<void> => {
    const found = new Float64Array(2 * BATCH_PAGES_MAX);
    for (;;) {
      const from = PARTITION_PAGES * partition++;
      if (from >= pages.pageCount) return;
      const end = Math.min(from + PARTITION_PAGES, pages.pageCount);
      await scatterPartition({ memory, block, pages }, encoder, {
        scatter,
        lane,
        from,
        end,
        found,
      });
    }
  };
  // One more than there are threads: while it waits for its turn, they have work.
  await Promise.all(Array.from({ length: threads + 1 }, work));
}

interface Partition {
  readonly scatter: Scatter;
  readonly lane: number;
  readonly from: number;
  readonly end: number;
  /** Where runs are found, again and again. */
  readonly found: Float64Array;
}

async function scatterPartition(
  { memory, block, pages }: StagedPages,
  encoder: BatchEncoder,
  { scatter, lane, from, end, found }: Partition,
): Promise<void> {
  let at = from;
  for (;;) {
    const range = nextRange(pages, { from: at, end, found });
    if (range === undefined) return;
    const slot = encoder.takeSlot();
    if (slot === undefined) {
      throw new RangeError('Cannot scatter: more threads than the encoder has');
    }
    const part = { memory: memory.native, block, words: pages.words, ...range };
    const { batch, next } = await encoder.encodePages(slot, part, 0);
    try {
      const bytes = batch.buffer.subarray(batch.start, batch.end);
      const runs = runsWithin(pages, { from: range.from, end: next, found });
      await scatter.add(bytes, block, runs, lane);
    } finally {
      encoder.release(batch);
    }
    at = next;
  }
}

interface Search {
  readonly from: number;
  readonly end: number;
  readonly found: Float64Array;
}

/** The next pages that are set, as many as a batch may have; undefined if there are none. */
function nextRange(
  pages: DirtyBitmap,
  { from, end, found }: Search,
): { from: number; end: number } | undefined {
  const count = pages.findRuns(from, found, end);
  let room = BATCH_PAGES_MAX;
  for (let run = 0; run < count; run++) {
    const [first, length] = [found[2 * run]!, found[2 * run + 1]!];
    if (length >= room) return { from: found[0]!, end: first + room };
    room -= length;
  }
  return count === 0 ? undefined : { from: found[0]!, end };
}

/** All runs of a batch's pages: no more than the batch may have pages. */
function runsWithin(pages: DirtyBitmap, { from, end, found }: Search): PageRun[] {
  const count = pages.findRuns(from, found, end);
  const runs: PageRun[] = [];
  for (let run = 0; run < count; run++) {
    runs.push({ first: found[2 * run]!, count: found[2 * run + 1]! });
  }
  return runs;
}

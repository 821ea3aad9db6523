import { closeSync } from 'node:fs';
import { expect, test } from 'vitest';
import { BatchApplier } from '../../src/page/apply.ts';
import { BatchEncoder } from '../../src/page/encode.ts';
import { createMemoryFile, GuestMemory } from '../../src/page/memory.ts';
import { createPrng, exactRandomBytes } from '../support/prng.ts';

const PAGE_BYTES = 4096;
const BATCH_PAGES = 100;
const BATCHES = 6;
const PAGES: number = BATCH_PAGES * BATCHES;

function openMemory(): GuestMemory {
  const file = createMemoryFile('ram', PAGES * PAGE_BYTES);
  const memory = new GuestMemory([{ name: 'ram', file }], { isWritable: true });
  closeSync(file);
  return memory;
}

/** Batches of all pages, none of which relies on another. */
async function encodeAll(memory: GuestMemory): Promise<Uint8Array[]> {
  const batches: Uint8Array[] = [];
  const [bitmap] = await memory.scanAllPopulated();
  const encoder = new BatchEncoder({ codec: 'none', threads: 2, now: () => performance.now() });
  for (let from = 0; from < PAGES; from += BATCH_PAGES) {
    const range = { memory: memory.native, block: 0, words: bitmap!.words, digests: undefined };
    const end = from + BATCH_PAGES;
    const { batch } = await encoder.encodePages(encoder.takeSlot()!, { ...range, from, end }, 0);
    // Not acked: so the next relies on none, and all may be in work at once.
    batches.push(batch.buffer.slice(batch.start, batch.end));
  }
  return batches;
}

test('BatchApplier stop() resolves when nothing is written any more', async () => {
  using memory = openMemory();
  using there = openMemory();
  memory.view(0).set(exactRandomBytes(createPrng(1), PAGES * PAGE_BYTES));
  const batches = await encodeAll(memory);
  const applier = await BatchApplier.open(there, 0);
  const applying = batches.map((batch, sequence) => applier.apply(batch, sequence));
  // They have just begun.
  for (let turn = 0; turn < 3; turn++) await undefined;
  await applier.stop();
  const then = Buffer.from(there.view(0));
  await Promise.all(applying);
  expect(then.subarray(0, PAGE_BYTES)).toEqual(Buffer.from(memory.view(0).subarray(0, PAGE_BYTES)));
  expect(Buffer.compare(then, there.view(0))).toBe(0);
});

test('BatchApplier begins no batch once it was stopped', async () => {
  using memory = openMemory();
  using there = openMemory();
  memory.view(0).set(exactRandomBytes(createPrng(2), PAGES * PAGE_BYTES));
  const [batch] = await encodeAll(memory);
  const applier = await BatchApplier.open(there, 0);
  await applier.stop();
  expect(await applier.apply(batch!, 0)).toBeUndefined();
  expect((await there.scanAllPopulated())[0]!.count()).toBe(0);
});

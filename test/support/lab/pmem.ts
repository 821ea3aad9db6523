import { mkdtempSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Guest } from './guest.ts';
import type { Pair } from './migrate.ts';

const PAGE_BYTES = 4096;

/* Chosen by us */
const CHUNK_BYTES: number = 4 * 1024 * 1024;
const DUMP_TIMEOUT_MS = 60_000;

/** How the memories of two guests compare. */
export interface MemoryComparison {
  readonly pageCount: number;
  /** Page numbers that differ, by guest physical address. */
  readonly differing: readonly number[];
}

/**
 * Compares all memory of two guests, byte by byte.
 *
 * Both must be stopped: the source is after a migration, the destination if the source was
 * before it.
 */
export async function compareMemory({ source, destination }: Pair): Promise<MemoryComparison> {
  const folder = mkdtempSync(join(tmpdir(), 'pagelane-memory-'));
  try {
    const files = [join(folder, 'source'), join(folder, 'destination')] as const;
    await dumpMemory(source, files[0]);
    await dumpMemory(destination, files[1]);
    const pageCount = source.memoryBytes / PAGE_BYTES;
    return { pageCount, differing: await differingPages(files, source.memoryBytes) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Writes all memory of a stopped guest to a file. Guests have at most 2 GiB, at address 0. */
export async function dumpMemory(guest: Guest, filename: string): Promise<void> {
  const range = { val: 0, size: guest.memoryBytes, filename };
  await guest.qmp.execute('pmemsave', range, { timeoutMs: DUMP_TIMEOUT_MS });
}

async function differingPages(
  [one, other]: readonly [string, string],
  memoryBytes: number,
): Promise<readonly number[]> {
  await using left = await open(one);
  await using right = await open(other);
  const chunks = [new Uint8Array(CHUNK_BYTES), new Uint8Array(CHUNK_BYTES)] as const;
  const differing: number[] = [];
  for (let offset = 0; offset < memoryBytes; offset += CHUNK_BYTES) {
    const length = Math.min(CHUNK_BYTES, memoryBytes - offset);
    await left.read(chunks[0], 0, length, offset);
    await right.read(chunks[1], 0, length, offset);
    if (Buffer.compare(...chunks) === 0) continue;
    for (let at = 0; at < length; at += PAGE_BYTES) {
      const [mine, theirs] = chunks.map((chunk) => chunk.subarray(at, at + PAGE_BYTES));
      if (Buffer.compare(mine!, theirs!) !== 0) differing.push((offset + at) / PAGE_BYTES);
    }
  }
  return differing;
}

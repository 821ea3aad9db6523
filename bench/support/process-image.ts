/*
 * A process whose heap is full of objects, and its own image of it: words of texts in maps, lists
 * and numbers.
 *
 *   node process-image.js FILE BYTES
 *
 * Writes the non-zero pages of its writable, anonymous memory to FILE, in the order of addresses,
 * as many as BYTES hold.
 */
import { closeSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { PAGE_BYTES } from '../../test/support/qemu-stream.ts';
import { collectText } from './text.ts';

/* Chosen by us */
const CHUNK_BYTES: number = 1024 * 1024;
const TEXT_BYTES: number = 64 * 1024 * 1024;
/** Some of a heap is empty, or twice there after a collection. */
const SURPLUS = 1.25;

interface Entry {
  readonly id: number;
  readonly words: readonly string[];
  readonly counts: ReadonlyMap<string, number>;
  readonly weight: number;
  readonly before: Entry | undefined;
}

const [file = '', bytes = ''] = process.argv.slice(2);
const kept = fill(Number(bytes) * SURPLUS);
copyMemory(file, Number(bytes));
if (kept.length === 0) throw new Error('There is nothing in memory'); // keeps it there until here

function fill(heapBytes: number): Entry[] {
  const lines = collectText(TEXT_BYTES).toString('latin1').split('\n');
  const entries: Entry[] = [];
  const before = process.memoryUsage().heapUsed;
  while (process.memoryUsage().heapUsed - before < heapBytes) {
    for (let count = 0; count < 4096; count++) entries.push(makeEntry(entries, lines));
  }
  return entries;
}

function makeEntry(entries: readonly Entry[], lines: readonly string[]): Entry {
  const id = entries.length;
  const words = lines[id % lines.length]!.split(/\W+/);
  const counts = new Map<string, number>();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  return { id, words, counts, weight: Math.sqrt(id), before: entries[(id * 7) % (id + 1)] };
}

function copyMemory(output: string, bytesMax: number): void {
  const memory = openSync('/proc/self/mem', 'r');
  const out = openSync(output, 'w');
  const zero = Buffer.alloc(PAGE_BYTES);
  const chunk = Buffer.alloc(CHUNK_BYTES);
  let left = bytesMax;
  for (const [from, to] of writableRanges()) {
    for (let at = from; at < to && left > 0; at += BigInt(CHUNK_BYTES)) {
      const span = to - at < CHUNK_BYTES ? Number(to - at) : CHUNK_BYTES;
      const read = readSync(memory, chunk, 0, span, at);
      for (let page = 0; page + PAGE_BYTES <= read && left > 0; page += PAGE_BYTES) {
        const content = chunk.subarray(page, page + PAGE_BYTES);
        if (content.equals(zero)) continue;
        writeSync(out, content);
        left -= PAGE_BYTES;
      }
    }
  }
  closeSync(out);
  closeSync(memory);
  if (left > 0) throw new Error(`The heap holds ${left} bytes less than wanted`);
}

function writableRanges(): [bigint, bigint][] {
  const maps = readFileSync('/proc/self/maps', 'latin1');
  const ranges = maps.matchAll(/^([0-9a-f]+)-([0-9a-f]+) rw-p \S+ 00:00 0 *(?:\[heap\])?$/gm);
  return [...ranges].map(([, from, to]) => [BigInt(`0x${from}`), BigInt(`0x${to}`)]);
}

import { createCipheriv } from 'node:crypto';
import { closeSync, openSync, readSync, rmSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { dumpMemory } from '../../test/support/lab/pmem.ts';
import { run } from '../../test/support/lab/processes.ts';
import { type RealisticKind, startRealisticGuest } from '../../test/support/lab/realistic.ts';
import { createPrng, integerBelow } from '../../test/support/prng.ts';
import { PAGE_BYTES } from '../../test/support/qemu-stream.ts';
import { collectText } from './text.ts';

/* Pages to measure with: of real guests, of a real process, of a hostile mixture. */

/* Chosen by us */
const BOOT_TIMEOUT_MS = 120_000;
const IMAGE_TIMEOUT_MS = 120_000;
/** How long a guest has worked when its memory is taken. */
const WORKED_MS = 20_000;
/** Pages that stay together where only some of a memory are taken. */
const RUN_PAGES = 256;
const PIECE_BYTES: number = 256 * 1024;
const MIX_SEED = 1;
const TEXT_BYTES: number = 128 * 1024 * 1024;
const PROCESS_IMAGE = fileURLToPath(new URL('./process-image.js', import.meta.url));

/** Pages in a file, and where each of them was in memory. */
export interface PageSet {
  readonly title: string;
  readonly file: string;
  /** Index of each page, ascending. */
  readonly indexes: Uint32Array;
  /** Pages of the memory they are of. */
  readonly memoryPages: number;
}

/** The memory of a guest at work, whole. */
export async function takeGuestMemory(kind: RealisticKind, folder: string): Promise<string> {
  const file = join(folder, `${kind}.ram`);
  await using guest = await startRealisticGuest(kind);
  await guest.waitFor(/READY/, BOOT_TIMEOUT_MS);
  await sleep(WORKED_MS);
  await guest.qmp.execute('stop');
  await dumpMemory(guest, file);
  return file;
}

/** Which pages are taken of a memory. */
export interface Selection {
  readonly title: string;
  /** Leaves out pages filled by one repeated word of 8 bytes too. */
  readonly skipsFilled: boolean;
  /** Most bytes; runs of pages are taken evenly from all of the memory. */
  readonly bytesMax: number;
}

/** Writes the chosen pages of the memory in `ram` to a file beside it; never pages of zeros. */
export function selectPages(ram: string, { title, skipsFilled, bytesMax }: Selection): PageSet {
  const memoryPages = statSync(ram).size / PAGE_BYTES;
  const candidates: number[] = [];
  eachPage(ram, (page, index) => {
    const isFilled = page.subarray(8).equals(page.subarray(0, -8));
    const isZero = isFilled && page.readBigUInt64LE(0) === 0n;
    if (!isZero && !(skipsFilled && isFilled)) candidates.push(index);
  });
  const share = Math.min(1, bytesMax / (candidates.length * PAGE_BYTES));
  const isTaken = (at: number): boolean => {
    const ordinal = Math.floor(at / RUN_PAGES);
    return Math.floor((ordinal + 1) * share) > Math.floor(ordinal * share);
  };
  const indexes = Uint32Array.from(candidates.filter((_, at) => isTaken(at)));
  const file = `${ram}.${skipsFilled ? 'varied' : 'nonzero'}`;
  const output = openSync(file, 'w');
  let next = 0;
  eachPage(ram, (page, index) => {
    if (indexes[next] !== index) return;
    writeSync(output, page);
    next++;
  });
  closeSync(output);
  return { title, file, indexes, memoryPages };
}

function eachPage(file: string, visit: (page: Buffer, index: number) => void): void {
  const input = openSync(file, 'r');
  const chunk = Buffer.alloc(RUN_PAGES * PAGE_BYTES);
  let index = 0;
  for (;;) {
    const read = readSync(input, chunk);
    if (read === 0) break;
    for (let at = 0; at < read; at += PAGE_BYTES) {
      visit(chunk.subarray(at, at + PAGE_BYTES), index++);
    }
  }
  closeSync(input);
}

/** Non-zero pages of a process with a heap full of objects. */
export async function takeProcessImage(folder: string, bytes: number): Promise<PageSet> {
  const file = join(folder, 'process.pages');
  const command = [process.execPath, PROCESS_IMAGE, file, `${bytes}`];
  await run(command, { timeoutMs: IMAGE_TIMEOUT_MS });
  return contiguous('process image', file);
}

/**
 * 40 % random, 30 % text, 30 % heap of a process: pieces of 256 KiB in an order that a seed says.
 */
export async function makeHostileMix(folder: string, bytes: number): Promise<PageSet> {
  const pieces = Math.floor(bytes / PIECE_BYTES);
  const counts = { random: Math.round(pieces * 0.4), text: Math.round(pieces * 0.3) };
  const heapPieces = pieces - counts.random - counts.text;
  const heap = await takeProcessImage(folder, heapPieces * PIECE_BYTES);
  const kinds = shuffled([
    ...new Array<'random'>(counts.random).fill('random'),
    ...new Array<'text'>(counts.text).fill('text'),
    ...new Array<'heap'>(heapPieces).fill('heap'),
  ]);
  const heapInput = openSync(heap.file, 'r');
  const sources = {
    random: randomPieces(),
    text: textPieces(counts.text * PIECE_BYTES),
    heap: (piece: Buffer) => readSync(heapInput, piece),
  };
  const file = join(folder, 'mix.pages');
  const output = openSync(file, 'w');
  const piece = Buffer.alloc(PIECE_BYTES);
  for (const kind of kinds) {
    sources[kind](piece);
    writeSync(output, piece);
  }
  closeSync(output);
  closeSync(heapInput);
  rmSync(heap.file);
  return contiguous('hostile mix', file);
}

function randomPieces(): (piece: Buffer) => void {
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16), Buffer.alloc(16));
  const zeros = Buffer.alloc(PIECE_BYTES);
  return (piece) => {
    piece.set(cipher.update(zeros));
  };
}

function textPieces(bytes: number): (piece: Buffer) => void {
  const text = collectText(Math.min(bytes, TEXT_BYTES));
  let next = 0;
  return (piece) => {
    for (let at = 0; at < piece.length; ) {
      const part = text.subarray(next, next + piece.length - at);
      piece.set(part, at);
      at += part.length;
      next = (next + part.length) % text.length;
    }
  };
}

function shuffled<T>(values: T[]): T[] {
  const random = createPrng(MIX_SEED);
  for (let at = values.length - 1; at > 0; at--) {
    const other = integerBelow(random, at + 1);
    [values[at], values[other]] = [values[other]!, values[at]!];
  }
  return values;
}

function contiguous(title: string, file: string): PageSet {
  const memoryPages = statSync(file).size / PAGE_BYTES;
  return {
    title,
    file,
    indexes: Uint32Array.from({ length: memoryPages }, (_, i) => i),
    memoryPages,
  };
}

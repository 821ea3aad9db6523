import { randomFillSync } from 'node:crypto';
import { once } from 'node:events';
import { closeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { createMemoryFile, GuestMemory, type MemoryHandle } from '../index.ts';

/* Chosen by us */

const PAGE_BYTES = 4096;

/** Pages of one kind that lie side by side. */
const RUN_PAGES = 16;

/** Bytes of text and of noise that pages are taken from. */
const SOURCE_BYTES = 4 * 1024 * 1024;

/** How long the thread may take to stand still or to run on. */
const ANSWER_TIMEOUT_MS = 10_000;

/** Fields of the memory that a guest shares with its thread, and what they may be. */
export const WriterState = {
  wanted: 0,
  now: 1,
  throttle: 2,
  written: 3,
  count: 4,
  running: 0,
  paused: 1,
  ended: 2,
} as const;

/** What the thread is given. */
export interface WriterData {
  readonly handle: MemoryHandle;
  readonly control: SharedArrayBuffer;
  /** Pages a second. */
  readonly rate: number;
  readonly seed: number;
}

/** What synthetic memory is made of. */
export interface SyntheticOptions {
  readonly bytes: number;
  /** Parts of it, in percent; the rest is text. */
  readonly zeroPercent: number;
  readonly randomPercent: number;
  /** Pages that are written to a second. */
  readonly dirtyRate: number;
}

/** Guest memory of zeros, noise and text, and a thread that writes to it. */
export class SyntheticGuest {
  readonly memory: GuestMemory;
  /** Resolves when the thread writes: a migration that begins sooner waits for it while paused. */
  readonly ready: Promise<unknown>;
  readonly #state: Int32Array<SharedArrayBuffer>;
  readonly #worker: Worker | undefined;

  constructor(options: SyntheticOptions) {
    this.memory = openSyntheticMemory(options.bytes);
    fill(this.memory.view(0), options);
    const control = new SharedArrayBuffer(4 * WriterState.count);
    this.#state = new Int32Array(control);
    this.ready = Promise.resolve();
    if (options.dirtyRate === 0) return;
    const data: WriterData = {
      handle: this.memory.handle,
      control,
      rate: options.dirtyRate,
      seed: 1,
    };
    const entry = new URL('./synthetic-writer.js', import.meta.url);
    this.#worker = new Worker(entry, { workerData: data });
    this.ready = once(this.#worker, 'message');
  }

  /** Pages that were written to, each time counted. */
  get writtenPages(): number {
    return Atomics.load(this.#state, WriterState.written);
  }

  pause(): void {
    this.#want(WriterState.paused);
  }

  resume(): void {
    this.#want(WriterState.running);
  }

  throttle(percent: number): void {
    Atomics.store(this.#state, WriterState.throttle, percent);
  }

  /** Ends the thread and lets go of memory. */
  async dispose(): Promise<void> {
    Atomics.store(this.#state, WriterState.wanted, WriterState.ended);
    Atomics.notify(this.#state, WriterState.wanted);
    await this.#worker?.terminate();
    this.memory.dispose();
  }

  /** Blocks until the thread does as it is told: nothing is written to behind its back then. */
  #want(wanted: number): void {
    Atomics.store(this.#state, WriterState.wanted, wanted);
    Atomics.notify(this.#state, WriterState.wanted);
    if (this.#worker === undefined) return;
    const other = wanted === WriterState.paused ? WriterState.running : WriterState.paused;
    const answer = Atomics.wait(this.#state, WriterState.now, other, ANSWER_TIMEOUT_MS);
    if (answer === 'timed-out') {
      throw new Error(`Waited ${ANSWER_TIMEOUT_MS} ms for the guest's thread to stop or to run`);
    }
  }
}

/** Memory of so many bytes, all holes. */
export function openSyntheticMemory(bytes: number): GuestMemory {
  const file = createMemoryFile('synthetic', bytes);
  try {
    return new GuestMemory([{ name: 'ram', file }], { isWritable: true });
  } finally {
    closeSync(file);
  }
}

/** Runs of pages of each kind, in an order that repeats only after all of them. */
function fill(view: Uint8Array, { zeroPercent, randomPercent }: SyntheticOptions): void {
  const noise = randomFillSync(new Uint8Array(SOURCE_BYTES));
  const text = makeText(SOURCE_BYTES);
  const runBytes = RUN_PAGES * PAGE_BYTES;
  for (let at = 0, run = 0; at < view.length; at += runBytes, run++) {
    const target = view.subarray(at, at + runBytes);
    // Steps of the golden section: every part of the memory has its share of every kind.
    const percent = (((run * 61.803398875) % 100) + 100) % 100;
    if (percent < zeroPercent) target.fill(0);
    else copyPart(percent < zeroPercent + randomPercent ? noise : text, run, target);
  }
}

/** Copies bytes that begin where no other run's do, as far as that goes. */
function copyPart(source: Uint8Array, run: number, target: Uint8Array): void {
  const from = (run * 70_001) % (source.length - target.length);
  target.set(source.subarray(from, from + target.length));
  // A number in every page: no two are the same.
  const numbers = new Uint32Array(target.buffer, target.byteOffset, target.length / 4);
  for (let page = 0; page < target.length / PAGE_BYTES; page++) {
    numbers[page * (PAGE_BYTES / 4)] = run;
    numbers[page * (PAGE_BYTES / 4) + 1] = page;
  }
}

const WORDS =
  'page memory guest host source path frame batch round bitmap dirty write read lane session block ' +
  'copy move stop start wait queue length offset value error code state table index count size';

/** Words in an order that does not repeat soon. */
function makeText(bytes: number): Uint8Array {
  const words = WORDS.split(' ');
  const parts: string[] = [];
  let length = 0;
  for (let seed = 1; length < bytes; seed = (Math.imul(seed, 48271) >>> 0) % 2147483647) {
    const word = `${words[seed % words.length]}${seed % 7 === 0 ? seed % 1000 : ''} `;
    parts.push(word);
    length += word.length;
  }
  return Buffer.from(parts.join('').slice(0, bytes), 'latin1');
}

import { parentPort, workerData } from 'node:worker_threads';
import { GuestMemory } from '../index.ts';
import { type WriterData, WriterState } from './synthetic-guest.ts';

/*
 * The thread of a synthetic guest that writes to its memory: a word to a page anywhere, so many
 * pages a second, while it is to run.
 */

/* Chosen by us */

/** Time between two bursts of writes. */
const BURST_MS = 1;

const { handle, control, rate, seed } = workerData as WriterData;
const memory = GuestMemory.attach(handle);
const words = new Uint32Array(memory.view(0).buffer);
const wordsPerPage = 1024;
const pageCount = words.length / wordsPerPage;
const state = new Int32Array(control);
let random = seed;
let count = 0;

function nextRandom(): number {
  random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
  return random;
}

function write(pages: number): void {
  for (let index = 0; index < pages; index++) {
    const page = Math.floor((nextRandom() / 2 ** 32) * pageCount);
    words[page * wordsPerPage + (nextRandom() >>> 22)] = ++count;
  }
  Atomics.add(state, WriterState.written, pages);
}

/** Says that it stands still, until it is to run. */
function standStill(): void {
  Atomics.store(state, WriterState.now, WriterState.paused);
  Atomics.notify(state, WriterState.now);
  while (Atomics.load(state, WriterState.wanted) === WriterState.paused) {
    Atomics.wait(state, WriterState.wanted, WriterState.paused);
  }
  Atomics.store(state, WriterState.now, WriterState.running);
  Atomics.notify(state, WriterState.now);
}

function run(): void {
  let dueMs = performance.now();
  for (;;) {
    const wanted = Atomics.load(state, WriterState.wanted);
    if (wanted === WriterState.ended) break;
    if (wanted === WriterState.paused) {
      standStill();
      dueMs = performance.now();
      continue;
    }
    const nowMs = performance.now();
    const slowed = 1 - Atomics.load(state, WriterState.throttle) / 100;
    const pages = Math.floor(((nowMs - dueMs) / 1000) * rate * slowed);
    if (pages > 0) {
      write(pages);
      dueMs = nowMs;
    }
    Atomics.wait(state, WriterState.wanted, WriterState.running, BURST_MS);
  }
  memory.dispose();
  parentPort?.close();
}

parentPort?.postMessage('ready');
run();

/*
 * The virtual processor: a thread that runs the guest, burst after burst, and stops between two
 * steps when it is told to.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { GuestMemory, type MemoryHandle } from '../../src/index.ts';
import { hostNowMs, Register, registersOf } from './registers.ts';
import { bootSteps, fillPage, PAGE_BYTES, pageOf } from './workload.ts';

/** Places in the numbers that the process and this thread share. */
export const Control = { isPaused: 0, throttlePercent: 1, count: 2 } as const;

/** What the thread is given. */
export interface VcpuData {
  readonly memory: MemoryHandle;
  readonly registers: MemoryHandle;
  readonly control: Int32Array;
  /** A bit per page that was written. */
  readonly dirty: Uint32Array;
  readonly pagesPerSecond: number;
}

const BURST_MS = 2;
const STEPS_PER_BOOT_BURST = 64;

function run({ memory, registers, control, dirty, pagesPerSecond }: VcpuData): never {
  const bytes = GuestMemory.attach(memory).view(0);
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  const pageCount = bytes.byteLength / PAGE_BYTES;
  const own = registersOf(GuestMemory.attach(registers));
  let owedSteps = 0;
  const step = (): void => {
    const next = own[Register.step]! + 1;
    const page = pageOf(own[Register.seed]!, next, pageCount);
    fillPage(words, page, own[Register.seed]!, next);
    // Not before it is written: a page must not be sent between the two and then be thought clean.
    Atomics.or(dirty, page >>> 5, 1 << (page & 31));
    // Last: one that was cut off in the midst of a page does the step again.
    own[Register.step] = next;
    own[Register.lastMs] = hostNowMs();
  };
  const begin = (): void => {
    own[Register.startedMs] = hostNowMs();
    own[Register.lastMs] = own[Register.startedMs]!;
    parentPort?.postMessage('runs');
  };
  const stand = (): void => {
    parentPort?.postMessage('stands');
    while (Atomics.load(control, Control.isPaused) === 1) {
      Atomics.wait(control, Control.isPaused, 1);
    }
    begin();
  };
  stand();
  for (let lastMs = performance.now(); ; ) {
    if (Atomics.load(control, Control.isPaused) === 1) {
      stand();
      lastMs = performance.now();
    }
    const nowMs = performance.now();
    const speed = 1 - Atomics.load(control, Control.throttlePercent) / 100;
    owedSteps += (Math.min(nowMs - lastMs, 100) / 1000) * pagesPerSecond * speed;
    lastMs = nowMs;
    if (own[Register.step]! < bootSteps(pageCount)) owedSteps = STEPS_PER_BOOT_BURST;
    else Atomics.wait(control, Control.isPaused, 0, BURST_MS);
    for (; owedSteps >= 1 && Atomics.load(control, Control.isPaused) === 0; owedSteps--) step();
  }
}

if (parentPort !== null) run(workerData as VcpuData);

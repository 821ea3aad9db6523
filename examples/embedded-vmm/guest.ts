import { closeSync, existsSync, ftruncateSync, openSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { GuestMemory } from '../../src/index.ts';
import { createRegisters, openRegisters, Register, registersOf } from './registers.ts';
import { Control, type VcpuData } from './vcpu.ts';
import { findWrongPage, PAGE_BYTES } from './workload.ts';

/** How long the processor may take to stop or to run. */
const ANSWER_MS = 10_000;

const MEMORY_FILE = 'memory';
const REGISTERS_FILE = 'registers';

/** Whether there is a guest in a folder, that runs or ran there. */
export function isGuestIn(folder: string): boolean {
  return existsSync(join(folder, REGISTERS_FILE));
}

/** Whether there is memory in a folder, of a guest that may be somewhere else by now. */
export function isMemoryIn(folder: string): boolean {
  return existsSync(join(folder, MEMORY_FILE));
}

/** A guest: memory, registers, and a processor that can be stopped. */
export class Guest implements AsyncDisposable {
  readonly memory: GuestMemory;
  /** A bit per page that was written, for the log of our own. */
  readonly dirty: Uint32Array<SharedArrayBuffer>;
  readonly #folder: string;
  readonly #pagesPerSecond: number;
  readonly #control = new Int32Array(new SharedArrayBuffer(4 * Control.count));
  #registers: GuestMemory | undefined;
  #vcpu: Worker | undefined;

  /** Maps memory in a folder; what is there stays if its size is right. */
  constructor(folder: string, options: { memoryBytes: number; pagesPerSecond: number }) {
    const { memoryBytes, pagesPerSecond } = options;
    const path = join(folder, MEMORY_FILE);
    if (existsSync(path) && statSync(path).size !== memoryBytes) rmSync(path);
    const file = openSync(path, 'a+', 0o600);
    ftruncateSync(file, memoryBytes);
    closeSync(file);
    this.memory = new GuestMemory([{ name: 'ram', path }], { isWritable: true });
    const words = 2 * Math.ceil(memoryBytes / PAGE_BYTES / 64);
    this.dirty = new Uint32Array(new SharedArrayBuffer(4 * words));
    this.#folder = folder;
    this.#pagesPerSecond = pagesPerSecond;
  }

  /** Where it is in its work; undefined if there are no registers. */
  get step(): number | undefined {
    return this.#values()?.[Register.step];
  }

  get isRunning(): boolean {
    return this.#vcpu !== undefined && Atomics.load(this.#control, Control.isPaused) === 0;
  }

  /** Runs it, or lets it run on. It does nothing if it runs. */
  async run(): Promise<void> {
    if (this.isRunning) return;
    await this.prepare();
    this.#setPaused(0);
    await this.#answer('runs');
  }

  /** Stops it: nothing writes to its memory any more. */
  async pause(): Promise<void> {
    if (!this.isRunning) return;
    this.#setPaused(1);
    await this.#answer('stands');
  }

  throttle(percent: number): void {
    Atomics.store(this.#control, Control.throttlePercent, percent);
  }

  /** Device state, of one that stands still. */
  state(): Uint8Array {
    const values = this.#values();
    if (values === undefined) throw new Error('There are no registers');
    const [seed, step] = [values[Register.seed], values[Register.step]];
    return Buffer.from(JSON.stringify({ seed, step }));
  }

  /** Takes device state, of one that was prepared. It survives the process, as memory does. */
  load(state: Uint8Array): void {
    const { seed, step } = JSON.parse(Buffer.from(state).toString()) as Record<string, unknown>;
    if (typeof seed !== 'number' || typeof step !== 'number') {
      throw new Error('Device state has no seed, or no step');
    }
    const values = this.#values()!;
    values[Register.seed] = seed;
    values[Register.step] = step;
  }

  /** Makes the registers of a new guest, which begins at step 0. */
  begin(seed: number): void {
    createRegisters(join(this.#folder, REGISTERS_FILE), seed);
  }

  /** Has all that it needs to run, which takes a while, and a processor that stands still. */
  async prepare(): Promise<void> {
    if (this.#vcpu !== undefined) return;
    this.#registers ??= openRegisters(join(this.#folder, REGISTERS_FILE));
    Atomics.store(this.#control, Control.isPaused, 1);
    this.#vcpu = this.#startVcpu(this.#registers);
    await this.#answer('stands');
  }

  /**
   * Compares memory with what the guest wrote, while it stands still.
   *
   * @returns The first page that is wrong, or -1.
   */
  async check(): Promise<{ wrongPage: number; step: number }> {
    const wasRunning = this.isRunning;
    await this.pause();
    try {
      const { buffer, byteOffset, byteLength } = this.memory.view(0);
      const words = new Uint32Array(buffer, byteOffset, byteLength / 4);
      const values = this.#values();
      const [seed, step] = [values?.[Register.seed] ?? 0, values?.[Register.step] ?? 0];
      const [populated] = await this.memory.scanAllPopulated();
      const wrongPage = findWrongPage(words, { seed, step }, (page) => populated!.has(page));
      return { wrongPage, step };
    } finally {
      if (wasRunning) await this.run();
    }
  }

  /** It is not here any more. Its memory stays, in case it comes back. */
  async forget(): Promise<void> {
    await this.#stopVcpu();
    rmSync(join(this.#folder, REGISTERS_FILE), { force: true });
    this.#registers?.dispose();
    this.#registers = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stopVcpu();
    this.#registers?.dispose();
    this.memory.dispose();
  }

  #setPaused(isPaused: 0 | 1): void {
    Atomics.store(this.#control, Control.isPaused, isPaused);
    Atomics.notify(this.#control, Control.isPaused);
  }

  #values(): Float64Array | undefined {
    return this.#registers && registersOf(this.#registers);
  }

  #startVcpu(registers: GuestMemory): Worker {
    const workerData: VcpuData = {
      memory: this.memory.handle,
      registers: registers.handle,
      control: this.#control,
      dirty: this.dirty,
      pagesPerSecond: this.#pagesPerSecond,
    };
    return new Worker(new URL('./vcpu.js', import.meta.url), { workerData });
  }

  async #stopVcpu(): Promise<void> {
    const vcpu = this.#vcpu;
    if (vcpu === undefined) return;
    await this.pause();
    this.#vcpu = undefined;
    await vcpu.terminate();
  }

  #answer(wanted: 'runs' | 'stands'): Promise<void> {
    const vcpu = this.#vcpu!;
    return new Promise((resolve, reject) => {
      const end = (error?: Error): void => {
        clearTimeout(timer);
        vcpu.off('message', hear).off('error', end);
        if (error === undefined) resolve();
        else reject(error);
      };
      const hear = (said: unknown): void => {
        if (said === wanted) end();
      };
      const late = new Error(`Waited ${ANSWER_MS} ms for the processor: it never ${wanted}`);
      const timer = setTimeout(() => end(late), ANSWER_MS);
      vcpu.on('message', hear).on('error', end);
    });
  }
}

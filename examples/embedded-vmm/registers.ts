import { closeSync, ftruncateSync, openSync, renameSync, rmSync } from 'node:fs';
import { GuestMemory } from '../../src/index.ts';
import { PAGE_BYTES } from './workload.ts';

/** Where each register is, in numbers of eight bytes. */
export const Register = {
  seed: 0,
  /** Steps that are done. */
  step: 1,
  /** When it began to run, and when it ran last: on the clock of all processes of this host. */
  startedMs: 2,
  lastMs: 3,
} as const;

/** The clock that `startedMs` and `lastMs` are on. */
export function hostNowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** Maps the guest's registers: in a file, so that they survive the process as memory does. */
export function openRegisters(path: string): GuestMemory {
  return new GuestMemory([{ name: 'registers', path }], { isWritable: true });
}

/** The registers as numbers. */
export function registersOf(memory: GuestMemory): Float64Array {
  const { buffer, byteOffset, byteLength } = memory.view(0);
  return new Float64Array(buffer, byteOffset, byteLength / 8);
}

/** Makes the file: all of it, or none. */
export function createRegisters(path: string, seed: number): void {
  const next = `${path}.new`;
  rmSync(next, { force: true });
  const file = openSync(next, 'wx', 0o600);
  ftruncateSync(file, PAGE_BYTES);
  closeSync(file);
  const memory = openRegisters(next);
  registersOf(memory)[Register.seed] = seed;
  memory.dispose();
  renameSync(next, path);
}

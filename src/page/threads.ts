import { availableParallelism } from 'node:os';
import { getSystemErrorName } from 'node:util';
import { ThreadError } from '../errors.ts';
import { native } from '../native.ts';
import { formatCpuSet } from './cpu-set.ts';

/** Most worker threads that can be asked for. */
export const THREADS_MAX = 256;

/* Fixed by Linux: the range of a nice value (sched(7), "The nice value") */
const PRIORITY_MIN = -20;
const PRIORITY_MAX = 19;

/** What a process spends on page contents: the addon's worker threads. */
export interface ThreadOptions {
  /**
   * How many, 1..256.
   *
   * @default as many as `cpuSet` has processors; without it, as many as this process may use
   */
  readonly threads?: number;
  /**
   * Processors they run on: at least one, all among those that this process may use.
   *
   * @default those that this process may use
   */
  readonly cpuSet?: readonly number[];
  /**
   * Their nice value, -20 (first) to 19 (last). Below the process's own takes the right
   * CAP_SYS_NICE, or a limit RLIMIT_NICE that allows it.
   *
   * @default the process's own, usually 0
   */
  readonly priority?: number;
}

/** The threads in use, as result records state them: what was not asked for is absent. */
export interface ThreadsInUse {
  readonly threads: number;
  /** As a list: `0-3,8`. */
  readonly cpuSet?: string;
  readonly priority?: number;
}

/**
 * Sets the threads of the addon that work on batches, for the whole process. What is not given has
 * its default again, whatever was set before.
 *
 * Promise: on return the threads run, or are about to, as was asked; batches in work were done as
 *   before, and those that wait are done by the new threads. If it throws, the threads are as they
 *   were; after ERR_THREAD there may be fewer.
 *
 * Another `cpuSet` or `priority` than before replaces the threads: the call waits for the batches
 * in work, some milliseconds.
 *
 * @returns The threads in use.
 * @throws {RangeError} If a value is out of its range, or this process may not use a processor.
 * @throws {ThreadError} ERR_THREAD_PRIORITY If the system refuses the priority.
 * @throws {ThreadError} ERR_THREAD_CPU_SET If the system refuses the processors.
 * @throws {ThreadError} ERR_THREAD If a thread cannot be started.
 */
export function setThreads(options: ThreadOptions = {}): ThreadsInUse {
  const { cpuSet, priority } = options;
  if (cpuSet !== undefined) checkCpuSet(cpuSet);
  if (priority !== undefined) checkPriority(priority);
  const threads = options.threads ?? defaultCount(cpuSet);
  if (!Number.isInteger(threads) || threads < 1 || threads > THREADS_MAX) {
    throw new RangeError(`Cannot use ${threads} threads: must be 1 to ${THREADS_MAX}`);
  }
  const inUse = {
    threads,
    ...(cpuSet !== undefined && { cpuSet: formatCpuSet(cpuSet) }),
    ...(priority !== undefined && { priority }),
  };
  try {
    native.setThreads(threads, cpuSet && Uint32Array.from(cpuSet), priority);
  } catch (cause) {
    throw asThreadError(cause, inUse);
  }
  return inUse;
}

/**
 * Checks that there are processors in the set, and that this process may use each of them.
 *
 * @throws {RangeError} That names those it may use.
 */
export function checkCpuSet(cpuSet: readonly number[]): void {
  const usable = native.usableProcessors();
  const isUsable = new Set(usable);
  const others = cpuSet.filter((processor) => !isUsable.has(processor));
  if (cpuSet.length === 0) throw new RangeError('Cannot use a set of no processors');
  if (others.length === 0) return;
  const [asked, allowed] = [others, usable].map(formatCpuSet);
  throw new RangeError(`Cannot use processors ${asked}: this process may use ${allowed}`);
}

function checkPriority(priority: number): void {
  if (!Number.isInteger(priority) || priority < PRIORITY_MIN || priority > PRIORITY_MAX) {
    const range = `${PRIORITY_MIN} to ${PRIORITY_MAX}`;
    throw new RangeError(`Cannot use priority ${priority}: must be ${range}`);
  }
}

function defaultCount(cpuSet: readonly number[] | undefined): number {
  const count = cpuSet === undefined ? availableParallelism() : new Set(cpuSet).size;
  return Math.min(count, THREADS_MAX);
}

/** What the addon threw, with what was asked for. */
function asThreadError(cause: unknown, { threads, cpuSet, priority }: ThreadsInUse): unknown {
  if (!(cause instanceof Error) || !('errno' in cause) || !('code' in cause)) return cause;
  const errno = Number(cause.errno);
  const code = String(cause.code);
  const asked =
    code === 'ERR_THREAD_PRIORITY'
      ? `run threads at priority ${priority}`
      : code === 'ERR_THREAD_CPU_SET'
        ? `run threads on processors ${cpuSet}`
        : `start ${threads} threads`;
  const text = `Cannot ${asked}: the system refuses it (${getSystemErrorName(-errno)})`;
  return new ThreadError(code, text, errno, cause);
}

import { availableParallelism } from 'node:os';
import { native } from '../native.ts';

/** Most worker threads that can be asked for. */
export const THREADS_MAX = 256;

/**
 * Sets how many threads of the addon work on batches, for the whole process.
 *
 * @param count 1..THREADS_MAX. @default the processors this process may use
 * @returns The count in use.
 * @throws {RangeError} If the count is out of range.
 */
export function setThreads(count: number = availableParallelism()): number {
  if (!Number.isInteger(count) || count < 1 || count > THREADS_MAX) {
    throw new RangeError(`Cannot use ${count} threads: must be 1 to ${THREADS_MAX}`);
  }
  native.setThreads(count);
  return count;
}

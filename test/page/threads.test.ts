import { availableParallelism } from 'node:os';
import { afterAll, expect, test } from 'vitest';
import { setThreads, THREADS_MAX } from '../../src/page/threads.ts';

afterAll(() => {
  setThreads();
});

test.each([0, -1, 1.5, Number.NaN, THREADS_MAX + 1])('setThreads(%s) is refused', (count) => {
  expect(() => setThreads(count)).toThrow(RangeError);
  expect(() => setThreads(count)).toThrow(`Cannot use ${count} threads: must be 1 to 256`);
});

test('setThreads() takes as many as asked for, by default as there are processors', () => {
  expect(setThreads(3)).toBe(3);
  expect(setThreads()).toBe(availableParallelism());
});

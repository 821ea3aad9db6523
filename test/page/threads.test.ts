import { availableParallelism, getPriority } from 'node:os';
import { afterAll, afterEach, describe, expect, test, vi } from 'vitest';
import { ThreadError } from '../../src/errors.ts';
import { native } from '../../src/native.ts';
import { formatCpuSet } from '../../src/page/cpu-set.ts';
import { checkCpuSet, setThreads, THREADS_MAX } from '../../src/page/threads.ts';
import { addonThreads, threadsLike } from '../support/addon-threads.ts';

const USABLE = native.usableProcessors();
const ALL = formatCpuSet(USABLE);
const LAST = USABLE.at(-1)!;
const NICE = getPriority();

afterEach(() => {
  vi.restoreAllMocks();
});

afterAll(() => {
  setThreads();
});

describe('setThreads() refuses', () => {
  test.each([0, -1, 1.5, Number.NaN, THREADS_MAX + 1])('%s threads', (threads) => {
    expect(() => setThreads({ threads })).toThrow(RangeError);
    expect(() => setThreads({ threads })).toThrow(
      `Cannot use ${threads} threads: must be 1 to 256`,
    );
  });

  test.each([-21, 20, 0.5, Number.NaN])('priority %s', (priority) => {
    const text = `Cannot use priority ${priority}: must be -20 to 19`;
    expect(() => setThreads({ priority })).toThrow(new RangeError(text));
  });

  test.each([
    [[], 'Cannot use a set of no processors'],
    [
      [LAST + 1, LAST + 2],
      `Cannot use processors ${LAST + 1}-${LAST + 2}: this process may use ${ALL}`,
    ],
    [[LAST, 8192], `Cannot use processors 8192: this process may use ${ALL}`],
    [[0.5], `Cannot use processors 0.5: this process may use ${ALL}`],
  ])('processors %j', (cpuSet, text) => {
    expect(() => setThreads({ cpuSet })).toThrow(new RangeError(text));
    expect(() => checkCpuSet(cpuSet)).toThrow(new RangeError(text));
  });

  test('what it refuses changes nothing', async () => {
    setThreads({ threads: 2, cpuSet: [LAST], priority: NICE + 1 });
    const before = threadsLike(2, `${LAST}`, NICE + 1);
    await expect.poll(addonThreads).toEqual(before);
    expect(() => setThreads({ threads: 0 })).toThrow();
    expect(() => setThreads({ cpuSet: [8192] })).toThrow();
    expect(() => setThreads({ priority: 20 })).toThrow();
    expect(addonThreads()).toEqual(before);
  });
});

describe('setThreads() states what is in use', () => {
  test('as many threads as asked for, by default as there are processors', () => {
    expect(setThreads({ threads: 3 })).toEqual({ threads: 3 });
    expect(setThreads()).toEqual({ threads: availableParallelism() });
  });

  test('with a set of processors, as many threads as that has', () => {
    expect(setThreads({ cpuSet: [LAST] })).toEqual({ threads: 1, cpuSet: `${LAST}` });
    expect(setThreads({ cpuSet: [...USABLE, LAST] })).toEqual({
      threads: USABLE.length,
      cpuSet: ALL,
    });
    const asked = { threads: 3, cpuSet: [LAST], priority: 19 };
    expect(setThreads(asked)).toEqual({ threads: 3, cpuSet: `${LAST}`, priority: 19 });
  });

  test('as many threads as can be, where there are more processors', () => {
    const set = Array.from({ length: 300 }, (_, processor) => processor);
    vi.spyOn(native, 'usableProcessors').mockReturnValue(set);
    const call = vi.spyOn(native, 'setThreads').mockReturnValue(undefined);
    expect(setThreads({ cpuSet: set })).toEqual({ threads: 256, cpuSet: '0-299' });
    expect(call).toHaveBeenCalledWith(256, Uint32Array.from(set), undefined);
  });
});

describe('the system has it that threads', () => {
  test('run where and as they are told, also those that ran before', async () => {
    setThreads({ threads: 3 });
    await expect.poll(addonThreads).toEqual(threadsLike(3, ALL, NICE));
    setThreads({ threads: 3, cpuSet: [LAST], priority: 19 });
    await expect.poll(addonThreads).toEqual(threadsLike(3, `${LAST}`, 19));
    setThreads({ threads: 5, cpuSet: [LAST], priority: 19 });
    await expect.poll(addonThreads).toEqual(threadsLike(5, `${LAST}`, 19));
    setThreads({ threads: 2, cpuSet: [USABLE[0]!] });
    await expect.poll(addonThreads).toEqual(threadsLike(2, `${USABLE[0]}`, NICE));
  });

  test('have nothing left of what was set before', async () => {
    setThreads({ threads: 2, cpuSet: [LAST], priority: 19 });
    setThreads({ threads: 2 });
    await expect.poll(addonThreads).toEqual(threadsLike(2, ALL, NICE));
  });

  test('are all that is placed', () => {
    setThreads({ threads: 1, cpuSet: [LAST], priority: 19 });
    expect(native.usableProcessors()).toEqual(USABLE);
    expect(getPriority()).toBe(NICE);
  });
});

test.each([
  ['ERR_THREAD_PRIORITY', 13, 'Cannot run threads at priority -5: the system refuses it (EACCES)'],
  [
    'ERR_THREAD_CPU_SET',
    22,
    `Cannot run threads on processors ${LAST}: the system refuses it (EINVAL)`,
  ],
  ['ERR_THREAD', 11, 'Cannot start 4 threads: the system refuses it (EAGAIN)'],
])('setThreads() gives a refusal by the system as ThreadError: %s', (code, errno, message) => {
  const cause = Object.assign(new Error('refused'), { code, errno });
  vi.spyOn(native, 'setThreads').mockImplementation(() => {
    throw cause;
  });
  let thrown: unknown;
  try {
    setThreads({ threads: 4, cpuSet: [LAST], priority: -5 });
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toBeInstanceOf(ThreadError);
  expect(thrown).toMatchObject({ name: 'ThreadError', code, errno, message, cause });
});

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { native } from '../../src/native.ts';
import type { PageDigests, WriteTracker } from '../../src/native-memory.ts';
import { createMemoryFile, GuestMemory } from '../../src/page/memory.ts';
import { HUGE_PAGE_BYTES, HugePages, OpenFiles, wordsFor } from '../support/guest-memory.ts';

const PAGE = 4096;
const ADDON = process.env['PAGELANE_ADDON'] ?? resolve('build/Release/pagelane.node');
const { EACCES, EINVAL, EMFILE, ENOSYS, ENOTTY, EPERM } = constants.errno;

describe('native.WriteTracker where the system refuses', () => {
  const folder = mkdtempSync(join(tmpdir(), 'pagelane-test-'));
  const shim = join(folder, 'refuse.so');
  beforeAll(() => {
    const flags = ['-shared', '-fPIC', '-Wall', '-Wextra', '-Werror'];
    execFileSync('gcc', [...flags, 'test/native/refuse_calls.c', '-o', shim, '-ldl']);
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  const script = `
    const native = require(${JSON.stringify(ADDON)});
    const file = native.createMemoryFile('ram', 4096, 0);
    const memory = new native.GuestMemory(
      ['ram'], Float64Array.of(4096), Int32Array.of(file), Float64Array.of(0), [undefined],
      true, 12);
    try { new native.WriteTracker(memory); console.log('tracks'); }
    catch ({ code, errno, message }) { console.log(code + ' ' + errno + ': ' + message); }`;

  test.each([
    ['nothing', 0, /^tracks$/],
    ['userfaultfd', ENOSYS, /the kernel has no userfaultfd$/],
    ['userfaultfd', EPERM, /this process has no right to userfaultfd$/],
    ['userfaultfd', EACCES, /this process has no right to userfaultfd$/],
    ['userfaultfd', EMFILE, /userfaultfd is refused$/],
    ['features', EINVAL, /the kernel protects no pages asynchronously \(Linux 6\.7 does\)$/],
    ['scan', ENOTTY, /the kernel cannot scan for written pages \(Linux 6\.7 can\)$/],
    ['scan', EACCES, /\/proc\/self\/pagemap cannot be scanned$/],
  ])('%s, errno %i', (refused, errno, wanted) => {
    const preloads = [process.env['LD_PRELOAD'], shim].filter((path) => path !== undefined);
    const { stdout, stderr } = spawnSync(process.execPath, ['-e', script], {
      encoding: 'utf8',
      env: {
        ...process.env,
        LD_PRELOAD: preloads.join(':'),
        REFUSE: refused,
        ERRNO: `${errno}`,
      },
    });
    expect(stderr).toBe('');
    expect(stdout.trim()).toMatch(wanted);
    if (errno !== 0) expect(stdout).toMatch(`ERR_DIRTY_LOG_UNSUPPORTED ${errno}: Cannot track`);
  });
});

const Tracker = native.WriteTracker as unknown as new (memory: unknown) => WriteTracker;
const Digests = native.PageDigests as unknown as new (memory: unknown) => PageDigests;

test('native.WriteTracker and native.PageDigests check what they are made of', () => {
  for (const memory of [undefined, null, 5, {}, new native.PageStore(12, 1)]) {
    expect(() => new Tracker(memory)).toThrow(TypeError);
    expect(() => new Digests(memory)).toThrow(TypeError);
  }
  const memory = new GuestMemory([{ name: 'ram', buffer: new Uint8Array(PAGE) }]);
  memory.dispose();
  const closed = expect.objectContaining({ code: 'ERR_MEMORY_CLOSED' });
  expect(() => new Tracker(memory.native)).toThrow(closed);
  expect(() => new Digests(memory.native)).toThrow(closed);
});

test('methods of native.WriteTracker and native.PageDigests check their arguments', async () => {
  using files = new OpenFiles();
  using memory = new GuestMemory([{ name: 'ram', file: files.shm(100 * PAGE) }], {
    isWritable: true,
  });
  const tracker = new native.WriteTracker(memory.native);
  const digests = new native.PageDigests(memory.native);
  const good = wordsFor(100);
  const resizable = new Uint32Array(
    Reflect.construct(ArrayBuffer, [16, { maxByteLength: 32 }]) as ArrayBuffer,
  );
  const calls: ((block: number, first: number, count: number, words: Uint32Array) => unknown)[] = [
    (block, first, count, words) => tracker.collect(block, first, count, words),
    (block, first, count, words) => digests.compare(block, first, count, words, good),
    (block, first, count, words) => digests.compare(block, first, count, good, words),
  ];
  for (const call of calls) {
    for (const [block, first, count] of [
      [1, 0, 100],
      [-1, 0, 100],
      [0, 1, 99],
      [0, 0, 99],
      [0, 0, 101],
      [0, 96, 5],
      [0, 0, 0],
      [0, 128, 1],
      [0, Number.NaN, 1],
    ] as const) {
      expect(() => call(block, first, count, good)).toThrow(RangeError);
      expect(() => tracker.protect(block, first, count)).toThrow(RangeError);
    }
    for (const words of [wordsFor(96), new Uint32Array(5), new Uint32Array(0)]) {
      expect(() => call(0, 0, 100, words)).toThrow(RangeError);
    }
    for (const words of [undefined, new Uint8Array(16), resizable]) {
      expect(() => call(0, 0, 100, words as Uint32Array)).toThrow(TypeError);
    }
    await call(0, 0, 32, good);
    await call(0, 96, 4, good);
  }
  for (const [block, first, bytes] of [
    [1, 0, PAGE],
    [0, 100, PAGE],
    [0, 99, 2 * PAGE],
    [0, 0, PAGE - 1],
    [0, -1, PAGE],
  ] as const) {
    expect(() => digests.note(block, first, new Uint8Array(bytes))).toThrow(RangeError);
  }
  tracker.stop();
  tracker.stop();
  const stopped = expect.objectContaining({ code: 'ERR_DIRTY_LOG_STOPPED' });
  expect(() => tracker.collect(0, 0, 100, good)).toThrow(stopped);
  expect(() => tracker.protect(0, 0, 100)).toThrow(stopped);
});

test('native.PageDigests look at no page past the end, whatever bits there are', async () => {
  using memory = new GuestMemory([{ name: 'ram', buffer: new Uint8Array(3 * PAGE).fill(1) }]);
  const digests = new native.PageDigests(memory.native);
  const words = wordsFor(3);
  await digests.compare(0, 0, 3, Uint32Array.of(0xffff_ffff), words);
  expect([...words]).toEqual([7]);
});

test('native.WriteTracker takes pieces of whole huge pages; without any, there is no memory', () => {
  using pages = new HugePages(2);
  using files = new OpenFiles();
  const map = (): GuestMemory => {
    const file = files.add(createMemoryFile('huge', 2 * HUGE_PAGE_BYTES, HUGE_PAGE_BYTES));
    return new GuestMemory([{ name: 'ram', file }], { isWritable: true });
  };
  if (pages.count === 0) {
    expect(map).toThrow(expect.objectContaining({ name: 'MemoryError' }));
    return;
  }
  using memory = map();
  const tracker = new native.WriteTracker(memory.native);
  const words = wordsFor(1024);
  expect(() => tracker.collect(0, 0, 32, words)).toThrow(RangeError);
  expect(() => tracker.collect(0, 32, 992, words)).toThrow(RangeError);
  tracker.stop();
});

import { execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { ftruncateSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createMemoryFile, GuestMemory } from '../../src/page/memory.ts';
import { HUGE_PAGE_BYTES, HugePages, OpenFiles } from '../support/guest-memory.ts';

/*
 * Files are truncated under memory that is mapped from them. What matters is that the process
 * lives, and that the memory says so.
 */

const PAGE = 4096;
const ADDON = process.env['PAGELANE_ADDON'] ?? resolve('build/Release/pagelane.node');
/** A sanitizer would take SIGBUS to report it, where the process must end by it. */
const ENV = {
  ...process.env,
  ASAN_OPTIONS: `${process.env['ASAN_OPTIONS'] ?? ''}:handle_sigbus=0`,
  TSAN_OPTIONS: `${process.env['TSAN_OPTIONS'] ?? ''}:handle_sigbus=0`,
};
const LOST = expect.objectContaining({ name: 'MemoryError', code: 'ERR_MEMORY_LOST' });

describe.each([true, false])('GuestMemory whose file is truncated, writable: %s', (isWritable) => {
  test('reads zeros behind the end, and is lost', () => {
    using files = new OpenFiles();
    const file = files.shm(1000 * PAGE);
    using memory = new GuestMemory([{ name: 'ram', file }], { isWritable });
    const view = memory.view(0);
    ftruncateSync(file, 10 * PAGE);
    let sum = 0;
    for (let page = 999; page >= 0; page--) sum += view[page * PAGE]!;
    view[500 * PAGE] = 1;
    expect([sum, view[500 * PAGE]]).toEqual([0, 1]);
    expect(() => memory.checkIntact()).toThrow(LOST);
    ftruncateSync(file, 1000 * PAGE);
    expect(() => memory.checkIntact()).toThrow(LOST);
  });

  test('is lost before anything was read, for whoever holds it', () => {
    using files = new OpenFiles();
    const file = files.shm(4 * PAGE);
    using memory = new GuestMemory([{ name: 'ram', file, bytes: 3 * PAGE }], { isWritable });
    using other = GuestMemory.attach(memory.handle);
    ftruncateSync(file, 3 * PAGE);
    memory.checkIntact();
    ftruncateSync(file, 3 * PAGE - 1);
    expect(() => memory.checkIntact()).toThrow(LOST);
    expect(() => other.checkIntact()).toThrow(LOST);
  });
});

test('GuestMemory truncated while another thread reads: both live on', async () => {
  using files = new OpenFiles();
  const code = `
    const { workerData, parentPort } = require('node:worker_threads');
    const native = require(${JSON.stringify(ADDON)});
    const memory = new native.GuestMemory(workerData.id, []);
    const view = memory.view(0);
    parentPort.postMessage('reading');
    let sum = 0;
    while (!memory.isLost()) for (let at = 0; at < view.length; at += 4096) sum += view[at];
    for (let at = 0; at < view.length; at += 4096) sum += view[at];
    parentPort.postMessage('lost');`;
  for (let round = 0; round < 5; round++) {
    const file = files.shm(256 * PAGE);
    using memory = new GuestMemory([{ name: 'ram', file }], { isWritable: true });
    const worker = new Worker(code, { eval: true, workerData: { id: memory.handle.id } });
    // From the start: a worker that ended while this thread was busy says both at once.
    const exit = once(worker, 'exit');
    expect(await once(worker, 'message')).toEqual(['reading']);
    ftruncateSync(file, 0);
    expect(await once(worker, 'message')).toEqual(['lost']);
    expect(() => memory.checkIntact()).toThrow(LOST);
    await exit;
  }
});

test('GuestMemory on hugetlbfs is truncated: lost; without huge pages, it cannot be mapped', () => {
  using pages = new HugePages(2);
  using files = new OpenFiles();
  const map = (): [number, GuestMemory] => {
    const file = files.add(createMemoryFile('huge', 2 * HUGE_PAGE_BYTES, HUGE_PAGE_BYTES));
    return [file, new GuestMemory([{ name: 'ram', file }], { isWritable: true })];
  };
  if (pages.count === 0) {
    expect(map).toThrow(expect.objectContaining({ name: 'MemoryError' }));
    return;
  }
  const [file, memory] = map();
  const view = memory.view(0).fill(5);
  ftruncateSync(file, HUGE_PAGE_BYTES);
  expect([view[HUGE_PAGE_BYTES - 1], view.at(-1), view[HUGE_PAGE_BYTES]]).toEqual([5, 0, 0]);
  expect(() => memory.checkIntact()).toThrow(LOST);
  memory.dispose();
});

test('GuestMemory is lost, and the process lives, where the file system is full', () => {
  const script = `
    const fs = require('node:fs');
    const native = require(${JSON.stringify(ADDON)});
    const file = fs.openSync('/mnt/ram', 'wx+');
    fs.ftruncateSync(file, 64 * 4096);
    const memory = new native.GuestMemory(
      ['ram'], Float64Array.of(64 * 4096), Int32Array.of(file), Float64Array.of(0), [undefined],
      true, 12);
    const view = memory.view(0);
    const seen = [memory.isLost()];
    for (let page = 0; page < 64; page++) view[page * 4096] = page;
    seen.push(memory.isLost());
    for (let page = 0; page < 64; page++) if (view[page * 4096] !== page) seen.push(page);
    console.log(JSON.stringify(seen));`;
  const words = ['mount -t tmpfs -o size=64k none /mnt && exec "$@"', 'sh', process.execPath];
  const { stdout, stderr, status } = spawnSync(
    'unshare',
    ['-rm', 'sh', '-c', ...words, '-e', script],
    { encoding: 'utf8' },
  );
  expect([status, stderr, JSON.parse(stdout)]).toEqual([0, '', [false, true]]);
});

describe('MappingGuard', () => {
  const folder = mkdtempSync(join(tmpdir(), 'pagelane-test-'));
  const program = join(folder, 'mapping_guard');

  beforeAll(() => {
    const sources = ['test/native/mapping_guard.cc', 'native/kernel/mapping_guard.cc'];
    const flags = ['-std=c++20', '-O1', '-Wall', '-Wextra', '-Werror', '-Inative', '-pthread'];
    execFileSync('g++', [...flags, ...sources, '-o', program]);
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  test.each([
    ['guarded', 'holds', 0],
    ['together', 'holds in many threads at once, while others come and go', 0],
    ['elsewhere', 'ends the process for a mapping that is not guarded', 'SIGBUS'],
    ['after', 'ends the process for a mapping that is not guarded any more', 'SIGBUS'],
    ['sent', 'ends the process for a SIGBUS that was sent', 'SIGBUS'],
    ['chained', 'asks who took SIGBUS before, for what is not its own', 42],
    ['ignored', 'leaves a SIGBUS that was sent to who ignores it', 0],
  ])('%s: %s', (name, _, wanted) => {
    const { status, signal, stderr } = spawnSync(program, [name], {
      encoding: 'utf8',
      env: ENV,
    });
    expect([stderr, signal ?? status]).toEqual(['', wanted]);
  });
});

test("a SIGBUS that is not the memory's still ends node", () => {
  const script = `
    const native = require(${JSON.stringify(ADDON)});
    const file = native.createMemoryFile('ram', 4096, 0);
    const memory = new native.GuestMemory(
      ['ram'], Float64Array.of(4096), Int32Array.of(file), Float64Array.of(0), [undefined],
      true, 12);
    process.kill(process.pid, 'SIGBUS');
    setTimeout(() => console.log('alive'), 10_000);`;
  const { signal, stdout } = spawnSync(process.execPath, ['-e', script], {
    encoding: 'utf8',
    env: ENV,
  });
  expect([signal, stdout]).toEqual(['SIGBUS', '']);
});

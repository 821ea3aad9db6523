import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { type Codec, native } from '../../src/native.ts';
import { RamWriter } from '../naive/ram-stream.ts';
import { withoutNiceRight } from '../support/addon-threads.ts';
import { createPrng } from '../support/prng.ts';
import { CutDriver, encode, SMALL } from './cutting.ts';

const ADDON = process.env['PAGELANE_ADDON'] ?? resolve('build/Release/pagelane.node');
const USABLE = native.usableProcessors();

/** Defines `attempt(…)`: what setThreads says, and `nices()`: those of the threads. */
const PRELUDE = `
  const native = require(${JSON.stringify(ADDON)});
  const fs = require('fs');
  function attempt(...words) {
    try { native.setThreads(...words); return 'done'; }
    catch ({ code, errno }) { return { code, errno }; }
  }
  function nices() {
    const stats = fs.readdirSync('/proc/self/task').map((id) =>
      fs.readFileSync('/proc/self/task/' + id + '/stat', 'utf8'));
    return stats.filter((stat) => stat.includes('(pagelane-'))
      .map((stat) => Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[16]));
  }
  const later = () => new Promise((done) => setTimeout(done, 100));
  const told = [];
`;

afterAll(() => native.setThreads(2));

/** Runs a script in a process that may not lower nice values; returns what it has told. */
function runWithoutRight(script: string): unknown {
  const body = `${PRELUDE}(async () => {${script}; console.log(JSON.stringify(told)); })();`;
  const [command, ...words] = withoutNiceRight([process.execPath, '-e', body]);
  const { stdout, stderr } = spawnSync(command!, words, { encoding: 'utf8' });
  expect(stderr).toBe('');
  return JSON.parse(stdout);
}

describe('native.setThreads() without the right to lower nice values', () => {
  test('says what was refused, and leaves the threads as they are', () => {
    const told = runWithoutRight(`
      told.push(attempt(2, undefined, 5)); await later();
      told.push(nices(), attempt(3, undefined, -5), nices());`);
    expect(told).toEqual(['done', [5, 5], { code: 'ERR_THREAD_PRIORITY', errno: 13 }, [5, 5]]);
  });

  test('takes threads back to where the process is', () => {
    const told = runWithoutRight(`
      told.push(attempt(2, undefined, 10)); await later();
      told.push(nices(), attempt(2), await later(), nices());
      told.push(attempt(2, undefined, 0), await later(), nices());`);
    expect(told).toEqual(['done', [10, 10], 'done', null, [0, 0], 'done', null, [0, 0]]);
  });
});

test('native.setThreads() says so where there is no such processor, and changes nothing', () => {
  const cpuSet = Uint32Array.of(8191);
  expect(() => native.setThreads(2, cpuSet)).toThrow(
    expect.objectContaining({ code: 'ERR_THREAD_CPU_SET', errno: 22 }),
  );
});

test('native.usableProcessors() are those that the system allows this process', () => {
  expect(USABLE.length).toBeGreaterThan(0);
  expect([...USABLE].sort((a, b) => a - b)).toEqual(USABLE);
  const script = `console.log(JSON.stringify(require(${JSON.stringify(ADDON)}).usableProcessors()))`;
  const words = ['-c', `${USABLE.at(-1)}`, process.execPath, '-e', script];
  expect(JSON.parse(spawnSync('taskset', words, { encoding: 'utf8' }).stdout)).toEqual([
    USABLE.at(-1),
  ]);
});

test('batches come out the same while threads are replaced under them', async () => {
  const random = createPrng(5);
  const driver = new CutDriver(SMALL, 4096);
  const bytes = new Uint8Array(new ArrayBuffer(1024)).map(() => 65 + random() * 9);
  driver.push(
    new RamWriter(SMALL).begin().record({ kind: 'raw', block: 0, page: 0, bytes }).stream(),
  );
  driver.seal();
  const [batch] = driver.batches;
  const seen = new Set<string>();
  await Promise.all(
    Array.from({ length: 300 }, async (_, index) => {
      const cpus = Uint32Array.of(USABLE[index % USABLE.length]!);
      if (index % 10 === 0) native.setThreads(1 + Math.floor(random() * 6), cpus, index % 20);
      const wire = await encode({ ...batch!, slot: batch!.slot.slice() }, 1 as Codec, 1);
      seen.add(Buffer.from(wire).toString('base64'));
    }),
  );
  expect(seen.size).toBe(1);
});

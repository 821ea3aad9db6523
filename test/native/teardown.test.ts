import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';

/*
 * The process and its workers end while batches are in work. What matters is how they end.
 */

const ADDON = process.env['PAGELANE_ADDON'] ?? resolve('build/Release/pagelane.node');

/** Defines `work(count)`: that many encodings of 1 MiB, slow ones, all at once. */
const PRELUDE = `
  const native = require(${JSON.stringify(ADDON)});
  const ROOM = 76 * 1024;
  function slotWithBatch() {
    const cutter = new native.RamCutter(12);
    cutter.setBlocks(['a'], Float64Array.of(2 ** 30));
    const slot = new Uint8Array(new ArrayBuffer(ROOM + (1 << 20)));
    cutter.begin(slot);
    cutter.setInside(true);
    const record = new Uint8Array(8 + 2 + 4096);
    for (let page = 0; page < 256; page++) {
      for (let at = 10; at < record.length; at++) record[at] = 65 + Math.random() * 20;
      record.set([0, 0, 0, 0, 0, page >> 4, (page & 15) << 4, 8, 1, 97]);
      cutter.cut(record, 0, record.length);
    }
    const sealed = new Int32Array(9);
    cutter.seal(sealed);
    return { slot, sealed };
  }
  function work(count) {
    const { slot, sealed } = slotWithBatch();
    return Array.from({ length: count }, () => {
      const own = slot.slice();
      const out = new Uint8Array(new ArrayBuffer(slot.length));
      const order = Int32Array.of(2, 12, 0, 0, 0);
      const encoded = new Int32Array(9);
      return native.encodeBatch(own, sealed[0], sealed[1], order, undefined, out, encoded);
    });
  }
`;

/** Runs a script in a process of its own; returns its exit code, signal and output. */
async function run(script: string): Promise<[number | null, string | null, string]> {
  const child = spawn(process.execPath, ['--expose-gc', '-e', PRELUDE + script]);
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  const [code, signal] = await once(child, 'close');
  return [code, signal, output];
}

test.concurrent('a process ends by itself when its batches are done', async () => {
  const script = `
    Promise.all(work(3)).then(() => console.log('done'));
    process.on('exit', () => console.log('exit'));`;
  expect(await run(script)).toEqual([0, null, 'done\nexit\n']);
});

test.concurrent('a process without batches is not kept alive', async () => {
  expect(await run('native.setThreads(8);')).toEqual([0, null, '']);
});

test.concurrent('process.exit() with batches in work ends cleanly', async () => {
  const script = 'work(20); setTimeout(() => process.exit(7), 5);';
  expect(await run(script)).toEqual([7, null, '']);
  expect(await run('work(20); process.exit(7);')).toEqual([7, null, '']);
});

test.concurrent('arrays are kept while a thread works on them', async () => {
  const script = `
    const done = work(6);
    for (let i = 0; i < 5; i++) { gc(); new Uint8Array(32 << 20).fill(i); }
    Promise.all(done).then(() => { gc(); console.log('done'); });`;
  expect(await run(script)).toEqual([0, null, 'done\n']);
});

test.concurrent('objects of ended workers are let go of', async () => {
  const script = `
    const { Worker } = require('node:worker_threads');
    const code = ${JSON.stringify(PRELUDE)} + 'work(4); setTimeout(() => process.exit(), 3);';
    (async () => {
      for (let i = 0; i < 8; i++) {
        await new Promise((end) => new Worker(code, { eval: true }).on('exit', end));
        gc();
      }
      await Promise.all(work(2));
      console.log('done');
    })();`;
  expect(await run(script)).toEqual([0, null, 'done\n']);
});

test.each([0, 1, 5, 20, 60])('a worker is terminated %i ms into its batches', async (delayMs) => {
  const code = `${PRELUDE}
    require('node:worker_threads').parentPort.postMessage('begun');
    work(30);`;
  const worker = new Worker(code, { eval: true });
  await once(worker, 'message');
  await sleep(delayMs);
  expect(await worker.terminate()).toBe(1);
});

test('a worker ends by itself when its batches are done', async () => {
  const code = `${PRELUDE}
    const { parentPort } = require('node:worker_threads');
    Promise.all(work(3)).then(() => parentPort.postMessage('done'));`;
  const worker = new Worker(code, { eval: true });
  const messages: unknown[] = [];
  worker.on('message', (message) => messages.push(message));
  const [code2] = await once(worker, 'exit');
  expect([code2, messages]).toEqual([0, ['done']]);
});

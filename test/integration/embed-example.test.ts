// Requires: QEMU 9.0 or newer, root for a namespace.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { BOUND_MS, ended } from '../support/command.ts';
import { newestQemu, repositoryRoot } from '../support/lab/binaries.ts';
import { beginTo, configure, finish, listenAt } from '../support/lab/migrate.ts';
import { createPaths } from '../support/lab/netns.ts';
import { type RunningProcess, run, startProcess, waitUntil } from '../support/lab/processes.ts';
import { startPair } from './support.ts';

let folder: string;
let built: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'pagelane-embed-'));
  // Inside the package, where the addon is found.
  mkdirSync(join(repositoryRoot, '.build'), { recursive: true });
  built = mkdtempSync(join(repositoryRoot, '.build', 'embed-'));
  const config = {
    extends: '../../tsconfig.dev.json',
    compilerOptions: { rootDir: '../..', outDir: '.' },
    include: ['../../examples/embed.ts'],
  };
  writeFileSync(join(built, 'tsconfig.json'), JSON.stringify(config));
  const compiler = join(repositoryRoot, 'node_modules', '.bin', 'tsc');
  await run([compiler, '-p', join(built, 'tsconfig.json')], { timeoutMs: 60_000 });
});
afterAll(() => {
  rmSync(built, { recursive: true, force: true });
  rmSync(folder, { recursive: true, force: true });
});

/** Waits until a process of the example listens at one of its sockets. */
async function untilListens(namespace: string, what: string, filter: readonly string[]) {
  const command = ['ip', 'netns', 'exec', namespace, 'ss', '--no-header', '-l', ...filter];
  await waitUntil(what, async () => (await run(command)).stdout.trim() !== '', {
    timeoutMs: BOUND_MS,
  });
}

test('examples/embed.ts moves a running guest, as its first lines say', async () => {
  // A namespace of its own: the example's port is fixed.
  await using network = await createPaths({ count: 1 });
  const namespace = network.source;
  const start = (side: string): RunningProcess =>
    startProcess([process.execPath, join(built, 'examples/embed.js'), side, folder], { namespace });
  await using pair = await startPair({
    qemu: newestQemu(),
    memoryMiB: 128,
    workload: { fill: 32, rate: 500, content: 'mixed' },
  });
  await configure(pair);
  await listenAt(pair.destination, { uri: `unix:${folder}/example-in` });
  await using receiver = start('receive');
  await untilListens(namespace, 'the receiver to listen', ['-t', 'sport = :7700']);
  await using sender = start('send');
  const out = join(folder, 'example-out');
  await untilListens(namespace, 'the sender to listen', ['-x', 'src', out]);
  const begunMs = Date.now();
  await beginTo(pair.source, { uri: `unix:${out}` });
  await finish(pair, { begunMs, timeoutMs: 60_000 });
  await pair.destination.waitForCounter(pair.source.counter() + 2, 20_000);
  await pair.destination.verifyMemory();
  for (const process of [receiver, sender]) {
    expect(await ended(process)).toEqual({ code: 0, stdout: 'destination\n', stderr: '' });
  }
}, 120_000);

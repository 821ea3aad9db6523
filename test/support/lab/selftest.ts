/*
 * Proves the lab: QEMU's own transports between real guests, and every way to cut a path.
 *
 *   node .build/test/support/lab/selftest.js [case…]
 */

import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { newestQemu, olderQemu, type QemuBinary } from './binaries.ts';
import { type Guest, startGuest, type Workload } from './guest.ts';
import { measureIperf } from './iperf.ts';
import {
  type MigrationReport,
  migrate,
  migrateMptcp,
  migrateMultifd,
  migrateTcp,
  type Pair,
} from './migrate.ts';
import { type CutKind, createPaths, type LabNetwork } from './netns.ts';
import { compareMemory } from './pmem.ts';
import { startProcess, waitUntil } from './processes.ts';
import { startRealisticGuest } from './realistic.ts';

const GIGABIT = 1000;
const BOOT_TIMEOUT_MS = 60_000;

function say(name: string, report: MigrationReport): void {
  const { elapsedMs, pausedMs, totalMs, downtimeMs, transferredBytes } = report;
  const wire = Math.round(transferredBytes / 1e6);
  console.log(
    `${name}: elapsed ${elapsedMs} ms (QEMU ${totalMs}), ` +
      `paused ${pausedMs} ms (QEMU ${downtimeMs}), ${wire} MB`,
  );
}

/** Migrates a guest that keeps rewriting its memory, and lets it check itself afterwards. */
async function migrateRunning(
  name: string,
  network: LabNetwork,
  workload: Workload,
  transport: (pair: Pair) => Promise<MigrationReport>,
): Promise<void> {
  await using source = await startGuest({ namespace: network.source, workload });
  const incoming = { namespace: network.destination, workload, isIncoming: true };
  await using destination = await startGuest(incoming);
  await source.waitFor(/READY/, BOOT_TIMEOUT_MS);
  await source.waitForCounter(4, BOOT_TIMEOUT_MS);
  const report = await transport({ source, destination });
  await checkAlive({ source, destination });
  const joins = await network.mptcpJoins();
  say(`${name}, ${workload.content}, ${joins} MPTCP joins`, report);
}

async function checkAlive({ source, destination }: Pair): Promise<void> {
  await destination.waitForCounter(source.counter() + 2, 10_000);
  await destination.verifyMemory();
}

async function migrations(): Promise<void> {
  await using one = await createPaths({ count: 1, rateMbit: [GIGABIT] });
  await using two = await createPaths({ count: 2, rateMbit: [GIGABIT] });
  const host = '10.77.1.2';
  for (const content of ['random', 'structured'] as const) {
    const workload = { fill: 256, rate: 2000, content };
    await migrateRunning('tcp, one 1 Gb/s path', one, workload, (pair) =>
      migrateTcp(pair, { host }),
    );
    await migrateRunning('tcp + MPTCP, two', two, workload, (pair) => migrateMptcp(pair, { host }));
    await migrateRunning('multifd 2 zstd + MPTCP, two', two, workload, (pair) =>
      migrateMultifd(pair, { host, isMptcp: true }),
    );
  }
  const words = { fill: 128, rate: 20_000, content: 'mixed', write: 'words' } as const;
  await migrateRunning('tcp, words rewritten', one, words, (pair) => migrateTcp(pair, { host }));
}

/** Stops the guest, migrates it over a unix socket, and compares all of its memory. */
async function migrateStopped(qemu: QemuBinary): Promise<void> {
  const workload = { fill: 128, content: 'mixed', rate: 2000 } as const;
  await using source = await startGuest({ qemu, workload });
  await using destination = await startGuest({ qemu, workload, isIncoming: true });
  await source.waitFor(/READY/, BOOT_TIMEOUT_MS);
  await source.waitForCounter(4, BOOT_TIMEOUT_MS);
  await source.qmp.execute('stop');
  const listen = { uri: `unix:${destination.folder}/migration` };
  const report = await migrate({ source, destination }, { listen });
  const { differing, pageCount } = await compareMemory({ source, destination });
  say(`unix, QEMU ${qemu.version}, stopped: ${differing.length} of ${pageCount} differ`, report);
  if (differing.length > 0) throw new Error(`Pages differ: ${differing.slice(0, 10).join(' ')}`);
  await destination.qmp.execute('cont');
  await checkAlive({ source, destination });
}

async function stopped(): Promise<void> {
  for (const qemu of new Set([olderQemu(), newestQemu()])) {
    if (qemu !== undefined) await migrateStopped(qemu);
  }
}

async function rates(): Promise<void> {
  await using network = await createPaths({ count: 2, rateMbit: [GIGABIT, 400] });
  const one = await measureIperf(network);
  const other = await measureIperf(network, { pathIndex: 1 });
  const both = await measureIperf(network, { isMptcp: true });
  await network.setRate(0, 200);
  const slower = await measureIperf(network, { seconds: 2 });
  const told = [one, other, both, slower].map(({ mbit }) => mbit.toFixed(0));
  console.log(`iperf3: 1000: ${told[0]}, 400: ${told[1]}, MPTCP: ${told[2]}, 200: ${told[3]} Mb/s`);
}

/** Cuts a path under a TCP flow, and says whether it went on after the cut was undone. */
async function cuts(): Promise<void> {
  for (const kind of ['carrier', 'silent', 'reset'] as const) {
    await using network = await createPaths({ count: 2, rateMbit: [GIGABIT] });
    console.log(`cut ${kind}: ${await cutOnce(network, kind)}`);
  }
}

async function cutOnce(network: LabNetwork, kind: CutKind): Promise<string> {
  const { destinationAddress: host } = network.paths[1]!;
  const listen = ['iperf3', '--server', '--one-off', '--forceflush'];
  await using server = startProcess(listen, { namespace: network.destination });
  await waitUntil('iperf3', () => server.stdout().includes('listening'), { timeoutMs: 5000 });
  const words = ['iperf3', '--client', host, '--time', '30'];
  await using client = startProcess(words, { namespace: network.source });
  const sent = async () => (await network.counters(1)).toDestinationBytes;
  const flows = async (name: string, since: number) =>
    waitUntil(name, async () => (await sent()) > since + 50e6, { timeoutMs: 10_000 });
  await flows('traffic', 0);
  await network.cut(1, kind);
  if (kind === 'reset') {
    await waitUntil('the reset to be seen', () => !client.isRunning(), { timeoutMs: 5000 });
    return `client ended: ${client.stderr().trim()}`;
  }
  const atCut = await sent();
  await new Promise((resolve) => setTimeout(resolve, 500));
  const leaked = (await sent()) - atCut;
  const isAlive = client.isRunning();
  await network.restore(1, kind);
  await flows('traffic after the cut', await sent());
  return `sent ${leaked} bytes while cut, client alive ${isAlive}, flows again`;
}

async function realistic(): Promise<void> {
  await using network = await createPaths({ count: 2, rateMbit: [GIGABIT] });
  for (const kind of ['compile', 'redis'] as const) {
    await using source = await startRealisticGuest(kind, { namespace: network.source });
    const incoming = { namespace: network.destination, isIncoming: true };
    await using destination = await startRealisticGuest(kind, incoming);
    const begunMs = performance.now();
    await source.waitFor(/READY/, 180_000);
    const readyMs = Math.round(performance.now() - begunMs);
    await workFor(source, 8);
    const report = await migrateMultifd(
      { source, destination },
      { host: '10.77.1.2', isMptcp: true },
    );
    await destination.waitForCounter(source.counter() + 4, 60_000);
    say(`${kind} guest (ready in ${readyMs} ms), multifd 2 zstd + MPTCP`, report);
    const complaints = destination.complaints();
    if (complaints.length > 0) throw new Error(complaints.join('; '));
  }
}

async function workFor(guest: Guest, ticks: number): Promise<void> {
  await guest.waitForCounter(Math.max(0, guest.counter()) + ticks, 120_000);
}

/** Damages a guest's memory behind its back: a judge that lets it pass is none. */
async function canary(): Promise<void> {
  const folder = mkdtempSync('/dev/shm/pagelane-canary-');
  const memoryFile = join(folder, 'memory');
  try {
    const workload = { fill: 64, content: 'random', rate: 100, sweep: 500 } as const;
    await using guest = await startGuest({ workload, memoryMiB: 256, memoryFile });
    await guest.waitFor(/READY/, BOOT_TIMEOUT_MS);
    await guest.verifyMemory();
    flipBits(memoryFile, 5);
    const verdict = await guest.verifyMemory().then(
      () => 'sound',
      (cause: unknown) => String(cause),
    );
    if (!verdict.includes('CORRUPT page=')) throw new Error(`Not seen: the guest is ${verdict}`);
    console.log(`canary: ${guest.errors()} errors: ${verdict.slice(0, 90)}…`);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Flips a bit of `count` pages that look random: pages the workload has filled. */
function flipBits(memoryFile: string, count: number): void {
  const bytes = readFileSync(memoryFile);
  const file = openSync(memoryFile, 'r+');
  for (let at = bytes.length / 2, left = count; left > 0; at += 64 * 4096) {
    if (at >= bytes.length) throw new Error('The guest filled too few pages');
    const page = bytes.subarray(at, at + 4096);
    if (new Set(page.subarray(0, 512)).size < 200) continue;
    writeSync(file, Uint8Array.of(page[100]! ^ 1), 0, 1, at + 100);
    left--;
  }
  closeSync(file);
}

/** Ends the destination in the middle: the source says so, and its guest goes on. */
async function failure(): Promise<void> {
  await using network = await createPaths({ count: 1, rateMbit: [400] });
  const workload = { fill: 256, rate: 500 };
  await using source = await startGuest({ namespace: network.source, workload });
  const incoming = { namespace: network.destination, workload, isIncoming: true };
  await using destination = await startGuest(incoming);
  await source.waitFor(/READY/, BOOT_TIMEOUT_MS);
  const outcome = migrateTcp({ source, destination }, { host: '10.77.1.2' }).then(
    () => 'completed',
    (cause: unknown) => String(cause),
  );
  const sent = async () => (await network.counters(0)).toDestinationBytes > 50e6;
  await waitUntil('50 MB to be sent', sent, { timeoutMs: 20_000 });
  process.kill(destination.pid, 'SIGKILL');
  const verdict = await outcome;
  if (!verdict.includes('source failed')) throw new Error(`The migration ${verdict}`);
  console.log(`failure: ${verdict.replaceAll(/\s+/g, ' ')}`);
  await source.waitForCounter(source.counter() + 2, 10_000);
  await source.verifyMemory();
}

const cases = { canary, failure, rates, cuts, stopped, migrations, realistic } as const;

for (const name of process.argv.length > 2 ? process.argv.slice(2) : Object.keys(cases)) {
  const begunMs = performance.now();
  await cases[name as keyof typeof cases]();
  console.log(`-- ${name}: ${Math.round(performance.now() - begunMs)} ms`);
}

// Requires: every QEMU of the lab, redis-server, root for userfaultfd.
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { codeOf, Intermediary, parkGuest, QemuListener } from '../../src/index.ts';
import { newestQemu, olderQemu } from '../support/lab/binaries.ts';
import type { Guest } from '../support/lab/guest.ts';
import { configure, listenAt } from '../support/lab/migrate.ts';
import { compareMemory } from '../support/lab/pmem.ts';
import { type RunningProcess, run, startProcess, waitUntil } from '../support/lab/processes.ts';
import { PAGELANE } from '../support/pagelane.ts';
import { RedisServer } from '../support/redis.ts';
import { startPair } from './support.ts';

const WORKLOAD = { fill: 96, rate: 2000, content: 'mixed' } as const;
const POSTCOPY = { capabilities: { 'postcopy-ram': true } };

/** Begins to park a guest by its monitor. */
function startPark(
  { extraMonitor }: Guest,
  { ticket, stage }: { readonly ticket: string; readonly stage: string },
  words: readonly string[] = [],
): RunningProcess {
  const command = [...PAGELANE, 'park', extraMonitor, '--ticket', ticket, '--stage', stage];
  return startProcess([...command, ...words]);
}

/** Waits until some of a guest is there. */
async function untilStaged({ admin }: RedisServer): Promise<void> {
  await waitUntil('extents to be there', async () => (await admin.dbsize()) > 50, {
    timeoutMs: 20_000,
  });
}

test.each([
  { name: 'the newest QEMU', qemu: newestQemu(), hasPreempt: false },
  { name: 'the newest QEMU', qemu: newestQemu(), hasPreempt: true },
  { name: 'an older QEMU', qemu: olderQemu() ?? newestQemu(), hasPreempt: false },
  { name: 'an older QEMU', qemu: olderQemu() ?? newestQemu(), hasPreempt: true },
])(
  'a stopped guest of $name is parked, and gathered later: RAM is equal; preempt $hasPreempt',
  async ({ qemu, hasPreempt }) => {
    const folder = mkdtempSync(join(tmpdir(), 'pagelane-park-test-'));
    try {
      await using one = await RedisServer.start(['--maxmemory', '1gb']);
      await using other = await RedisServer.start(['--maxmemory', '1gb']);
      await using pair = await startPair({ qemu, memoryMiB: 256, workload: WORKLOAD }, ['-S']);
      await pair.source.qmp.execute('stop');
      const capabilities = { ...POSTCOPY.capabilities, 'postcopy-preempt': hasPreempt };
      await configure(pair, { capabilities });
      const stage = [one, other].map(({ address }) => address.text).join(',');
      const ticket = join(folder, 'ticket');
      const monitor = pair.source.extraMonitor;
      const parked = await run([
        ...[...PAGELANE, 'park', monitor, '--ticket', ticket],
        ...['--stage', stage, '--output', 'json'],
      ]);
      expect(JSON.parse(parked.stdout)).toMatchObject({ type: 'parked' });
      const { status } = await pair.source.qmp.execute<{ status: string }>('query-migrate');
      expect(status).toBe('completed');
      const uri = `unix:${join(folder, 'in')}`;
      await listenAt(pair.destination, { uri });
      const gathered = await run([
        ...[...PAGELANE, 'gather', ticket, '--qemu', uri, '--output', 'json'],
      ]);
      expect(JSON.parse(gathered.stdout)).toMatchObject({ type: 'gathered' });
      const { differing } = await compareMemory(pair);
      expect(differing).toEqual([]);
      expect(await one.admin.dbsize()).toBe(0);
      expect(await other.admin.dbsize()).toBe(0);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
  180_000,
);

test('a running guest is parked; an intermediary vanishes; it runs on elsewhere', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'pagelane-park-test-'));
  const servers: RedisServer[] = [];
  try {
    for (let count = 0; count < 3; count++) {
      servers.push(await RedisServer.start(['--maxmemory', '1gb']));
    }
    await using pair = await startPair({ memoryMiB: 256, workload: WORKLOAD });
    const stage = servers.map(({ address }) => address.text).join(',');
    const ticket = join(folder, 'ticket');
    const words = ['--ticket', ticket, '--stage', stage, '--parity', '1'];
    await run([...PAGELANE, 'park', pair.source.extraMonitor, ...words]);
    const counter = pair.source.counter();
    await pair.source.stop();
    await servers[0]!.kill();
    await pair.destination.qmp.execute('migrate-set-capabilities', {
      capabilities: [{ capability: 'postcopy-ram', state: true }],
    });
    const uri = `unix:${join(folder, 'in')}`;
    await listenAt(pair.destination, { uri });
    await run([...PAGELANE, 'gather', ticket, '--qemu', uri]);
    await pair.destination.waitForCounter(counter + 2, 20_000);
    await pair.destination.verifyMemory();
    expect(pair.destination.complaints()).toEqual([]);
  } finally {
    for (const server of servers) await server[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  }
}, 180_000);

test('a guest that cannot be parked runs on where it is', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'pagelane-park-test-'));
  try {
    await using small = await RedisServer.start(['--maxmemory', '100mb']);
    await using dying = await RedisServer.start(['--maxmemory', '1gb']);
    await using pair = await startPair({ memoryMiB: 256, workload: WORKLOAD });
    const ticket = join(folder, 'ticket');
    const park = (stage: string) =>
      startPark(pair.source, { ticket, stage }, ['--stage-bandwidth', '20MB']);

    const refused = park(small.address.text);
    expect(await refused.exit(30_000)).toBe(1);
    expect(refused.stderr()).toContain('ERR_STAGING_FULL');
    await pair.source.waitForCounter(pair.source.counter() + 2, 20_000);

    const lost = park(dying.address.text);
    await untilStaged(dying);
    await dying.kill();
    expect(await lost.exit(60_000)).toBe(1);
    expect(lost.stderr()).toMatch(/ERR_STAGING_/);
    await pair.source.waitForCounter(pair.source.counter() + 2, 20_000);
    await pair.source.verifyMemory();
    expect(existsSync(ticket)).toBe(false);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 180_000);

test('a guest that came by parking runs on if it cannot be parked again, or not now', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'pagelane-park-test-'));
  try {
    await using server = await RedisServer.start(['--maxmemory', '1gb']);
    await using pair = await startPair({ memoryMiB: 256, workload: WORKLOAD });
    const ticket = join(folder, 'ticket');
    const park = (guest: Guest, words: readonly string[] = []) =>
      startPark(guest, { ticket, stage: server.address.text }, words);
    const first = park(pair.source);
    expect(await first.exit(60_000)).toBe(0);
    const counter = pair.source.counter();
    await pair.source.stop();
    await pair.destination.qmp.execute('migrate-set-capabilities', {
      capabilities: [{ capability: 'postcopy-ram', state: true }],
    });
    const uri = `unix:${join(folder, 'in')}`;
    await listenAt(pair.destination, { uri });
    await run([...PAGELANE, 'gather', ticket, '--qemu', uri]);
    await pair.destination.waitForCounter(counter + 2, 20_000);

    const second = park(pair.destination);
    expect(await second.exit(30_000)).toBe(1);
    expect(second.stderr()).toContain('ERR_TICKET');
    rmSync(ticket);
    await pair.destination.waitForCounter(pair.destination.counter() + 2, 20_000);

    const interrupted = park(pair.destination, ['--stage-bandwidth', '5MB']);
    await untilStaged(server);
    interrupted.signal('SIGINT');
    expect(await interrupted.exit(30_000)).toBe(130);
    await pair.destination.waitForCounter(pair.destination.counter() + 2, 20_000);
    await pair.destination.verifyMemory();
    expect(existsSync(ticket)).toBe(false);

    const third = park(pair.destination);
    expect(await third.exit(60_000)).toBe(0);
    expect(existsSync(ticket)).toBe(true);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 180_000);

test('what fails while the ticket is being kept fails when that is done: it is thrown away', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'pagelane-park-test-'));
  try {
    await using server = await RedisServer.start(['--maxmemory', '1gb']);
    await using intermediary = await Intermediary.open(server.address);
    await using pair = await startPair({ memoryMiB: 256, workload: WORKLOAD });
    const { qmp } = pair.source;
    await configure(pair, POSTCOPY);
    await qmp.execute('stop');
    const where = { kind: 'unix', path: join(folder, 'mig') } as const;
    const listener = await QemuListener.listen(where);
    await qmp.execute('migrate', { uri: `unix:${where.path}` });
    const channel = await listener.accept({ timeoutMs: 10_000 });
    listener.close();
    const controller = new AbortController();
    const order: string[] = [];
    const keepTicket = async (): Promise<void> => {
      controller.abort();
      await new Promise((resolve) => setTimeout(resolve, 50));
      order.push('kept');
    };
    const stage = { intermediaries: [intermediary] };
    const { signal } = controller;
    const parked = parkGuest(channel, { stage, threads: 1, keepTicket, signal });
    await parked.catch((error: unknown) => order.push(codeOf(error)));
    expect(order).toEqual(['kept', 'ERR_CANCELLED']);
    await qmp.waitForMigration(['failed'], { timeoutMs: 20_000 });
    await qmp.execute('cont');
    await pair.source.waitForCounter(pair.source.counter() + 2, 20_000);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 180_000);

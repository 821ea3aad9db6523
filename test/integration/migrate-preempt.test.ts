// Requires: QEMU 9.0 or newer, redis-server, root for userfaultfd and namespaces.
import { expect, test } from 'vitest';
import { newestQemu } from '../support/lab/binaries.ts';
import type { Guest } from '../support/lab/guest.ts';
import { beginTo, configure, finish, queryMigration } from '../support/lab/migrate.ts';
import { createPaths } from '../support/lab/netns.ts';
import { waitUntil } from '../support/lab/processes.ts';
import { PagelaneMigration } from '../support/pagelane.ts';
import { RedisServer } from '../support/redis.ts';
import { startPair, untilPaused } from './support.ts';

const WORKLOAD = { fill: 96, rate: 2000, content: 'mixed' } as const;
const PREEMPT = { capabilities: { 'postcopy-ram': true, 'postcopy-preempt': true } };

/** So little comes unasked for that most pages come because the guest wants them. */
const SLOW = { 'max-postcopy-bandwidth': 8 * 1024 * 1024 };
const WAIT = { timeoutMs: 30_000 };

test.each([
  { where: 'both ends', isOnAtDestination: true },
  { where: 'the source only', isOnAtDestination: false },
])(
  'pages come on a second channel: postcopy-preempt at $where',
  async ({ isOnAtDestination }) => {
    await using network = await createPaths({ count: 2, rateMbit: [300] });
    await using pair = await startPair({ qemu: newestQemu(), memoryMiB: 256, workload: WORKLOAD });
    await using migration = new PagelaneMigration({ network });
    await configure(pair, { ...PREEMPT, parameters: SLOW });
    if (!isOnAtDestination) {
      const capabilities = [{ capability: 'postcopy-preempt', state: false }];
      await pair.destination.qmp.execute('migrate-set-capabilities', { capabilities });
    }
    const uri = await migration.prepare(pair);
    const begunMs = Date.now();
    await beginTo(pair.source, { uri });
    await pair.source.qmp.execute('migrate-start-postcopy');
    await untilAskedFor(pair.source);
    await letGo(pair.source);
    await finish(pair, { begunMs, timeoutMs: 60_000 });
    await pair.destination.waitForCounter(pair.source.counter() + 2, 20_000);
    await pair.destination.verifyMemory();
    const { source, destination, exitCodes } = await migration.results();
    expect(exitCodes).toEqual([0, 0]);
    expect(source).toMatchObject({ outcome: 'completed', guest: 'destination', fallbacks: [] });
    expect(source.digest.equal).toBe(true);
    expect(source.preemptBytes).toBeGreaterThan(100 * 4096);
    expect(destination.gathered!.sourceRequests.count).toBeGreaterThan(100);
  },
  180_000,
);

test('they go by way of intermediaries too', async () => {
  await using one = await RedisServer.start();
  await using other = await RedisServer.start();
  const stage = `${one.address.text},${other.address.text}`;
  await using pair = await startPair({ qemu: newestQemu(), memoryMiB: 256, workload: WORKLOAD });
  await using migration = new PagelaneMigration({ sendWords: ['--stage', stage] });
  await configure(pair, { ...PREEMPT, parameters: SLOW });
  const uri = await migration.prepare(pair);
  await beginTo(pair.source, { uri });
  await pair.source.qmp.execute('migrate-start-postcopy');
  await untilAskedFor(pair.source);
  await letGo(pair.source);
  await pair.source.qmp.waitForMigration(['completed'], { timeoutMs: 60_000 });
  await pair.source.stop();
  await pair.destination.qmp.waitForMigration(['completed'], { timeoutMs: 60_000 });
  await pair.destination.waitForCounter(pair.source.counter() + 2, 20_000);
  await pair.destination.verifyMemory();
  const { source, exitCodes } = await migration.results();
  expect(exitCodes).toEqual([0, 0]);
  expect(source.preemptBytes).toBeGreaterThan(100 * 4096);
  expect(source.staged!.extents).toBeGreaterThan(0);
}, 180_000);

test('a paused post-copy is recovered, and the second channel carried as it is', async () => {
  await using pair = await startPair({ qemu: newestQemu(), memoryMiB: 256, workload: WORKLOAD });
  await using migration = new PagelaneMigration({ sendWords: ['--resume-timeout', '0'] });
  await configure(pair, { ...PREEMPT, parameters: SLOW });
  const uri = await migration.prepare(pair);
  await beginTo(pair.source, { uri });
  await pair.source.qmp.execute('migrate-start-postcopy');
  await untilAskedFor(pair.source);
  migration.receiver.signal('SIGKILL');
  expect(await migration.sender.exit(30_000), migration.narration()).toBe(7);
  await untilPaused(pair, WAIT);
  await using again = new PagelaneMigration({ isRecovery: true });
  await again.recover(pair);
  await untilAskedFor(pair.source);
  await letGo(pair.source);
  const { source, exitCodes } = await again.results();
  expect(exitCodes, again.narration()).toEqual([0, 0]);
  await pair.destination.waitForCounter(pair.source.counter() + 2, 20_000);
  await pair.destination.verifyMemory();
  expect(source.preemptBytes).toBeGreaterThan(100 * 4096);
}, 180_000);

/** Waits until the guest has asked for many pages. */
async function untilAskedFor(source: Guest): Promise<void> {
  const asked = async () => (await queryMigration(source)).ram?.['postcopy-requests'] ?? 0;
  const before = await asked();
  await waitUntil('QEMU to be asked for pages', async () => (await asked()) > before + 120, WAIT);
}

/** Lets the rest come as fast as it can. */
async function letGo(source: Guest): Promise<void> {
  await source.qmp.execute('migrate-set-parameters', { 'max-postcopy-bandwidth': 0 });
}

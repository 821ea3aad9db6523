// Requires: every QEMU of the lab, redis-server, root for userfaultfd.
import { describe, expect, test } from 'vitest';
import { newestQemu, olderQemu } from '../support/lab/binaries.ts';
import type { Guest, Workload } from '../support/lab/guest.ts';
import { finish, type Pair, queryMigration } from '../support/lab/migrate.ts';
import { compareMemory } from '../support/lab/pmem.ts';
import { waitUntil } from '../support/lab/processes.ts';
import { PagelaneMigration } from '../support/pagelane.ts';
import { RedisServer } from '../support/redis.ts';
import { startPair } from './support.ts';

const TIMEOUT_MS = 30_000;
const WORKLOAD = { fill: 64, rate: 2000, content: 'mixed' } as const;

/** Checked by the guest, and not so fast that it touches all of it before the source is gone. */
const SLOW_SWEEPS: Workload = { fill: 40, rate: 500, content: 'random', sweep: 2000 };

/** So slow that the destination still gathers when the source is gone. */
const SLOW_GATHER = ['--stage-bandwidth', '6MB'];

function stageTo(servers: readonly RedisServer[]): string[] {
  return ['--stage', servers.map(({ address }) => address.text).join(',')];
}

async function keysOf(servers: readonly RedisServer[]): Promise<number[]> {
  return await Promise.all(servers.map(({ admin }) => admin.dbsize()));
}

/** Ends the source QEMU as soon as it says that it is done, and tells what was left to gather. */
async function quitSource({ source }: Pair, servers: readonly RedisServer[]): Promise<number[]> {
  const status = await source.qmp.waitForMigration(['completed', 'failed', 'postcopy-paused'], {
    timeoutMs: TIMEOUT_MS,
  });
  expect(status).toBe('completed');
  await source.qmp.execute('quit');
  return await keysOf(servers);
}

/** The guest counts on at the destination, and all of its memory is what it wrote. */
async function expectSound({ destination }: Pair, counter: number): Promise<void> {
  await destination.waitForCounter(counter + 2, TIMEOUT_MS);
  await destination.verifyMemory(60_000);
  expect(destination.complaints()).toEqual([]);
}

async function expectPostcopy(guest: Guest): Promise<void> {
  expect((await queryMigration(guest)).status).toBe('postcopy-active');
}

async function expectCompleted({ destination }: Pair): Promise<void> {
  const ends = ['completed', 'failed', 'postcopy-paused'] as const;
  const status = await destination.qmp.waitForMigration(ends, { timeoutMs: 60_000 });
  expect(status).toBe('completed');
}

describe('by way of two intermediaries, and the source is quit as soon as it is free', () => {
  test.each([
    { name: 'that runs, newest QEMU', qemu: newestQemu(), runs: true },
    // Before 9.0 QEMU loses pages that a guest writes while it migrates.
    { name: 'that stands until it is moved, older QEMU', qemu: olderQemu(), runs: false },
  ])(
    'a guest $name: it runs on, its memory whole',
    async ({ qemu = newestQemu(), runs }) => {
      await using one = await RedisServer.start();
      await using other = await RedisServer.start();
      const servers = [one, other];
      await using pair = await startPair({ qemu, memoryMiB: 128, workload: SLOW_SWEEPS });
      if (!runs) await pair.source.qmp.execute('stop');
      await using migration = new PagelaneMigration({
        pathCount: 2,
        sendWords: stageTo(servers),
        receiveWords: SLOW_GATHER,
      });
      await migration.beginPostcopy(pair);
      const left = await quitSource(pair, servers);
      const counter = pair.source.counter();
      // What is left is read after the source QEMU has gone.
      expect(await migration.sender.exit(TIMEOUT_MS)).toBe(0);
      await expectPostcopy(pair.destination);
      expect(migration.receiver.isRunning()).toBe(true);
      expect(Math.min(...left)).toBeGreaterThan(0);
      await expectSound(pair, counter);
      await expectCompleted(pair);
      const { source, destination, exitCodes } = await migration.results();
      expect(exitCodes).toEqual([0, 0]);
      expect(source).toMatchObject({ outcome: 'completed', guest: 'destination' });
      expect(source.staged).toMatchObject({ lostIntermediaries: [], parityBytes: 0 });
      expect(source.digest.equal).toBe(true);
      expect(source.staged!.evictionMs).toBeGreaterThan(0);
      expect(destination).toMatchObject({ outcome: 'completed', guest: 'destination' });
      expect(destination.gathered).toMatchObject({
        extents: source.staged!.extents,
        removedKeys: source.staged!.extents,
        badExtents: 0,
      });
      expect(destination.gathered!.wantedExtents).toBeGreaterThan(0);
      expect(destination.durationMs).toBeGreaterThan(source.durationMs);
      expect(await keysOf(servers)).toEqual([0, 0]);
    },
    180_000,
  );

  test('with "exec:" at both ends', async () => {
    await using one = await RedisServer.start();
    await using other = await RedisServer.start();
    const servers = [one, other];
    await using pair = await startPair({ memoryMiB: 128, workload: SLOW_SWEEPS });
    await using migration = new PagelaneMigration({
      qemu: 'exec',
      pathCount: 2,
      sendWords: stageTo(servers),
      receiveWords: SLOW_GATHER,
    });
    await migration.beginPostcopy(pair);
    await quitSource(pair, servers);
    const counter = pair.source.counter();
    await waitUntil('the result of send', () => migration.result('sender'), {
      timeoutMs: TIMEOUT_MS,
    });
    await expectPostcopy(pair.destination);
    expect(migration.result('receiver')).toBeUndefined();
    await expectSound(pair, counter);
    await expectCompleted(pair);
    const { source, destination } = await migration.results();
    expect(source).toMatchObject({ outcome: 'completed', guest: 'destination' });
    expect(destination).toMatchObject({ outcome: 'completed', guest: 'destination' });
    expect(await keysOf(servers)).toEqual([0, 0]);
  }, 180_000);
});

test('post-copy of a stopped guest by way of two intermediaries: all of RAM is equal', async () => {
  const qemu = olderQemu() ?? newestQemu();
  await using one = await RedisServer.start(['--maxmemory', '1gb']);
  await using other = await RedisServer.start(['--maxmemory', '1gb']);
  await using pair = await startPair({ qemu, memoryMiB: 128, workload: WORKLOAD }, ['-S']);
  await pair.source.qmp.execute('stop');
  const sendWords = stageTo([one, other]);
  await using migration = new PagelaneMigration({ pathCount: 2, sendWords });
  await migration.beginPostcopy(pair);
  await finish(pair, { begunMs: Date.now(), timeoutMs: TIMEOUT_MS });
  const { source, destination } = await migration.results();
  expect(source).toMatchObject({ outcome: 'completed', guest: 'destination' });
  expect(source.staged?.extents).toBeGreaterThan(0);
  expect(destination).toMatchObject({ outcome: 'completed', guest: 'destination' });
  const { differing } = await compareMemory(pair);
  expect(differing).toEqual([]);
}, 180_000);

// Requires: every QEMU of the lab, redis-server, root for userfaultfd.
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { type QemuBinary, qemuBinaries } from '../support/lab/binaries.ts';
import type { Guest } from '../support/lab/guest.ts';
import { waitUntil } from '../support/lab/processes.ts';
import { PagelaneMigration } from '../support/pagelane.ts';
import { RedisServer } from '../support/redis.ts';
import { startPair } from './support.ts';

/*
 * Whatever fails, one QEMU runs the guest: the source's before the switch, never after it.
 */

const TIMEOUT_MS = 30_000;

/** Between QEMU's last page and its last byte in our hands; a QEMU that runs on does so at once. */
const LAST_BYTES_MS = 200;
const WATCH_MS = 2000;

const WORKLOAD = { fill: 32, rate: 200, content: 'random' } as const;
const QEMUS = qemuBinaries().map((qemu: QemuBinary) => ({ version: qemu.version, qemu }));

async function isRunning({ qmp }: Guest): Promise<boolean> {
  return (await qmp.execute<{ running: boolean }>('query-status')).running;
}

describe.concurrent('an intermediary is lost while pages are scattered to two', () => {
  test.each(QEMUS)(
    'the source never runs on after the switch: QEMU $version',
    async ({ qemu }) => {
      await using one = await RedisServer.start();
      await using other = await RedisServer.start();
      const servers = [one, other];
      await using pair = await startPair({ qemu, memoryMiB: 128, workload: WORKLOAD });
      const stage = servers.map(({ address }) => address.text).join(',');
      const sendWords = ['--stage', stage, '--stage-bandwidth', '16MB'];
      await using migration = new PagelaneMigration({ sendWords });
      await migration.beginPostcopy(pair);
      const victim = await waitUntil(
        'pages to be scattered',
        async () => {
          for (const server of servers) if ((await server.admin.dbsize()) > 20) return server;
          return undefined;
        },
        { timeoutMs: TIMEOUT_MS },
      );
      // Before the package is loaded no QEMU can recover a post-copy.
      await pair.destination.qmp.waitForEvent('RESUME', { timeoutMs: TIMEOUT_MS });
      await victim.kill();
      const { source, destination } = await migration.results();
      for (const { guest, error } of [source, destination]) {
        expect({ guest, code: error?.code }).toEqual({
          guest: 'destination',
          code: 'ERR_POSTCOPY_PAUSED',
        });
      }
      const ends = ['failed', 'postcopy-paused'] as const;
      await pair.source.qmp.waitForMigration(ends, { timeoutMs: 5000 }).catch(() => {});
      const resumed = pair.source.qmp.events.filter(({ event }) => event === 'RESUME');
      expect(resumed).toEqual([]);
      expect(await isRunning(pair.source)).toBe(false);
      // So that it can be recovered. A destination whose guest waits for a page may say nothing.
      const { status } = await pair.source.qmp.execute<{ status: string }>('query-migrate');
      expect(status).toBe('postcopy-paused');
    },
    120_000,
  );
});

describe.concurrent('an intermediary is lost when the source has given its last page', () => {
  test.each(QEMUS)(
    'the source is told that it is done, and never runs on: QEMU $version',
    async ({ qemu }) => {
      await using server = await RedisServer.start();
      await using pair = await startPair({ qemu, memoryMiB: 128, workload: WORKLOAD });
      const sendWords = ['--stage', server.address.text, '--stage-bandwidth', '4MB'];
      await using migration = new PagelaneMigration({
        sendWords: [...sendWords, '--codec', 'none'],
      });
      await migration.beginPostcopy(pair);
      await pair.destination.qmp.waitForEvent('RESUME', { timeoutMs: TIMEOUT_MS });
      const remaining = async (): Promise<number> => {
        const answer = await pair.source.qmp.execute<{ ram?: { remaining: number } }>(
          'query-migrate',
        );
        return answer.ram?.remaining ?? 1;
      };
      await waitUntil('the last page', async () => (await remaining()) === 0, {
        timeoutMs: TIMEOUT_MS,
      });
      await sleep(LAST_BYTES_MS);
      await server.kill();
      const { source, exitCodes } = await migration.results();
      expect(source).toMatchObject({ guest: 'unknown', error: { code: 'ERR_POSTCOPY_ENDED' } });
      expect(exitCodes[1]).toBe(6);
      await sleep(WATCH_MS);
      expect(pair.source.qmp.events.filter(({ event }) => event === 'RESUME')).toEqual([]);
      expect(await isRunning(pair.source)).toBe(false);
      const { status } = await pair.source.qmp.execute<{ status: string }>('query-migrate');
      expect(status).toBe('completed');
    },
    120_000,
  );
});

describe.concurrent('too little memory, found when QEMU may have switched over already', () => {
  test.each(QEMUS)(
    'pages go straight to the destination: QEMU $version',
    async ({ qemu }) => {
      await using server = await RedisServer.start(['--maxmemory', '48mb']);
      await using pair = await startPair({ qemu, memoryMiB: 128, workload: WORKLOAD });
      const sendWords = ['--stage', server.address.text];
      await using migration = new PagelaneMigration({ sendWords });
      await migration.beginPostcopy(pair);
      const { source, destination, exitCodes } = await migration.results();
      expect(exitCodes).toEqual([0, 0]);
      for (const { guest } of [source, destination]) expect(guest).toBe('destination');
      expect(source.fallbacks.join()).toMatch(/not staged: .*raise maxmemory/);
      expect(source.staged).toBeUndefined();
      await pair.destination.waitForCounter(pair.source.counter() + 1, TIMEOUT_MS);
      expect(await server.admin.dbsize()).toBe(0);
    },
    120_000,
  );
});

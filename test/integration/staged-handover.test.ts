// Requires: every QEMU of the lab, redis-server, root for userfaultfd.
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
      // So that it can be recovered, as both ends say.
      const states = [pair.source, pair.destination].map(
        async ({ qmp }) => (await qmp.execute<{ status: string }>('query-migrate')).status,
      );
      expect(await Promise.all(states)).toEqual(['postcopy-paused', 'postcopy-paused']);
    },
    120_000,
  );
});

describe.concurrent('an intermediary is refused when QEMU has been told to switch', () => {
  test.each(QEMUS)(
    'the guest runs on at the source: QEMU $version',
    async ({ qemu }) => {
      const words = ['--maxmemory', '1gb', '--maxmemory-policy', 'allkeys-lru'];
      await using server = await RedisServer.start(words);
      await using pair = await startPair({ qemu, memoryMiB: 128, workload: WORKLOAD });
      const sendWords = ['--stage', server.address.text];
      await using migration = new PagelaneMigration({ sendWords });
      await migration.beginPostcopy(pair);
      const { source, exitCodes } = await migration.results();
      expect(source).toMatchObject({ guest: 'source', error: { code: 'ERR_STAGING_POLICY' } });
      expect(exitCodes).toEqual([1, 1]);
      await waitUntil('the guest to run on', async () => await isRunning(pair.source), {
        timeoutMs: 5000,
      });
      await pair.source.waitForCounter(pair.source.counter() + 1, TIMEOUT_MS);
    },
    120_000,
  );
});

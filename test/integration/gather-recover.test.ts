// Requires: every QEMU of the lab, redis-server, root for userfaultfd.
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { newestQemu, olderQemu } from '../support/lab/binaries.ts';
import { beginTo, configure } from '../support/lab/migrate.ts';
import { run, waitUntil } from '../support/lab/processes.ts';
import { PAGELANE, PagelaneMigration } from '../support/pagelane.ts';
import { RedisServer } from '../support/redis.ts';
import { startPair } from './support.ts';

const WORKLOAD = { fill: 96, rate: 2000, content: 'mixed' } as const;
const POSTCOPY = { capabilities: { 'postcopy-ram': true } };

/** Words of both ends, so that most is still with intermediaries when the source is gone. */
const WAYS: Record<
  string,
  (addresses: readonly string[]) => { send: string[]; receive: string[] }
> = {
  'all by way of intermediaries': (addresses) => ({
    send: ['--stage', addresses.join()],
    receive: ['--stage-bandwidth', '4MB'],
  }),
  'most pages straight': (addresses) => ({
    send: ['--stage', addresses.map((each) => `${each}?max=3MB`).join()],
    receive: ['--stage', addresses.map((each) => `${each}?max=500KB`).join()],
  }),
};

describe.each(Object.keys(WAYS))('source gone, receive killed, %s', (way) => {
  test.each([
    ['the newest QEMU', newestQemu()],
    ['an older QEMU', olderQemu() ?? newestQemu()],
  ])(
    '%s recovers from intermediaries alone',
    async (_, qemu) => {
      const folder = mkdtempSync(join(tmpdir(), 'pagelane-recover-'));
      try {
        await using one = await RedisServer.start(['--maxmemory', '1gb']);
        await using other = await RedisServer.start(['--maxmemory', '1gb']);
        await using pair = await startPair({ qemu, memoryMiB: 256, workload: WORKLOAD });
        const { send, receive } = WAYS[way]!([one, other].map(({ address }) => address.text));
        const ticket = join(folder, 'ticket');
        await using migration = new PagelaneMigration({
          pathCount: 2,
          sendWords: send,
          receiveWords: [...receive, '--ticket', ticket],
        });
        await configure(pair, POSTCOPY);
        const uri = await migration.prepare(pair);
        await beginTo(pair.source, { uri });
        await pair.source.qmp.execute('migrate-start-postcopy');
        await pair.source.qmp.waitForMigration(['completed'], { timeoutMs: 30_000 });
        const counter = pair.source.counter();
        await pair.source.stop();
        migration.receiver.signal('SIGKILL');
        await pair.destination.qmp.waitForMigration(['postcopy-paused'], { timeoutMs: 30_000 });
        const { staged } = await waitUntil('the result', () => migration.result('sender'), {
          timeoutMs: 10_000,
        });
        expect(staged!.extents).toBeGreaterThan(0);
        if (way === 'most pages straight') expect(staged!.directPages).toBeGreaterThan(1000);
        else expect(staged!.directPages).toBe(0);
        const recovery = `unix:${join(folder, 'recover')}`;
        await pair.destination.qmp.execute('migrate-recover', { uri: recovery });
        const gathered = await run([
          ...[...PAGELANE, 'gather', ticket, '--recover', '--qemu', recovery, '--output', 'json'],
        ]);
        expect(JSON.parse(gathered.stdout)).toMatchObject({ type: 'gathered' });
        await pair.destination.waitForCounter(counter + 2, 20_000);
        await pair.destination.verifyMemory();
        expect(pair.destination.complaints()).toEqual([]);
        await waitUntil('nothing to be left', async () => (await one.admin.dbsize()) === 0, {
          timeoutMs: 5000,
        });
        expect(existsSync(ticket)).toBe(true);
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    },
    180_000,
  );
});

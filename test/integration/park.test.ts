// Requires: every QEMU of the lab, redis-server, root for userfaultfd.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { newestQemu, olderQemu } from '../support/lab/binaries.ts';
import { configure, listenAt } from '../support/lab/migrate.ts';
import { compareMemory } from '../support/lab/pmem.ts';
import { run } from '../support/lab/processes.ts';
import { PAGELANE } from '../support/pagelane.ts';
import { RedisServer } from '../support/redis.ts';
import { startPair } from './support.ts';

const WORKLOAD = { fill: 96, rate: 2000, content: 'mixed' } as const;
const POSTCOPY = { capabilities: { 'postcopy-ram': true } };

test.each([
  ['the newest QEMU', newestQemu()],
  ['an older QEMU', olderQemu() ?? newestQemu()],
])(
  'a stopped guest of %s is parked, and gathered later: all of RAM is equal',
  async (_, qemu) => {
    const folder = mkdtempSync(join(tmpdir(), 'pagelane-park-test-'));
    try {
      await using one = await RedisServer.start(['--maxmemory', '1gb']);
      await using other = await RedisServer.start(['--maxmemory', '1gb']);
      await using pair = await startPair({ qemu, memoryMiB: 256, workload: WORKLOAD }, ['-S']);
      await pair.source.qmp.execute('stop');
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
      await configure(pair, POSTCOPY);
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

// Requires: every QEMU of the lab, root for userfaultfd and namespaces.
import { expect, test } from 'vitest';
import { newestQemu, olderQemu } from '../support/lab/binaries.ts';
import { beginTo, configure, finish } from '../support/lab/migrate.ts';
import { createPaths } from '../support/lab/netns.ts';
import { compareMemory } from '../support/lab/pmem.ts';
import { PagelaneMigration } from '../support/pagelane.ts';
import { startPair } from './support.ts';

const WORKLOAD = { fill: 96, rate: 2000, content: 'mixed' } as const;
const POSTCOPY = { capabilities: { 'postcopy-ram': true } };

test('a running guest moves by post-copy: pages are read, and travel compressed', async () => {
  await using network = await createPaths({ count: 2, rateMbit: [300] });
  await using pair = await startPair({ qemu: newestQemu(), memoryMiB: 256, workload: WORKLOAD });
  await using migration = new PagelaneMigration({ network });
  await configure(pair, POSTCOPY);
  const uri = await migration.prepare(pair);
  const begunMs = Date.now();
  await beginTo(pair.source, { uri });
  await pair.source.qmp.execute('migrate-start-postcopy');
  await finish(pair, { begunMs, timeoutMs: 60_000 });
  await pair.destination.waitForCounter(pair.source.counter() + 2, 20_000);
  await pair.destination.verifyMemory();
  const { source, destination } = await migration.results();
  expect(source).toMatchObject({ outcome: 'completed', guest: 'destination', fallbacks: [] });
  expect(source.wireBytes).toBeLessThan(0.7 * source.streamBytes);
  const { gathered } = destination;
  expect(gathered!.directPages).toBeGreaterThan(10_000);
  expect(gathered!.sourceRequests.count).toBeGreaterThan(0);
  expect([source.staged, gathered!.extents]).toEqual([undefined, 0]);
}, 180_000);

test('post-copy of a stopped guest with an older QEMU: all of RAM is equal', async () => {
  const qemu = olderQemu() ?? newestQemu();
  // Without -S the destination starts the guest, whatever the source did.
  await using pair = await startPair({ qemu, memoryMiB: 256, workload: WORKLOAD }, ['-S']);
  await pair.source.qmp.execute('stop');
  await using migration = new PagelaneMigration({ pathCount: 2 });
  await configure(pair, POSTCOPY);
  const uri = await migration.prepare(pair);
  const begunMs = Date.now();
  await beginTo(pair.source, { uri });
  await pair.source.qmp.execute('migrate-start-postcopy');
  await finish(pair, { begunMs, timeoutMs: 60_000 });
  const { source } = await migration.results();
  expect(source.guest).toBe('destination');
  const { differing } = await compareMemory(pair);
  expect(differing).toEqual([]);
}, 180_000);

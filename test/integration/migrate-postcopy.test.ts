// Requires: every QEMU of the lab, /dev/shm, root for userfaultfd and namespaces.
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import type { MigrationResult } from '../../src/index.ts';
import { newestQemu, olderQemu } from '../support/lab/binaries.ts';
import { beginTo, configure, finish } from '../support/lab/migrate.ts';
import { createPaths } from '../support/lab/netns.ts';
import { compareMemory } from '../support/lab/pmem.ts';
import { waitUntil } from '../support/lab/processes.ts';
import { filledContent, PagelaneMigration, startFilledPair } from '../support/pagelane.ts';
import { startPair, untilPaused } from './support.ts';

const WORKLOAD = { fill: 96, rate: 2000, content: 'mixed' } as const;
const POSTCOPY = { capabilities: { 'postcopy-ram': true } };
const PREEMPT = { capabilities: { ...POSTCOPY.capabilities, 'postcopy-preempt': true } };
/** Before 8.0 QEMU opens its second channel at once, and ends it with a record. */
const ENDING_BYTES = 8;

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

test.each([
  { how: '', settings: POSTCOPY, preemptBytesMin: undefined },
  { how: ' and its second channel', settings: PREEMPT, preemptBytesMin: ENDING_BYTES },
])(
  'post-copy of a stopped guest with an older QEMU$how: all of RAM is equal',
  async (options) => {
    const { settings, preemptBytesMin } = options;
    const qemu = olderQemu() ?? newestQemu();
    // Without -S the destination starts the guest, whatever the source did.
    await using pair = await startPair({ qemu, memoryMiB: 256, workload: WORKLOAD }, ['-S']);
    await pair.source.qmp.execute('stop');
    await using migration = new PagelaneMigration({ pathCount: 2 });
    await configure(pair, settings);
    const uri = await migration.prepare(pair);
    const begunMs = Date.now();
    await beginTo(pair.source, { uri });
    await pair.source.qmp.execute('migrate-start-postcopy');
    await finish(pair, { begunMs, timeoutMs: 60_000 });
    const { source } = await migration.results();
    expect(source).toMatchObject({ outcome: 'completed', guest: 'destination' });
    expectPreempted(source, preemptBytesMin);
    const { differing } = await compareMemory(pair);
    expect(differing).toEqual([]);
  },
  180_000,
);

test.each([
  { name: 'newest QEMU', qemu: newestQemu(), settings: POSTCOPY, preemptBytesMin: undefined },
  {
    ...{ name: 'older QEMU', qemu: olderQemu() ?? newestQemu() },
    ...{ settings: POSTCOPY, preemptBytesMin: undefined },
  },
  {
    ...{ name: 'older QEMU and its second channel', qemu: olderQemu() ?? newestQemu() },
    ...{ settings: PREEMPT, preemptBytesMin: 0 },
  },
])(
  'receive is killed in the middle: post-copy is paused, and QEMU recovers it ($name)',
  async ({ qemu, settings, preemptBytesMin }) => {
    await using pair = await startFilledPair({ qemu, content: filledContent(1) });
    const sendWords = ['--max-bandwidth', '4MB', '--resume-timeout', '0'];
    await using migration = new PagelaneMigration({ pathCount: 2, sendWords });
    await migration.beginPostcopy(pair, settings);
    const ways = { timeoutMs: 30_000 };
    await pair.source.qmp.waitForMigration(['postcopy-active'], ways);
    await waitUntil(
      'pages to flow',
      () => /"phase":"postcopy".*"raw":[1-9]/.test(migration.sender.stdout()),
      ways,
    );
    migration.receiver.signal('SIGKILL');
    expect(await migration.sender.exit(30_000), migration.narration()).toBe(7);
    await untilPaused(pair, ways);
    await using again = new PagelaneMigration({ pathCount: 2, isRecovery: true });
    await again.recover(pair);
    const recovered = await again.results();
    expect(recovered.exitCodes, again.narration()).toEqual([0, 0]);
    expectPreempted(recovered.source, preemptBytesMin);
    for (const guest of [pair.source, pair.destination]) {
      expect(await guest.qmp.waitForMigration(['completed', 'failed'], ways)).toBe('completed');
    }
    const [wanted, found] = [pair.sourceMemory, pair.destinationMemory].map((file) =>
      readFileSync(file),
    );
    expect(Buffer.compare(wanted!, found!)).toBe(0);
  },
  120_000,
);

/** So much came on a second channel, or there was none. */
function expectPreempted({ preemptBytes }: MigrationResult, bytesMin: number | undefined): void {
  if (bytesMin === undefined) expect(preemptBytes).toBeUndefined();
  else expect(preemptBytes).toBeGreaterThanOrEqual(bytesMin);
}

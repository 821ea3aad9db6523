// Requires: every QEMU of the lab.
import { expect, test } from 'vitest';
import { newestQemu, olderQemu } from '../support/lab/binaries.ts';
import { createPaths } from '../support/lab/netns.ts';
import { compareMemory } from '../support/lab/pmem.ts';
import { PagelaneMigration } from '../support/pagelane.ts';
import { startPair } from './support.ts';

const QEMUS = [...new Set([olderQemu(), newestQemu()])].filter((qemu) => qemu !== undefined);
const CASES = QEMUS.flatMap((qemu) =>
  (['unix', 'exec'] as const).flatMap((transport) =>
    [true, false].map((hasReturnPath) => ({
      qemu,
      version: qemu.version,
      transport,
      hasReturnPath,
    })),
  ),
);

test('the lab has an older QEMU beside the newest', () => {
  expect(QEMUS.length).toBeGreaterThan(1);
});

test.each(CASES)(
  'QEMU $version by $transport, return path $hasReturnPath: all of RAM is equal',
  async ({ qemu, transport, hasReturnPath }) => {
    await using network = await createPaths({ count: 2, rateMbit: [1000] });
    await using pair = await startPair({
      qemu,
      memoryMiB: 256,
      workload: { fill: 96, rate: 2000, content: 'mixed' },
    });
    await pair.source.qmp.execute('stop');
    await using migration = new PagelaneMigration({ network, qemu: transport });
    await migration.migrate(pair, { capabilities: { 'return-path': hasReturnPath } });
    const { differing } = await compareMemory(pair);
    expect(differing).toEqual([]);
    const { source } = await migration.results();
    expect(source).toMatchObject({ outcome: 'completed', guest: 'destination' });
    await pair.destination.qmp.execute('cont');
    await pair.destination.waitForCounter(pair.source.counter() + 2, 20_000);
  },
  180_000,
);

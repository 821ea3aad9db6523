// Requires: QEMU 9.0 or newer, root for namespaces.
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { createPaths } from '../support/lab/netns.ts';
import { waitUntil } from '../support/lab/processes.ts';
import { migrateRunning } from './support.ts';

const WORKLOAD = { fill: 128, rate: 1000, content: 'random' } as const;

test.each(['reset', 'carrier', 'silent'] as const)(
  'one of two paths is cut (%s) in mid-migration and nothing is lost',
  async (kind) => {
    await using network = await createPaths({ count: 2, rateMbit: [200] });
    const { source } = await migrateRunning(
      { network, codec: 'none' },
      {
        workload: WORKLOAD,
        during: async () => {
          await waitUntil(
            'both paths to carry bytes',
            async () => (await network.counters(1)).toDestinationBytes > 8e6,
            { timeoutMs: 60_000 },
          );
          await network.cut(1, kind);
          await sleep(100);
        },
      },
    );
    const lost = source.paths.filter((path) => path.isLost).map((path) => path.local);
    expect(lost).toEqual([expect.stringContaining(network.paths[1]!.sourceAddress)]);
  },
  180_000,
);

test.each(['sender', 'receiver'] as const)(
  'the %s stands still for a while in mid-migration, and nothing is lost',
  async (end) => {
    await using network = await createPaths({ count: 2, rateMbit: [200] });
    const { source } = await migrateRunning(
      { network, codec: 'none' },
      {
        workload: WORKLOAD,
        during: async (migration) => {
          await waitUntil(
            'both paths to carry bytes',
            async () => (await network.counters(1)).toDestinationBytes > 8e6,
            { timeoutMs: 60_000 },
          );
          migration[end].signal('SIGSTOP');
          await sleep(5000);
          migration[end].signal('SIGCONT');
        },
      },
    );
    expect(source.durationMs).toBeGreaterThan(5000);
  },
  180_000,
);

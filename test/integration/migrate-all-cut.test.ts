// Requires: QEMU 9.0 or newer, root for namespaces.
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { Guest } from '../support/lab/guest.ts';
import { beginTo, configure } from '../support/lab/migrate.ts';
import { createPaths, type LabNetwork } from '../support/lab/netns.ts';
import { waitUntil } from '../support/lab/processes.ts';
import { PagelaneMigration } from '../support/pagelane.ts';
import { migrateRunning, startPair } from './support.ts';

const TIMEOUT_MS = 60_000;
const WORKLOAD = { fill: 96, rate: 3000, content: 'random' } as const;
/** Fine enough to see the last round, which takes a few hundred milliseconds. */
const WORDS = ['--interval', '20ms'];

interface Case {
  readonly when: 'in pre-copy' | 'in the last round';
  readonly cutMs: number;
  readonly kind: 'silent' | 'carrier';
}

const SOME: readonly Case[] = [
  { when: 'in pre-copy', cutMs: 1000, kind: 'carrier' },
  { when: 'in the last round', cutMs: 4000, kind: 'silent' },
];

/** 20 of them; `scripts/soak` asks for these. */
const MANY: readonly Case[] = [
  ...[1000, 1000, 10_000, 10_000, 30_000].flatMap((cutMs) =>
    (['in pre-copy', 'in the last round'] as const).flatMap((when) =>
      (['silent', 'carrier'] as const).map((kind) => ({ when, cutMs, kind })),
    ),
  ),
];

const IS_SOAK = process.env['PAGELANE_ROUNDS'] !== undefined;
const FOR_GOOD = Array.from({ length: IS_SOAK ? 10 : 1 }, () => [
  'in pre-copy' as const,
  'in the last round' as const,
]).flat();

async function until(when: Case['when'], migration: PagelaneMigration): Promise<void> {
  const phase = when === 'in pre-copy' ? '"phase":"precopy"' : '"phase":"switchover"';
  // The processes are there a while after the migration was asked for.
  const isThere = () => migration.isStarted && migration.sender.stdout().includes(phase);
  await waitUntil(`the source to be ${when}`, isThere, { timeoutMs: TIMEOUT_MS });
}

async function cutAll(network: LabNetwork, kind: Case['kind']): Promise<void> {
  await Promise.all(network.paths.map((_, index) => network.cut(index, kind)));
}

describe('all paths are lost', () => {
  test.each(IS_SOAK ? MANY : SOME)(
    '$when for $cutMs ms ($kind) and the migration completes',
    async ({ when, cutMs, kind }) => {
      await using network = await createPaths({ count: 2, rateMbit: [200] });
      let wasRunning = true;
      const { source } = await migrateRunning(
        { network, codec: 'none', words: WORDS },
        {
          workload: WORKLOAD,
          during: async (migration) => {
            await until(when, migration);
            await cutAll(network, kind);
            await sleep(cutMs);
            wasRunning = migration.sender.isRunning();
            await Promise.all(network.paths.map((_, index) => network.restore(index, kind)));
          },
        },
      );
      expect(wasRunning).toBe(true);
      expect(source.durationMs).toBeGreaterThan(cutMs);
    },
    240_000,
  );

  test.each(FOR_GOOD)(
    '%s for good, and the guest runs on at the source',
    async (when) => {
      await using network = await createPaths({ count: 2, rateMbit: [200] });
      await using pair = await startPair({ memoryMiB: 256, workload: WORKLOAD });
      const words = [...WORDS, '--resume-timeout', '3s'];
      await using migration = new PagelaneMigration({ network, codec: 'none', words });
      await configure(pair);
      await beginTo(pair.source, { uri: await migration.prepare(pair) });
      await until(when, migration);
      await cutAll(network, 'silent');
      const { source, destination, exitCodes } = await migration.results();
      expect(source).toMatchObject({
        outcome: 'failed',
        guest: 'source',
        error: { code: 'ERR_PATHS_EXHAUSTED' },
      });
      expect(destination.outcome).toBe('failed');
      expect(exitCodes[1]).toBe(1);
      await runsOn(pair.source);
      expect(await isRunning(pair.destination)).toBe(false);
    },
    120_000,
  );
});

/** The guest counts on, and its memory is what it wrote. */
async function runsOn(guest: Guest): Promise<void> {
  await waitUntil('the guest to run on', async () => await isRunning(guest), {
    timeoutMs: TIMEOUT_MS,
  });
  await guest.waitForCounter(guest.counter() + 2, TIMEOUT_MS);
  await guest.verifyMemory();
  expect(guest.complaints()).toEqual([]);
}

/** Whether a QEMU is there, and its guest runs. */
async function isRunning(guest: Guest): Promise<boolean> {
  try {
    const { status } = await guest.qmp.execute<{ status: string }>('query-status');
    return status === 'running';
  } catch {
    return false;
  }
}

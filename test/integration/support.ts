import { expect } from 'vitest';
import { type Guest, type GuestOptions, startGuest, type Workload } from '../support/lab/guest.ts';
import type { MigrationSettings, Pair } from '../support/lab/migrate.ts';
import { PagelaneMigration, type PagelaneOptions } from '../support/pagelane.ts';

/* Chosen by us */
const BOOT_TIMEOUT_MS = 60_000;

/** A guest that runs, and a QEMU that waits for it. */
export async function startPair(
  options: GuestOptions & { readonly workload: Workload },
  destinationWords: readonly string[] = [],
): Promise<Pair & AsyncDisposable> {
  const source = await startGuest(options);
  let destination: Guest;
  try {
    destination = await startGuest({
      ...options,
      isIncoming: true,
      extraWords: destinationWords,
    });
    await source.waitFor(/READY/, BOOT_TIMEOUT_MS);
    await source.waitForCounter(4, BOOT_TIMEOUT_MS);
  } catch (error) {
    await source.stop();
    throw error;
  }
  return {
    source,
    destination,
    [Symbol.asyncDispose]: async () => {
      await source.stop();
      await destination.stop();
    },
  };
}

/** Waits until both QEMUs say that their post-copy is paused. */
export async function untilPaused(pair: Pair, ways: { readonly timeoutMs: number }): Promise<void> {
  for (const guest of [pair.source, pair.destination]) {
    const status = await guest.qmp.waitForMigration(['postcopy-paused', 'completed'], ways);
    expect(status).toBe('postcopy-paused');
  }
}

/** Migrates a running guest and proves that it runs at the destination, with its memory intact. */
export async function migrateRunning(
  options: PagelaneOptions,
  {
    workload = { fill: 96, rate: 2000, content: 'mixed' },
    settings = {},
    during,
    guest = {},
  }: {
    readonly workload?: Workload;
    readonly settings?: MigrationSettings;
    readonly during?: (migration: PagelaneMigration) => Promise<void>;
    readonly guest?: GuestOptions;
  } = {},
): Promise<Awaited<ReturnType<PagelaneMigration['results']>>> {
  await using pair = await startPair({ memoryMiB: 256, ...guest, workload });
  await using migration = new PagelaneMigration(options);
  const done = migration.migrate(pair, settings);
  await Promise.all([done, during?.(migration)]);
  const counter = pair.source.counter();
  await pair.destination.waitForCounter(counter + 2, 20_000);
  await pair.destination.verifyMemory();
  expect(pair.destination.complaints()).toEqual([]);
  const results = await migration.results();
  expect(results.source).toMatchObject({ outcome: 'completed', guest: 'destination' });
  expect(results.destination).toMatchObject({ outcome: 'completed', guest: 'destination' });
  expect(results.source.digest.equal).toBe(true);
  expect(results.exitCodes.every((code) => code === 0)).toBe(true);
  return results;
}

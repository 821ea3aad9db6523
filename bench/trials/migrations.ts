import { setTimeout as sleep } from 'node:timers/promises';
import { startGuest, type Workload } from '../../test/support/lab/guest.ts';
import type { MigrationReport, Pair } from '../../test/support/lab/migrate.ts';
import type { LabNetwork } from '../../test/support/lab/netns.ts';
import { run } from '../../test/support/lab/processes.ts';
import type { QmpObject } from '../../test/support/lab/qmp.ts';
import { startRealisticGuest } from '../../test/support/lab/realistic.ts';
import { PagelaneMigration, type PagelaneOptions } from '../../test/support/pagelane.ts';
import type { Figures } from '../harness.ts';

/*
 * One measured migration: fresh guests, one transport, figures read from QEMU's own events on both
 * hosts.
 */

/* Chosen by us */
const BOOT_TIMEOUT_MS = 120_000;
const SETTLE_MS = 1500;
const WARMED_MIB = 1024;

/** What is migrated. */
export type Subject = Workload | 'compile' | 'redis';

/** Moves the guest of `pair` once, and calls `beforeStart` right before it begins. */
export type Transport = (
  pair: Pair,
  settings: { readonly beforeStart: () => Promise<void> },
) => Promise<MigrationReport>;

/** Guests of the trials: 512 MiB, half of it filled, 2,000 pages rewritten a second. */
export function subject(content: 'random' | 'structured', isSmoke: boolean): Workload {
  return { fill: isSmoke ? 32 : 256, rate: isSmoke ? 200 : 2000, content, verify: false };
}

/** Migrates once by `transport` and returns total time, downtime and bytes on the wire. */
export async function measure(
  what: Subject,
  network: LabNetwork,
  transport: Transport,
): Promise<Figures> {
  return withGuests(what, { network }, async (pair) => {
    let before = 0;
    const beforeStart = async (): Promise<void> => {
      await warmFreeMemory();
      before = await wireBytes(network);
    };
    const report = await transport(pair, { beforeStart });
    const after = await wireBytes(network);
    await checkGuest(pair);
    return {
      totalMs: report.elapsedMs,
      downtimeMs: report.pausedMs,
      wireMB: (after - before) / 1e6,
    };
  });
}

/** Where guests run and how large they are. */
export interface GuestPlaces {
  /** @default this process's own namespace */
  readonly network?: LabNetwork;
  /** Memory of a workload's guest. @default 512 */
  readonly memoryMiB?: number;
}

/** Starts a guest at work and one that waits for it, and ends both afterwards. */
export async function withGuests<T>(
  what: Subject,
  places: GuestPlaces,
  use: (pair: Pair) => Promise<T>,
): Promise<T> {
  await using source = await start(what, places, 'source');
  await using destination = await start(what, places, 'destination');
  await source.waitFor(/READY/, BOOT_TIMEOUT_MS);
  await source.waitForCounter(4, BOOT_TIMEOUT_MS);
  await sleep(SETTLE_MS);
  return await use({ source, destination });
}

/** Checks that the guest is at work at the destination, and content. */
export async function checkGuest({ source, destination }: Pair): Promise<void> {
  await destination.waitForCounter(source.counter() + 1, 30_000);
  const complaints = destination.complaints();
  if (complaints.length > 0) throw new Error(`Guest complains: ${complaints.join('; ')}`);
}

async function start(
  what: Subject,
  { network, memoryMiB = 512 }: GuestPlaces,
  end: 'source' | 'destination',
) {
  const place = {
    ...(network && { namespace: network[end] }),
    isIncoming: end === 'destination',
    isPreallocated: true,
  };
  if (typeof what === 'string') return startRealisticGuest(what, place);
  return startGuest({ ...place, workload: what, memoryMiB });
}

/**
 * Tells QEMU what the links carry. It would measure by the bytes that pagelane takes, before they
 * are compressed, and stop the guest as soon as those that are left would fit into 300 ms.
 *
 * @param factor How many times that: as pages are compressed, the links carry more of them.
 */
export function knownBandwidth(network: LabNetwork, rateMbit: number, factor = 1): QmpObject {
  const bytesPerSecond = (network.paths.length * rateMbit * 1e6) / 8;
  return { 'avail-switchover-bandwidth': Math.round(bytesPerSecond * factor) };
}

/**
 * Touches free memory and gives it back. Where this machine is a guest whose host takes back what
 * it frees, the first touch of a page costs ten times as much: a migration would measure little
 * else. For the same reason the memory of both guests is touched before.
 */
export async function warmFreeMemory(): Promise<void> {
  await run(['dd', 'if=/dev/zero', 'of=/dev/null', `bs=${WARMED_MIB}M`, 'count=1', 'status=none']);
}

/** pagelane as a transport; `parameters` are QEMU's, for both ends. */
export function throughPagelane(
  network: LabNetwork,
  {
    parameters = {},
    ...options
  }: Omit<PagelaneOptions, 'network'> & { readonly parameters?: QmpObject } = {},
): Transport {
  return async (pair, settings) => {
    await using migration = new PagelaneMigration({ network, ...options });
    const report = await migration.migrate(pair, { ...settings, parameters });
    await checkResults(migration);
    return report;
  };
}

/** Waits for both ends' results, and checks that what was applied is what was sent. */
export async function checkResults(migration: PagelaneMigration) {
  const results = await migration.results();
  for (const { side, outcome, digest } of [results.source, results.destination]) {
    if (outcome !== 'completed' || digest.equal !== true) {
      throw new Error(`${side}: ${outcome}, digests ${JSON.stringify(digest)}`);
    }
  }
  return results;
}

async function wireBytes(network: LabNetwork): Promise<number> {
  let bytes = 0;
  for (const index of network.paths.keys())
    bytes += (await network.counters(index)).toDestinationBytes;
  return bytes;
}

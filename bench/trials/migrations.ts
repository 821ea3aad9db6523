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
  await using source = await start(what, network.source, false);
  await using destination = await start(what, network.destination, true);
  await source.waitFor(/READY/, BOOT_TIMEOUT_MS);
  await source.waitForCounter(4, BOOT_TIMEOUT_MS);
  await sleep(SETTLE_MS);
  let before = 0;
  const beforeStart = async (): Promise<void> => {
    await warmFreeMemory();
    before = await wireBytes(network);
  };
  const report = await transport({ source, destination }, { beforeStart });
  const after = await wireBytes(network);
  await destination.waitForCounter(source.counter() + 1, 30_000);
  const complaints = destination.complaints();
  if (complaints.length > 0) throw new Error(`Guest complains: ${complaints.join('; ')}`);
  return {
    totalMs: report.elapsedMs,
    downtimeMs: report.pausedMs,
    wireMB: (after - before) / 1e6,
  };
}

async function start(what: Subject, namespace: string, isIncoming: boolean) {
  const place = { namespace, isIncoming, isPreallocated: true };
  if (typeof what === 'string') return startRealisticGuest(what, place);
  return startGuest({ ...place, workload: what, memoryMiB: 512 });
}

/**
 * Tells QEMU what the links carry. It would measure by the bytes that pagelane takes, before they
 * are compressed, and stop the guest as soon as those that are left would fit into 300 ms.
 */
export function knownBandwidth(network: LabNetwork, rateMbit: number): QmpObject {
  return { 'avail-switchover-bandwidth': (network.paths.length * rateMbit * 1e6) / 8 };
}

/**
 * Touches free memory and gives it back. Where this machine is a guest whose host takes back what
 * it frees, the first touch of a page costs ten times as much: a migration would measure little
 * else. For the same reason the memory of both guests is touched before.
 */
async function warmFreeMemory(): Promise<void> {
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
    await migration.results();
    return report;
  };
}

async function wireBytes(network: LabNetwork): Promise<number> {
  let bytes = 0;
  for (const index of network.paths.keys())
    bytes += (await network.counters(index)).toDestinationBytes;
  return bytes;
}

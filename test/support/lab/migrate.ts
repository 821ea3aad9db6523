/*
 * A migration, driven through both monitors
 *
 *   1. configure   capabilities and parameters of both QEMUs
 *   2. listen      the destination waits at an address
 *   3. begin       the source connects to one
 *   4. finish      both report what became of it
 *
 * `migrate` does all of it; the steps are there for tests that do something in between.
 */

import type { Guest } from './guest.ts';
import type { QmpObject } from './qmp.ts';

/* Chosen by us */
const MIGRATION_TIMEOUT_MS = 120_000;
const ENDED = ['completed', 'failed', 'cancelled'] as const;

/** A QEMU at each end. */
export interface Pair {
  readonly source: Guest;
  readonly destination: Guest;
}

/** Where a QEMU listens, or connects to. */
export type MigrationAddress =
  | { readonly uri: string }
  | { readonly host: string; readonly port: number; readonly isMptcp: boolean };

/** How both QEMUs are set. */
export interface MigrationSettings {
  /** Beside `events` (both) and `return-path` (source), e.g. `{ multifd: true }`. */
  readonly capabilities?: Readonly<Record<string, boolean>>;
  /** Beside `max-bandwidth` 0 and `downtime-limit` 300, e.g. `{ 'multifd-channels': 2 }`. */
  readonly parameters?: QmpObject;
  /** Called when all is ready, right before the source is told to migrate. */
  readonly beforeStart?: () => Promise<void>;
}

/** What a migration is. */
export interface MigrationOptions extends MigrationSettings {
  /** Where the destination listens. */
  readonly listen: MigrationAddress;
  /** Where the source connects to. @default listen */
  readonly connect?: MigrationAddress;
  readonly timeoutMs?: number;
}

/** How a migration went. Times are the same for every transport: read from QEMU's events. */
export interface MigrationReport {
  /** From the command `migrate` until both ends have completed. */
  readonly elapsedMs: number;
  /** From the guest's stop at the source to its start at the destination; NaN if it never ran. */
  readonly pausedMs: number;
  /** The source QEMU's `total-time`. */
  readonly totalMs: number;
  /** The source QEMU's `downtime`. */
  readonly downtimeMs: number;
  /** Bytes the source QEMU wrote: not what went over a network if a proxy is between. */
  readonly transferredBytes: number;
  /** Counters of the source QEMU's `query-migrate`. */
  readonly ram: Readonly<Record<string, number>>;
}

/** An answer of `query-migrate`, as far as it is used here. */
export interface MigrationState {
  readonly status?: string;
  readonly 'error-desc'?: string;
  readonly 'total-time'?: number;
  readonly downtime?: number;
  readonly ram?: Readonly<Record<string, number>>;
}

/**
 * Migrates a running guest and reports how it went.
 *
 * @throws {Error} If either end does not complete, with the words of both QEMUs.
 */
export async function migrate(pair: Pair, options: MigrationOptions): Promise<MigrationReport> {
  const { listen, connect = listen, timeoutMs = MIGRATION_TIMEOUT_MS } = options;
  await configure(pair, options);
  await listenAt(pair.destination, listen);
  await options.beforeStart?.();
  const begunMs = Date.now();
  await beginTo(pair.source, connect);
  return finish(pair, { begunMs, timeoutMs });
}

/** 1. Sets capabilities and parameters of both ends. */
export async function configure(
  { source, destination }: Pair,
  { capabilities = {}, parameters = {} }: MigrationSettings = {},
): Promise<void> {
  for (const guest of [source, destination]) {
    const wanted = { events: true, 'return-path': guest === source, ...capabilities };
    const states = Object.entries(wanted).map(([capability, state]) => ({ capability, state }));
    await guest.qmp.execute('migrate-set-capabilities', { capabilities: states });
    const limits = { 'max-bandwidth': 0, 'downtime-limit': 300 };
    await guest.qmp.execute('migrate-set-parameters', { ...limits, ...parameters });
  }
}

/** 2. Lets the destination, started with `isIncoming`, wait for a migration. */
export async function listenAt(destination: Guest, address: MigrationAddress): Promise<void> {
  await destination.qmp.execute('migrate-incoming', addressWords(address));
}

/** 3. Lets the source connect; the migration goes on from here by itself. */
export async function beginTo(source: Guest, address: MigrationAddress): Promise<void> {
  await source.qmp.execute('migrate', addressWords(address));
}

/** 4. Waits until both ends have completed. */
export async function finish(
  { source, destination }: Pair,
  { begunMs, timeoutMs }: { readonly begunMs: number; readonly timeoutMs: number },
): Promise<MigrationReport> {
  const wait = (guest: Guest) => guest.qmp.waitForMigration(ENDED, { timeoutMs });
  const [atSource, atDestination] = await Promise.allSettled([wait(source), wait(destination)]);
  if (describe(atSource) !== 'completed' || describe(atDestination) !== 'completed') {
    throw new Error(
      `Migration did not complete: source ${describe(atSource)} (${await errorOf(source)}), ` +
        `destination ${describe(atDestination)} (${await errorOf(destination)})`,
    );
  }
  const completedMs = [source, destination].map(completionMs);
  const state = await queryMigration(source);
  const ram = state.ram ?? {};
  return {
    elapsedMs: Math.round(Math.max(...completedMs) - begunMs),
    pausedMs: Math.round(lastTimeMs(destination, 'RESUME') - lastTimeMs(source, 'STOP')),
    totalMs: state['total-time'] ?? 0,
    downtimeMs: state.downtime ?? 0,
    transferredBytes: ram['transferred'] ?? 0,
    ram,
  };
}

/** What a QEMU says about its migration now. */
export async function queryMigration(guest: Guest): Promise<MigrationState> {
  return guest.qmp.execute<MigrationState>('query-migrate');
}

/** QEMU's own transports, the peers pagelane is compared with. */
export interface PeerOptions {
  /** Address of the destination that the source can reach. */
  readonly host: string;
  readonly port?: number;
  readonly timeoutMs?: number;
  /** As in `MigrationSettings`. */
  readonly beforeStart?: () => Promise<void>;
}

/** Plain `tcp:`, one connection. */
export function migrateTcp(pair: Pair, options: PeerOptions): Promise<MigrationReport> {
  return migratePeer(pair, options, { isMptcp: false });
}

/**
 * One MPTCP connection, over every path the namespaces' endpoints announce.
 *
 * QEMU before 10.0 needs guests started with `preloadsMptcp` instead, and `migrateTcp`.
 */
export function migrateMptcp(pair: Pair, options: PeerOptions): Promise<MigrationReport> {
  return migratePeer(pair, options, { isMptcp: true });
}

/** multifd with zstd, optionally over MPTCP. */
export function migrateMultifd(
  pair: Pair,
  {
    channels = 2,
    compression = 'zstd',
    isMptcp = false,
    ...options
  }: PeerOptions & {
    readonly channels?: number;
    readonly compression?: 'none' | 'zstd';
    readonly isMptcp?: boolean;
  },
): Promise<MigrationReport> {
  const parameters = { 'multifd-channels': channels, 'multifd-compression': compression };
  return migratePeer(pair, options, { isMptcp, capabilities: { multifd: true }, parameters });
}

function migratePeer(
  pair: Pair,
  { host, port = 4444, timeoutMs = MIGRATION_TIMEOUT_MS, ...hooks }: PeerOptions,
  { isMptcp, ...settings }: MigrationSettings & { readonly isMptcp: boolean },
): Promise<MigrationReport> {
  return migrate(pair, { listen: { host, port, isMptcp }, timeoutMs, ...hooks, ...settings });
}

function addressWords(address: MigrationAddress): QmpObject {
  if ('uri' in address) return { uri: address.uri };
  const { host, port, isMptcp } = address;
  if (!isMptcp) return { uri: `tcp:${host}:${port}` };
  const addr = { transport: 'socket', type: 'inet', host, port: `${port}`, mptcp: true };
  return { channels: [{ 'channel-type': 'main', addr }] };
}

function describe(outcome: PromiseSettledResult<string>): string {
  return outcome.status === 'fulfilled' ? outcome.value : String(outcome.reason);
}

/** When an event last happened. The destination resumes before it tells that it completed. */
export function lastTimeMs(guest: Guest, name: string): number {
  return guest.qmp.events.findLast(({ event }) => event === name)?.timeMs ?? Number.NaN;
}

/** Host time at which a QEMU told that its migration has completed, milliseconds. */
export function completionMs(guest: Guest): number {
  const isCompleted = (data: QmpObject) => data['status'] === 'completed';
  return guest.qmp.events.findLast(({ data }) => isCompleted(data))?.timeMs ?? Number.NaN;
}

async function errorOf(guest: Guest): Promise<string> {
  const said = await queryMigration(guest).catch((cause: unknown) => ({
    'error-desc': String(cause),
  }));
  return [said['error-desc'], guest.stderr().trim()].filter(Boolean).join('; ') || 'no reason told';
}

import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  connect,
  type DirtyLog,
  digestMemory,
  formatBytes,
  formatDuration,
  formatRate,
  type GuestResult,
  hashDirtyLog,
  type MoveOptions,
  migrateToNull,
  PATHS_MAX,
  parseDuration,
  parseHostPort,
  parseSize,
  readKeyFile,
  type Security,
  sumOf,
  writeProtectDirtyLog,
} from '../index.ts';
import { BenchDestination, beDestination } from './bench-destination.ts';
import { drawRounds } from './chart.ts';
import {
  COMMON_FLAGS,
  type Flags,
  formatControlHelp,
  readArguments,
  readCodec,
  readCount,
  readFlag,
  readStore,
  UsageError,
  type Values,
} from './options.ts';
import { print } from './report.ts';
import { SyntheticGuest } from './synthetic-guest.ts';

/*
 * `pagelane bench`: memory that is made up goes through all that a migration goes through
 *
 *   --paths N      to another process on this host, over N paths of loopback
 *   --paths null:  to nowhere: what the source alone costs
 *   --listen       the destination's side, for a source on another host
 *   --to           the source's side, to a destination on another host
 */

const { threads, key, insecure, output, help } = COMMON_FLAGS;
const FLAGS: Flags = {
  size: { type: 'string', value: 'SIZE', help: "the guest's memory; default 1GiB" },
  zero: { type: 'string', value: 'PERCENT', help: 'of it that is zeros; default 50' },
  random: {
    type: 'string',
    value: 'PERCENT',
    help: 'of it that is noise; default 25; the rest is text',
  },
  'dirty-rate': { type: 'string', value: 'PAGES', help: 'pages written to a second; default 2000' },
  'dirty-log': {
    type: 'string',
    value: 'write-protect|hash',
    help: 'how writes are found; default write-protect',
  },
  downtime: {
    type: 'string',
    value: 'TIME',
    help: 'how long the guest may stand still; default 100ms',
  },
  paths: { type: 'string', value: 'N|null:', help: 'paths of loopback, or nowhere; default 2' },
  codec: { type: 'string', value: 'auto|none|lz4|zstd', help: 'compression; default auto' },
  store: COMMON_FLAGS['store']!,
  to: {
    type: 'string',
    multiple: true,
    value: 'HOST:PORT',
    help: 'a path to "bench --listen" on another host; repeat for more',
  },
  listen: { type: 'string', value: 'ADDR:PORT', help: 'be the destination, for one migration' },
  ...{ threads: threads!, key: key!, insecure: insecure!, output: output!, help: help! },
};
const USAGE = 'pagelane bench [options]';
const EXAMPLES = [
  'pagelane bench',
  'pagelane bench --size 4GiB --dirty-rate 50000 --downtime 50ms --paths 4',
  'pagelane bench --paths null: --codec none --threads 1        what the source costs',
  'pagelane bench --listen 0.0.0.0:7701 --key k                 and, on the other host:',
  'pagelane bench --to 10.1.0.2:7701 --to 10.2.0.2:7701 --key k',
];
const EXIT_CODES = '0 done, and memory is the same · 1 failed · 2 usage';

/** What is measured. */
interface BenchPlan {
  readonly bytes: number;
  readonly zeroPercent: number;
  readonly randomPercent: number;
  readonly dirtyRate: number;
  readonly downtimeMs: number;
  readonly codec: NonNullable<MoveOptions['codec']>;
  readonly storeBytes: number | undefined;
  readonly threads: number | undefined;
  readonly makeLog: (guest: SyntheticGuest) => DirtyLog;
}

/** Where it goes. */
type BenchTarget =
  | { readonly kind: 'here'; readonly pathCount: number; readonly isInsecure: boolean }
  | { readonly kind: 'nowhere' }
  | {
      readonly kind: 'there';
      readonly paths: readonly { host: string; port: number }[];
      readonly security: Security;
    };

/** How it went; `memory` is the digest of all of it at the end. */
interface BenchRecord {
  readonly type: 'bench';
  readonly result: GuestResult;
  readonly memory: string;
  readonly writtenPages?: number;
}

/** `pagelane bench`. */
export async function bench(args: readonly string[]): Promise<number> {
  const { values, positionals } = readArguments(args, FLAGS, {});
  if (values.is('help')) {
    print(formatControlHelp(USAGE, EXAMPLES, FLAGS, EXIT_CODES));
    return 0;
  }
  if (positionals.length > 0) throw new UsageError(`unexpected "${positionals[0]}"`);
  const isRecord = readIsRecord(values);
  const address = values.text('listen');
  if (address !== undefined) {
    const count = readCount(values, 'threads', 1, 256);
    return await beDestination({
      ...readFlag('listen', address, parseHostPort),
      security: readSecurity(values),
      ...(count !== undefined && { threads: count }),
    });
  }
  const plan = readPlan(values);
  const target = readTarget(values);
  const guest = new SyntheticGuest(plan);
  try {
    await guest.ready;
    const { record, there } = await run(plan, guest, target);
    const isSame = there === undefined ? undefined : there === record.memory;
    if (isRecord) print(`${JSON.stringify({ ...record, isSame })}\n`);
    else print(describe(record, plan, isSame));
    return record.result.outcome === 'completed' && isSame !== false ? 0 : 1;
  } finally {
    await guest.dispose();
  }
}

function readIsRecord(values: Values): boolean {
  const output = values.text('output') ?? 'text';
  if (output === 'text') return false;
  if (output === 'json' || output === 'ndjson') return true;
  throw new UsageError(`--output: "${output}" is none of text, json, ndjson`);
}

function readPlan(values: Values): BenchPlan {
  const count = (name: string, most: number, otherwise: number): number =>
    readCount(values, name, 0, most) ?? otherwise;
  const zeroPercent = count('zero', 100, 50);
  const randomPercent = count('random', 100, Math.min(25, 100 - zeroPercent));
  if (zeroPercent + randomPercent > 100) throw new UsageError('--zero and --random are over 100');
  const bytes = readFlag('size', values.text('size') ?? '1GiB', parseSize);
  if (bytes < 2 ** 20 || bytes > 4 * 2 ** 30 || bytes % 2 ** 16 !== 0) {
    throw new UsageError('--size: must be 1MiB to 4GiB, in multiples of 64 KiB');
  }
  const log = values.text('dirty-log') ?? 'write-protect';
  if (log !== 'write-protect' && log !== 'hash') {
    throw new UsageError(`--dirty-log: "${log}" is none of write-protect, hash`);
  }
  const downtimeMs = readFlag('downtime', values.text('downtime') ?? '100ms', parseDuration);
  if (downtimeMs === 0) throw new UsageError('--downtime: must be more than 0');
  return {
    bytes,
    zeroPercent,
    randomPercent,
    dirtyRate: count('dirty-rate', 10_000_000, 2000),
    downtimeMs,
    codec: readCodec(values),
    storeBytes: readStore(values),
    threads: readCount(values, 'threads', 1, 256),
    makeLog: ({ memory }) => (log === 'hash' ? hashDirtyLog(memory) : writeProtectDirtyLog(memory)),
  };
}

function readTarget(values: Values): BenchTarget {
  const paths = values.texts('to').map((text) => readFlag('to', text, parseHostPort));
  if (paths.length > 0) return { kind: 'there', paths, security: readSecurity(values) };
  if (values.text('paths') === 'null:') return { kind: 'nowhere' };
  const pathCount = readCount(values, 'paths', 1, PATHS_MAX) ?? 2;
  return { kind: 'here', pathCount, isInsecure: values.is('insecure') };
}

/** Migrates the guest to wherever that was asked for; `there` is the destination's digest. */
async function run(
  plan: BenchPlan,
  guest: SyntheticGuest,
  target: BenchTarget,
): Promise<{ record: BenchRecord; there?: string }> {
  const options = moveOptions(plan, guest);
  const { threads: count } = plan;
  if (target.kind === 'there') {
    const result = await migrate(plan, options, target.paths, target.security);
    return { record: await recordOf(result, guest) };
  }
  if (target.kind === 'nowhere') {
    const threads = count === undefined ? {} : { threads: count };
    return { record: await recordOf(await migrateToNull({ ...options, ...threads }), guest) };
  }
  const folder = mkdtempSync(join(tmpdir(), 'pagelane-bench-'));
  try {
    const { pathCount, isInsecure } = target;
    await using child = await BenchDestination.start({ folder, isInsecure, threads: count });
    const path = { host: '127.0.0.1', port: child.port };
    const paths = Array.from({ length: pathCount }, () => path);
    const result = await migrate(plan, options, paths, child.security);
    return { record: await recordOf(result, guest), there: await child.memory() };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function moveOptions(plan: BenchPlan, guest: SyntheticGuest): MoveOptions {
  return {
    source: guest.memory,
    name: 'synthetic',
    dirtyLog: plan.makeLog(guest),
    downtimeMs: plan.downtimeMs,
    codec: plan.codec,
    ...(plan.storeBytes !== undefined && { storeBytes: plan.storeBytes }),
    pause: () => guest.pause(),
    resume: () => guest.resume(),
    throttle: (percent) => guest.throttle(percent),
    deviceState: () => randomBytes(64 * 1024),
  };
}

async function migrate(
  { threads: count }: BenchPlan,
  options: MoveOptions,
  paths: readonly { host: string; port: number }[],
  security: Security,
): Promise<GuestResult> {
  await using session = await connect({
    paths: [...paths],
    security,
    ...(count !== undefined && { threads: count }),
  });
  return await session.migrateGuest(options);
}

async function recordOf(result: GuestResult, guest: SyntheticGuest): Promise<BenchRecord> {
  const memory = (await digestMemory(guest.memory)).toString(16).padStart(16, '0');
  return { type: 'bench', result, memory, writtenPages: guest.writtenPages };
}

function readSecurity(values: Values): Security {
  const file = values.text('key');
  if (values.is('insecure') && file === undefined) return { kind: 'none' };
  if (file === undefined || values.is('insecure')) {
    throw new UsageError(
      'give one of --key FILE (make one with "pagelane keygen FILE"), --insecure',
    );
  }
  return { kind: 'key', key: readKeyFile(file) };
}

function describe(record: BenchRecord, plan: BenchPlan, isSame: boolean | undefined): string {
  const { result } = record;
  const pageBytes = 4096;
  const rounds = result.roundFacts.map(({ round, pages, durationMs, dirtyPages }) => ({
    round,
    bytesPerSecond: (pages * pageBytes * 1000) / Math.max(durationMs, 0.001),
    remainingBytes: dirtyPages * pageBytes,
  }));
  const columns = process.stdout.columns ?? 80;
  const { durationMs, downtimeMs, pages, cpuSeconds } = result;
  const sentBytes = sumOf(pages) * pageBytes;
  const wireBytes = result.roundFacts.reduce((sum, round) => sum + round.wireBytes, 0);
  const seconds = durationMs / 1000;
  const { switchover } = downtimeMs;
  const stood = switchover === undefined ? '-' : formatDuration(switchover);
  const lines = [
    drawRounds(rounds, { columns }),
    `${result.outcome}${result.error ? `: ${result.error.message}` : ''}`,
    `memory    ${formatBytes(plan.bytes)}, ${plan.dirtyRate} pages/s written to, ` +
      `${formatBytes(sentBytes)} sent as ${formatBytes(wireBytes)}`,
    `time      ${formatDuration(durationMs)}, ${formatRate(plan.bytes / seconds)} of memory`,
    `downtime  ${stood} of ${formatDuration(plan.downtimeMs)}`,
    `processor ${((cpuSeconds * 2 ** 30) / plan.bytes).toFixed(2)} s per GiB, source alone`,
    isSame === undefined
      ? `digest    ${record.memory}, of all memory at the end`
      : `memory is ${isSame ? 'the same' : 'NOT THE SAME'} there`,
  ];
  return `${lines.join('\n')}\n`;
}

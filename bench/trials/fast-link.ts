import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Workload } from '../../test/support/lab/guest.ts';
import { type MigrationReport, migrate, type Pair } from '../../test/support/lab/migrate.ts';
import { compareMemory } from '../../test/support/lab/pmem.ts';
import { type RunningProcess, startProcess, waitUntil } from '../../test/support/lab/processes.ts';
import { PagelaneMigration } from '../../test/support/pagelane.ts';
import { freePort } from '../../test/support/redis.ts';
import {
  type Figures,
  formatSpread,
  isChosen,
  spread,
  stateComparison,
  type Trial,
  type TrialOptions,
  takeTurns,
} from '../harness.ts';
import { processSeconds } from '../support/foreign-load.ts';
import { checkGuest, checkResults, warmFreeMemory, withGuests } from './migrations.ts';

const CONTENTS = ['structured', 'random'] as const;
const SECURITIES = ['insecure', 'key'] as const;
/** As much as pagelane reads at once. */
const SOCAT_BYTES = 256 * 1024;
const SOCAT_TIMEOUT_MS = 10_000;

type Transport = (pair: Pair) => Promise<Moved>;

interface Moved {
  readonly report: MigrationReport;
  /** Processor seconds of both ends of what is between the QEMUs. */
  readonly cpuSeconds?: number;
}

/**
 * An idle guest through loopback, where nothing is shaped, against plain QEMU, and against a pair
 * of processes that do nothing but carry its bytes.
 */
export const fastLink: Trial = {
  name: 'fast-link',
  question:
    'What does pagelane cost an idle guest where the link is no limit, against plain unix:?',
  async run(options) {
    const lines: string[] = [];
    for (const content of options.isSmoke ? (['structured'] as const) : CONTENTS) {
      if (isChosen(content, options)) lines.push(...(await compare(content, options)));
    }
    return lines;
  },
};

async function compare(
  content: (typeof CONTENTS)[number],
  { isSmoke, pairs }: TrialOptions,
): Promise<string[]> {
  const memoryMiB = isSmoke ? 256 : 1024;
  const workload: Workload = { fill: isSmoke ? 32 : 512, rate: 0, content, verify: false };
  for (const transport of isSmoke ? [] : SECURITIES.map(throughPagelane)) {
    await verify(workload, memoryMiB, transport);
  }
  const run = (transport: Transport) => () => measure(workload, memoryMiB, transport);
  const turns = await takeTurns(
    pairs,
    {
      insecure: run(throughPagelane('insecure')),
      peer: run(plain),
      key: run(throughPagelane('key')),
      socat: run(throughSocat),
    },
    { warmUp: !isSmoke },
  );
  const guest = `idle guest of ${memoryMiB} MiB, ${workload.fill} of them ${content}`;
  const figures = ['totalMs', 'downtimeMs', 'qemuCpuPerGB', 'allCpuPerGB'];
  const stateAgainst = (title: string, ours: readonly Figures[], peers: readonly Figures[]) =>
    stateComparison(`${guest}, ${title}`, { ours, peers }, figures);
  return [
    ...SECURITIES.flatMap((security) => [
      ...stateAgainst(`--${security} ÷ unix:`, turns[security], turns.peer),
      stateBetween('pagelane', turns[security]),
    ]),
    ...stateAgainst('socat ÷ unix:', turns.socat, turns.peer),
    stateBetween('socat', turns.socat),
    ...stateAgainst('--insecure ÷ socat', turns.insecure, turns.socat),
  ];
}

function stateBetween(name: string, runs: readonly Figures[]): string {
  const seconds = formatSpread(spread(runs.map((each) => each['betweenCpuPerGB']!)));
  return `  ${name}, both ends: ${seconds} processor seconds per GB of the stream`;
}

async function measure(
  workload: Workload,
  memoryMiB: number,
  transport: Transport,
): Promise<Figures> {
  return withGuests(workload, { memoryMiB }, async (pair) => {
    await warmFreeMemory();
    const before = qemuSeconds(pair);
    const { report, cpuSeconds = 0 } = await transport(pair);
    const qemu = qemuSeconds(pair) - before;
    await checkGuest(pair);
    const gigabytes = report.transferredBytes / 1e9;
    return {
      totalMs: report.elapsedMs,
      downtimeMs: report.pausedMs,
      qemuCpuPerGB: qemu / gigabytes,
      betweenCpuPerGB: cpuSeconds / gigabytes,
      allCpuPerGB: (qemu + cpuSeconds) / gigabytes,
    };
  });
}

/** Moves the guest while it stands still, and compares all of its memory. */
async function verify(workload: Workload, memoryMiB: number, transport: Transport): Promise<void> {
  await withGuests(workload, { memoryMiB }, async (pair) => {
    await pair.source.qmp.execute('stop');
    await transport(pair);
    const { differing } = await compareMemory(pair);
    if (differing.length > 0) throw new Error(`${differing.length} pages differ`);
  });
}

async function plain(pair: Pair): Promise<Moved> {
  const uri = `unix:${join(pair.destination.folder, 'migration')}`;
  return { report: await migrate(pair, { listen: { uri } }) };
}

function throughPagelane(security: 'insecure' | 'key'): Transport {
  return async (pair) => {
    await using migration = new PagelaneMigration({ security, codec: 'auto' });
    const report = await migration.migrate(pair);
    const { source, destination } = await checkResults(migration);
    return { report, cpuSeconds: source.cpuSeconds + destination.cpuSeconds };
  };
}

/** The least that two processes between the QEMUs can do: read, and write. */
async function throughSocat(pair: Pair): Promise<Moved> {
  const uri = `unix:${join(pair.destination.folder, 'migration')}`;
  const entrance = join(pair.source.folder, 'socat');
  const port = await freePort();
  await using receive = startSocat(
    `TCP-LISTEN:${port},bind=127.0.0.1`,
    uri.replace('unix:', 'UNIX-CONNECT:'),
  );
  await using send = startSocat(
    `UNIX-LISTEN:${entrance}`,
    `TCP:127.0.0.1:${port},retry=50,interval=0.1`,
  );
  const ends = [send, receive];
  await waitUntil('socat to listen', () => existsSync(entrance), { timeoutMs: SOCAT_TIMEOUT_MS });
  const report = await migrate(pair, { listen: { uri }, connect: { uri: `unix:${entrance}` } });
  await waitUntil('socat to end', () => ends.every((end) => end.stdout() !== ''), {
    timeoutMs: SOCAT_TIMEOUT_MS,
  });
  return { report, cpuSeconds: ends.reduce((sum, { pid }) => sum + processSeconds(pid), 0) };
}

/** The shell keeps what its socat took, for as long as it waits. */
function startSocat(from: string, to: string): RunningProcess {
  const script = `socat -b${SOCAT_BYTES} ${from} ${to}; echo ended; read line`;
  return startProcess(['sh', '-c', script], { hasInput: true });
}

/** What both QEMUs have taken, the guest's own work with it. */
function qemuSeconds({ source, destination }: Pair): number {
  return processSeconds(source.pid) + processSeconds(destination.pid);
}

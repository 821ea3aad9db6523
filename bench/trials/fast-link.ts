import { join } from 'node:path';
import type { Workload } from '../../test/support/lab/guest.ts';
import { type MigrationReport, migrate, type Pair } from '../../test/support/lab/migrate.ts';
import { compareMemory } from '../../test/support/lab/pmem.ts';
import { PagelaneMigration } from '../../test/support/pagelane.ts';
import {
  type Figures,
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

type Transport = (pair: Pair) => Promise<Moved>;

interface Moved {
  readonly report: MigrationReport;
  /** Processor seconds of both ends of pagelane. */
  readonly cpuSeconds?: number;
}

/** An idle guest through loopback, where nothing is shaped, against plain QEMU. */
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
    },
    { warmUp: !isSmoke },
  );
  const guest = `idle guest of ${memoryMiB} MiB, ${workload.fill} of them ${content}`;
  return SECURITIES.flatMap((security) => [
    ...stateComparison(
      `${guest}, --${security} ÷ unix:`,
      { ours: turns[security], peers: turns.peer },
      ['totalMs', 'downtimeMs', 'qemuCpuPerGB', 'allCpuPerGB'],
    ),
    statePagelane(turns[security]),
  ]);
}

function statePagelane(runs: readonly Figures[]): string {
  const { median, min, max } = spread(runs.map((each) => each['pagelaneCpuPerGB']!));
  const span = `(${min.toFixed(2)}–${max.toFixed(2)})`;
  return `  pagelane, both ends: ${median.toFixed(2)} ${span} processor seconds per GB of the stream`;
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
      pagelaneCpuPerGB: cpuSeconds / gigabytes,
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

/** What both QEMUs have taken, the guest's own work with it. */
function qemuSeconds({ source, destination }: Pair): number {
  return processSeconds(source.pid) + processSeconds(destination.pid);
}

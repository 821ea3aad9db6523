import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createKeyFile, type GuestResult, sumOf } from '../../src/index.ts';
import { repositoryRoot } from '../../test/support/lab/binaries.ts';
import { createPaths, type LabNetwork } from '../../test/support/lab/netns.ts';
import { startProcess, waitUntil } from '../../test/support/lab/processes.ts';
import { formatSpread, isChosen, spread, type Trial, type TrialOptions } from '../harness.ts';
import { plainRates, sumOf as sumOfRates } from '../support/plain-rates.ts';
import { warmFreeMemory } from './migrations.ts';

/* Chosen by us */

const PAGE_BYTES = 4096;
const PORT = 7711;
const DOWNTIME_MS = 100;
const RUN_TIMEOUT_MS = 300_000;

/** How two hosts are joined. */
const NETWORKS = {
  'two paths of 1 Gb/s': { count: 2, rateMbit: [1000, 1000] },
  'one path, not shaped': { count: 1 },
} as const;
const RATES = [0, 2000, 50_000] as const;

interface Run {
  readonly result: GuestResult;
  readonly isSame: boolean;
  readonly writtenPages: number;
}

/** A guest of made-up memory, from one process to another, whatever it writes meanwhile. */
export const embedded: Trial = {
  name: 'embedded',
  question:
    'Does memory that is written to arrive whole, within the downtime, as fast as links allow?',
  async run(options) {
    const lines: string[] = [];
    for (const [title, network] of Object.entries(NETWORKS)) {
      if (isChosen(title, options)) lines.push(...(await onNetwork(title, network, options)));
    }
    return lines;
  },
};

async function onNetwork(
  title: string,
  settings: (typeof NETWORKS)[keyof typeof NETWORKS],
  { isSmoke, pairs }: TrialOptions,
): Promise<string[]> {
  const size = isSmoke ? '64MiB' : (process.env['PAGELANE_BENCH_SIZE'] ?? '4GiB');
  await using network = await createPaths(settings);
  const plain = sumOfRates(await plainRates(network, isSmoke ? 1 : 3));
  const lines = [
    `${title}, ${size}: half zeros, a quarter noise, a quarter text; iperf3 ` +
      `${plain.toFixed(0)} Mb/s`,
  ];
  for (const rate of isSmoke ? RATES.slice(1, 2) : RATES) {
    const runs: Run[] = [];
    for (let index = 0; index < (isSmoke ? 1 : pairs); index++) {
      warmFreeMemory();
      runs.push(await migrate(network, size, rate));
    }
    lines.push(...describe(rate, runs, plain));
  }
  return lines;
}

async function migrate(network: LabNetwork, size: string, rate: number): Promise<Run> {
  const folder = mkdtempSync(join(tmpdir(), 'pagelane-bench-'));
  try {
    const key = join(folder, 'key');
    createKeyFile(key);
    const command = [process.execPath, join(repositoryRoot, 'dist/cli/main.js'), 'bench'];
    const listening = ['--listen', `0.0.0.0:${PORT}`, '--key', key];
    await using destination = startProcess([...command, ...listening], {
      namespace: network.destination,
    });
    await reportOf(destination, 'the destination to listen', 'listening');
    const to = network.paths.flatMap((path) => ['--to', `${path.destinationAddress}:${PORT}`]);
    const what = ['--size', size, '--dirty-rate', `${rate}`, '--downtime', `${DOWNTIME_MS}ms`];
    await using source = startProcess(
      [...command, ...to, ...what, '--key', key, '--output', 'json'],
      { namespace: network.source },
    );
    const sent = await reportOf(source, 'the source to end', 'bench');
    const received = await reportOf(destination, 'the destination to end', 'bench');
    return {
      result: sent['result'] as GuestResult,
      isSame: sent['memory'] === received['memory'],
      writtenPages: Number(sent['writtenPages']),
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function reportOf(
  worker: ReturnType<typeof startProcess>,
  what: string,
  type: string,
): Promise<Record<string, unknown>> {
  const find = (): Record<string, unknown> | undefined => {
    const line = worker
      .stdout()
      .split('\n')
      .find((each) => each.startsWith(`{"type":"${type}"`));
    if (line === undefined && !worker.isRunning()) throw new Error(worker.stderr());
    if (line === undefined || !worker.stdout().includes(`${line}\n`)) return undefined;
    return JSON.parse(line) as Record<string, unknown>;
  };
  return await waitUntil(what, find, { timeoutMs: RUN_TIMEOUT_MS });
}

function describe(rate: number, runs: readonly Run[], plainMbit: number): string[] {
  const moved = runs.filter(({ result }) => result.outcome === 'completed');
  const wrong = runs.filter(({ isSame, result }) => result.outcome === 'completed' && !isSame);
  const gaveUp = runs.length - moved.length;
  const downtimes = moved.map(({ result }) => result.downtimeMs.switchover ?? 0);
  const within = downtimes.filter((each) => each <= 1.2 * DOWNTIME_MS).length;
  const ofLink = moved.map(({ result }) => {
    const bytes = result.roundFacts.reduce((sum, round) => sum + round.wireBytes, 0);
    return result.durationMs / ((bytes * 8) / 1000 / plainMbit);
  });
  const seconds = moved.map(({ result }) => result.durationMs / 1000);
  const ratio = moved.map(({ result }) => {
    const bytes = result.roundFacts.reduce((sum, round) => sum + round.wireBytes, 0);
    return (sumOf(result.pages) * PAGE_BYTES) / bytes;
  });
  const cpu = moved.map(({ result }) => result.cpuSeconds);
  const rounds = moved.map(({ result }) => result.roundFacts.length);
  const first = runs.find(({ result }) => result.error !== undefined)?.result.error;
  const head = `${rate} pages/s: ${moved.length} of ${runs.length} moved, ${wrong.length} wrong`;
  const because = first === undefined ? '' : ` (${first.code}: ${first.message})`;
  if (moved.length === 0) return [`  ${head}${because}`];
  return [
    `  ${head}, ${gaveUp} given up${because}`,
    `    downtime ${formatSpread(spread(downtimes), 0)} ms of ${DOWNTIME_MS}, ` +
      `${within} of ${moved.length} within 1.2 of it`,
    `    time ${formatSpread(spread(seconds))} s; ÷ its bytes by the links alone ` +
      `${formatSpread(spread(ofLink))} (target ≤ 1.15); pages ÷ wire ${formatSpread(spread(ratio))}`,
    `    rounds ${formatSpread(spread(rounds), 0)}; source ${formatSpread(spread(cpu))} CPU-s`,
  ];
}

import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { MigrationResult } from '../../src/index.ts';
import { run, startProcess, waitUntil } from '../../test/support/lab/processes.ts';
import { PAGELANE } from '../../test/support/pagelane.ts';
import {
  alternate,
  type Comparison,
  formatSpread,
  ratios,
  spread,
  type Trial,
} from '../harness.ts';

/* Chosen by us */
const TIMEOUT_MS = 120_000;
const PAGE_SOURCE = fileURLToPath(new URL('./page-source.js', import.meta.url));

/** Raw pages through both commands on loopback, beside iperf3. */
export const loopbackPages: Trial = {
  name: 'loopback-pages',
  question:
    'How fast do raw pages go from QEMU’s socket through both ends, on loopback, beside iperf3?',
  async run({ isSmoke, pairs }) {
    const mebibytes = isSmoke ? 64 : 4096;
    const lines: string[] = [];
    for (const [name, words] of [
      ['clear text', ['--insecure']],
      ['TLS', ['--key']],
    ] as const) {
      const comparison = await alternate(
        pairs,
        () => throughPagelane(mebibytes, words[0]),
        () => throughIperf(isSmoke ? 1 : 3),
        { warmUp: !isSmoke },
      );
      lines.push(...state(name, comparison));
    }
    return lines;
  },
};

function state(name: string, comparison: Comparison): string[] {
  const line = (figure: string): string => {
    const ours = spread(comparison.ours.map((each) => each[figure]!));
    const peers = spread(comparison.peers.map((each) => each[figure]!));
    const ratio = formatSpread(ratios(comparison, figure));
    return `  ${figure}: ours ${formatSpread(ours)}  iperf3 ${formatSpread(peers)}  ÷ ${ratio}`;
  };
  return [`${name}:`, line('gigabytesPerSecond'), line('cpuSecondsPerGB')];
}

async function throughPagelane(mebibytes: number, secrecy: string) {
  const folder = mkdtempSync(join(tmpdir(), 'pagelane-bench-'));
  try {
    const key = join(folder, 'key');
    if (secrecy === '--key') await run([...PAGELANE, 'keygen', key]);
    const words = [
      ...(secrecy === '--key' ? ['--key', key] : ['--insecure']),
      '--output',
      'ndjson',
    ];
    await using receiver = startProcess([
      ...[...PAGELANE, 'receive', '--listen', '127.0.0.1:0', '--qemu', 'null:'],
      ...words,
    ]);
    const port = await waitUntil(
      'pagelane receive to listen',
      () => /listening on .*:(\d+)/.exec(receiver.stderr())?.[1],
      { timeoutMs: TIMEOUT_MS },
    );
    const socket = join(folder, 'out');
    await using sender = startProcess([
      ...[...PAGELANE, 'send', '--to', `127.0.0.1:${port}`, '--qemu', `unix:${socket}`],
      ...[...words, '--codec', 'none'],
    ]);
    await waitUntil('pagelane send to listen', () => existsSync(socket), { timeoutMs: TIMEOUT_MS });
    await waitUntil('pagelane send to be ready', () => sender.stderr().includes('ready'), {
      timeoutMs: TIMEOUT_MS,
    });
    await using source = startProcess([process.execPath, PAGE_SOURCE, socket, `${mebibytes}`]);
    await source.exit(TIMEOUT_MS);
    if ((await sender.exit(TIMEOUT_MS)) !== 0) throw new Error(sender.stderr());
    await receiver.exit(TIMEOUT_MS);
    const results = [sender.stdout(), receiver.stdout()].map(resultOf);
    const gigabytes = (mebibytes * 1024 * 1024) / 1e9;
    const cpuSeconds = results.reduce((sum, result) => sum + result.cpuSeconds, 0);
    return {
      gigabytesPerSecond: gigabytes / (results[1]!.durationMs / 1000),
      cpuSecondsPerGB: cpuSeconds / gigabytes,
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function resultOf(text: string): MigrationResult {
  const line = text.split('\n').findLast((each) => each.includes('"type":"result"'));
  if (line === undefined) throw new Error('There is no result record');
  return JSON.parse(line) as MigrationResult;
}

async function throughIperf(seconds: number) {
  await using server = startProcess(['iperf3', '-s', '-1', '-p', '5301', '--forceflush']);
  await waitUntil('iperf3 to listen', () => server.stdout().includes('listening'), {
    timeoutMs: TIMEOUT_MS,
  });
  await using client = startProcess(
    ['iperf3', '-c', '127.0.0.1', '-p', '5301', '-t', `${seconds}`, '-l', '256K', '--json'],
    {},
  );
  await client.exit(TIMEOUT_MS);
  const { end } = JSON.parse(client.stdout()) as {
    end: {
      sum_received: { bytes: number; bits_per_second: number; seconds: number };
      cpu_utilization_percent: { host_total: number; remote_total: number };
    };
  };
  const { bytes, bits_per_second: bits, seconds: took } = end.sum_received;
  const { host_total: host, remote_total: remote } = end.cpu_utilization_percent;
  return {
    gigabytesPerSecond: bits / 8e9,
    cpuSecondsPerGB: (((host + remote) / 100) * took) / (bytes / 1e9),
  };
}

/** Resident memory of a process, in MiB. */
export function residentMib(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? 0) / 1024;
}

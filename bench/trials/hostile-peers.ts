import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { PATHS_MAX, PAYLOAD_BYTES_MAX } from '../../src/frame/limits.ts';
import { createKeyFile } from '../../src/index.ts';
import { WINDOW_BYTES } from '../../src/session/limits.ts';
import { MiB } from '../../src/units.ts';
import { createPaths, type LabNetwork } from '../../test/support/lab/netns.ts';
import { type RunningProcess, startProcess, waitUntil } from '../../test/support/lab/processes.ts';
import { PAGELANE } from '../../test/support/pagelane.ts';
import {
  alternate,
  type Comparison,
  type Figures,
  formatSpread,
  ratios,
  spread,
  type Trial,
} from '../harness.ts';

/* Chosen by us */
const TIMEOUT_MS = 120_000;
const PORT = 7700;
const RATE_MBIT = 1000;
const POLL_MS = 50;
/** Connections that come to nothing, in waves of 2,000 a second. */
const CONNECTIONS = 10_000;
/** What a receiver takes by itself when it has run for a while: see the trial memory-bound. */
const BUDGET_MIB = 80;
/** What hostile peers may cost beside what they are granted. */
const COST_MIB_MAX = 32;

const ATTACKER = fileURLToPath(new URL('../support/hostile-attacker.js', import.meta.url));
const RECEIVER = fileURLToPath(new URL('../support/hostile-receiver.js', import.meta.url));
const PAGE_SOURCE = fileURLToPath(new URL('./page-source.js', import.meta.url));

/** What the two hostile sessions are granted: a window, and a frame that is on its way per path. */
const GRANTED_MIB = (WINDOW_BYTES + PATHS_MAX * PAYLOAD_BYTES_MAX) / MiB;

interface Attack {
  readonly title: string;
  readonly grantedMib: number;
  /** Words of the attacker after its mode, host and port. */
  readonly words: (keyFile: string) => readonly [mode: string, argument: string];
  readonly receiver: (keyFile: string) => readonly string[];
}

const KEYLESS: Attack = {
  title: `${CONNECTIONS} connections: silent, a byte a second, or half of a handshake`,
  grantedMib: 0,
  words: () => ['keyless', `${CONNECTIONS}`],
  receiver: (keyFile) => [
    ...[...PAGELANE, 'receive', '--listen', `0.0.0.0:${PORT}`, '--qemu', 'null:'],
    ...['--key', keyFile, '--output', 'ndjson'],
  ],
};

const KEYED: Attack = {
  title: 'two sessions with the key: a gap and a full window behind it; 16 frames that never end',
  grantedMib: GRANTED_MIB,
  words: (keyFile) => ['keyed', keyFile],
  receiver: (keyFile) => [process.execPath, RECEIVER, '0.0.0.0', `${PORT}`, keyFile],
};

/** A migration over a shaped path, beside peers that mean no good. */
export const hostilePeers: Trial = {
  name: 'hostile-peers',
  question: 'What do hostile peers cost the receiver in memory, and a migration in time?',
  async run({ isSmoke, pairs }) {
    const lines: string[] = [];
    for (const attack of [KEYLESS, KEYED]) {
      await using network = await createPaths({ count: 1, rateMbit: [RATE_MBIT] });
      const mebibytes = isSmoke ? 64 : 640;
      const comparison = await alternate(
        pairs,
        () => migrate(network, mebibytes, attack, { isAttacked: true }),
        () => migrate(network, mebibytes, attack, { isAttacked: false }),
        { warmUp: !isSmoke },
      );
      lines.push(...state(attack, comparison));
    }
    return lines;
  },
};

function state({ title, grantedMib }: Attack, comparison: Comparison): string[] {
  const lines = ['openMs', 'durationMs', 'peakMib'].map((figure) => {
    const [attacked, calm] = [comparison.ours, comparison.peers].map((runs) =>
      formatSpread(spread(runs.map((each) => each[figure]!)), 0),
    );
    const ratio = formatSpread(ratios(comparison, figure));
    return `  ${figure.padEnd(10)} attacked ÷ calm ${ratio}   attacked ${attacked}   calm ${calm}`;
  });
  const peakMib = Math.max(...comparison.ours.map((run) => run['peakMib']!));
  const boundMib = BUDGET_MIB + grantedMib + COST_MIB_MAX;
  if (peakMib > boundMib) {
    throw new Error(`The receiver took ${peakMib.toFixed(0)} MiB, and may take ${boundMib}`);
  }
  const parts = `${BUDGET_MIB} by itself, ${grantedMib} granted, ${COST_MIB_MAX}`;
  return [title, ...lines, `  highest RSS ${peakMib.toFixed(0)} MiB of ${boundMib}: ${parts}`];
}

async function migrate(
  network: LabNetwork,
  mebibytes: number,
  attack: Attack,
  { isAttacked }: { isAttacked: boolean },
): Promise<Figures> {
  const folder = mkdtempSync(join(tmpdir(), 'pagelane-bench-'));
  try {
    const keyFile = join(folder, 'key');
    createKeyFile(keyFile);
    const { sourceAddress, destinationAddress } = network.paths[0]!;
    const namespace = network.destination;
    await using receiver = startProcess(attack.receiver(keyFile), { namespace });
    await until('the receiver to listen', () => receiver.stderr().includes('listening on'));
    const [mode, argument] = attack.words(keyFile);
    const words = [ATTACKER, mode, destinationAddress, `${PORT}`, argument];
    await using attacker = isAttacked
      ? startProcess([process.execPath, ...words], { namespace: network.source })
      : undefined;
    if (attacker !== undefined) {
      await until('the attacker to begin', () => attacker.stdout().includes('ready'));
      // Time to fill all that it can fill.
      await sleep(2000);
    }
    const socket = join(folder, 'out');
    const begunMs = performance.now();
    const path = `${sourceAddress}@${destinationAddress}:${PORT}`;
    await using sender = startProcess(
      [
        ...[...PAGELANE, 'send', '--path', path, '--qemu', `unix:${socket}`],
        ...['--key', keyFile, '--codec', 'none', '--output', 'ndjson'],
      ],
      { namespace: network.source },
    );
    await until('the sender to be ready', () => sender.stderr().includes('ready'));
    const openMs = performance.now() - begunMs;
    await until('the socket', () => existsSync(socket));
    await using source = startProcess([process.execPath, PAGE_SOURCE, socket, `${mebibytes}`]);
    const peakMib = await peakUntilEnd(receiver);
    if (attacker !== undefined && !attacker.isRunning()) throw new Error(attacker.stderr());
    await source.exit(TIMEOUT_MS);
    if ((await sender.exit(TIMEOUT_MS)) !== 0) throw new Error(sender.stderr());
    return { openMs, durationMs: durationOf(receiver), peakMib, ...(await countsOf(attacker)) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Follows a process to its end; tells the most memory that was resident, as the kernel kept it. */
async function peakUntilEnd(process: RunningProcess): Promise<number> {
  let kibibytes = 0;
  const deadlineMs = performance.now() + TIMEOUT_MS;
  while (process.isRunning() && performance.now() < deadlineMs) {
    const peak = /VmHWM:\s+(\d+) kB/.exec(statusOf(process.pid));
    kibibytes = Math.max(kibibytes, Number(peak?.[1] ?? 0));
    await sleep(POLL_MS);
  }
  if ((await process.exit(TIMEOUT_MS)) !== 0) throw new Error(process.stderr());
  return kibibytes / 1024;
}

function statusOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/status`, 'utf8');
  } catch {
    return '';
  }
}

function durationOf(receiver: RunningProcess): number {
  const line = receiver
    .stdout()
    .split('\n')
    .findLast((each) => each.includes('"durationMs"'));
  return (JSON.parse(line ?? '{}') as { durationMs: number }).durationMs;
}

/** What the attacker has done, once it is told to end. */
async function countsOf(attacker: RunningProcess | undefined): Promise<Figures> {
  if (attacker === undefined) return {};
  attacker.signal('SIGTERM');
  await attacker.exit(TIMEOUT_MS);
  return JSON.parse(attacker.stdout().split('\n').at(-2) ?? '{}') as Figures;
}

async function until(what: string, probe: () => boolean): Promise<void> {
  await waitUntil(what, probe, { timeoutMs: TIMEOUT_MS });
}

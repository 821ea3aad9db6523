import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CodecName, MigrationResult } from '../../src/index.ts';
import { measureIperf } from '../../test/support/lab/iperf.ts';
import { createPaths, type LabNetwork } from '../../test/support/lab/netns.ts';
import { run, startProcess, waitUntil } from '../../test/support/lab/processes.ts';
import { PAGELANE } from '../../test/support/pagelane.ts';
import {
  type Figures,
  formatSpread,
  isChosen,
  spread,
  type Trial,
  type TrialOptions,
  type Turns,
  takeTurns,
} from '../harness.ts';
import { makeHostileMix } from '../support/page-set.ts';
import { writePageStream } from '../support/page-stream.ts';

/* Chosen by us */
const TIMEOUT_MS = 120_000;
const PORT = 7700;
const PEER_PORT = 7000;
const POLL_MS = 2;
const LINKS = [
  { rateMbit: 300, bytes: 256 * 1024 * 1024 },
  { rateMbit: 3000, bytes: 1024 * 1024 * 1024 },
] as const;
const SMOKE_BYTES: number = 16 * 1024 * 1024;

const CODECS = ['auto', 'none', 'lz4', 'zstd'] as const satisfies readonly CodecName[];
const PEERS = ['zstd --adapt', 'lz4 -1', 'cat'] as const;
type Contestant = `ours ${(typeof CODECS)[number]}` | (typeof PEERS)[number];

/** What each peer does at the source, and how the destination gets the bytes back. */
const COMMANDS: Readonly<Record<(typeof PEERS)[number], (mix: string) => readonly string[][]>> = {
  'zstd --adapt': (mix) => [
    ['zstd', '--adapt', '-T1', '-q', '-c', mix],
    ['zstd', '-d', '-q', '-c'],
  ],
  'lz4 -1': (mix) => [
    ['lz4', '-1', '-q', '-c', mix],
    ['lz4', '-d', '-q', '-c'],
  ],
  cat: (mix) => [['cat', mix], ['cat']],
};

interface Fixture {
  readonly network: LabNetwork;
  readonly folder: string;
  /** The pages, and the same as QEMU's stream. */
  readonly mix: string;
  readonly stream: string;
}

/** Random bytes, text and a heap, mixed, over a slow and a fast link. */
export const hostileMix: Trial = {
  name: 'hostile-mix',
  question:
    'How does auto do on 40 % random, 30 % text, 30 % heap, against pipes with compressors?',
  async run(options) {
    const lines: string[] = [];
    for (const { rateMbit, bytes } of LINKS) {
      if (!isChosen(`${rateMbit}`, options)) continue;
      const folder = mkdtempSync(join(tmpdir(), 'pagelane-bench-'));
      try {
        lines.push(
          ...(await compare(folder, rateMbit, options.isSmoke ? SMOKE_BYTES : bytes, options)),
        );
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    }
    return lines;
  },
};

async function compare(
  folder: string,
  rateMbit: number,
  bytes: number,
  { isSmoke, pairs }: TrialOptions,
): Promise<string[]> {
  const set = await makeHostileMix(folder, bytes);
  const stream = join(folder, 'stream');
  writePageStream(set, stream);
  await using network = await createPaths({ count: 1, rateMbit: [rateMbit] });
  const { mbit } = await measureIperf(network, { pathIndex: 0, seconds: isSmoke ? 1 : 3 });
  const fixture: Fixture = { network, folder, mix: set.file, stream };
  for (const peer of PEERS) await throughPipe(fixture, peer, { isCompared: true });
  const contestants = Object.fromEntries([
    // The two that are compared most are neighbours in time.
    ...interleave(
      CODECS.map((codec) => [`ours ${codec}`, () => throughPagelane(fixture, codec)]),
      PEERS.map((peer) => [peer, () => throughPipe(fixture, peer, { isCompared: false })]),
    ),
  ]) as Record<Contestant, () => Promise<Figures>>;
  const turns = await takeTurns(pairs, contestants, { warmUp: !isSmoke });
  const megabytes = (statSync(set.file).size / 1e6).toFixed(0);
  const title = `${megabytes} MB over ${rateMbit} Mb/s (iperf3 ${mbit.toFixed(0)} Mb/s), clear text`;
  return [title, ...state(turns)];
}

function interleave<T>(one: readonly T[], other: readonly T[]): T[] {
  return one.flatMap((value, index) => (index < other.length ? [value, other[index]!] : [value]));
}

function state(turns: Turns<Contestant>): string[] {
  const names = Object.keys(turns) as Contestant[];
  const peers = PEERS.filter((peer) => names.includes(peer));
  const fixed = CODECS.filter((codec) => codec !== 'auto').map((codec) => `ours ${codec}` as const);
  const toBest = (others: readonly Contestant[]): string =>
    formatSpread(
      spread(
        turns['ours auto'].map((our, pair) => {
          const best = Math.min(...others.map((other) => turns[other][pair]!['seconds']!));
          return our['seconds']! / best;
        }),
      ),
    );
  return [
    `  seconds      ours auto ÷ best peer of each pair ${toBest(peers)}`,
    `  seconds      ours auto ÷ best fixed codec of ours of each pair ${toBest(fixed)}`,
    ...names.map((name) => {
      const [seconds, wire] = ['seconds', 'wireMB'].map((figure) =>
        formatSpread(spread(turns[name].map((each) => each[figure]!))),
      );
      return `  ${name.padEnd(12)} ${seconds} s, ${wire} MB on the wire`;
    }),
  ];
}

/** One migration of the pages; until the destination has decoded and confirmed everything. */
async function throughPagelane(
  { network, folder, stream }: Fixture,
  codec: CodecName,
): Promise<Figures> {
  const { sourceAddress, destinationAddress } = network.paths[0]!;
  const words = ['--insecure', '--output', 'ndjson'];
  const place = ['--listen', `${destinationAddress}:${PORT}`, '--qemu', 'null:'];
  await using receiver = startProcess([...PAGELANE, 'receive', ...place, ...words], {
    namespace: network.destination,
  });
  await until('pagelane receive to listen', () => receiver.stderr().includes('listening on'));
  const socket = join(folder, 'out');
  const path = ['--path', `${sourceAddress}@${destinationAddress}:${PORT}`];
  const from = ['--qemu', `unix:${socket}`, '--codec', codec];
  await using sender = startProcess([...PAGELANE, 'send', ...path, ...from, ...words], {
    namespace: network.source,
  });
  await until('pagelane send to be ready', () => sender.stderr().includes('ready'));
  await until('its socket', () => existsSync(socket));
  const before = await wireBytes(network);
  const begunMs = performance.now();
  await using source = startProcess([
    ...['socat', '-u', '-b262144', `OPEN:${stream},rdonly`, `UNIX-CONNECT:${socket}`],
  ]);
  while (!receiver.stdout().includes('"type":"result"')) {
    if (performance.now() - begunMs > TIMEOUT_MS || !receiver.isRunning()) {
      throw new Error(`${sender.stderr()}${receiver.stderr()}${source.stderr()}`);
    }
    await sleep(POLL_MS);
  }
  const seconds = (performance.now() - begunMs) / 1000;
  const codes = [await receiver.exit(TIMEOUT_MS), await sender.exit(TIMEOUT_MS)];
  const results = [sender.stdout(), receiver.stdout()].map(resultOf);
  if (codes.some((code) => code !== 0) || results.some(({ digest }) => digest.equal !== true)) {
    throw new Error(`The pages have not arrived: ${sender.stderr()}${receiver.stderr()}`);
  }
  const cpuSeconds = results.reduce((sum, result) => sum + result.cpuSeconds, 0);
  return { seconds, wireMB: ((await wireBytes(network)) - before) / 1e6, cpuSeconds };
}

/** A pipe over the network; until the last byte is decoded, or compared with what was sent. */
async function throughPipe(
  { network, mix }: Fixture,
  peer: (typeof PEERS)[number],
  { isCompared }: { isCompared: boolean },
): Promise<Figures> {
  const { destinationAddress } = network.paths[0]!;
  const [encode, decode] = COMMANDS[peer](mix);
  const listening = `TCP-LISTEN:${PEER_PORT},bind=${destinationAddress},reuseaddr`;
  const last = isCompared ? [['cmp', '-', mix]] : [];
  const take = pipeline([['socat', '-u', '-b262144', listening, '-'], decode!, ...last]);
  await using receiver = startProcess(take, { namespace: network.destination });
  await until('socat to listen', () => isListening(network));
  const to = `TCP:${destinationAddress}:${PEER_PORT}`;
  const before = await wireBytes(network);
  const begunMs = performance.now();
  await using sender = startProcess(pipeline([encode!, ['socat', '-u', '-b262144', '-', to]]), {
    namespace: network.source,
  });
  const receiverCode = await receiver.exit(TIMEOUT_MS);
  const seconds = (performance.now() - begunMs) / 1000;
  const senderCode = await sender.exit(TIMEOUT_MS);
  if (receiverCode !== 0 || senderCode !== 0) {
    throw new Error(`${peer}: ${sender.stderr()}${receiver.stdout()}${receiver.stderr()}`);
  }
  return { seconds, wireMB: ((await wireBytes(network)) - before) / 1e6 };
}

/** Words for a pipe of commands, which all end if it is ended; its output goes nowhere. */
function pipeline(commands: readonly (readonly string[])[]): string[] {
  const texts = commands.map((words) =>
    ['setpriv', '--pdeathsig', 'KILL', '--', ...words].map((word) => `'${word}'`).join(' '),
  );
  return ['bash', '-c', `set -o pipefail; ${texts.join(' | ')} >/dev/null`];
}

async function isListening(network: LabNetwork): Promise<boolean> {
  const words = ['ss', '--no-header', '--listening', '--tcp', '--numeric'];
  const { stdout } = await run([...network.prefix('destination'), ...words]);
  return stdout.includes(`:${PEER_PORT} `);
}

async function wireBytes(network: LabNetwork): Promise<number> {
  return (await network.counters(0)).toDestinationBytes;
}

function resultOf(text: string): MigrationResult {
  const line = text.split('\n').findLast((each) => each.includes('"type":"result"'));
  if (line === undefined) throw new Error('There is no result record');
  return JSON.parse(line) as MigrationResult;
}

async function until(what: string, probe: () => boolean | Promise<boolean>): Promise<void> {
  await waitUntil(what, probe, { timeoutMs: TIMEOUT_MS });
}

import { mptcpLibrary } from './binaries.ts';
import type { LabNetwork } from './netns.ts';
import { type RunningProcess, startProcess, waitUntil } from './processes.ts';

/* Chosen by us */
const PORT = 5201;
const START_TIMEOUT_MS = 5_000;
const GRACE_MS = 10_000;
const INTERVAL_SECONDS = 0.1;
const STAMP_MS = 5;

/** How a measurement is made. */
export interface IperfOptions {
  /** Path whose destination address is used. @default 0 */
  readonly pathIndex?: number;
  /** @default 3 */
  readonly seconds?: number;
  /** Over all paths that MPTCP finds. @default false */
  readonly isMptcp?: boolean;
}

/** What iperf3 measured. */
export interface IperfResult {
  /** Mb/s that arrived. */
  readonly mbit: number;
  /** Share of one CPU that each end used, in percent. */
  readonly sourceCpuPercent: number;
  readonly destinationCpuPercent: number;
}

interface IperfOutput {
  readonly error?: string;
  readonly end: {
    readonly sum_received: { readonly bits_per_second: number };
    readonly cpu_utilization_percent: {
      readonly host_total: number;
      readonly remote_total: number;
    };
  };
}

/** Measures with iperf3 what a connection from source to destination carries. */
export async function measureIperf(
  network: LabNetwork,
  { pathIndex = 0, seconds = 3, isMptcp = false }: IperfOptions = {},
): Promise<IperfResult> {
  const host = network.paths[pathIndex]!.destinationAddress;
  const env = environment(isMptcp);
  await using server = await startServer(network, env);
  const send = ['iperf3', '--client', host, '--port', `${PORT}`, '--time', `${seconds}`];
  const words = [...send, '--length', '256K', '--json'];
  await using client = startProcess(words, { namespace: network.source, env });
  await client.exit(seconds * 1000 + GRACE_MS);
  const { error, end } = JSON.parse(client.stdout()) as IperfOutput;
  if (error !== undefined) throw new Error(`iperf3: ${error}`);
  await server.exit(GRACE_MS);
  return {
    mbit: end.sum_received.bits_per_second / 1e6,
    sourceCpuPercent: end.cpu_utilization_percent.host_total,
    destinationCpuPercent: end.cpu_utilization_percent.remote_total,
  };
}

/** Bytes that arrived in a span of time. */
export interface Interval {
  /** On the machine's monotonic clock (`process.hrtime`), milliseconds. */
  readonly beginMs: number;
  readonly endMs: number;
  readonly mbit: number;
}

/**
 * Measures with iperf3 over MPTCP how much arrived when: intervals of 100 ms, one after another.
 *
 * iperf3 reads 16 KiB at a time, so that an interval has a whole number of small reads.
 *
 * @param during Called once when bytes have begun to arrive, with the time at which they did.
 */
export async function traceMptcp(
  network: LabNetwork,
  { seconds, during }: { seconds: number; during: (begunMs: number) => Promise<void> },
): Promise<readonly Interval[]> {
  const host = network.paths[0]!.destinationAddress;
  const env = environment(true);
  const words = ['--interval', `${INTERVAL_SECONDS}`, '--format', 'k'];
  await using server = await startServer(network, env, words);
  const clock = new IntervalClock(server);
  try {
    const send = ['iperf3', '--client', host, '--port', `${PORT}`, '--time', `${seconds}`];
    const options = { namespace: network.source, env };
    await using client = startProcess([...send, '--length', '16K'], options);
    const begun = () => clock.begunMs;
    await during(await waitUntil('iperf3 to begin', begun, { timeoutMs: START_TIMEOUT_MS }));
    await client.exit(seconds * 1000 + GRACE_MS);
    await server.exit(GRACE_MS);
    return clock.intervals();
  } finally {
    clock.stop();
  }
}

/**
 * Puts the intervals of a server's output on the machine's clock: it tells them in seconds from a
 * start of its own, each as soon as it is over. The line that came with the least delay counts.
 */
class IntervalClock {
  readonly #server: RunningProcess;
  readonly #timer: NodeJS.Timeout;
  #readCount = 0;
  #begunMs: number | undefined;

  constructor(server: RunningProcess) {
    this.#server = server;
    this.#timer = setInterval(() => this.#stamp(), STAMP_MS);
  }

  /** When the first interval began; absent before it is over. */
  get begunMs(): number | undefined {
    return this.#begunMs;
  }

  intervals(): Interval[] {
    const begunMs = this.#begunMs ?? 0;
    return readIntervals(this.#server.stdout()).map(({ begin, end, mbit }) => ({
      beginMs: begunMs + begin * 1000,
      endMs: begunMs + end * 1000,
      mbit,
    }));
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #stamp(): void {
    const intervals = readIntervals(this.#server.stdout());
    if (intervals.length === this.#readCount) return;
    this.#readCount = intervals.length;
    const begunMs = Number(process.hrtime.bigint()) / 1e6 - intervals.at(-1)!.end * 1000;
    this.#begunMs = Math.min(this.#begunMs ?? begunMs, begunMs);
  }
}

/** Intervals in an output, without its sum: `[  5]   0.10-0.20   sec  3.1 MBytes  262144 Kbits`. */
function readIntervals(text: string): { begin: number; end: number; mbit: number }[] {
  const lines = text.matchAll(/\] +([\d.]+)-([\d.]+) +sec .* ([\d.]+) Kbits\/sec *$/gm);
  return [...lines].map(([, begin, end, kbit]) => ({
    begin: Number(begin),
    end: Number(end),
    mbit: Number(kbit) / 1000,
  }));
}

function environment(isMptcp: boolean): Record<string, string> {
  return isMptcp ? { LD_PRELOAD: mptcpLibrary() } : {};
}

/** Starts a server for one measurement and waits until it listens. */
async function startServer(
  { destination }: LabNetwork,
  env: Record<string, string>,
  words: readonly string[] = [],
): Promise<RunningProcess> {
  const listen = ['iperf3', '--server', '--one-off', '--forceflush', '--port', `${PORT}`];
  const server = startProcess([...listen, ...words], { namespace: destination, env });
  try {
    const isListening = () => {
      if (!server.isRunning()) throw new Error(`iperf3 server: ${server.stderr().trim()}`);
      return server.stdout().includes('listening');
    };
    await waitUntil('iperf3 to listen', isListening, { timeoutMs: START_TIMEOUT_MS });
    return server;
  } catch (error) {
    await server.stop();
    throw error;
  }
}

import { mptcpLibrary } from './binaries.ts';
import type { LabNetwork } from './netns.ts';
import { startProcess, waitUntil } from './processes.ts';

/* Chosen by us */
const PORT = 5201;
const START_TIMEOUT_MS = 5_000;
const GRACE_MS = 10_000;

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
  const env: Record<string, string> = isMptcp ? { LD_PRELOAD: mptcpLibrary() } : {};
  const listen = ['iperf3', '--server', '--one-off', '--forceflush', '--port', `${PORT}`];
  await using server = startProcess(listen, { namespace: network.destination, env });
  const isListening = () => {
    if (!server.isRunning()) throw new Error(`iperf3 server: ${server.stderr().trim()}`);
    return server.stdout().includes('listening');
  };
  await waitUntil('iperf3 to listen', isListening, { timeoutMs: START_TIMEOUT_MS });
  const send = ['iperf3', '--client', host, '--port', `${PORT}`, '--time', `${seconds}`];
  const words = [...send, '--length', '256K', '--json'];
  await using client = startProcess(words, { namespace: network.source, env });
  await client.exit(seconds * 1000 + GRACE_MS);
  const { error, end } = JSON.parse(client.stdout()) as IperfOutput;
  if (error !== undefined) throw new Error(`iperf3: ${error}`);
  return {
    mbit: end.sum_received.bits_per_second / 1e6,
    sourceCpuPercent: end.cpu_utilization_percent.host_total,
    destinationCpuPercent: end.cpu_utilization_percent.remote_total,
  };
}

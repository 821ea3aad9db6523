import { randomBytes } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import type { Interval } from '../../test/support/lab/iperf.ts';
import type { LabNetwork } from '../../test/support/lab/netns.ts';
import { type RunningProcess, startProcess, waitUntil } from '../../test/support/lab/processes.ts';
import { intervalsOf } from './timeline.ts';
import type {
  ReceiverReport,
  SenderReport,
  SenderSettings,
  WorkerPath,
} from './transfer-message.ts';

/*
 * A measured transfer of pages over one session, between two processes in the namespaces of a
 * network: no QEMU, no codec. The receiver checks every message and copies it to its place.
 */

/* Chosen by us */
const PORT = 7_700;
const START_TIMEOUT_MS = 20_000;
const GRACE_MS = 60_000;
const SENDER = fileURLToPath(new URL('./transfer-sender.js', import.meta.url));
const RECEIVER = fileURLToPath(new URL('./transfer-receiver.js', import.meta.url));

/** How a transfer is made. */
export interface TransferOptions {
  /** How long to send. @default as long as `bytes` take */
  readonly seconds?: number;
  /** How much to send. @default as much as goes in `seconds` */
  readonly bytes?: number;
  /** Bytes of pages in a message. @default 256 KiB */
  readonly messageBytes?: number;
  /** Whether paths are protected by TLS with a key. @default true */
  readonly isSecure?: boolean;
  /** How many of the network's paths there are from the beginning. @default all */
  readonly pathCount?: number;
  /** After how long the next path is added. @default never */
  readonly addAfterMs?: number;
  /** TCP connects by which round trips are measured. @default 0 */
  readonly probes?: number;
  /** Called once when the first message is sent, with the time at which it was. */
  readonly during?: (begunMs: number) => Promise<void>;
}

/** How a transfer went. Times are on the machine's monotonic clock. */
export interface Transfer {
  readonly sender: SenderReport;
  /** When each message was in memory and checked, in the order in which they were sent. */
  readonly arrivalsMs: readonly number[];
  readonly bytes: number;
  /** From the first message that was sent until the last one was in memory. */
  readonly durationMs: number;
  /** `bytes` over `durationMs`, Mb/s. */
  readonly mbit: number;
  /** User and system, both ends, while it ran. */
  readonly cpuSeconds: number;
  /** What arrived by intervals, as long as there was more to send. */
  intervals(spanMs: number, fromMs?: number): Interval[];
}

/**
 * Makes one transfer.
 *
 * @throws {Error} If anything is lost, comes twice or is not what was sent, or a process fails.
 */
export async function transfer(network: LabNetwork, options: TransferOptions): Promise<Transfer> {
  const settings = settingsOf(network, options);
  const words = JSON.stringify(settings);
  await using receiver = startWorker(RECEIVER, words, network.destination);
  await waitFor(receiver, 'the receiver to listen', /^listening$/m);
  await using sender = startWorker(SENDER, words, network.source);
  const begun = await waitFor(sender, 'the sender to begin', /^begun ([\d.]+)$/m);
  await options.during?.(Number(begun[1]));
  const timeoutMs = (options.seconds ?? 0) * 1000 + GRACE_MS;
  const sent = await reportOf<SenderReport>(sender, timeoutMs);
  const received = await reportOf<ReceiverReport>(receiver, timeoutMs);
  return describe(sent, received, settings.messageBytes);
}

function describe(sender: SenderReport, receiver: ReceiverReport, messageBytes: number): Transfer {
  const { arrivalsMs } = receiver;
  const { begunMs, sentMs } = sender;
  const bytes = arrivalsMs.length * messageBytes;
  const endedMs = arrivalsMs.reduce((latest, each) => Math.max(latest, each), begunMs);
  const durationMs = endedMs - begunMs;
  return {
    sender,
    arrivalsMs,
    bytes,
    durationMs,
    mbit: (bytes * 8) / 1000 / durationMs,
    cpuSeconds: sender.cpuSeconds + receiver.cpuSeconds,
    intervals: (spanMs, fromMs = begunMs) =>
      intervalsOf(arrivalsMs, messageBytes, { beginMs: fromMs, endMs: sentMs.at(-1)!, spanMs }),
  };
}

function settingsOf(network: LabNetwork, options: TransferOptions): SenderSettings {
  const { seconds = 3600, bytes = Number.MAX_SAFE_INTEGER, messageBytes = 256 * 1024 } = options;
  const { isSecure = true, pathCount, addAfterMs, probes = 0 } = options;
  const all = network.paths.map(
    (path): WorkerPath => ({
      host: path.destinationAddress,
      port: PORT,
      local: path.sourceAddress,
    }),
  );
  const late = all[pathCount ?? all.length];
  return {
    port: PORT,
    messageBytes,
    paths: all.slice(0, pathCount),
    seconds,
    bytes,
    probes,
    ...(isSecure && { key: randomBytes(32).toString('hex') }),
    ...(late !== undefined &&
      addAfterMs !== undefined && { late: { path: late, afterMs: addAfterMs } }),
  };
}

function startWorker(script: string, settings: string, namespace: string): RunningProcess {
  return startProcess([process.execPath, script, settings], { namespace });
}

async function waitFor(
  worker: RunningProcess,
  what: string,
  pattern: RegExp,
  timeoutMs: number = START_TIMEOUT_MS,
): Promise<RegExpExecArray> {
  const find = (): RegExpExecArray | undefined => {
    const found = pattern.exec(worker.stdout()) ?? undefined;
    if (found === undefined && !worker.isRunning()) throw new Error(worker.stderr());
    return found;
  };
  return waitUntil(what, find, { timeoutMs });
}

/** The last line of a worker, which need not have ended: a lost path lingers. */
async function reportOf<T>(worker: RunningProcess, timeoutMs: number): Promise<T> {
  const [line] = await waitFor(worker, 'the report of a worker', /^\{.*\}\n/m, timeoutMs);
  return JSON.parse(line) as T;
}

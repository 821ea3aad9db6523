/*
 * The destination of a measured transfer: checks every message, and copies its pages to their place
 * in memory.
 *
 *   node transfer-receiver.js SETTINGS
 *
 * Writes `listening` when it does, and its report as the last line.
 */
import type { IncomingMessage } from '../../src/session/lane.ts';
import { listenForSessions } from '../../src/session/listener.ts';
import { MiB } from '../../src/units.ts';
import { monotonicMs } from './timeline.ts';
import {
  check,
  PREFACE_BYTES,
  type ReceiverReport,
  securityOf,
  type WorkerSettings,
} from './transfer-message.ts';

/* Chosen by us */
/** The memory that pages are copied to: more than any cache holds. */
const MEMORY_BYTES = 256 * MiB;
const MESSAGES_MAX = 1 << 19;

const settings = JSON.parse(process.argv[2]!) as WorkerSettings;
const { messageBytes } = settings;

/** Touched before the beginning, as the memory of a guest would be. */
const memory = new Uint8Array(MEMORY_BYTES).fill(1);
const places = Math.floor(MEMORY_BYTES / messageBytes);

const arrivalsMs = new Float64Array(MESSAGES_MAX);
let arrivedCount = 0;
let cpu: NodeJS.CpuUsage | undefined;

await using listener = await listenForSessions({
  host: '0.0.0.0',
  port: settings.port,
  security: securityOf(settings),
});
console.log('listening');
const session = await listener.accept();
const lane = await session.acceptLane();
const sentCount = await new Promise<number>((resolve, reject) => {
  lane.onMessage = (message) => {
    try {
      take(message, resolve);
    } catch (error) {
      reject(error);
    }
  };
  session.ended.then((error) => reject(error ?? new Error('The sender closed too early')));
});
if (arrivedCount !== sentCount) {
  throw new Error(`${sentCount} messages were sent, ${arrivedCount} have arrived`);
}
const { user, system } = process.cpuUsage(cpu);
const report: ReceiverReport = {
  arrivalsMs: Array.from(arrivalsMs.subarray(0, sentCount), (ms) => Math.round(ms * 10) / 10),
  cpuSeconds: (user + system) / 1e6,
};
const error = await session.ended;
if (error !== undefined) throw error;
console.log(JSON.stringify(report));

function take(message: IncomingMessage, onLast: (sentCount: number) => void): void {
  cpu ??= process.cpuUsage();
  const { payload, isLast } = message;
  const index = check(payload);
  if (isLast) {
    message.release();
    onLast(index);
    return;
  }
  if (payload.length !== PREFACE_BYTES + messageBytes) {
    throw new Error(`Message ${index} has ${payload.length} bytes`);
  }
  if (index >= MESSAGES_MAX || arrivalsMs[index] !== 0) throw new Error(`Message ${index} again`);
  memory.set(payload.subarray(PREFACE_BYTES), (index % places) * messageBytes);
  message.release();
  arrivalsMs[index] = monotonicMs();
  arrivedCount++;
}

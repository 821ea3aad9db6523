/*
 * The source of a measured transfer: sends messages of pages over a session, as unordered messages
 * of one lane, and keeps no more waiting in the lane than a migration does.
 *
 *   node transfer-sender.js SETTINGS
 *
 * Writes `begun` and the time when it begins, and its report as the last line.
 */
import { randomFillSync } from 'node:crypto';
import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { HEADER_BYTES } from '../../src/frame/limits.ts';
import { connectSession } from '../../src/session/connect.ts';
import type { Lane } from '../../src/session/lane.ts';
import type { Session } from '../../src/session/session.ts';
import { KiB, MiB } from '../../src/units.ts';
import { monotonicMs } from './timeline.ts';
import {
  type MessageBuffer,
  makeMessage,
  PREFACE_BYTES,
  type SenderReport,
  type SenderSettings,
  seal,
  securityOf,
  type WorkerPath,
} from './transfer-message.ts';

/* Chosen by us */
/** As much as `pagelane send` lets wait in its lane. */
const WAITING_BYTES_MAX = 1 * MiB;
/** Messages that are ready before the beginning; more are made if paths hold more. */
const READY_BYTES = 20 * MiB;

const settings = JSON.parse(process.argv[2]!) as SenderSettings;
const { messageBytes, paths, late, probes = 0 } = settings;

/** Sends messages until time or bytes are over. */
class Pump {
  /** When each message was given to the lane. */
  readonly sentMs: number[] = [];
  readonly begunMs = monotonicMs();
  readonly #lane: Lane;
  readonly #free: MessageBuffer[];
  #onDone!: () => void;
  readonly done = new Promise<void>((resolve) => {
    this.#onDone = resolve;
  });
  #isDone = false;

  constructor(lane: Lane, ready: MessageBuffer[]) {
    this.#lane = lane;
    this.#free = ready;
    lane.onDrain = () => this.fill();
  }

  /** Sends as long as the lane lets little wait. */
  fill(): void {
    while (!this.#isDone && this.#lane.queuedBytes < WAITING_BYTES_MAX) {
      if (this.#isOver()) {
        this.#isDone = true;
        this.#onDone();
        return;
      }
      this.#send(this.#free.pop() ?? makeMessage(randomPages()));
    }
  }

  #isOver(): boolean {
    const isEnough = this.sentMs.length * messageBytes >= settings.bytes;
    return isEnough || monotonicMs() - this.begunMs >= settings.seconds * 1000;
  }

  #send(buffer: MessageBuffer): void {
    seal(buffer, this.sentMs.length);
    this.sentMs.push(Math.round(monotonicMs() * 10) / 10);
    this.#lane.send({
      buffer: buffer.bytes,
      start: HEADER_BYTES,
      end: buffer.bytes.length,
      isOrdered: false,
      onAcked: () => this.#free.push(buffer),
    });
  }
}

const rttMs = await Promise.all(paths.map(measureRtt));
const ready = Array.from({ length: Math.ceil(READY_BYTES / messageBytes) }, () =>
  makeMessage(randomPages()),
);
const session = await connectSession({ paths, security: securityOf(settings) });
console.log(JSON.stringify(await send(session)));

async function send(session: Session): Promise<SenderReport> {
  const lane = session.openLane();
  const cpu = process.cpuUsage();
  const pump = new Pump(lane, ready);
  console.log(`begun ${pump.begunMs}`);
  pump.fill();
  const ended = session.ended.then((error) => {
    throw error ?? new Error('The receiver closed the session');
  });
  ended.catch(() => {}); // it also ends when all is well
  const added = late === undefined ? undefined : addPath(session, late);
  await Promise.race([pump.done, ended]);
  const last = makeMessage(new Uint8Array(0));
  seal(last, pump.sentMs.length);
  const bounds = { start: HEADER_BYTES, end: HEADER_BYTES + PREFACE_BYTES };
  lane.send({ buffer: last.bytes, ...bounds, isOrdered: true, isLast: true });
  const times = await added;
  // It ends when all was acked; a lost path may linger for longer.
  session.close();
  const error = await session.ended;
  if (error !== undefined) throw error;
  const { user, system } = process.cpuUsage(cpu);
  const reports = session.pathReports();
  return {
    begunMs: pump.begunMs,
    sentMs: pump.sentMs,
    cpuSeconds: (user + system) / 1e6,
    rttMs,
    paths: reports.map(({ remote, state, sentBytes }) => ({ remote, state, sentBytes })),
    ...times,
  };
}

async function addPath(session: Session, { path, afterMs }: NonNullable<typeof late>) {
  await sleep(afterMs);
  const addedMs = monotonicMs();
  await session.addPath(path);
  return { addedMs, joinedMs: monotonicMs() };
}

async function measureRtt({ host, port, local }: WorkerPath): Promise<number> {
  let leastMs = Number.POSITIVE_INFINITY;
  for (let probe = 0; probe < probes; probe++) {
    const beginMs = monotonicMs();
    const socket = connect({ host, port, localAddress: local });
    await once(socket, 'connect');
    leastMs = Math.min(leastMs, monotonicMs() - beginMs);
    socket.destroy();
  }
  return leastMs;
}

function randomPages(): Uint8Array {
  const pages = new Uint8Array(messageBytes);
  for (let at = 0; at < messageBytes; at += 64 * KiB)
    randomFillSync(pages.subarray(at, at + 64 * KiB));
  return pages;
}

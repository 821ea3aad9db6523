import { createHash } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { encodeFrame } from '../../src/frame/encode.ts';
import { encodeHeader, FrameType } from '../../src/frame/header.ts';
import { Intent } from '../../src/frame/hello.ts';
import { HEADER_BYTES, PAYLOAD_BYTES_MAX } from '../../src/frame/limits.ts';
import { connectSession } from '../../src/session/connect.ts';
import type { Lane } from '../../src/session/lane.ts';
import { type Listener, listenForSessions } from '../../src/session/listener.ts';
import type { Session } from '../../src/session/session.ts';
import { KiB, MiB } from '../../src/units.ts';
import { waitUntil, within } from '../support/lab/processes.ts';
import { createPrng, exactRandomBytes } from '../support/prng.ts';
import { sendFilled } from './support.ts';
import { WirePeer } from './wire.ts';

/* Chosen by us */
const TIMEOUT_MS = 50_000;
const HONEST_SESSIONS = 7;
const PATHS = 2;
const WINDOW_BYTES = 1 * MiB;
const MESSAGES = 400;
const MESSAGE_BYTES = 100_000;

/** Window of a hostile peer. */
const HOSTILE_WINDOW_BYTES = 64 * KiB;

/** What all of it may hold: for each session its window, and for each path a frame on its way. */
const BUDGET_BYTES = (HONEST_SESSIONS + 1) * (WINDOW_BYTES + PATHS * PAYLOAD_BYTES_MAX);
/** What this process may take beside it: both ends are here, and garbage not yet collected. */
const SLACK_BYTES = 64 * MiB;

const CLOSERS: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of CLOSERS.splice(0).reverse()) await close();
});

/** An honest session: it sends bytes that it knows the hash of. */
class Transfer {
  readonly #sent = createHash('sha256');
  readonly #received = createHash('sha256');
  receivedCount = 0;
  #sentCount = 0;

  send(lane: Lane, seed: number): void {
    const bytes = exactRandomBytes(createPrng(seed), MESSAGE_BYTES);
    const more = (): void => {
      while (this.#sentCount < MESSAGES && lane.queuedBytes < WINDOW_BYTES) {
        bytes[0] = this.#sentCount++ % 256;
        this.#sent.update(bytes);
        const buffer = new Uint8Array(HEADER_BYTES + bytes.length);
        buffer.set(bytes, HEADER_BYTES);
        lane.send({ buffer, start: HEADER_BYTES, end: buffer.length, isOrdered: true });
      }
    };
    lane.onDrain = more;
    more();
  }

  receive(lane: Lane): void {
    lane.onMessage = (message) => {
      this.#received.update(message.payload);
      this.receivedCount++;
      message.release();
    };
  }

  get isDone(): boolean {
    return this.receivedCount === MESSAGES;
  }

  get isEqual(): boolean {
    return this.#sent.digest('hex') === this.#received.digest('hex');
  }
}

async function listen(): Promise<Listener> {
  const security = { kind: 'none' } as const;
  const listener = await listenForSessions({
    host: '127.0.0.1',
    port: 0,
    security,
    windowBytes: WINDOW_BYTES,
  });
  CLOSERS.push(() => listener.close());
  return listener;
}

/** Opens an honest session and lets it send. */
async function transfer(listener: Listener, seed: number): Promise<Transfer> {
  const { port } = listener;
  const paths = Array.from({ length: PATHS }, () => ({ host: '127.0.0.1', port }));
  const common = { security: { kind: 'none' }, windowBytes: WINDOW_BYTES } as const;
  const client = await connectSession({ ...common, paths, requireAllPaths: true });
  const server = await listener.accept();
  CLOSERS.push(() => Promise.all([client.close(), server.close()]));
  const one = new Transfer();
  one.send(client.openLane(), seed);
  one.receive(await within(server.acceptLane(), TIMEOUT_MS, 'a lane'));
  return one;
}

/** Wires of a peer that may stop to read. */
async function openWires(to: number): Promise<{ port: number; deafen: () => void }> {
  const fars: net.Socket[] = [];
  const server = net.createServer((near) => {
    const far = net.connect({ host: '127.0.0.1', port: to });
    fars.push(far);
    near.pipe(far).pipe(near);
    for (const one of [near, far]) one.on('error', () => {});
    near.on('close', () => far.destroy());
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  CLOSERS.push(() => {
    for (const far of fars) far.destroy();
    server.close();
  });
  const deafen = (): void => {
    for (const far of fars) far.unpipe().pause();
  };
  return { port: (server.address() as net.AddressInfo).port, deafen };
}

/** Both connections of a peer that has opened a session and will do no good with it. */
interface Hostile {
  readonly peers: readonly WirePeer[];
  readonly session: Session;
  /** Lets nothing be read any more. */
  deafen(): void;
  /** Goes on until the test is over. */
  every(ms: number, act: () => void): void;
}

async function openHostile(listener: Listener): Promise<Hostile> {
  const { port, deafen } = await openWires(listener.port);
  const first = await WirePeer.connect(port);
  expect(await first.greet()).toBe('Welcome');
  const session = await listener.accept();
  const second = await WirePeer.connect(port, { id: first.id });
  second.secret = first.secret;
  expect(await second.greet({ intent: Intent.Join })).toBe('Welcome');
  const peers = [first, second];
  const timers: NodeJS.Timeout[] = [];
  CLOSERS.push(() => {
    for (const timer of timers) clearInterval(timer);
    for (const peer of peers) peer.destroy();
    return session.close();
  });
  return { peers, session, deafen, every: (ms, act) => timers.push(setInterval(act, ms)) };
}

function dataHeader(length: number, sequence: number): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  const header = { type: FrameType.Data, flags: 0, lane: 0, length, sequence, epoch: sequence };
  encodeHeader(bytes, 0, header);
  return bytes;
}

function garbage({ peers }: Hostile): void {
  for (const peer of peers) peer.send(exactRandomBytes(createPrng(1), 100_000));
}

/** Reads nothing, takes no ack, and still wants to be sent all there is. */
function demand({ peers, session, every }: Hostile): void {
  const lane = session.openLane();
  for (let count = 0; count < 10; count++) sendFilled(lane, HOSTILE_WINDOW_BYTES);
  every(1, () => {
    const credit = encodeFrame(FrameType.Credit, { lane: lane.id, sequence: 2 ** 53 - 1 });
    for (const peer of peers) peer.send(credit);
  });
}

function overspend({ peers, every }: Hostile): void {
  let sequence = 0;
  every(1, () => {
    peers[0]!.sendData({ sequence: sequence++, bytes: 100_000 });
  });
}

function tinyFrames({ peers, every }: Hostile): void {
  let sequence = 0;
  every(1, () => {
    for (let count = 0; count < 100; count++) {
      peers[sequence % 2]!.sendData({ sequence: sequence++, bytes: 0 });
    }
  });
}

/** Everything but the first frame, so that nothing can be delivered. */
function gapThenFlood({ peers, every }: Hostile): void {
  let sequence = 1;
  every(1, () => {
    peers[sequence % 2]!.sendData({ sequence: sequence++, bytes: 50_000 });
  });
}

function floodOfPings({ peers, every }: Hostile): void {
  const pings = Buffer.concat(
    Array.from({ length: 200 }, (_, sequence) => encodeFrame(FrameType.Ping, { sequence })),
  );
  every(1, () => {
    for (const peer of peers) peer.send(pings);
  });
}

/** Begins the longest frame on every path, and then sends it byte by byte. */
function trickle({ peers, every }: Hostile): void {
  for (const [index, peer] of peers.entries()) peer.send(dataHeader(PAYLOAD_BYTES_MAX / 2, index));
  every(1000, () => {
    for (const peer of peers) peer.send(new Uint8Array(1));
  });
}

/** Keeps the session alive, and lets what it is sent fill the buffers on the way. */
function neverRead({ peers, session, deafen, every }: Hostile): void {
  deafen();
  const lane = session.openLane();
  for (let count = 0; count < 100; count++) sendFilled(lane, HOSTILE_WINDOW_BYTES);
  const pings = Buffer.concat(Array(100).fill(encodeFrame(FrameType.Ping)));
  every(10, () => {
    for (const peer of peers) peer.send(pings);
  });
}

const BEHAVIOURS: readonly [string, (hostile: Hostile) => void, string | undefined][] = [
  ['sends rubbish', garbage, 'ERR_FRAME_CHECK'],
  ['claims credit that it cannot have', demand, 'ERR_WINDOW_EXCEEDED'],
  ['sends more than its credit', overspend, 'ERR_WINDOW_EXCEEDED'],
  ['sends empty frames without end', tinyFrames, 'ERR_WINDOW_EXCEEDED'],
  ['leaves a gap and floods', gapThenFlood, 'ERR_WINDOW_EXCEEDED'],
  ['floods with Pings', floodOfPings, undefined],
  ['sends a byte a second of the longest frame', trickle, undefined],
  ['never reads', neverRead, undefined],
];

/** Heap and buffers, with what is garbage and not yet collected. */
function heldBytes(): number {
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

describe('Many sessions on one port are done, with equal bytes and within their budget', () => {
  test.each(BEHAVIOURS)('beside one that %s', async (_what, misbehave, code) => {
    const listener = await listen();
    const warmUp = await transfer(listener, 99);
    await waitUntil('the first transfer', () => warmUp.isDone, { timeoutMs: TIMEOUT_MS });
    const before = { held: heldBytes(), rss: process.memoryUsage().rss };
    const hostile = await openHostile(listener);
    misbehave(hostile);
    const transfers = await Promise.all(
      Array.from({ length: HONEST_SESSIONS }, (_, seed) => transfer(listener, seed)),
    );
    const most = { ...before };
    await waitUntil(
      'all transfers',
      () => {
        most.held = Math.max(most.held, heldBytes());
        most.rss = Math.max(most.rss, process.memoryUsage().rss);
        return transfers.every(({ isDone }) => isDone);
      },
      { timeoutMs: TIMEOUT_MS },
    );
    expect(transfers.map(({ isEqual }) => isEqual)).toEqual(Array(HONEST_SESSIONS).fill(true));
    if (code !== undefined) {
      const ended = within(hostile.session.ended, TIMEOUT_MS, 'the hostile session to end');
      expect(await ended).toMatchObject({ code });
    } else {
      expect(hostile.session.pathReports().map(({ state }) => state)).toContain('open');
    }
    expect(most.held - before.held).toBeLessThan(BUDGET_BYTES + SLACK_BYTES);
    expect(most.rss - before.rss).toBeLessThan(BUDGET_BYTES + SLACK_BYTES);
  });
});

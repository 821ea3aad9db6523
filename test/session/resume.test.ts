import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import { PagelaneError } from '../../src/errors.ts';
import { readU64 } from '../../src/frame/bytes.ts';
import { FrameType } from '../../src/frame/header.ts';
import { SILENCE_ALONE_MS_MIN, TICK_MS } from '../../src/path/limits.ts';
import type { SessionEvent } from '../../src/session/events.ts';
import type { Lane } from '../../src/session/lane.ts';
import {
  CLOSE_TIMEOUT_MS,
  PEER_GONE_MS,
  REDIAL_MS_MAX,
  REDIAL_MS_MIN,
} from '../../src/session/limits.ts';
import type { Session } from '../../src/session/session.ts';
import { within } from '../support/lab/processes.ts';
import type { SimulatedPair } from '../support/network.ts';
import { openPaths, openRelay, RelayedSession, until } from './relayed.ts';
import { allTold, collect, keepEvents, SessionPair, sendFilled, Transfer } from './support.ts';

const MESSAGE_BYTES = 16 * 1024;
const QUEUED_BYTES_MAX = 256 * 1024;
const WINDOW_BYTES = 1 << 20;
const RESUME_MS = 30_000;
const TIMEOUT_MS = 50_000;

const WAYS: readonly (readonly [string, (link: SimulatedPair) => void])[] = [
  ['cut', (link) => link.cut()],
  ['silent', (link) => link.goSilent()],
];

/** Sequences of the Data frames that a link was given. */
function noteSent({ client }: SimulatedPair): number[] {
  const sequences: number[] = [];
  client.tamper = (frame) => {
    if (frame[0] === FrameType.Data) sequences.push(readU64(frame, 8));
    return frame;
  };
  return sequences;
}

function ofType<T extends SessionEvent['type']>(
  events: readonly SessionEvent[],
  type: T,
): Extract<SessionEvent, { type: T }>[] {
  return events.filter((event) => event.type === type) as Extract<SessionEvent, { type: T }>[];
}

describe('Session that lost every path', () => {
  interface Setting {
    readonly pair: SessionPair;
    readonly transfer: Transfer;
    readonly lane: Lane;
    readonly events: readonly (readonly SessionEvent[])[];
  }

  async function begin(
    paths: number,
    { resumeTimeoutMs = RESUME_MS, windowBytes = WINDOW_BYTES } = {},
  ): Promise<Setting> {
    const pair = new SessionPair({ paths, windowBytes, resumeTimeoutMs, rttMs: 10 });
    const events = [keepEvents(pair.client), keepEvents(pair.server)];
    const options = { messages: 4000, messageBytes: MESSAGE_BYTES };
    const transfer = new Transfer({ ...options, queuedBytesMax: QUEUED_BYTES_MAX });
    const lane = pair.client.openLane();
    transfer.send(lane);
    transfer.receive(await pair.settled(pair.server.acceptLane()));
    await pair.pass(500);
    return { pair, transfer, lane, events };
  }

  const areStalled = ({ client, server }: SessionPair): boolean =>
    client.isStalled && server.isStalled;

  test.each(WAYS)(
    '%s: goes on with the next one, and says for how long it stood',
    async (way, lose) => {
      const { pair, transfer, events } = await begin(2);
      const silentMs = way === 'silent' ? SILENCE_ALONE_MS_MIN : 0;
      for (const link of pair.links) lose(link);
      const lostAtMs = pair.network.nowMs;
      expect(await pair.until(() => areStalled(pair))).toBe(true);
      await pair.pass(5000);
      pair.addPath();
      const stalledMs = pair.network.nowMs - lostAtMs - silentMs;
      expect(areStalled(pair)).toBe(false);
      expect(await pair.until(() => transfer.isDone)).toBe(true);
      expect(transfer.wrong).toEqual([]);
      for (const told of events) {
        const [stalled] = ofType(told, 'stalled');
        expect(stalled).toMatchObject({ code: 'ERR_PATH_LOST', timeoutMs: RESUME_MS });
        expect(stalled!.reason).toMatch(/was cut|was lost: silent for/);
        const resumed = ofType(told, 'resumed');
        expect(resumed.length).toBe(1);
        expect(Math.abs(resumed[0]!.stalledMs - stalledMs)).toBeLessThan(4 * TICK_MS);
      }
      await pair.settled(pair.client.close());
      expect(await Promise.all([pair.client.ended, pair.server.ended])).toEqual([
        undefined,
        undefined,
      ]);
    },
  );

  test.each(WAYS)('%s, again and again: sends nothing again that was acked', async (_way, lose) => {
    const { pair, transfer } = await begin(3);
    for (let round = 0; round < 5; round++) {
      const gone = pair.links.slice();
      for (const link of gone) lose(link);
      expect(await pair.until(() => areStalled(pair))).toBe(true);
      const acked = new Set(transfer.acked);
      const unacked = transfer.sent - acked.size;
      expect(unacked).toBeGreaterThan(0);
      pair.links.length = 0;
      const sent: number[][] = [];
      for (let count = 0; count < 3; count++) {
        const link = pair.network.connect(`${round}:${count}`, {
          delayMs: 5,
          jitterMs: 0,
          bytesPerSecond: 10_000_000,
          bufferBytes: 16 * 1024,
        });
        sent.push(noteSent(link));
        pair.take(link);
      }
      await pair.pass(200);
      const again = sent.flat();
      expect(again.length).toBeGreaterThan(100);
      expect(again.filter((sequence) => acked.has(sequence))).toEqual([]);
      // What was on its way goes first.
      expect(Math.min(...again)).toBe(
        [...Array(transfer.sent).keys()].find((at) => !acked.has(at)),
      );
    }
    expect(await pair.until(() => transfer.isDone)).toBe(true);
    expect(transfer.wrong).toEqual([]);
  });

  test('holds no more than before, however long it stands', async () => {
    const { pair, transfer, lane } = await begin(2);
    for (const link of pair.links) link.cut();
    const heldBytes = lane.queuedBytes + lane.unackedBytes;
    const { sent } = transfer;
    expect(await pair.until(() => areStalled(pair))).toBe(true);
    expect(lane.unackedBytes).toBe(0);
    expect(lane.queuedBytes).toBeLessThanOrEqual(heldBytes);
    await pair.pass(RESUME_MS - 1000);
    expect(lane.queuedBytes).toBeLessThanOrEqual(heldBytes);
    expect(transfer.sent).toBe(sent);
    pair.addPath();
    expect(await pair.until(() => transfer.isDone)).toBe(true);
    const most = QUEUED_BYTES_MAX + MESSAGE_BYTES + WINDOW_BYTES;
    expect(transfer.heldBytesMax).toBeLessThanOrEqual(most);
    expect(transfer.wrong).toEqual([]);
  });

  test('is joined by a new path before the other side knows of the loss', async () => {
    const { pair, transfer, events } = await begin(1);
    pair.links[0]!.goSilent();
    pair.links[0]!.client.breakDown('was cut');
    expect([pair.client.isStalled, pair.server.isStalled]).toEqual([true, false]);
    await pair.pass(100);
    pair.addPath();
    expect(await pair.until(() => transfer.isDone)).toBe(true);
    expect(transfer.wrong).toEqual([]);
    expect(events.map((told) => ofType(told, 'stalled').length)).toEqual([1, 0]);
    expect(await pair.until(() => openPaths(pair.server).length === 1)).toBe(true);
  });

  test('is told at once what it may send, where that was lost with the paths', async () => {
    // So little that it is used up before the path is full.
    const { pair, transfer } = await begin(1, { windowBytes: 64 * 1024 });
    pair.links[0]!.goSilentFrom('server');
    await pair.pass(200);
    pair.links[0]!.cut();
    expect(await pair.until(() => areStalled(pair))).toBe(true);
    const before = transfer.delivered.size;
    pair.addPath();
    await pair.pass(TICK_MS);
    expect(transfer.delivered.size).toBeGreaterThan(before);
    expect(await pair.until(() => transfer.isDone)).toBe(true);
    expect(transfer.wrong).toEqual([]);
  });

  test('gives up after its time, and names it', async () => {
    const { pair, events } = await begin(2, { resumeTimeoutMs: 7000 });
    for (const link of pair.links) link.cut();
    const lostAtMs = pair.network.nowMs;
    for (const session of [pair.client, pair.server]) {
      const error = await pair.settled(session.ended);
      expect(error).toMatchObject({ name: 'PathError', code: 'ERR_PATHS_EXHAUSTED' });
      expect(error!.message).toContain('none came back within 7000 ms');
      expect(error!.cause).toMatchObject({ code: 'ERR_PATH_LOST' });
      expect(session.isStalled).toBe(false);
    }
    expect(Math.abs(pair.network.nowMs - lostAtMs - 7000)).toBeLessThan(4 * TICK_MS);
    await allTold();
    for (const told of events) {
      expect(told.slice(-2).map(({ type }) => type)).toEqual(['stalled', 'closed']);
    }
    expect(() => pair.client.openLane()).toThrow('within 7000 ms');
  });

  test('begins its time anew with each loss', async () => {
    const { pair, transfer } = await begin(1, { resumeTimeoutMs: 7000 });
    for (let round = 0; round < 3; round++) {
      pair.links.at(-1)!.cut();
      await pair.pass(6000);
      pair.addPath();
      await pair.pass(100);
    }
    expect(await pair.until(() => transfer.isDone)).toBe(true);
    expect(transfer.wrong).toEqual([]);
  });

  test('gives up at once if it is to wait for no time', async () => {
    const { pair, events } = await begin(2, { resumeTimeoutMs: 0 });
    for (const link of pair.links) link.cut();
    const lostAtMs = pair.network.nowMs;
    for (const session of [pair.client, pair.server]) {
      const error = await pair.settled(session.ended);
      expect(error).toMatchObject({ code: 'ERR_PATHS_EXHAUSTED' });
      expect(error!.message).not.toContain('within');
    }
    expect(pair.network.nowMs - lostAtMs).toBeLessThan(2 * TICK_MS);
    await allTold();
    for (const told of events) expect(ofType(told, 'stalled')).toEqual([]);
  });
});

describe('Session close() without a path', () => {
  const BYTES = 100;

  /** A session whose only path is lost, with something to send or without. */
  async function begin({ isSettled = true, resumeTimeoutMs = RESUME_MS } = {}) {
    const pair = new SessionPair({ paths: 1, resumeTimeoutMs });
    const lane = pair.client.openLane();
    sendFilled(lane, BYTES, { value: 1 });
    const messages = collect(await pair.settled(pair.server.acceptLane()));
    await pair.pass(100);
    pair.links[0]!.cut();
    await pair.pass(100);
    expect([pair.client.isStalled, pair.server.isStalled]).toEqual([true, true]);
    if (!isSettled) sendFilled(lane, BYTES, { value: 2 });
    return { pair, messages };
  }

  test.each([true, false])(
    'waits for one to come back, then ends both sides cleanly; all was acked: %s',
    async (isSettled) => {
      const { pair, messages } = await begin({ isSettled });
      let isClosed = false;
      const closing = pair.client.close().then(() => {
        isClosed = true;
      });
      await pair.pass(CLOSE_TIMEOUT_MS - 1000);
      expect(isClosed).toBe(false);
      pair.addPath();
      await pair.settled(closing);
      expect(await pair.settled(pair.client.ended)).toBeUndefined();
      expect(await pair.settled(pair.server.ended)).toBeUndefined();
      expect(messages.map(({ payload }) => payload[0])).toEqual(isSettled ? [1] : [1, 2]);
    },
  );

  test('from both sides: each waits, and both end cleanly', async () => {
    const { pair } = await begin({ isSettled: false });
    const closing = Promise.all([pair.client.close(), pair.server.close()]);
    await pair.pass(3000);
    pair.addPath();
    await pair.settled(closing);
    expect(await Promise.all([pair.client.ended, pair.server.ended])).toEqual([
      undefined,
      undefined,
    ]);
  });

  test('goes on when the path is lost while it waits for acks', async () => {
    const pair = new SessionPair({ paths: 1, resumeTimeoutMs: RESUME_MS });
    const lane = pair.client.openLane();
    for (let count = 0; count < 20; count++) sendFilled(lane, 3000, { value: count });
    const messages = collect(await pair.settled(pair.server.acceptLane()));
    const closing = pair.client.close();
    await pair.pass(3);
    pair.links[0]!.cut();
    await pair.pass(1000);
    expect(pair.client.isStalled).toBe(true);
    pair.addPath();
    await pair.settled(closing);
    expect(await pair.settled(pair.server.ended)).toBeUndefined();
    expect(messages.map(({ payload }) => payload[0])).toEqual([...Array(20).keys()]);
  });

  /** Closes the client. @returns Whether that was done between two simulated times. */
  async function isClosedBetween(pair: SessionPair, fromMs: number, toMs: number) {
    let isClosed = false;
    pair.client.close().then(() => {
      isClosed = true;
    });
    await pair.pass(fromMs);
    await allTold();
    const isTooEarly = isClosed;
    await pair.pass(toMs - fromMs);
    await allTold();
    return isClosed && !isTooEarly;
  }

  test('gives up after a while, cleanly if the peer had everything', async () => {
    const { pair } = await begin();
    expect(await isClosedBetween(pair, CLOSE_TIMEOUT_MS - 1, CLOSE_TIMEOUT_MS + 1)).toBe(true);
    expect(await pair.client.ended).toBeUndefined();
    // Nobody told the other side.
    const error = await pair.settled(pair.server.ended);
    expect(error).toMatchObject({ code: 'ERR_PATHS_EXHAUSTED' });
  });

  test('gives up after a while, and says how much the peer has not', async () => {
    const { pair } = await begin({ isSettled: false });
    expect(await isClosedBetween(pair, CLOSE_TIMEOUT_MS - 1, CLOSE_TIMEOUT_MS + 1)).toBe(true);
    expect(await pair.client.ended).toMatchObject({
      code: 'ERR_CLOSE_TIMEOUT',
      message: `Cannot close: ${BYTES} bytes had no ack after ${CLOSE_TIMEOUT_MS} ms`,
    });
  });

  test('ends when the session gives up before', async () => {
    const { pair } = await begin({ resumeTimeoutMs: 2000 });
    expect(await isClosedBetween(pair, 1800, 2000)).toBe(true);
    expect(await pair.client.ended).toMatchObject({ code: 'ERR_PATHS_EXHAUSTED' });
  });
});

describe('Session over real sockets that lost every path', () => {
  const closers: (() => unknown)[] = [];
  const TRANSFER = {
    messages: 3000,
    messageBytes: MESSAGE_BYTES,
    queuedBytesMax: QUEUED_BYTES_MAX,
  };

  afterEach(async () => {
    for (const close of closers.splice(0).reverse()) await close();
  });

  const ended = (session: Session): Promise<unknown> =>
    within(session.ended, TIMEOUT_MS, 'the session to end');

  /** A server on a port that a relay had. */
  async function serve(port: number, onSocket: (socket: net.Socket) => void): Promise<net.Server> {
    const server = net.createServer((socket) => {
      socket.on('error', () => {});
      onSocket(socket);
    });
    closers.push(() => server.close());
    await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
    return server;
  }

  test.each([1, 3])('all of %i: dials until somebody listens again, and goes on', async (paths) => {
    const session = await RelayedSession.open({ paths }, closers);
    const { client, server, relays, listener } = session;
    const events = [keepEvents(client), keepEvents(server)];
    const flows = [
      await session.transfer(client, TRANSFER),
      await session.transfer(server, TRANSFER),
    ];
    await until('something to arrive', () => flows.every(({ delivered }) => delivered.size > 50));
    for (const relay of relays) relay.harm('reset');
    await until('both to stall', () => client.isStalled && server.isStalled);
    await sleep(500);
    for (const { port } of relays) await openRelay(listener.port, closers, port);
    await until('both directions to be done', () => flows.every(({ isDone }) => isDone));
    expect(flows.map(({ wrong }) => wrong)).toEqual([[], []]);
    for (const told of events) {
      expect(ofType(told, 'stalled').length).toBe(1);
      expect(ofType(told, 'resumed').length).toBe(1);
      expect(ofType(told, 'resumed')[0]!.stalledMs).toBeGreaterThan(400);
    }
    await until('every path to be back', () => openPaths(client).length === paths);
    await within(client.close(), TIMEOUT_MS, 'the session to close');
    expect(await Promise.all([ended(client), ended(server)])).toEqual([undefined, undefined]);
  });

  test('dials less and less often', async () => {
    const { client, relays, listener } = await RelayedSession.open({ paths: 1 }, closers);
    const { port } = relays[0]!;
    relays[0]!.harm('reset');
    const atMs: number[] = [];
    const refusing = await serve(port, (socket) => {
      atMs.push(performance.now());
      socket.destroy();
    });
    await until('some attempts', () => atMs.length >= 5);
    refusing.close();
    const gaps = atMs.slice(1).map((ms, index) => ms - atMs[index]!);
    for (const [index, gapMs] of gaps.entries()) {
      // Half of the time is left to chance; a timer may be a millisecond early.
      const longestMs = Math.min(REDIAL_MS_MIN * 2 ** (index + 1), REDIAL_MS_MAX);
      expect(gapMs).toBeGreaterThan(longestMs / 2 - 2);
    }
    await openRelay(listener.port, closers, port);
    await until('the path to be back', () => openPaths(client).length === 1);
  });

  test('ends before its time when nobody listens any more', async () => {
    const session = await RelayedSession.open({ paths: 3, resumeTimeoutMs: 300_000 }, closers);
    const { client, relays } = session;
    for (const relay of relays) relay.harm('reset');
    const fromMs = performance.now();
    const error = await ended(client);
    expect(performance.now() - fromMs).toBeGreaterThan(PEER_GONE_MS - 1);
    expect(error).toMatchObject({ name: 'PathError', code: 'ERR_PATHS_EXHAUSTED' });
    expect(error).toMatchObject({ cause: { code: 'ERR_PATH_REFUSED' } });
  });

  test('waits for its whole time if one port is open still', async () => {
    const resumeTimeoutMs = PEER_GONE_MS + 2000;
    const session = await RelayedSession.open({ paths: 2, resumeTimeoutMs }, closers);
    const { client, relays } = session;
    for (const relay of relays) relay.harm('reset');
    await serve(relays[1]!.port, (socket) => socket.destroy());
    const error = await ended(client);
    expect(error).toMatchObject({ code: 'ERR_PATHS_EXHAUSTED' });
    expect((error as Error).message).toContain(`within ${resumeTimeoutMs} ms`);
  });

  test('ends at once when the server has forgotten it', async () => {
    const session = await RelayedSession.open({ paths: 2, resumeTimeoutMs: 300_000 }, closers);
    const { client, server, relays } = session;
    for (const relay of relays) relay.cut('reset');
    // The peer is not told: what it says goes nowhere.
    server.fail(new PagelaneError('ERR_DISK', 'the disk is full'));
    const error = await ended(client);
    expect(error).toMatchObject({ name: 'PathError', code: 'ERR_PATHS_EXHAUSTED' });
    expect(error).toMatchObject({ cause: { name: 'RemoteError', code: 'ERR_SESSION_UNKNOWN' } });
  });

  test('close() waits for the path that is dialled again', async () => {
    const session = await RelayedSession.open({ paths: 1 }, closers);
    const { client, server, relays, listener } = session;
    const flow = await session.transfer(client, { ...TRANSFER, messages: 200 });
    await until('something to arrive', () => flow.delivered.size > 5);
    relays[0]!.harm('reset');
    await until('both to stall', () => client.isStalled && server.isStalled);
    const closing = client.close();
    await openRelay(listener.port, closers, relays[0]!.port);
    await within(closing, TIMEOUT_MS, 'the session to close');
    expect(await Promise.all([ended(client), ended(server)])).toEqual([undefined, undefined]);
    expect(flow.delivered.size).toBe(flow.sent);
    expect(flow.wrong).toEqual([]);
  });
});

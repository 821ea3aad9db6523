import { describe, expect, test } from 'vitest';
import { PagelaneError } from '../../src/errors.ts';
import { LANES_MAX, PATHS_MAX } from '../../src/frame/limits.ts';
import { SILENCE_MS_MAX } from '../../src/path/limits.ts';
import type { SessionEvent } from '../../src/session/events.ts';
import { CLOSE_TIMEOUT_MS, GONE_PATHS_MAX } from '../../src/session/limits.ts';
import type { Session } from '../../src/session/session.ts';
import { collect, SessionPair, sendFilled, WINDOW_BYTES } from './support.ts';

describe('Session lanes', () => {
  test('are so many a side, and no more', () => {
    const { client, server } = new SessionPair();
    const ids = (session: Session): number[] =>
      Array.from({ length: LANES_MAX / 2 }, () => session.openLane().id);
    expect(ids(client)).toEqual([0, 2, 4, 6]);
    expect(ids(server)).toEqual([1, 3, 5, 7]);
    for (const session of [client, server]) expect(() => session.openLane()).toThrow(RangeError);
  });

  test('arrive in the order of their first frames, and carry both directions', async () => {
    const pair = new SessionPair();
    const lanes = [pair.client.openLane(), pair.client.openLane()];
    sendFilled(lanes[1]!, 10, { value: 1 });
    sendFilled(lanes[0]!, 20, { value: 2 });
    const first = await pair.settled(pair.server.acceptLane());
    const second = await pair.settled(pair.server.acceptLane());
    expect([first.id, second.id]).toEqual([2, 0]);
    const there = collect(first);
    sendFilled(first, 30, { value: 3 });
    const back = collect(lanes[1]!);
    expect(await pair.until(() => there.length === 1 && back.length === 1)).toBe(true);
    expect([...back[0]!.payload]).toEqual(Array(30).fill(3));
  });

  test('stop at the credit, and go on as messages are released', async () => {
    const pair = new SessionPair({ paths: 2 });
    const lane = pair.client.openLane();
    for (let count = 0; count < 12; count++) sendFilled(lane, WINDOW_BYTES / 4);
    const messages = collect(await pair.settled(pair.server.acceptLane()));
    await pair.pass(10_000);
    expect(messages.length).toBe(4);
    expect(lane.queuedBytes).toBe(2 * WINDOW_BYTES);
    messages[0]!.release();
    messages[1]!.release();
    await pair.pass(10_000);
    expect(messages.length).toBe(6);
    for (let at = 2; at < 12; at++) {
      expect(await pair.until(() => messages.length > at)).toBe(true);
      messages[at]!.release();
    }
    expect(messages.map(({ sequence }) => sequence)).toEqual([...Array(12).keys()]);
  });

  test('do not stop each other: one without credit, another with', async () => {
    const pair = new SessionPair();
    const [stuck, free] = [pair.client.openLane(), pair.client.openLane()];
    for (let count = 0; count < 8; count++) sendFilled(stuck, WINDOW_BYTES / 2);
    for (let count = 0; count < 8; count++) sendFilled(free, 100);
    await pair.settled(pair.server.acceptLane());
    const messages = collect(await pair.settled(pair.server.acceptLane()));
    expect(await pair.until(() => messages.length === 8)).toBe(true);
    expect(stuck.queuedBytes).toBe(3 * WINDOW_BYTES);
  });

  test('tell when there is room, never from within send()', async () => {
    const pair = new SessionPair();
    const lane = pair.client.openLane();
    let isSending = true;
    const drains: boolean[] = [];
    lane.onDrain = () => drains.push(isSending);
    sendFilled(lane, 100);
    isSending = false;
    expect(await pair.until(() => drains.length > 0)).toBe(true);
    expect(drains).not.toContain(true);
  });
});

describe('Session paths', () => {
  test('are sixteen at most', async () => {
    const pair = new SessionPair({ paths: PATHS_MAX });
    expect(pair.client.hasRoomForPath).toBe(false);
    const extra = pair.addPath();
    await pair.pass(100);
    expect(extra.client.isClosed && extra.server.isClosed).toBe(true);
    expect(pair.client.pathReports().length).toBe(PATHS_MAX);
  });

  test('that are gone are reported, the latest of them', async () => {
    const pair = new SessionPair({ paths: 1 });
    for (let count = 0; count < GONE_PATHS_MAX + 5; count++) {
      const link = pair.addPath();
      await pair.pass(20);
      link.cut();
      await pair.pass(100);
    }
    const reports = pair.client.pathReports();
    expect(reports.filter(({ state }) => state === 'lost').length).toBe(GONE_PATHS_MAX);
    expect(reports.filter(({ state }) => state === 'open').map(({ id }) => id)).toEqual([0]);
  });

  test('of which one is lost: what it carried goes over the others, once', async () => {
    const pair = new SessionPair({ paths: 3 });
    const lane = pair.client.openLane();
    const acked: number[] = [];
    for (let count = 0; count < 30; count++) {
      sendFilled(lane, 2000, { value: count, isOrdered: false, onAcked: () => acked.push(count) });
    }
    await pair.pass(4);
    pair.links[0]!.cut();
    pair.links[1]!.goSilent();
    const messages = collect(await pair.settled(pair.server.acceptLane()));
    expect(await pair.until(() => acked.length === 30)).toBe(true);
    const values = messages.map(({ payload }) => payload[0]!).sort((one, other) => one - other);
    expect(values).toEqual([...Array(30).keys()]);
    expect(new Set(acked).size).toBe(30);
    const lost = pair.client.pathReports().filter(({ state }) => state === 'lost');
    expect(lost.map(({ id }) => id).sort()).toEqual([0, 1]);
  });

  test('of which one is lost while there is no credit: what it carried goes at once', async () => {
    const pair = new SessionPair({ paths: 3 });
    const lane = pair.client.openLane();
    let acked = 0;
    const send = (count: number): void => {
      const onAcked = (): void => {
        acked++;
      };
      for (let left = count; left > 0; left--) {
        sendFilled(lane, WINDOW_BYTES / 8, { isOrdered: false, onAcked });
      }
    };
    // Every path is in use: none is tried just because nothing was ever sent over it.
    send(300);
    const accepted = await pair.settled(pair.server.acceptLane());
    accepted.onMessage = (message) => message.release();
    expect(await pair.until(() => acked === 300)).toBe(true);
    for (const { sentBytes } of pair.client.pathReports()) {
      expect(sentBytes).toBeGreaterThan(WINDOW_BYTES);
    }
    const messages = collect(accepted);
    send(12);
    expect(await pair.until(() => acked === 308)).toBe(true);
    // The next frame is lost, whichever path takes it.
    for (const link of pair.links) link.client.isSilent = true;
    messages[0]!.release();
    await pair.pass(20);
    const carriers = pair.client.pathReports().filter(({ unackedBytes }) => unackedBytes > 0);
    expect(carriers.length).toBe(1);
    for (const link of pair.links) link.client.isSilent = false;
    pair.links[carriers[0]!.id]!.cut();
    const lostMs = pair.network.nowMs;
    expect(await pair.until(() => acked === 309)).toBe(true);
    expect(pair.network.nowMs - lostMs).toBeLessThan(100);
  });

  test('that all are silent: the session ends on both sides, each in its own time', async () => {
    const pair = new SessionPair({ paths: 2 });
    sendFilled(pair.client.openLane(), 100);
    await pair.pass(100);
    for (const link of pair.links) link.goSilent();
    for (const session of [pair.client, pair.server]) {
      const error = await pair.settled(session.ended);
      expect(error).toMatchObject({ code: 'ERR_PATHS_EXHAUSTED' });
      expect(error!.message).toContain('silent for');
    }
    expect(pair.network.nowMs).toBeLessThan(2 * SILENCE_MS_MAX);
    expect(() => pair.client.openLane()).toThrow('No path is left');
    await expect(pair.client.acceptLane()).rejects.toMatchObject({ code: 'ERR_PATHS_EXHAUSTED' });
  });

  test('are opened by who dialled only', async () => {
    const pair = new SessionPair();
    const adding = pair.server.addPath({ host: '127.0.0.1', port: 1 });
    await expect(adding).rejects.toThrow(TypeError);
  });
});

describe('Session close()', () => {
  test('waits until the peer has everything', async () => {
    const pair = new SessionPair();
    const lane = pair.client.openLane();
    for (let count = 0; count < 10; count++) sendFilled(lane, WINDOW_BYTES / 4, { value: count });
    const messages = collect(await pair.settled(pair.server.acceptLane()));
    let isClosed = false;
    const closing = pair.client.close().then(() => {
      isClosed = true;
    });
    for (let at = 0; at < 10; at++) {
      expect(await pair.until(() => messages.length > at)).toBe(true);
      expect(isClosed).toBe(false);
      expect(messages[at]!.payload[0]).toBe(at);
      messages[at]!.release();
    }
    await pair.settled(closing);
    expect(await pair.settled(pair.client.ended)).toBeUndefined();
    expect(await pair.settled(pair.server.ended)).toBeUndefined();
    await expect(pair.server.acceptLane()).rejects.toMatchObject({ code: 'ERR_SESSION_CLOSED' });
  });

  test('leaves what has arrived to who asks later', async () => {
    const pair = new SessionPair();
    sendFilled(pair.client.openLane(), 50, { value: 9, isLast: true });
    await pair.settled(pair.client.close());
    await pair.settled(pair.server.ended);
    const messages = collect(await pair.server.acceptLane());
    await undefined;
    expect(messages.map(({ payload, isLast }) => [payload[0], isLast])).toEqual([[9, true]]);
    messages[0]!.release();
  });

  test('gives up when the acks do not come, and says how much had none', async () => {
    const pair = new SessionPair();
    const lane = pair.client.openLane();
    for (let count = 0; count < 3; count++) sendFilled(lane, WINDOW_BYTES / 2);
    await pair.pass(1000);
    await pair.settled(pair.client.close());
    expect(await pair.client.ended).toMatchObject({
      code: 'ERR_CLOSE_TIMEOUT',
      message: `Cannot close: ${WINDOW_BYTES / 2} bytes had no ack after ${CLOSE_TIMEOUT_MS} ms`,
    });
    const error = await pair.settled(pair.server.ended);
    expect(error).toMatchObject({ name: 'RemoteError', code: 'ERR_CLOSE_TIMEOUT', side: 'source' });
  });

  test('from both ends at once is clean, and a second one does nothing', async () => {
    const pair = new SessionPair({ paths: 3 });
    await pair.pass(50);
    await pair.settled(Promise.all([pair.client.close(), pair.server.close()]));
    await pair.settled(Promise.all([pair.client.close(), pair.server.close()]));
    expect(await Promise.all([pair.client.ended, pair.server.ended])).toEqual([
      undefined,
      undefined,
    ]);
    for (const link of pair.links) expect(link.client.isClosed && link.server.isClosed).toBe(true);
  });
});

describe('Session fail()', () => {
  test('tells the peer, on every path, and who waits here', async () => {
    const pair = new SessionPair({ paths: 2 });
    await pair.pass(50);
    const waiting = expect(pair.client.acceptLane()).rejects.toMatchObject({ code: 'ERR_DISK' });
    pair.client.fail(new PagelaneError('ERR_DISK', 'the disk is full'));
    pair.client.fail(new PagelaneError('ERR_LATER', 'too late to be heard'));
    await waiting;
    expect(await pair.settled(pair.server.ended)).toMatchObject({
      name: 'RemoteError',
      code: 'ERR_DISK',
      message: 'the disk is full',
      side: 'source',
    });
  });

  test('is what close() leaves as it is', async () => {
    const pair = new SessionPair();
    pair.server.fail(new PagelaneError('ERR_DISK', ''));
    await pair.settled(pair.server.close());
    expect(await pair.server.ended).toMatchObject({ code: 'ERR_DISK' });
  });

  test('wakes a close() that waits for acks', async () => {
    const pair = new SessionPair();
    sendFilled(pair.client.openLane(), 100);
    const closing = pair.client.close();
    pair.client.fail(new PagelaneError('ERR_DISK', ''));
    await pair.settled(closing);
    expect(await pair.client.ended).toMatchObject({ code: 'ERR_DISK' });
  });
});

test('Session events() tell its life', async () => {
  const pair = new SessionPair({ paths: 2 });
  await pair.pass(50);
  pair.links[1]!.cut();
  await pair.pass(100);
  await pair.settled(pair.client.close());
  const events: SessionEvent[] = [];
  for await (const event of pair.client.events()) events.push(event);
  expect(events.map(({ type }) => type)).toEqual([
    'pathOpened',
    'pathOpened',
    'pathLost',
    'closed',
  ]);
  expect(events[2]).toMatchObject({ id: 1, code: 'ERR_PATH_LOST', reason: 'client:1 was cut' });
});

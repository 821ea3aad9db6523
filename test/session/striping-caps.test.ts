import { describe, expect, test } from 'vitest';
import { FrameType } from '../../src/frame/header.ts';
import { HEADER_BYTES } from '../../src/frame/limits.ts';
import { PACING_BURST_MS } from '../../src/path/limits.ts';
import type { SimulatedPair } from '../support/network.ts';
import { SessionPair, sendFilled, Transfer } from './support.ts';

const KB = 1000;
const MB = 1_000_000;

describe('Striper caps', () => {
  const LINK = { bytesPerSecond: 10 * MB, bufferBytes: 64 * 1024 };
  const MESSAGE_BYTES = 32 * 1024;

  interface Sent {
    readonly atMs: number;
    readonly bytes: number;
  }

  /** Data frames as they are given to a link. */
  function noteSent(pair: SessionPair, { client }: SimulatedPair, sent: Sent[] = []): Sent[] {
    client.tamper = (frame) => {
      if (frame[0] === FrameType.Data) {
        sent.push({ atMs: pair.network.nowMs, bytes: frame.length });
      }
      return frame;
    };
    return sent;
  }

  /** Bytes per second from one moment to another. */
  function rateOf(sent: readonly Sent[], fromMs: number, toMs: number): number {
    let sum = 0;
    for (const { atMs, bytes } of sent) if (atMs >= fromMs && atMs < toMs) sum += bytes;
    return (sum * 1000) / (toMs - fromMs);
  }

  /** A client that always has more to send than the paths take. */
  async function begin(paths: number): Promise<SessionPair> {
    const pair = new SessionPair({ paths, windowBytes: 4 * MB, link: LINK });
    const options = { messages: 1e6, messageBytes: MESSAGE_BYTES, queuedBytesMax: MB };
    const transfer = new Transfer(options);
    transfer.send(pair.client.openLane());
    const accepting = pair.server.acceptLane();
    await pair.pass(50);
    transfer.receive(await accepting);
    return pair;
  }

  test.each([100 * KB, MB, 5 * MB, 25 * MB])(
    'of the session keep %i bytes/s over three paths together',
    async (cap) => {
      const pair = await begin(3);
      pair.client.maxBytesPerSecond = cap;
      const sent: Sent[] = [];
      for (const link of pair.links) noteSent(pair, link, sent);
      await pair.pass(1000);
      const fromMs = pair.network.nowMs;
      await pair.pass(10_000);
      const rate = rateOf(sent, fromMs, pair.network.nowMs);
      expect(Math.abs(rate / cap - 1)).toBeLessThan(0.02);
    },
  );

  test.each([
    [1, 100 * KB],
    [2, MB],
    [2, 5 * MB],
    [3, 8 * MB],
  ])(
    'of one of %i paths keep %i bytes/s on it, the others carry what they can',
    async (paths, cap) => {
      const pair = await begin(paths);
      pair.client.setPathMax(0, cap);
      const [capped, ...free] = pair.links.map((link) => noteSent(pair, link));
      await pair.pass(2000);
      const fromMs = pair.network.nowMs;
      await pair.pass(10_000);
      const toMs = pair.network.nowMs;
      expect(Math.abs(rateOf(capped!, fromMs, toMs) / cap - 1)).toBeLessThan(0.02);
      for (const sent of free) {
        expect(rateOf(sent, fromMs, toMs)).toBeGreaterThan(0.98 * LINK.bytesPerSecond);
      }
    },
  );

  const OF_SESSION = (pair: SessionPair, cap: number | undefined): void => {
    pair.client.maxBytesPerSecond = cap;
  };
  const OF_PATH = (pair: SessionPair, cap: number | undefined): void =>
    pair.client.setPathMax(0, cap);

  test.each([
    ['session', OF_SESSION],
    ['path', OF_PATH],
  ])('of a %s that are changed hold at once: lower, higher and lifted', async (_of, set) => {
    const pair = await begin(1);
    const sent = noteSent(pair, pair.links[0]!);
    const spanMs = 200;
    for (const cap of [5 * MB, MB, 200 * KB, 2 * MB, undefined, 4 * MB]) {
      set(pair, cap);
      const fromMs = pair.network.nowMs;
      await pair.pass(spanMs);
      const rate = rateOf(sent, fromMs, pair.network.nowMs);
      const expected = cap ?? LINK.bytesPerSecond;
      // One frame is on its way, and what the path holds already.
      const slack = ((2 * MESSAGE_BYTES + (expected * PACING_BURST_MS) / 1000) * 1000) / spanMs;
      expect(rate).toBeGreaterThan(expected - slack);
      expect(rate).toBeLessThan(expected + slack + (cap === undefined ? expected : 0));
    }
    expect([
      pair.client.maxBytesPerSecond,
      pair.client.pathReports()[0]!.maxBytesPerSecond,
    ]).toContain(4 * MB);
  });

  test.each([
    ['session', OF_SESSION],
    ['path', OF_PATH],
  ])('of a %s that are lifted let go what waits for them, without delay', async (_of, set) => {
    const pair = new SessionPair({ paths: 1, link: LINK, windowBytes: 4 * MB });
    const lane = pair.client.openLane();
    set(pair, 1);
    sendFilled(lane, MESSAGE_BYTES);
    sendFilled(lane, MESSAGE_BYTES);
    await pair.pass(1000);
    expect(lane.queuedBytes).toBe(MESSAGE_BYTES);
    set(pair, undefined);
    expect(lane.queuedBytes).toBe(0);
  });

  test('hold for copies as well', async () => {
    const pair = new SessionPair({ paths: 3, link: LINK, windowBytes: 4 * MB });
    pair.client.maxBytesPerSecond = MB;
    const lane = pair.client.openLane();
    lane.isUrgent = true;
    // Little more than half of what is allowed, and three times that with all its copies.
    const everyMs = 30;
    const sentRate = (MESSAGE_BYTES / 2 / everyMs) * 1000;
    const send = (): void => {
      sendFilled(lane, MESSAGE_BYTES / 2);
      pair.network.after(everyMs, send);
    };
    send();
    const accepted = await pair.settled(pair.server.acceptLane());
    accepted.onMessage = (message) => message.release();
    const sent: Sent[] = [];
    for (const link of pair.links) noteSent(pair, link, sent);
    const fromMs = pair.network.nowMs;
    await pair.pass(10_000);
    const rate = rateOf(sent, fromMs, pair.network.nowMs);
    expect(rate).toBeGreaterThan(1.2 * sentRate);
    const atOnce = (MB * PACING_BURST_MS) / 1000 + MESSAGE_BYTES / 2 + 2 * HEADER_BYTES;
    for (const [first, { atMs }] of sent.entries()) {
      let bytes = 0;
      for (const later of sent.slice(first, first + 100)) {
        bytes += later.bytes;
        expect(bytes).toBeLessThanOrEqual((MB * (later.atMs - atMs)) / 1000 + atOnce);
      }
    }
  });

  test.each([0, -1, Number.NaN])('do not take %d', (cap) => {
    const pair = new SessionPair({ paths: 1 });
    expect(() => OF_SESSION(pair, cap)).toThrow(RangeError);
    expect(() => OF_PATH(pair, cap)).toThrow(RangeError);
    expect(() => pair.client.setPathMax(1, MB)).toThrow(RangeError);
  });
});

describe('Striper over simulated links', () => {
  const LINK = { bytesPerSecond: 10 * MB, bufferBytes: 64 * 1024 };

  test('copies nothing between equal paths under full load', async () => {
    const pair = new SessionPair({ paths: 4, windowBytes: 4 * MB, link: LINK });
    const seen = new Set<number>();
    let repeated = 0;
    for (const { server } of pair.links) {
      server.onDataFrame = ({ sequence }) => {
        if (seen.has(sequence)) repeated++;
        seen.add(sequence);
      };
    }
    const options = { messages: 5000, messageBytes: 32 * 1024, queuedBytesMax: MB };
    const transfer = new Transfer(options).send(pair.client.openLane());
    transfer.receive(await pair.settled(pair.server.acceptLane()));
    expect(await pair.until(() => transfer.sent === options.messages)).toBe(true);
    expect(repeated).toBe(0);
    expect(seen.size).toBeGreaterThan(options.messages / 2);
    expect(await pair.until(() => transfer.isDone)).toBe(true);
    expect(transfer.wrong).toEqual([]);
  });

  test('brings what is urgent in time although a path falls silent', async () => {
    const pair = new SessionPair({ paths: 2, link: LINK });
    const lane = pair.client.openLane();
    lane.isUrgent = true;
    const sentAtMs: number[] = [];
    const tookMs: number[] = [];
    const send = (): void => {
      sentAtMs.push(pair.network.nowMs);
      sendFilled(lane, 4000);
      if (sentAtMs.length < 100) pair.network.after(10, send);
    };
    send();
    const accepted = await pair.settled(pair.server.acceptLane());
    accepted.onMessage = (message) => {
      tookMs[message.sequence] = pair.network.nowMs - sentAtMs[message.sequence]!;
      message.release();
    };
    await pair.pass(300);
    pair.links[0]!.goSilent();
    expect(await pair.until(() => tookMs.length === 100)).toBe(true);
    // Once half the round trip, and the frame's own time.
    expect(Math.max(...tookMs)).toBeLessThan(10);
  });
});

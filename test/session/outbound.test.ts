import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { codeOf } from '../../src/errors.ts';
import { decodeHeader, emptyHeader, FLAG_FIN, type FrameHeader } from '../../src/frame/header.ts';
import {
  FRAME_COST_MIN,
  HEADER_BYTES,
  PAYLOAD_BYTES_MAX,
  SEQUENCE_WINDOW,
} from '../../src/frame/limits.ts';
import { frameCost, type OutboundFrame, OutboundLane } from '../../src/session/outbound.ts';

const WINDOW_BYTES = 64 * 1024;

let lane: OutboundLane;
let acked: number[];

beforeEach(() => {
  lane = new OutboundLane(4, WINDOW_BYTES);
  acked = [];
});

interface Kind {
  readonly isOrdered?: boolean;
  readonly isAhead?: boolean;
  readonly isLast?: boolean;
}

function send(
  bytes: number,
  { isOrdered = false, isAhead = false, isLast = false }: Kind = {},
): number {
  const buffer = new Uint8Array(HEADER_BYTES + bytes);
  const sequence: number = lane.send({
    buffer,
    start: HEADER_BYTES,
    end: buffer.length,
    isOrdered,
    isAhead,
    isLast,
    onAcked: () => acked.push(sequence),
  });
  return sequence;
}

/** Takes what may go, as the path at `slot` would. */
function takeAll(slot = 0): OutboundFrame[] {
  const taken: OutboundFrame[] = [];
  for (let frame = lane.next(); frame !== undefined; frame = lane.next()) {
    lane.take(slot);
    taken.push(frame);
  }
  return taken;
}

function headerOf(frame: OutboundFrame): FrameHeader {
  const header = emptyHeader();
  decodeHeader(frame.bytes, 0, { into: header, stage: 'session' });
  return header;
}

function codeOfCall(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    return codeOf(error);
  }
  return 'none';
}

describe('OutboundLane numbers', () => {
  test('messages from 0, with their epochs, and writes headers in place', () => {
    send(10);
    send(0);
    send(5, { isOrdered: true });
    send(6);
    send(7);
    lane.beginEpoch();
    lane.beginEpoch();
    send(8);
    send(9, { isLast: true });
    const headers = takeAll().map(headerOf);
    expect(headers.map(({ sequence, epoch, flags }) => [sequence, epoch, flags])).toEqual([
      [0, 0, 0],
      [1, 0, 0],
      [2, 2, 0],
      [3, 3, 0],
      [4, 3, 0],
      [5, 5, 0],
      [6, 6, FLAG_FIN],
    ]);
    expect(headers.map(({ lane: id, length }) => [id, length])).toEqual(
      [10, 0, 5, 6, 7, 8, 9].map((length) => [4, length]),
    );
  });

  test('nothing after the last', () => {
    send(1, { isLast: true });
    expect(() => send(1)).toThrow('Lane 4 has sent its last message');
  });

  test.each([
    ['without room for the header', { start: HEADER_BYTES - 1, end: 40 }],
    ['that ends before it begins', { start: 40, end: 39 }],
    ['that ends behind its buffer', { start: HEADER_BYTES, end: 65 }],
  ])('no message %s', (_what, range) => {
    const message = { buffer: new Uint8Array(64), isOrdered: true, ...range };
    expect(() => lane.send(message)).toThrow(RangeError);
    expect(send(1)).toBe(0);
  });

  test('no message longer than the window, or than a frame', () => {
    expect(() => send(WINDOW_BYTES + 1)).toThrow(`at most ${WINDOW_BYTES} bytes`);
    expect(send(WINDOW_BYTES)).toBe(0);
    lane = new OutboundLane(0, 2 * PAYLOAD_BYTES_MAX);
    expect(() => send(PAYLOAD_BYTES_MAX + 1)).toThrow(`at most ${PAYLOAD_BYTES_MAX} bytes`);
  });
});

describe('OutboundLane stops', () => {
  test('at the credit, to the byte', () => {
    send(WINDOW_BYTES - 2000);
    send(2000);
    send(1500);
    expect(takeAll().length).toBe(2);
    expect(lane.creditBytes).toBe(0);
    lane.onCredit(WINDOW_BYTES + 1499);
    expect(takeAll().length).toBe(0);
    lane.onCredit(WINDOW_BYTES + 1500);
    expect(takeAll().length).toBe(1);
    expect(lane.queuedBytes).toBe(0);
  });

  test('at the credit that short messages cost, with bytes or without', () => {
    const fitting = WINDOW_BYTES / FRAME_COST_MIN;
    for (let count = 0; count <= fitting; count++) send(count % 2);
    expect(takeAll().length).toBe(fitting);
    expect(lane.creditBytes).toBe(0);
  });

  test('at the window of sequences, until the first one missing is acked', () => {
    lane = new OutboundLane(4, 2 * SEQUENCE_WINDOW * FRAME_COST_MIN);
    for (let count = 0; count <= SEQUENCE_WINDOW; count++) send(0);
    const frames = takeAll();
    expect(frames.length).toBe(SEQUENCE_WINDOW);
    for (const frame of frames.slice(1)) lane.onAcked(frame, 0);
    expect(lane.next()).toBeUndefined();
    lane.onAcked(frames[0]!, 0);
    expect(lane.next()?.sequence).toBe(SEQUENCE_WINDOW);
  });

  test('takes totals of credit that overtook each other', () => {
    send(WINDOW_BYTES);
    takeAll();
    lane.onCredit(WINDOW_BYTES + 100);
    lane.onCredit(WINDOW_BYTES + 50);
    expect(lane.creditBytes).toBe(100);
  });

  test('takes no credit that the peer cannot mean', () => {
    send(1500);
    expect(codeOfCall(() => lane.onCredit(WINDOW_BYTES + 1))).toBe('ERR_WINDOW_EXCEEDED');
    takeAll();
    expect(codeOfCall(() => lane.onCredit(WINDOW_BYTES + 1500))).toBe('none');
    expect(codeOfCall(() => lane.onCredit(WINDOW_BYTES + 1501))).toBe('ERR_WINDOW_EXCEEDED');
  });
});

describe('OutboundLane lets messages go ahead', () => {
  const sequences = (frames: readonly OutboundFrame[]) => frames.map(({ sequence }) => sequence);

  test('of those of their epoch that are queued', () => {
    for (let count = 0; count < 3; count++) send(100);
    send(100, { isAhead: true });
    send(100, { isAhead: true });
    expect(sequences(takeAll())).toEqual([3, 4, 0, 1, 2]);
  });

  test('but not of what has to go again', () => {
    send(100);
    send(100);
    const [first] = takeAll();
    lane.return(first!, 0);
    send(100, { isAhead: true });
    expect(sequences(takeAll())).toEqual([0, 2]);
  });

  test('not of another epoch: the peer could not consume them, and gives credit for what it has', () => {
    send(100);
    send(100, { isOrdered: true });
    send(100, { isAhead: true });
    send(100);
    send(100, { isAhead: true });
    expect(sequences(takeAll())).toEqual([0, 1, 2, 3, 4]);
  });

  test('not so far that the peer could not remember what it lacks', () => {
    lane = new OutboundLane(4, 4 * SEQUENCE_WINDOW * FRAME_COST_MIN);
    for (let count = 0; count < SEQUENCE_WINDOW; count++) send(0);
    send(0, { isAhead: true });
    const [first, ...others] = takeAll();
    expect([first!.sequence, others.length]).toEqual([0, SEQUENCE_WINDOW - 1]);
    lane.onAcked(first!, 0);
    expect(lane.next()?.sequence).toBe(SEQUENCE_WINDOW);
  });

  test('and all arrive, whatever the window, at a peer that keeps epochs in order', () => {
    const kinds = fc.array(
      fc.record({
        bytes: fc.nat(6000),
        kind: fc.constantFrom('ahead', 'ahead', 'unordered', 'unordered', 'ordered'),
        takes: fc.nat(4),
      }),
      { maxLength: 80 },
    );
    fc.assert(
      fc.property(kinds, (all) => {
        lane = new OutboundLane(0, 8000);
        const peer = new EpochPeer();
        for (const { bytes, kind, takes } of all) {
          send(bytes, { isOrdered: kind === 'ordered', isAhead: kind === 'ahead' });
          for (let turn = 0; turn < takes; turn++) peer.takeOne();
        }
        while (peer.takeOne());
        expect(peer.consumed).toBe(all.length);
        expect(lane.queuedBytes).toBe(0);
      }),
    );
  });
});

/** A peer that consumes an epoch when it has all before it, and gives credit for that only. */
class EpochPeer {
  consumed = 0;
  #creditBytes = 8000;
  #held: { sequence: number; epoch: number; cost: number }[] = [];
  readonly #done = new Set<number>();

  /** Takes a frame off the lane. False if there is none that may go. */
  takeOne(): boolean {
    const frame = lane.next();
    if (frame === undefined) return false;
    lane.take(0);
    const { sequence, payloadBytes } = frame;
    this.#held.push({ sequence, epoch: headerOf(frame).epoch, cost: frameCost(payloadBytes) });
    lane.onAcked(frame, 0);
    for (let isMore = true; isMore; ) isMore = this.#consume();
    lane.onCredit(this.#creditBytes);
    return true;
  }

  #consume(): boolean {
    const at = this.#held.findIndex(({ epoch }) => {
      for (let before = 0; before < epoch; before++) if (!this.#done.has(before)) return false;
      return true;
    });
    const [frame] = at < 0 ? [] : this.#held.splice(at, 1);
    if (frame === undefined) return false;
    this.#done.add(frame.sequence);
    this.#creditBytes += frame.cost;
    this.consumed++;
    return true;
  }
}

describe('OutboundLane keeps', () => {
  test('what is not acked, and tells each ack once', () => {
    send(10);
    send(20);
    const [first, second] = takeAll();
    expect([lane.queuedBytes, lane.unackedBytes]).toEqual([0, 30]);
    lane.onAcked(second!, 0);
    expect([lane.unackedBytes, lane.isSettled]).toEqual([10, false]);
    lane.onAcked(first!, 0);
    expect([lane.unackedBytes, lane.isSettled]).toEqual([0, true]);
    expect(acked).toEqual([1, 0]);
  });

  test('returned frames, and sends them first, in the order of sequences, without credit', () => {
    for (let count = 0; count < 5; count++) send(WINDOW_BYTES / 4);
    const frames = takeAll();
    expect(frames.length).toBe(4);
    for (const index of [2, 0, 3]) lane.return(frames[index]!, 0);
    expect(lane.creditBytes).toBe(0);
    expect(lane.sendableBytes).toBe((3 * WINDOW_BYTES) / 4);
    expect(takeAll().map(({ sequence }) => sequence)).toEqual([0, 2, 3]);
    expect([lane.creditBytes, lane.sendableBytes]).toEqual([0, 0]);
  });

  test('what two paths carry until the last of them lets go', () => {
    send(10);
    const [frame] = takeAll(0);
    lane.copy(frame!, 1);
    lane.onAcked(frame!, 1);
    expect([lane.isSettled, lane.unackedBytes, acked]).toEqual([true, 0, []]);
    lane.return(frame!, 0);
    expect([lane.next(), acked]).toEqual([undefined, [0]]);
  });

  test('back from a lost path what no other carries', () => {
    send(10);
    const [frame] = takeAll(0);
    lane.copy(frame!, 3);
    lane.return(frame!, 0);
    expect(lane.next()).toBeUndefined();
    lane.return(frame!, 3);
    expect(lane.next()).toBe(frame);
  });

  test('in doubt what one path alone carries, until some path has brought it', () => {
    send(10);
    send(20);
    const [first, second] = takeAll(0);
    lane.copy(second!, 1);
    lane.doubt(first!);
    lane.doubt(second!);
    expect([lane.queuedBytes, lane.unackedBytes]).toEqual([10, 20]);
    expect(lane.next()).toBe(first);
    // The path was only slow.
    lane.onAcked(first!, 0);
    expect([lane.next(), lane.queuedBytes, acked]).toEqual([undefined, 0, [0]]);
    lane.doubt(first!);
    expect(lane.next()).toBeUndefined();
  });

  test('a frame in doubt that goes again on another path, and once only', () => {
    send(10);
    const [frame] = takeAll(0);
    lane.doubt(frame!);
    expect(takeAll(1)).toEqual([frame]);
    lane.doubt(frame!);
    expect(lane.next()).toBeUndefined();
    lane.return(frame!, 1);
    expect(lane.next()).toBeUndefined();
    // What is left is the path that is still in doubt.
    lane.doubt(frame!);
    expect(lane.next()).toBe(frame);
  });

  test('nothing once it is cleared', () => {
    send(10);
    send(10);
    lane.return(takeAll()[0]!, 0);
    lane.clear();
    expect([lane.queuedBytes, lane.unackedBytes]).toEqual([0, 0]);
    expect(lane.next()).toBeUndefined();
  });

  test('its books, whatever happens to its frames', () => {
    const steps = fc.array(
      fc.record({
        what: fc.constantFrom('send', 'send', 'take', 'take', 'ack', 'lose', 'grant'),
        size: fc.nat(20_000),
        at: fc.nat(),
      }),
      { maxLength: 120 },
    );
    fc.assert(
      fc.property(steps, (all) => {
        lane = new OutboundLane(0, WINDOW_BYTES);
        acked = [];
        const onPaths: OutboundFrame[] = [];
        let [sent, spent, granted] = [0, 0, WINDOW_BYTES];
        const seen = new Set<number>();
        for (const { what, size, at } of all) {
          if (what === 'send') {
            send(size);
            sent += size;
          }
          const next = what === 'take' ? lane.next() : undefined;
          if (next !== undefined) {
            if (!seen.has(next.sequence)) spent += frameCost(next.payloadBytes);
            seen.add(next.sequence);
            lane.take(0);
            onPaths.push(next);
          }
          const [one] = what === 'ack' || what === 'lose' ? onPaths.splice(at % 7, 1) : [];
          if (one !== undefined && what === 'ack') lane.onAcked(one, 0);
          if (one !== undefined && what === 'lose') lane.return(one, 0);
          if (what === 'grant') {
            granted = Math.max(granted, spent + (size % WINDOW_BYTES));
            lane.onCredit(granted);
          }
          const flying = onPaths.reduce((sum, { payloadBytes }) => sum + payloadBytes, 0);
          expect(lane.unackedBytes).toBe(flying);
          expect(spent).toBeLessThanOrEqual(granted);
          expect(lane.creditBytes).toBe(granted - spent);
          // What may go now is at least the frame that goes next.
          expect(lane.sendableBytes).toBeGreaterThanOrEqual(lane.next()?.payloadBytes ?? 0);
          expect(lane.sendableBytes).toBeLessThanOrEqual(lane.queuedBytes);
        }
        expect(new Set(acked).size).toBe(acked.length);
        expect(lane.queuedBytes + lane.unackedBytes).toBeLessThanOrEqual(sent);
      }),
    );
  });
});

import { beforeEach, describe, expect, test } from 'vitest';
import { PagelaneError, PathError } from '../../src/errors.ts';
import { FrameDecoder } from '../../src/frame/decode.ts';
import type { FrameHeader, Stage } from '../../src/frame/header.ts';
import { FrameType, nameOf } from '../../src/frame/header.ts';
import { decodeReason } from '../../src/frame/reason.ts';
import {
  ACK_BYTES,
  ANSWERED_BYTES_MIN,
  CONTROL_PENDING_BYTES_MAX,
  DATA_PENDING_BYTES_MAX,
  DOUBT_MS_MIN,
  HEARTBEAT_TICKS,
  IN_FLIGHT_BYTES_FIRST,
  SILENCE_ALONE_MS_MIN,
  SILENCE_MS_MAX,
  SILENCE_MS_MIN,
  TICK_MS,
} from '../../src/path/limits.ts';
import type { LinkHandlers, PathLink } from '../../src/path/link.ts';
import { type CarriedFrame, Path, type PathOwner } from '../../src/path/path.ts';

/** A link that records what is sent. */
class FakeLink implements PathLink {
  readonly local = 'here:1';
  readonly remote = 'there:2';
  pendingBytes = 0;
  receivedBytes = 0;
  stage: Stage = 'handshake';
  handlers!: LinkHandlers;
  readonly writes: string[][] = [];
  readonly sent: { header: FrameHeader; payload: Uint8Array }[] = [];
  state = 'open';
  wakes = 0;

  send(bytes: Uint8Array): void {
    const names: string[] = [];
    const decoder = new FrameDecoder({
      allocate: (length) => new Uint8Array(length),
      onFrame: (header, payload) => {
        names.push(nameOf(header.type));
        this.sent.push({ header: { ...header }, payload });
      },
    });
    decoder.stage = 'session';
    decoder.push(bytes);
    this.writes.push(names);
  }

  wake(): void {
    this.wakes++;
  }

  end(): void {
    this.state = 'ended';
  }

  destroy(): void {
    this.state = 'destroyed';
  }

  /** Lets a frame arrive. */
  give(type: FrameType, parts: Partial<FrameHeader> = {}, payload = new Uint8Array(0)): void {
    this.receivedBytes += 32 + payload.length;
    const length = payload.length;
    const header = { type, flags: 0, lane: 0, length, sequence: 0, epoch: 0, ...parts };
    this.handlers.onFrame(header, payload);
  }
}

let nowMs = 0;
let link: FakeLink;
let log: unknown[];
let path: Path<CarriedFrame>;

const clock = { now: () => nowMs, after: () => () => {} };

beforeEach(() => {
  nowMs = 1000;
  log = [];
  link = new FakeLink();
  const owner: PathOwner<CarriedFrame> = {
    allocate: (bytes) => new Uint8Array(bytes),
    onData: (header) => log.push(['data', header.sequence]),
    onAcked: (frame, slot) => log.push(['acked', frame, slot]),
    onCredit: (lane, totalBytes) => log.push(['credit', lane, totalBytes]),
    onClose: (payload) => log.push(['close', decodeReason(payload).code]),
    onOffer: (payload) => log.push(['offer', payload.length]),
    onGoodbye: () => log.push(['goodbye']),
    onRoom: () => log.push(['room']),
    onGone: (_path, error) => log.push(['gone', error?.code]),
    onFault: (error) => log.push(['fault', error.code]),
  };
  path = new Path(link, owner, { id: 3, slot: 2, clock });
  link.handlers.onTurn();
  link.writes.length = 0;
  link.sent.length = 0;
  log.length = 0;
});

function ping(): void {
  link.give(FrameType.Ping, { sequence: 77 });
}

describe('Path acks', () => {
  test('what arrives, once a turn', () => {
    for (let sequence = 0; sequence < 5; sequence++) link.give(FrameType.Data, { sequence });
    expect(link.writes).toEqual([]);
    link.handlers.onTurn();
    expect(link.writes).toEqual([['Ack']]);
    expect(link.sent[0]!.header.sequence).toBe(5);
    link.handlers.onTurn();
    expect(link.writes.length).toBe(1);
  });

  test('at once when much has arrived', () => {
    link.give(FrameType.Data, { sequence: 0 }, new Uint8Array(ACK_BYTES / 2));
    expect(link.writes).toEqual([]);
    link.give(FrameType.Data, { sequence: 1 }, new Uint8Array(ACK_BYTES / 2));
    expect(link.writes).toEqual([['Ack']]);
  });

  test('together with all other control frames, in one write', () => {
    link.give(FrameType.Data);
    ping();
    path.sendCredit(2, 5000);
    path.sendCredit(0, 100);
    path.sendCredit(2, 6000);
    link.handlers.onTurn();
    expect(link.writes).toEqual([['Ack', 'Pong', 'Credit', 'Credit']]);
    const credits = link.sent.filter(({ header }) => header.type === FrameType.Credit);
    expect(credits.map(({ header }) => [header.lane, header.sequence])).toEqual([
      [0, 100],
      [2, 6000],
    ]);
    expect(link.sent[1]!.header.sequence).toBe(77);
  });

  test('but does not pile up frames for a peer that does not read', () => {
    link.pendingBytes = 1;
    for (let round = 0; round < 10_000; round++) {
      link.give(FrameType.Data);
      ping();
      link.handlers.onTurn();
    }
    expect(link.sent.length * 32).toBeLessThanOrEqual(CONTROL_PENDING_BYTES_MAX + 64);
    link.pendingBytes = 0;
    link.handlers.onWritable();
    expect(link.sent.at(-2)!.header.sequence).toBe(10_000);
  });
});

describe('Path carries', () => {
  const carried = (): CarriedFrame => ({ bytes: new Uint8Array(0) });
  const sized = (bytes: number): CarriedFrame => ({ bytes: new Uint8Array(bytes) });

  test('frames until they are acked, in order', () => {
    const frames = [carried(), carried(), carried()];
    for (const one of frames) path.carry(one);
    link.give(FrameType.Ack, { sequence: 2 });
    expect(log).toEqual([
      ['acked', frames[0], 2],
      ['acked', frames[1], 2],
    ]);
    link.give(FrameType.Ack, { sequence: 2 });
    expect(log.length).toBe(2);
    expect(path.lose()).toEqual([frames[2]]);
    expect(path.state).toBe('lost');
    expect(link.state).toBe('destroyed');
    expect(path.lose()).toEqual([]);
  });

  test.each([
    ['more than was sent', [3]],
    ['less than before', [2, 1]],
  ])('and finds an ack of %s', (_what, totals) => {
    path.carry(carried());
    path.carry(carried());
    for (const sequence of totals) link.give(FrameType.Ack, { sequence });
    expect(log.at(-1)).toEqual(['fault', 'ERR_FRAME_SEQUENCE']);
  });

  test('no more than it has room for', () => {
    const { send } = link;
    link.send = () => {};
    expect(path.hasRoom).toBe(true);
    path.carry(sized(IN_FLIGHT_BYTES_FIRST - 1));
    expect(path.hasRoom).toBe(true);
    path.carry(sized(2 << 20));
    expect(path.hasRoom).toBe(false);
    link.send = send;
    link.give(FrameType.Ack, { sequence: 2 });
    expect(path.hasRoom).toBe(true);
    expect(path.report()).toMatchObject({ unackedBytes: 0 });
  });

  test('nothing while the socket has not taken the last frame', () => {
    link.pendingBytes = DATA_PENDING_BYTES_MAX + 1;
    expect(path.hasRoom).toBe(false);
    link.pendingBytes = 0;
    expect(path.hasRoom).toBe(true);
  });
});

describe('Path measures', () => {
  test('the round trip from several Pings under way', () => {
    path.ping();
    path.tick();
    const first = link.sent.at(-1)!.header;
    nowMs += 300;
    path.ping();
    path.tick();
    const second = link.sent.at(-1)!.header;
    expect([first.type, second.type]).toEqual([FrameType.Ping, FrameType.Ping]);
    nowMs += 100;
    link.give(FrameType.Pong, { sequence: first.sequence });
    expect(path.report().rttMs).toBe(400);
    link.give(FrameType.Pong, { sequence: second.sequence });
    expect(path.rate.minRttMs).toBe(100);
  });

  test('nothing from a Pong that nobody asked for', () => {
    link.give(FrameType.Pong, { sequence: 2 ** 53 - 1 });
    nowMs += 10 * SILENCE_MS_MAX;
    link.give(FrameType.Pong, { sequence: 0 });
    expect(path.rate.smoothedRttMs).toBeUndefined();
  });
});

describe('Path notices silence', () => {
  const ticks = (count: number): void => {
    for (let left = count; left > 0; left--) path.tick();
  };

  test('by ticks, not by the clock', () => {
    nowMs += 10 * SILENCE_MS_MAX;
    ticks(1);
    expect(path.isSilent({ isOtherHeard: true })).toBe(false);
    ticks(SILENCE_MS_MIN / TICK_MS - 1);
    expect(path.isSilent({ isOtherHeard: true })).toBe(true);
    expect(path.isSilent({ isOtherHeard: false })).toBe(false);
    ticks((SILENCE_ALONE_MS_MIN - SILENCE_MS_MIN) / TICK_MS);
    expect(path.isSilent({ isOtherHeard: false })).toBe(true);
  });

  test('not while anything arrives, a part of a frame too', () => {
    for (let round = 0; round < 100; round++) {
      link.receivedBytes++;
      path.tick();
    }
    expect(path.silentMs).toBe(0);
  });

  test('later where the round trip is long', () => {
    path.rate.onRoundTrip(1000, nowMs, { wasAlone: true });
    ticks(4950 / TICK_MS);
    expect(path.isSilent({ isOtherHeard: true })).toBe(false);
    ticks(1);
    expect(path.isSilent({ isOtherHeard: true })).toBe(true);
  });

  test('soon while it waits for acks, and not at all while it does not', () => {
    ticks(DOUBT_MS_MIN / TICK_MS);
    expect(path.isOverdue).toBe(false);
    path.carry({ bytes: new Uint8Array(10) });
    ticks(DOUBT_MS_MIN / TICK_MS - 1);
    expect(path.isOverdue).toBe(false);
    ticks(1);
    expect(path.isOverdue).toBe(true);
    link.receivedBytes++;
    ticks(1);
    expect(path.isOverdue).toBe(false);
  });

  test('of a path with a long round trip not so soon', () => {
    path.rate.onRoundTrip(300, nowMs, { wasAlone: true });
    path.carry({ bytes: new Uint8Array(10) });
    ticks(850 / TICK_MS);
    expect(path.isOverdue).toBe(false);
    ticks(1);
    expect(path.isOverdue).toBe(true);
  });

  test('and is no longer in doubt when it is heard', () => {
    path.isDoubted = true;
    expect(path.hasRoom).toBe(false);
    link.receivedBytes++;
    path.tick();
    expect([path.isDoubted, path.hasRoom]).toEqual([false, true]);
  });

  test('and tells the sender of a long frame that it comes', () => {
    path.tick();
    link.writes.length = 0;
    link.receivedBytes += ANSWERED_BYTES_MIN;
    path.tick();
    expect(link.writes).toEqual([['Ack']]);
    link.receivedBytes += ANSWERED_BYTES_MIN - 1;
    link.writes.length = 0;
    path.tick();
    expect(link.writes).toEqual([]);
  });

  test('and asks with a Ping when a direction is silent, not otherwise', () => {
    ticks(HEARTBEAT_TICKS - 1);
    expect(link.writes).toEqual([]);
    path.tick();
    expect(link.writes).toEqual([['Ping']]);
    for (let count = 0; count < HEARTBEAT_TICKS; count++) {
      link.receivedBytes++;
      ping();
      link.handlers.onTurn();
      link.writes.length = 0;
      path.tick();
      expect(link.writes).toEqual([]);
    }
  });
});

describe('Path ends', () => {
  test('with a Close, after what is due', () => {
    link.give(FrameType.Data);
    path.close({ code: 'ERR_X', message: 'm' });
    expect(link.writes).toEqual([['Ack'], ['Close']]);
    expect(link.state).toBe('ended');
    expect(path.state).toBe('closed');
    path.close({ code: '', message: '' });
    path.tick();
    expect(link.writes.length).toBe(2);
  });

  test('and then hears nothing but that the link is gone', () => {
    path.close({ code: '', message: '' });
    link.give(FrameType.Data);
    link.handlers.onFault(new PagelaneError('ERR_X', ''));
    link.handlers.onClosed(undefined);
    expect(log).toEqual([['gone', undefined]]);
  });

  test('tells of Close, Goodbye, faults and a lost link', () => {
    link.give(FrameType.Goodbye);
    const reason = new TextEncoder().encode('{"code":"ERR_Y","message":""}');
    link.give(FrameType.Close, {}, reason);
    link.give(FrameType.Credit, { lane: 4, sequence: 9 });
    link.handlers.onFault(new PagelaneError('ERR_X', ''));
    link.handlers.onClosed(new PathError('ERR_PATH_LOST', '', ''));
    expect(log).toEqual([
      ['goodbye'],
      ['close', 'ERR_Y'],
      ['credit', 4, 9],
      ['fault', 'ERR_X'],
      ['gone', 'ERR_PATH_LOST'],
    ]);
  });
});

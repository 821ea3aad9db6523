import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { codeOf, PagelaneError } from '../../src/errors.ts';
import { FLAG_FIN, type FrameHeader, FrameType } from '../../src/frame/header.ts';
import { FRAME_COST_MIN } from '../../src/frame/limits.ts';
import { BufferPool } from '../../src/path/pool.ts';
import { InboundLane } from '../../src/session/inbound.ts';
import type { IncomingMessage } from '../../src/session/lane.ts';
import { GRANT_PARTS } from '../../src/session/limits.ts';
import { frameCost } from '../../src/session/outbound.ts';

const WINDOW_BYTES = 64 * 1024;
const GRANT_BYTES = WINDOW_BYTES / GRANT_PARTS;

let lane: InboundLane;
let pool: BufferPool;
let grants: number[];
let failures: string[];
let messages: IncomingMessage[];

beforeEach(() => {
  pool = new BufferPool();
  [grants, failures, messages] = [[], [], []];
  lane = new InboundLane(2, {
    windowBytes: WINDOW_BYTES,
    pool,
    grant: (totalBytes) => grants.push(totalBytes),
    fail: (error) => failures.push(error.code),
  });
});

function give(sequence: number, parts: Partial<FrameHeader> & { bytes?: number } = {}): string {
  const { bytes = 1, ...rest } = parts;
  const base = { type: FrameType.Data, flags: 0, lane: 2, length: bytes, sequence };
  try {
    lane.onData({ ...base, epoch: sequence, ...rest }, pool.acquire(bytes));
  } catch (error) {
    return codeOf(error);
  }
  return 'none';
}

function read(): void {
  lane.onMessage = (message) => messages.push(message);
}

const sequences = (): number[] => messages.map(({ sequence }) => sequence);

describe('InboundLane delivers', () => {
  test('in the order of epochs, each once', () => {
    read();
    for (const sequence of [2, 0, 2, 0, 1, 1]) expect(give(sequence)).toBe('none');
    expect(sequences()).toEqual([0, 1, 2]);
  });

  test('later, in a step of its own, what came before anyone listened', async () => {
    give(0);
    give(1);
    read();
    expect(messages).toEqual([]);
    give(2);
    await undefined;
    expect(sequences()).toEqual([0, 1, 2]);
  });

  test('nothing while nobody listens any more', async () => {
    read();
    give(0);
    lane.onMessage = undefined;
    give(1);
    await undefined;
    expect(sequences()).toEqual([0]);
    read();
    await undefined;
    expect(sequences()).toEqual([0, 1]);
  });

  test('what a listener that stops in the middle left over', async () => {
    for (const sequence of [0, 1, 2]) give(sequence);
    lane.onMessage = (message) => {
      messages.push(message);
      lane.onMessage = undefined;
    };
    await undefined;
    expect(sequences()).toEqual([0]);
    read();
    await undefined;
    expect(sequences()).toEqual([0, 1, 2]);
  });

  test('nothing after it was cleared, and gives the buffers back', () => {
    read();
    lane.clear();
    expect(give(0, { bytes: 32 * 1024 })).toBe('none');
    expect(messages).toEqual([]);
    expect(pool.freeBytes).toBe(32 * 1024);
  });

  test('and tells the session what a listener did not like', () => {
    lane.onMessage = () => {
      throw new PagelaneError('ERR_X', 'no');
    };
    give(0);
    expect(failures).toEqual(['ERR_X']);
    lane.onMessage = () => {
      throw new TypeError('a fault of ours');
    };
    expect(give(1)).toBe('ERR_INTERNAL');
    expect(failures).toEqual(['ERR_X']);
  });
});

describe('InboundLane grants', () => {
  test('credit as messages are released, some at a time', () => {
    read();
    for (let sequence = 0; sequence < 8; sequence++) give(sequence, { bytes: GRANT_BYTES / 2 });
    expect(grants).toEqual([]);
    expect(lane.grantedBytes).toBeUndefined();
    for (const message of messages) message.release();
    expect(grants).toEqual([1, 2, 3, 4].map((count) => WINDOW_BYTES + count * GRANT_BYTES));
    expect(lane.grantedBytes).toBe(grants.at(-1));
  });

  test('all of it when everything is released, however little it was', () => {
    read();
    give(0, { bytes: 1 });
    messages[0]!.release();
    expect(grants).toEqual([WINDOW_BYTES + FRAME_COST_MIN]);
  });

  test('a message once, and takes the payload away', () => {
    read();
    give(0, { bytes: 32 * 1024 });
    const [message] = messages;
    message!.release();
    message!.release();
    expect(grants).toEqual([WINDOW_BYTES + 32 * 1024]);
    expect(() => message!.payload).toThrow('The message was released');
    expect(pool.freeBytes).toBe(32 * 1024);
  });

  test('exactly the window: one byte more is refused', () => {
    expect(give(0, { bytes: WINDOW_BYTES - 5000 })).toBe('none');
    expect(give(1, { bytes: 5001 })).toBe('ERR_WINDOW_EXCEEDED');
    expect(give(1, { bytes: 5000 })).toBe('none');
    expect(give(2, { bytes: 1 })).toBe('ERR_WINDOW_EXCEEDED');
  });

  test('no more short messages than the window has room for', () => {
    for (let sequence = 0; sequence < WINDOW_BYTES / FRAME_COST_MIN; sequence++) {
      expect(give(sequence, { bytes: sequence % 2 })).toBe('none');
    }
    expect(give(WINDOW_BYTES / FRAME_COST_MIN, { bytes: 0 })).toBe('ERR_WINDOW_EXCEEDED');
  });

  test('nothing for a duplicate, which costs nothing either', () => {
    read();
    give(0, { bytes: WINDOW_BYTES });
    for (let count = 0; count < 5; count++) {
      expect(give(0, { bytes: WINDOW_BYTES })).toBe('none');
    }
    expect(messages.length).toBe(1);
    expect(pool.freeBytes).toBeGreaterThan(0);
    messages[0]!.release();
    expect(grants).toEqual([2 * WINDOW_BYTES]);
  });

  test('never more than a window ahead, in any order of release', () => {
    const sizes = fc.array(fc.integer({ min: 0, max: 9000 }), { maxLength: 60 });
    fc.assert(
      fc.property(sizes, fc.infiniteStream(fc.nat()), (lengths, dice) => {
        const local: number[] = [];
        const waiting: IncomingMessage[] = [];
        let [received, consumed, granted] = [0, 0, WINDOW_BYTES];
        const one = new InboundLane(0, {
          windowBytes: WINDOW_BYTES,
          pool,
          grant: (totalBytes) => local.push(totalBytes),
          fail: () => {},
        });
        one.onMessage = (message) => waiting.push(message);
        const header = { type: FrameType.Data, flags: 0, lane: 0, length: 0 };
        for (const [sequence, bytes] of lengths.entries()) {
          while (
            received + frameCost(bytes) > granted ||
            (dice.next().value! % 3 === 0 && waiting.length > 0)
          ) {
            const [message] = waiting.splice(dice.next().value! % waiting.length, 1);
            consumed += frameCost(message!.payload.length);
            message!.release();
            granted = local.at(-1) ?? granted;
            expect(granted).toBeLessThanOrEqual(consumed + WINDOW_BYTES);
            expect(granted).toBeGreaterThan(consumed + WINDOW_BYTES - GRANT_BYTES);
          }
          one.onData({ ...header, sequence, epoch: sequence }, pool.acquire(bytes));
          received += frameCost(bytes);
        }
        expect(local).toEqual([...new Set(local)].sort((low, high) => low - high));
      }),
    );
  });
});

describe('InboundLane ends', () => {
  test('with the frame that says so', () => {
    read();
    give(0);
    give(1, { flags: FLAG_FIN });
    expect(messages.map(({ isLast }) => isLast)).toEqual([false, true]);
  });

  test.each([
    [
      'a frame behind the last',
      [
        [0, FLAG_FIN],
        [1, 0],
      ],
    ],
    [
      'a last frame before others',
      [
        [1, 0],
        [0, FLAG_FIN],
      ],
    ],
    [
      'two last frames',
      [
        [1, FLAG_FIN],
        [0, FLAG_FIN],
      ],
    ],
  ])('and refuses %s', (_what, frames) => {
    const codes = frames.map(([sequence, flags]) => give(sequence!, { flags: flags! }));
    expect(codes).toEqual(['none', 'ERR_FRAME_SEQUENCE']);
  });

  test('and refuses a last frame inside an epoch', () => {
    give(0, { epoch: 0 });
    expect(give(1, { epoch: 0, flags: FLAG_FIN })).toBe('ERR_FRAME_EPOCH');
  });

  test('but drops a duplicate of the last', () => {
    give(0, { flags: FLAG_FIN });
    expect(give(0, { flags: FLAG_FIN })).toBe('none');
  });
});

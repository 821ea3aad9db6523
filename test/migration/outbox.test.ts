import { beforeEach, describe, expect, test } from 'vitest';
import { HEADER_BYTES } from '../../src/frame/limits.ts';
import { Outbox } from '../../src/migration/outbox.ts';
import type { LaneSender, OutgoingMessage } from '../../src/session/lane.ts';
import { Digest, decodeEnd, type EncodedMessage, MessageKind } from '../../src/stream/message.ts';

/** A lane that notes what it was given. */
class NotingLane implements LaneSender {
  readonly id = 0;
  isUrgent = false;
  queuedBytes = 0;
  unackedBytes = 0;
  readonly sent: OutgoingMessage[] = [];
  readonly epochsAt: number[] = [];

  send(message: OutgoingMessage): number {
    return this.sent.push(message) - 1;
  }

  beginEpoch(): void {
    this.epochsAt.push(this.sent.length);
  }

  get words(): number[] {
    return this.sent.map(({ buffer, start }) => buffer[start + 1]!);
  }
}

/** A message of bytes that is told by its word. */
function encoded(word: number, kind: number = MessageKind.Bytes): EncodedMessage {
  const buffer = new Uint8Array(HEADER_BYTES + 16);
  buffer.set([kind, word], HEADER_BYTES);
  return { buffer, start: HEADER_BYTES, end: buffer.length };
}

let lane: NotingLane;
let outbox: Outbox;
beforeEach(() => {
  lane = new NotingLane();
  outbox = new Outbox(lane);
});

describe('an outbox', () => {
  test('keeps the order of the stream, in whatever order batches are ready', () => {
    const [first, second] = [outbox.reserve(), outbox.reserve()];
    outbox.put(encoded(3));
    second(encoded(2, MessageKind.Pages), () => {});
    expect([lane.words, outbox.count, outbox.isEmpty]).toEqual([[], 3, false]);
    first(encoded(1, MessageKind.Pages), () => {});
    expect([lane.words, outbox.count, outbox.isEmpty]).toEqual([[1, 2, 3], 0, true]);
    expect(lane.sent.map(({ isOrdered }) => isOrdered)).toEqual([false, false, true]);
  });

  test('is not empty while the lane has something that is on no path', () => {
    lane.queuedBytes = 1;
    expect(outbox.isEmpty).toBe(false);
  });

  test('an epoch begins with what is put next', () => {
    outbox.put(encoded(1));
    outbox.beginEpoch();
    const batch = outbox.reserve();
    outbox.put(encoded(3));
    batch(encoded(2, MessageKind.Pages), () => {});
    expect([lane.words, lane.epochsAt]).toEqual([[1, 2, 3], [1]]);
  });

  test('the last of what starts a guest goes when all before it has arrived', () => {
    lane.unackedBytes = 5;
    outbox.put(encoded(1), { isHeld: true });
    expect([lane.words, outbox.holds]).toEqual([[], true]);
    outbox.put(encoded(2), { isHeld: true });
    expect([lane.words, outbox.holds]).toEqual([[1], true]);
    lane.unackedBytes = 0;
    outbox.send();
    expect([lane.words, outbox.holds]).toEqual([[1, 2], false]);
  });

  test('the end has the digest of bytes and pages, by their place', () => {
    outbox.put(encoded(1, MessageKind.Blocks));
    outbox.put(encoded(2));
    outbox.putEnd();
    const digest = new Digest();
    digest.add(lane.sent[1]!.buffer, HEADER_BYTES, 1);
    expect(outbox.digest).toBe(digest.value);
    const { buffer, start, end, isLast } = lane.sent[2]!;
    expect([decodeEnd(buffer.subarray(start, end)), isLast]).toEqual([digest.value, true]);
  });

  test('a batch that goes ahead does so when it is ready, and the end waits for it', () => {
    const slow = outbox.reserve();
    const ahead = outbox.reserve({ isAhead: true });
    const late = outbox.reserve({ isAhead: true });
    outbox.putEnd();
    ahead(encoded(2, MessageKind.Pages), () => {});
    expect(lane.words).toEqual([2]);
    slow(encoded(1, MessageKind.Pages), () => {});
    expect([lane.words, outbox.count]).toEqual([[2, 1], 2]);
    late(encoded(3, MessageKind.Pages), () => {});
    expect(lane.words.slice(0, 3)).toEqual([2, 1, 3]);
    expect(lane.sent.map(({ isLast = false }) => isLast)).toEqual([false, false, false, true]);
    expect(lane.sent.map(({ isAhead }) => isAhead)).toEqual([true, false, true, undefined]);
    const digest = new Digest();
    for (const sequence of [0, 1, 2]) {
      digest.add(lane.sent[sequence]!.buffer, HEADER_BYTES, sequence);
    }
    expect(outbox.digest).toBe(digest.value);
  });

  test('it does not go ahead of what is ordered, or of an epoch', () => {
    const slow = outbox.reserve();
    outbox.put(encoded(2));
    outbox.reserve({ isAhead: true })(encoded(3, MessageKind.Pages), () => {});
    expect(lane.words).toEqual([]);
    slow(encoded(1, MessageKind.Pages), () => {});
    expect(lane.words).toEqual([1, 2, 3]);
    const other = outbox.reserve();
    outbox.beginEpoch();
    outbox.reserve({ isAhead: true })(encoded(5, MessageKind.Pages), () => {});
    other(encoded(4, MessageKind.Pages), () => {});
    expect([lane.words, lane.epochsAt]).toEqual([[1, 2, 3, 4, 5], [4]]);
  });

  test('what is closed gives nothing more', () => {
    const batch = outbox.reserve();
    outbox.close();
    batch(encoded(1, MessageKind.Pages), () => {});
    outbox.put(encoded(2));
    expect(lane.sent).toEqual([]);
  });
});

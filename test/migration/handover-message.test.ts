import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ProtocolError } from '../../src/errors.ts';
import {
  decodeHandover,
  encodeHandover,
  HANDOVER_BYTES_MAX,
  HandoverKind,
  type HandoverMessage,
  isHandoverKind,
} from '../../src/migration/handover-message.ts';
import { MessageKind } from '../../src/stream/message.ts';

const id = {
  migration: fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => hex(bytes)),
  attempt: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
};
const reason = {
  code: fc.stringMatching(/^[A-Z]\w{0,63}$/),
  message: fc.string({ maxLength: 512 }),
};
const PLAIN = ['reserved', 'ready', 'commit', 'active', 'released'] as const;

const anyMessage: fc.Arbitrary<HandoverMessage> = fc.oneof(
  fc.record({ word: fc.constant('reserve' as const), ...id, name: fc.string({ maxLength: 256 }) }),
  fc.record({ word: fc.constantFrom('abort' as const, 'aborted' as const), ...id, ...reason }),
  fc.record({ word: fc.constantFrom(...PLAIN), ...id }),
);

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

function payloadOf(message: HandoverMessage, roomBytes = 0): Uint8Array {
  const { buffer, start, end } = encodeHandover(message, roomBytes);
  expect(start).toBe(roomBytes);
  return buffer.slice(start, end);
}

/** What decoding throws, or the message. */
function read(payload: Uint8Array): unknown {
  try {
    return decodeHandover(payload);
  } catch (error) {
    expect(error).toBeInstanceOf(ProtocolError);
    expect((error as ProtocolError).code).toBe('ERR_MESSAGE');
    return (error as ProtocolError).message;
  }
}

test('decodeHandover() reads what encodeHandover() writes', () => {
  fc.assert(
    fc.property(anyMessage, fc.integer({ min: 0, max: 64 }), (message, roomBytes) => {
      const payload = payloadOf(message, roomBytes);
      expect(payload.length).toBeLessThanOrEqual(HANDOVER_BYTES_MAX);
      expect(isHandoverKind(payload[0]!)).toBe(true);
      expect(decodeHandover(payload)).toEqual(message);
    }),
  );
});

test('kinds are none of other messages, and stay as they are', () => {
  const others: readonly number[] = Object.values(MessageKind);
  expect(Object.values(HandoverKind)).toEqual([16, 17, 18, 19, 20, 21, 22, 23]);
  expect(others.filter((kind) => isHandoverKind(kind))).toEqual([]);
  expect([0, 15, 24, 255].filter((kind) => isHandoverKind(kind))).toEqual([]);
});

test('texts that are too long are cut, also where each character takes six bytes', () => {
  const worst = '\u0001'.repeat(5000);
  const fields = { migration: 'ab'.repeat(16), attempt: 1 };
  const named = payloadOf({ word: 'reserve', ...fields, name: worst });
  expect(decodeHandover(named)).toMatchObject({ name: worst.slice(0, 256) });
  const told = payloadOf({ word: 'aborted', ...fields, code: 'no code', message: worst });
  expect(told.length).toBeLessThanOrEqual(HANDOVER_BYTES_MAX);
  expect(decodeHandover(told)).toMatchObject({
    code: 'ERR_INTERNAL',
    message: worst.slice(0, 512),
  });
});

describe('decodeHandover() trusts nothing', () => {
  test('whatever bytes come', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (payload) => {
        if (payload.length > 0) payload[0] = 14 + (payload[0]! % 12);
        read(payload);
      }),
      { numRuns: 2000 },
    );
  });

  test('a message with some bytes changed, cut, or with more behind it', () => {
    const change = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 4 });
    fc.assert(
      fc.property(anyMessage, change, fc.nat(200), (message, changes, length) => {
        const payload = new Uint8Array(length);
        payload.set(payloadOf(message).subarray(0, length));
        for (const [at, value] of changes) if (length > 0) payload[at % length] = value;
        const result = read(payload);
        // What is accepted is a message that could have been sent.
        if (typeof result === 'object') {
          const again = payloadOf(result as HandoverMessage);
          expect(decodeHandover(again)).toEqual(result);
        }
      }),
      { numRuns: 2000 },
    );
  });

  const plain = (): Uint8Array =>
    payloadOf({ word: 'commit', migration: 'ab'.repeat(16), attempt: 7 });
  const withText = (kind: number, text: string): Uint8Array =>
    new Uint8Array([...plain().fill(kind, 0, 1), ...Buffer.from(text)]);
  const { reserve, abort } = HandoverKind;

  test.each([
    ['nothing', new Uint8Array(0), /too short/],
    ['a cut one', plain().subarray(0, 23), /too short/],
    ['one with more behind it', withText(HandoverKind.commit, 'x'), /too long/],
    ['one that is huge', new Uint8Array(HANDOVER_BYTES_MAX + 1).fill(16), /too long/],
    ['another kind', plain().fill(24, 0, 1), /kind is none/],
    ['bytes that must be zero', plain().fill(1, 2, 3), /must be zero/],
    ['attempt 0', plain().fill(0, 4, 8), /attempt is 0/],
    ['no text', withText(reserve, ''), /no JSON object/],
    ['text that is no object', withText(reserve, '"vm"'), /"name" is wrong|no JSON object/],
    ['null', withText(reserve, 'null'), /no JSON object/],
    ['no name', withText(reserve, '{}'), /"name" is wrong/],
    ['a name of Object', withText(reserve, '{"__proto__":{"name":"vm"}}'), /"name" is wrong/],
    ['a name that is too long', withText(reserve, `{"name":"${'a'.repeat(257)}"}`), /"name"/],
    ['no reason', withText(abort, '{"code":"ERR_X"}'), /"message" is wrong/],
    ['a code that is none', withText(abort, '{"code":"a b","message":""}'), /"code" is none/],
  ])('%s', (_, payload, why) => {
    expect(read(payload)).toMatch(why);
  });
});

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ProtocolError } from '../../src/errors.ts';
import {
  checkGuestLayout,
  decodeHeld,
  decodeOpenGuest,
  decodeRound,
  encodeHeld,
  encodeOpenGuest,
  encodeRound,
  HELD_PAGES_MAX,
  ROUNDS_MAX,
} from '../../src/migration/guest-message.ts';
import { isHandoverKind } from '../../src/migration/handover-message.ts';
import { HASH_SECRET_BYTES, PAGE_HASH_BYTES } from '../../src/native.ts';
import { type EncodedMessage, MessageKind } from '../../src/stream/message.ts';

const OPEN = { name: 'vm1', migration: 'ab'.repeat(16), attempt: 1, isWarm: false };

const anyRoom = fc.integer({ min: 0, max: 64 });
const anyOpen = fc.record({
  name: fc.string({ maxLength: 256, unit: 'binary' }),
  migration: fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => hex(bytes)),
  attempt: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
  isWarm: fc.boolean(),
});
const anyHeld = fc.integer({ min: 0, max: 50 }).chain((pageCount) =>
  fc.record({
    isLast: fc.constant(pageCount === 0),
    block: fc.integer({ min: 0, max: 65535 }),
    firstPage: fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
    pageCount: fc.constant(pageCount),
    secret: bytesOf(HASH_SECRET_BYTES),
    hashes: bytesOf(pageCount * PAGE_HASH_BYTES),
  }),
);

function bytesOf(length: number): fc.Arbitrary<Uint8Array> {
  return fc.uint8Array({ minLength: length, maxLength: length });
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

function payloadOf({ buffer, start, end }: EncodedMessage): Uint8Array {
  return buffer.slice(start, end);
}

/** What the decoder says of a payload that it must refuse. */
function refusal(decode: (payload: Uint8Array) => unknown, payload: Uint8Array): string {
  try {
    decode(payload);
  } catch (error) {
    expect(error).toBeInstanceOf(ProtocolError);
    expect((error as ProtocolError).code).toBe('ERR_MESSAGE');
    return (error as ProtocolError).message;
  }
  throw new Error('It was taken');
}

test('kinds are none of other messages, and stay as they are', () => {
  const { OpenGuest, Round, Held } = MessageKind;
  expect([OpenGuest, Round, Held]).toEqual([8, 9, 10]);
  expect([OpenGuest, Round, Held].some((kind) => isHandoverKind(kind))).toBe(false);
  const kinds: readonly number[] = Object.values(MessageKind);
  expect(new Set(kinds).size).toBe(kinds.length);
});

describe('open guest', () => {
  test('is read as it was written', () => {
    fc.assert(
      fc.property(anyOpen, anyRoom, (open, roomBytes) => {
        const encoded = encodeOpenGuest(open, roomBytes);
        expect(encoded.start).toBe(roomBytes);
        const payload = payloadOf(encoded);
        expect(payload[0]).toBe(MessageKind.OpenGuest);
        const read = decodeOpenGuest(payload);
        // Binary strings may end in half a character, which UTF-8 does not have.
        const name = Buffer.from(open.name).toString().slice(0, 256);
        expect({ ...read, name: Buffer.from(read.name).toString() }).toEqual({ ...open, name });
      }),
    );
  });

  test('has a name of at most 256 characters, also where each takes six bytes', () => {
    const name = '\u0001'.repeat(1000);
    const payload = payloadOf(encodeOpenGuest({ ...OPEN, name }, 0));
    expect(decodeOpenGuest(payload).name).toBe(name.slice(0, 256));
  });

  const text = (value: unknown): Uint8Array =>
    Buffer.concat([Uint8Array.of(MessageKind.OpenGuest), Buffer.from(JSON.stringify(value))]);
  const good = { v: 1, ...OPEN };
  test.each([
    ['another version', { ...good, v: 2 }, /version/],
    ['no version', OPEN, /version/],
    ['no name', { ...good, name: undefined }, /name/],
    ['a long name', { ...good, name: 'x'.repeat(257) }, /name/],
    ['a migration too short', { ...good, migration: 'ab' }, /identity/],
    ['a migration in capitals', { ...good, migration: 'AB'.repeat(16) }, /identity/],
    ['a migration that is a number', { ...good, migration: 7 }, /identity/],
    ['attempt 0', { ...good, attempt: 0 }, /attempt/],
    ['attempt 1.5', { ...good, attempt: 1.5 }, /attempt/],
    ['attempt 2^32', { ...good, attempt: 2 ** 32 }, /attempt/],
    ['an attempt that is a text', { ...good, attempt: '1' }, /attempt/],
    ['no word about warmth', { ...good, isWarm: undefined }, /warm/],
    ['warmth as a number', { ...good, isWarm: 1 }, /warm/],
    ['a list', [good], /version/],
    ['null', null, /no JSON object/],
    ['a text', 'open', /no JSON object/],
    ['too much', { ...good, more: 'x'.repeat(4096) }, /too long/],
  ])('with %s is refused', (_what, value, says) => {
    expect(refusal(decodeOpenGuest, text(value))).toMatch(says);
  });

  test.each([0, 1, 20])('of %i bytes is refused', (bytes) => {
    expect(refusal(decodeOpenGuest, text(good).slice(0, bytes))).toMatch(/no JSON object/);
  });
});

describe('round', () => {
  test('is read as it was written', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: ROUNDS_MAX }), anyRoom, (round, roomBytes) => {
        const payload = payloadOf(encodeRound(round, roomBytes));
        expect([payload[0], payload.length]).toEqual([MessageKind.Round, 8]);
        expect(decodeRound(payload)).toBe(round);
      }),
    );
  });

  test.each([0, ROUNDS_MAX + 1, 2 ** 32 - 1])('number %i is refused', (round) => {
    expect(refusal(decodeRound, payloadOf(encodeRound(round, 0)))).toMatch(/out of range/);
  });

  test.each([1, 7, 9])('of %i bytes is refused', (bytes) => {
    const payload = new Uint8Array(bytes);
    payload.set(payloadOf(encodeRound(1, 0)).subarray(0, bytes));
    expect(refusal(decodeRound, payload)).toMatch(/wrong length/);
  });

  test.each([1, 2, 3])('with byte %i set is refused', (at) => {
    const payload = payloadOf(encodeRound(1, 0));
    payload[at] = 1;
    expect(refusal(decodeRound, payload)).toMatch(/not 0/);
  });
});

describe('held', () => {
  const secret = new Uint8Array(HASH_SECRET_BYTES).fill(7);
  const make = (pageCount: number, hashBytes = pageCount * PAGE_HASH_BYTES): Uint8Array => {
    const hashes = new Uint8Array(hashBytes).fill(1);
    const fields = { isLast: false, block: 0, firstPage: 0, pageCount, secret, hashes };
    return payloadOf(encodeHeld(fields, 0));
  };
  const changed = (change: (view: DataView) => void, payload = make(2)): Uint8Array => {
    change(new DataView(payload.buffer));
    return payload;
  };

  test('is read as it was written', () => {
    fc.assert(
      fc.property(anyHeld, anyRoom, (held, roomBytes) => {
        const payload = payloadOf(encodeHeld(held, roomBytes));
        expect(payload[0]).toBe(MessageKind.Held);
        expect(decodeHeld(payload)).toEqual(held);
      }),
    );
  });

  test('has as many pages as the limit says, and a secret that outlives the message', () => {
    const payload = make(HELD_PAGES_MAX);
    const held = decodeHeld(payload);
    payload.fill(0);
    expect([held.pageCount, held.secret]).toEqual([HELD_PAGES_MAX, secret]);
  });

  const first = (page: bigint) => changed((view) => view.setBigUint64(8, page, true));
  test.each<readonly [string, Uint8Array, RegExp]>([
    ['no header', make(0).slice(0, 23), /too short/],
    ['half a secret', make(0).slice(0, 215), /too short/],
    ['too many pages', make(HELD_PAGES_MAX + 1), /too long/],
    ['fewer hashes than pages', make(2, PAGE_HASH_BYTES), /wrong length/],
    ['more hashes than pages', make(2, 3 * PAGE_HASH_BYTES), /wrong length/],
    ['half a hash', make(2, 2 * PAGE_HASH_BYTES - 8), /wrong length/],
    ['an unknown flag', changed((view) => view.setUint8(1, 2)), /flags/],
    ['hashes, and the last', changed((view) => view.setUint8(1, 1)), /end of the hashes/],
    ['a page past all numbers', first(2n ** 53n), /page index/],
    ['the last page there is', first(2n ** 64n - 1n), /page index/],
    ['bytes set that must be 0', changed((view) => view.setUint8(23, 1)), /not 0/],
  ])('with %s is refused', (_what, payload, says) => {
    expect(refusal(decodeHeld, payload)).toMatch(says);
  });
});

describe('checkGuestLayout()', () => {
  const layout = (...sizes: readonly number[]) => ({
    pageBits: 12,
    hasFooter: false,
    sectionId: 0,
    blocks: sizes.map((usedBytes, index) => ({ name: `block-${index}`, usedBytes })),
  });
  test('takes blocks of whole pages', () => {
    expect(() => checkGuestLayout(layout(4096, 8192))).not.toThrow();
  });
  const twice = { ...layout(), blocks: [0, 1].map(() => ({ name: 'a', usedBytes: 4096 })) };
  test.each([
    ['no block', layout()],
    ['an empty block', layout(0)],
    ['half a page', layout(4096, 2048)],
    ['two blocks of one name', twice],
  ])('refuses %s', (_, wrong) => {
    expect(() => checkGuestLayout(wrong)).toThrow(ProtocolError);
  });
});

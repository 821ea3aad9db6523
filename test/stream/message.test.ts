import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import * as message from '../../src/stream/message.ts';

const ROOM = 32;
const payloadOf = ({ buffer, start, end }: message.EncodedMessage): Uint8Array =>
  buffer.slice(start, end);

/** Each field set to something else: what the decoder must say. */
function expectRefused(
  decode: (payload: Uint8Array) => unknown,
  payload: Uint8Array,
  says: RegExp,
) {
  let seen: unknown;
  try {
    decode(payload);
  } catch (error) {
    seen = error;
  }
  expect(seen).toMatchObject({
    name: 'ProtocolError',
    code: expect.stringMatching(/^ERR_MESSAGE/),
  });
  expect((seen as Error).message).toMatch(says);
}

function json(kind: number, headerBytes: number, text: string): Uint8Array {
  const bytes = Buffer.concat([new Uint8Array(headerBytes), Buffer.from(text)]);
  bytes[0] = kind;
  return new Uint8Array(bytes);
}

test('every encoder leaves the room it was asked for', () => {
  const place = { isInsideBefore: false, isInsideAfter: false, isVerbatim: false, lastBlock: -1 };
  const layout = { pageBits: 12, hasFooter: true, sectionId: 2, blocks: [] };
  const applied = {
    isApplied: true,
    guest: 'destination',
    digest: 0n,
    code: '',
    message: '',
  } as const;
  for (const encoded of [
    message.encodeOpen({ v: 1, name: '' }, ROOM),
    message.encodeBlocks(layout, ROOM),
    message.encodeBytes(new Uint8Array(3), place, ROOM),
    message.encodeEnd(0n, ROOM),
    message.encodeApplied(applied, ROOM),
    message.encodeStore(0, ROOM),
  ]) {
    expect(encoded.start).toBe(ROOM);
    expect(encoded.end).toBe(encoded.buffer.length);
    expect(encoded.buffer.subarray(0, ROOM).every((byte) => byte === 0)).toBe(true);
  }
});

describe('open', () => {
  test('comes back', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 256, unit: 'grapheme-ascii' }), (name) => {
        const payload = payloadOf(message.encodeOpen({ v: 1, name }, ROOM));
        expect(payload[0]).toBe(message.MessageKind.Open);
        expect(message.decodeOpen(payload)).toEqual({ v: 1, name });
      }),
    );
  });

  test.each([
    ['', /no JSON object/],
    ['{', /no JSON object/],
    ['7', /no JSON object/],
    ['null', /no JSON object/],
    ['{}', /version or name/],
    ['{"v":2,"name":"a"}', /version or name/],
    ['{"v":1}', /version or name/],
    ['{"v":1,"name":7}', /version or name/],
    [JSON.stringify({ v: 1, name: 'x'.repeat(257) }), /version or name/],
    [JSON.stringify({ v: 1, name: '', more: 'x'.repeat(5000) }), /text is too long/],
  ])('refuses %s', (text, says) => {
    expectRefused(message.decodeOpen, json(1, 1, text), says);
  });
});

describe('blocks', () => {
  const block = fc.record({
    name: fc
      .uint8Array({ minLength: 1, maxLength: 255 })
      .map((bytes) => Buffer.from(bytes).toString('latin1')),
    usedBytes: fc.integer({ min: 0, max: 2 ** 52 }),
  });
  const layout = fc.record({
    pageBits: fc.integer({ min: 10, max: 16 }),
    hasFooter: fc.boolean(),
    sectionId: fc.nat(0xffff_ffff),
    blocks: fc.array(block, { maxLength: 20 }),
  });
  const example = {
    pageBits: 12,
    hasFooter: true,
    sectionId: 2,
    blocks: [{ name: 'pc.ram', usedBytes: 4096 }],
  };
  const good = payloadOf(message.encodeBlocks(example, ROOM));

  test('comes back', () => {
    fc.assert(
      fc.property(layout, (each) => {
        expect(message.decodeBlocks(payloadOf(message.encodeBlocks(each, ROOM)))).toEqual(each);
      }),
    );
  });

  test('of as many blocks as there may be comes back, one more is refused', () => {
    const many = (count: number) => ({
      ...example,
      blocks: Array.from({ length: count }, (_, index) => ({ name: `b${index}`, usedBytes: 1 })),
    });
    const most = payloadOf(message.encodeBlocks(many(4096), ROOM));
    expect(message.decodeBlocks(most).blocks).toHaveLength(4096);
    const tooMany = payloadOf(message.encodeBlocks(many(4097), ROOM));
    expectRefused(message.decodeBlocks, tooMany, /more than 4096 blocks/);
  });

  test('refuses every shorter and longer one', () => {
    for (let count = 0; count < good.length; count++) {
      expectRefused(message.decodeBlocks, good.slice(0, count), /too short|cut|no name/);
    }
    expectRefused(message.decodeBlocks, Uint8Array.of(...good, 0), /too long/);
  });

  test.each([
    ['page bits too small', 1, 9, /page bits/],
    ['page bits too large', 1, 17, /page bits/],
    ['a size too large', 10 + 6, 0x11, /too large/],
    ['a name that is empty', 18, 0, /no name/],
    ['a name beyond the end', 18, 7, /no name/],
  ])('refuses %s', (_what, at, value, says) => {
    expectRefused(message.decodeBlocks, good.with(at, value), says);
  });
});

describe('bytes', () => {
  const place = fc.record({
    isInsideBefore: fc.boolean(),
    isInsideAfter: fc.boolean(),
    isVerbatim: fc.boolean(),
    lastBlock: fc.integer({ min: -1, max: 4095 }),
  });
  const somewhere = { isInsideBefore: true, isInsideAfter: false, isVerbatim: false, lastBlock: 3 };
  const good = payloadOf(message.encodeBytes(Uint8Array.of(1, 2, 3), somewhere, ROOM));

  test('comes back', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 3000 }), place, (data, each) => {
        const found = message.decodeBytes(payloadOf(message.encodeBytes(data, each, ROOM)));
        expect(Buffer.compare(found.data, data)).toBe(0);
        expect(found.place).toEqual(each);
      }),
    );
  });

  test('refuses every shorter and longer one', () => {
    for (let count = 0; count < good.length; count++) {
      expectRefused(message.decodeBytes, good.slice(0, count), /too short|wrong length/);
    }
    expectRefused(message.decodeBytes, Uint8Array.of(...good, 0), /wrong length/);
  });

  test('refuses every byte that changed', () => {
    // The first is the message's kind: it says which decoder is asked.
    for (let at = 0; at < good.length; at++) {
      expectRefused(message.decodeBytes, good.with(at, good[at]! ^ 0x20), /length|differ/);
    }
  });

  test('refuses more data than there may be', () => {
    const data = new Uint8Array(message.BYTES_DATA_MAX + 1);
    const encoded = payloadOf(message.encodeBytes(data, somewhere, ROOM));
    expectRefused(message.decodeBytes, encoded, /wrong length/);
    const most = payloadOf(message.encodeBytes(data.subarray(1), somewhere, ROOM));
    expect(message.decodeBytes(most).data).toHaveLength(message.BYTES_DATA_MAX);
  });
});

describe('end', () => {
  test('comes back', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (digest) => {
        expect(message.decodeEnd(payloadOf(message.encodeEnd(digest, ROOM)))).toBe(digest);
      }),
    );
  });

  test.each([1, 15, 17])('refuses %i bytes', (count) => {
    expectRefused(message.decodeEnd, new Uint8Array(count), /wrong length/);
  });
});

describe('applied', () => {
  const base = { digest: 77n, code: 'ERR_QEMU_CLOSED', message: 'it went' };

  test.each([
    { ...base, isApplied: true, guest: 'destination', code: '', message: '' } as const,
    { ...base, isApplied: false, guest: 'source' } as const,
    { ...base, isApplied: false, guest: 'unknown' } as const,
    { ...base, isApplied: false, guest: 'destination' } as const,
  ])('comes back: $isApplied, guest $guest', (applied) => {
    expect(message.decodeApplied(payloadOf(message.encodeApplied(applied, ROOM)))).toEqual(applied);
  });

  test('a reason of any length and script is carried, cut if need be', () => {
    for (const unit of ['x', 'é', '界', '\u0001', '"', '\ud83d\ude00', '\ud800']) {
      const applied = { ...base, isApplied: false, guest: 'source', message: unit.repeat(4000) };
      const payload = payloadOf(message.encodeApplied(applied as message.AppliedMessage, ROOM));
      const found = message.decodeApplied(payload).message;
      expect(applied.message.startsWith(found)).toBe(true);
      expect(found.length).toBeGreaterThan(500);
    }
  });

  test('what a peer says in other ways is taken with care', () => {
    const failed = (text: string): Uint8Array => json(6, 16, text).with(1, 1);
    expect(message.decodeApplied(failed('{}'))).toMatchObject({ code: '', guest: 'source' });
    expect(message.decodeApplied(failed('{"guest":"mars"}')).guest).toBe('source');
    expectRefused(message.decodeApplied, failed(''), /no JSON object/);
    expectRefused(message.decodeApplied, failed('[1'), /no JSON object/);
    expectRefused(message.decodeApplied, new Uint8Array(15), /too short/);
    expectRefused(message.decodeApplied, failed(' '.repeat(5000)), /too long/);
  });
});

describe('store', () => {
  test('comes back', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 52 }), (bytes) => {
        const payload = payloadOf(message.encodeStore(bytes, ROOM));
        expect(payload[0]).toBe(message.MessageKind.Store);
        expect(message.decodeStore(payload)).toBe(bytes);
      }),
    );
  });

  test.each([2 ** 52 + 1, 2 ** 53])('refuses %i bytes', (bytes) => {
    expectRefused(message.decodeStore, payloadOf(message.encodeStore(bytes, ROOM)), /too large/);
  });

  test('refuses the largest number there is', () => {
    expectRefused(message.decodeStore, new Uint8Array(16).fill(255).with(0, 7), /too large/);
  });

  test.each([1, 15, 17])('refuses a message of %i bytes', (count) => {
    expectRefused(message.decodeStore, new Uint8Array(count), /wrong length/);
  });
});

describe('Digest', () => {
  const place = { isInsideBefore: false, isInsideAfter: false, isVerbatim: false, lastBlock: -1 };
  const make = (value: number) => message.encodeBytes(Uint8Array.of(value), place, ROOM);

  test('does not depend on the order, but on contents and sequences', () => {
    const items = [1, 2, 3].map((value) => ({ sequence: value, ...make(value) }));
    const sum = (list: typeof items): bigint => {
      const digest = new message.Digest();
      for (const { buffer, start, sequence } of list) digest.add(buffer, start, sequence);
      return digest.value;
    };
    const whole = sum(items);
    expect(sum([...items].reverse())).toBe(whole);
    expect(sum(items.slice(1))).not.toBe(whole);
    expect(sum([...items, items[0]!])).not.toBe(whole);
    expect(sum([{ ...items[0]!, sequence: 9 }, ...items.slice(1)])).not.toBe(whole);
    expect(sum([{ ...make(4), sequence: 1 }, ...items.slice(1)])).not.toBe(whole);
  });

  test('is printed with 16 digits', () => {
    expect(message.formatDigest(0xabcn)).toBe('0000000000000abc');
  });
});

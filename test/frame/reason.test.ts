import { describe, expect, test } from 'vitest';
import { SMALL_PAYLOAD_BYTES_MAX } from '../../src/frame/limits.ts';
import { decodeReason, encodeReason } from '../../src/frame/reason.ts';

const json = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));

describe('reason', () => {
  test('comes back', () => {
    const reason = { code: 'ERR_PATH_LOST', message: 'Path a to b was lost: "ü"' };
    expect(decodeReason(encodeReason(reason))).toEqual(reason);
    expect(decodeReason(encodeReason({ code: '', message: '' }))).toEqual({
      code: '',
      message: '',
    });
  });

  test.each(['x'.repeat(5000), '\u{1f600}'.repeat(5000), '"'.repeat(5000), '\u{1}'.repeat(5000)])(
    'fits its frame however long the message is',
    (message) => {
      const bytes = encodeReason({ code: 'ERR_INTERNAL', message });
      expect(bytes.length).toBeLessThanOrEqual(SMALL_PAYLOAD_BYTES_MAX);
      expect(decodeReason(bytes).code).toBe('ERR_INTERNAL');
    },
  );

  test('never carries a code that the peer would not take', () => {
    expect(decodeReason(encodeReason({ code: 'no code', message: 'm' })).code).toBe('ERR_INTERNAL');
  });

  test('cannot write on a terminal', () => {
    const message = 'one\u001b[31mred\r\ntwo\u202e\u2028three';
    expect(decodeReason(json({ code: 'A', message })).message).toBe('one [31mred two three');
  });

  test.each([
    ['nothing', new Uint8Array(0)],
    ['no JSON', new TextEncoder().encode('{')],
    ['no UTF-8', new Uint8Array([0x22, 0xff, 0x22])],
    ['null', json(null)],
    ['a list', json([])],
    ['no message', json({ code: 'A' })],
    ['no code', json({ message: 'm' })],
    ['a number as code', json({ code: 1, message: 'm' })],
    ['a code in small letters', json({ code: 'err', message: 'm' })],
    ['a long code', json({ code: 'E'.repeat(65), message: 'm' })],
    ['a list as message', json({ code: 'A', message: [] })],
  ])('is refused: %s', (_what, bytes) => {
    expect(() => decodeReason(bytes)).toThrow('Cannot read reason');
  });
});

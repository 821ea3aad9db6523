import { describe, expect, test } from 'vitest';
import { codeOf } from '../../src/errors.ts';
import {
  decodeChallenge,
  decodeHello,
  decodeProof,
  encodeChallenge,
  encodeHello,
  encodeProof,
  Intent,
} from '../../src/frame/hello.ts';
import { WINDOW_BYTES_MAX, WINDOW_BYTES_MIN } from '../../src/frame/limits.ts';
import { createPrng, exactRandomBytes } from '../support/prng.ts';

const random = createPrng(1);
const HELLO = {
  intent: Intent.Join,
  versions: [2, 1],
  id: exactRandomBytes(random, 16),
  nonce: exactRandomBytes(random, 32),
};
const PROOF = { mac: exactRandomBytes(random, 32), windowBytes: 1 << 20 };

function codeOfHello(change: (bytes: Uint8Array) => Uint8Array): string {
  try {
    decodeHello(change(encodeHello(HELLO)));
  } catch (error) {
    return codeOf(error);
  }
  return 'decoded';
}

describe('Hello', () => {
  test('comes back', () => {
    expect(decodeHello(encodeHello(HELLO))).toEqual(HELLO);
  });

  test('has the layout of the protocol', () => {
    const bytes = encodeHello(HELLO);
    expect(new TextDecoder().decode(bytes.subarray(0, 8))).toBe('pagelane');
    expect([...bytes.subarray(8, 10)]).toEqual([1, 2]);
    expect(bytes.subarray(10, 26)).toEqual(HELLO.id);
    expect(bytes.subarray(26, 58)).toEqual(HELLO.nonce);
    expect([...bytes.subarray(58)]).toEqual([2, 0, 1, 0]);
  });

  test.each([
    ['every shorter one', (bytes: Uint8Array) => bytes.subarray(0, bytes.length - 1)],
    ['a longer one', (bytes: Uint8Array) => new Uint8Array([...bytes, 0])],
    ['nothing', () => new Uint8Array(0)],
    ['another magic', (bytes: Uint8Array) => bytes.with(0, 0x50)],
    ['another intent', (bytes: Uint8Array) => bytes.with(8, 2)],
    ['no version', (bytes: Uint8Array) => bytes.with(9, 0).subarray(0, 58)],
    ['nine versions', (bytes: Uint8Array) => new Uint8Array([...bytes.with(9, 9), ...Array(14)])],
  ])('is refused: %s', (_what, change) => {
    expect(codeOfHello(change)).toBe('ERR_HANDSHAKE');
  });
});

describe('Challenge', () => {
  test('comes back', () => {
    const challenge = { version: 513, nonce: HELLO.nonce };
    const bytes = encodeChallenge(challenge);
    expect(decodeChallenge(bytes)).toEqual(challenge);
    expect([...bytes.subarray(0, 2)]).toEqual([1, 2]);
  });

  test('is refused with another length', () => {
    expect(() => decodeChallenge(new Uint8Array(33))).toThrow('Cannot read Challenge');
    expect(() => decodeChallenge(new Uint8Array(35))).toThrow('Cannot read Challenge');
  });
});

describe('Proof', () => {
  test('comes back', () => {
    expect(decodeProof(encodeProof(PROOF))).toEqual(PROOF);
  });

  test('is refused with another length', () => {
    expect(() => decodeProof(new Uint8Array(35))).toThrow('Cannot read Proof');
    expect(() => decodeProof(new Uint8Array(37))).toThrow('Cannot read Proof');
  });

  test.each([
    [WINDOW_BYTES_MIN - 1, false],
    [WINDOW_BYTES_MIN, true],
    [WINDOW_BYTES_MAX, true],
    [WINDOW_BYTES_MAX + 1, false],
    [0, false],
    [2 ** 32 - 1, false],
  ])('with a window of %i bytes is accepted: %s', (windowBytes, isAccepted) => {
    const bytes = encodeProof({ ...PROOF, windowBytes });
    if (isAccepted) expect(decodeProof(bytes).windowBytes).toBe(windowBytes);
    else expect(() => decodeProof(bytes)).toThrow(`a window of ${windowBytes} bytes`);
  });
});

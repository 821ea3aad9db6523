import { expect, test } from 'vitest';
import { readU16, readU32, readU64, writeU16, writeU32, writeU64 } from '../../src/frame/bytes.ts';

test('numbers are little-endian', () => {
  const bytes = new Uint8Array(16);
  writeU16(bytes, 0, 0x0102);
  writeU32(bytes, 2, 0x03040506);
  writeU64(bytes, 6, 0x0708090a0b0c0d);
  expect([...bytes]).toEqual([2, 1, 6, 5, 4, 3, 0xd, 0xc, 0xb, 0xa, 9, 8, 7, 0, 0, 0]);
});

test.each([0, 1, 255, 256, 65535])('u16 %i comes back', (value) => {
  const bytes = new Uint8Array(2);
  writeU16(bytes, 0, value);
  expect(readU16(bytes, 0)).toBe(value);
});

test.each([0, 1, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1])('u32 %i comes back', (value) => {
  const bytes = new Uint8Array(4);
  writeU32(bytes, 0, value);
  expect(readU32(bytes, 0)).toBe(value);
});

test.each([0, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, Number.MAX_SAFE_INTEGER])(
  'u64 %i comes back',
  (value) => {
    const bytes = new Uint8Array(8);
    writeU64(bytes, 0, value);
    expect(readU64(bytes, 0)).toBe(value);
  },
);

test('readU64() gives more than 2^53 - 1 for what is more', () => {
  expect(readU64(new Uint8Array([0, 0, 0, 0, 0, 0, 0x20, 0]), 0)).toBe(2 ** 53);
  expect(readU64(new Uint8Array(8).fill(0xff), 0)).toBeGreaterThan(Number.MAX_SAFE_INTEGER);
});

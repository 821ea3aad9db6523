import { expect, test } from 'vitest';
import { native } from '../../src/native.ts';

const GOLDEN = 0x9e3779b185ebca8dn;

/** Bytes, seed, XXH3_64 as the reference library (libxxhash 0.8.1) gives it; byte i is 7i + 3. */
const VECTORS: readonly [number, bigint, bigint][] = [
  [0, 0n, 0x2d06800538d394c2n],
  [0, GOLDEN, 0xa8a6b918b2f0364an],
  [1, 0n, 0x13e608bc156defedn],
  [3, GOLDEN, 0xe485fd80de485eaan],
  [8, 0n, 0x60539db630471163n],
  [16, GOLDEN, 0xdcfb75a78fe12c78n],
  [17, 0n, 0x714a04408e79b80fn],
  [128, GOLDEN, 0xed404fd74d6c438en],
  [129, 0n, 0xc664bf3311c6abc4n],
  [240, GOLDEN, 0x1cad2a746a09581dn],
  [241, 0n, 0x8beadd3a8874fe17n],
  [241, GOLDEN, 0xc38e7360f12e549an],
  [1024, 0n, 0x9b81661c641c72b1n],
  [2048, 0n, 0xabe604813ba62ed1n],
  [2048, GOLDEN, 0x60847f8e3c9807c5n],
];

test.each(VECTORS)('hash64() of %i bytes with seed %i is XXH3_64', (byteCount, seed, expected) => {
  const bytes = new Uint8Array(new ArrayBuffer(byteCount)).map((_, index) => index * 7 + 3);
  expect(native.hash64(bytes, seed)).toBe(expected);
  for (const variant of native.features().hashVariants) {
    expect(native.hash64(bytes, seed, variant)).toBe(expected);
  }
});

test('hash64() does not depend on where the bytes lie', () => {
  const bytes = new Uint8Array(5000).map((_, index) => index * 31);
  for (let offset = 0; offset < 64; offset++) {
    const moved = new Uint8Array(new ArrayBuffer(5000 + offset), offset);
    moved.set(bytes);
    expect(native.hash64(moved, 9n)).toBe(native.hash64(bytes, 9n));
  }
});

import { describe, expect, test } from 'vitest';
import { PAYLOAD_BYTES_MAX } from '../../src/frame/limits.ts';
import { POOLED_BYTES_MIN } from '../../src/path/limits.ts';
import { BufferPool, sizeClass } from '../../src/path/pool.ts';
import { createPrng } from '../support/prng.ts';

describe('sizeClass()', () => {
  test('is enough, at most a quarter too much, and its own class', () => {
    const random = createPrng(1);
    for (let round = 0; round < 5000; round++) {
      const bytes = POOLED_BYTES_MIN + Math.floor(random() * PAYLOAD_BYTES_MAX);
      const size = sizeClass(bytes);
      expect(size).toBeGreaterThanOrEqual(bytes);
      expect(size).toBeLessThanOrEqual(bytes * 1.25);
      expect(sizeClass(size)).toBe(size);
    }
  });
});

describe('BufferPool', () => {
  test('gives buffers of exactly the length that is asked for', () => {
    const pool = new BufferPool();
    for (const bytes of [1, 100, POOLED_BYTES_MIN, 524_321, PAYLOAD_BYTES_MAX]) {
      expect(pool.acquire(bytes).length).toBe(bytes);
    }
  });

  test('gives a released buffer again, for another length of its class', () => {
    const pool = new BufferPool();
    const first = pool.acquire(500_000);
    pool.release(first);
    const second = pool.acquire(500_001);
    expect(second.buffer).toBe(first.buffer);
    expect(second.length).toBe(500_001);
    expect(pool.freeBytes).toBe(0);
  });

  test('never gives a buffer to two', () => {
    const pool = new BufferPool();
    const random = createPrng(2);
    const held = new Map<ArrayBufferLike, Uint8Array>();
    for (let round = 0; round < 2000; round++) {
      const [one] = held.values();
      if (one !== undefined && random() < 0.5) {
        held.delete(one.buffer);
        pool.release(one);
      } else {
        const buffer = pool.acquire(POOLED_BYTES_MIN + Math.floor(random() * 100_000));
        expect(held.has(buffer.buffer)).toBe(false);
        held.set(buffer.buffer, buffer);
      }
    }
  });

  test('keeps no more than it may, and no small ones', () => {
    const pool = new BufferPool({ freeBytesMax: 1_500_000 });
    const buffers = Array.from({ length: 5 }, () => pool.acquire(1 << 19));
    for (const buffer of buffers) pool.release(buffer);
    pool.release(pool.acquire(100));
    expect(pool.freeBytes).toBe(2 << 19);
    pool.clear();
    expect(pool.freeBytes).toBe(0);
  });

  test('takes nothing that is not its own size', () => {
    const pool = new BufferPool();
    pool.release(new Uint8Array(sizeClass(100_000) + 1));
    pool.release(new Uint8Array(3));
    expect(pool.freeBytes).toBe(0);
  });
});

import { PAYLOAD_BYTES_MAX } from '../frame/limits.ts';
import { POOL_FREE_BYTES_MAX, POOLED_BYTES_MIN } from './limits.ts';

/** Sizes per doubling: a buffer is at most a quarter too large. */
const STEPS = 4;

/**
 * Buffers of payloads, used again.
 *
 * Sizes come in classes; small buffers are not kept. What is kept is bounded: see `limits.ts`.
 * The bytes of an acquired buffer are whatever they were.
 */
export class BufferPool {
  readonly #free = new Map<number, ArrayBuffer[]>();
  readonly #freeBytesMax: number;
  #freeBytes = 0;

  constructor({ freeBytesMax = POOL_FREE_BYTES_MAX }: { freeBytesMax?: number } = {}) {
    this.#freeBytesMax = freeBytesMax;
  }

  /** Bytes that the pool holds for later. */
  get freeBytes(): number {
    return this.#freeBytes;
  }

  /** Gives a buffer of exactly `bytes` bytes that nobody else has. */
  acquire(bytes: number): Uint8Array {
    if (bytes < POOLED_BYTES_MIN || bytes > PAYLOAD_BYTES_MAX) return allocate(bytes);
    const size = sizeClass(bytes);
    const kept = this.#free.get(size)?.pop();
    if (kept === undefined) return allocate(size).subarray(0, bytes);
    this.#freeBytes -= size;
    return new Uint8Array(kept, 0, bytes);
  }

  /** Takes back a buffer of `acquire`, which must not be used any more. */
  release(buffer: Uint8Array): void {
    const memory = buffer.buffer;
    const size = memory.byteLength;
    if (size < POOLED_BYTES_MIN || this.#freeBytes + size > this.#freeBytesMax) return;
    if (!(memory instanceof ArrayBuffer) || size !== sizeClass(size)) return;
    const list = this.#free.get(size);
    if (list === undefined) this.#free.set(size, [memory]);
    else list.push(memory);
    this.#freeBytes += size;
  }

  /** Drops what it holds. */
  clear(): void {
    this.#free.clear();
    this.#freeBytes = 0;
  }
}

/** The smallest size class that holds `bytes`: 4, 5, 6 or 7 times a power of two. */
export function sizeClass(bytes: number): number {
  const step = Math.max(1, 2 ** Math.ceil(Math.log2(bytes)) / (2 * STEPS));
  return Math.ceil(bytes / step) * step;
}

/** Memory that is not cleared first: a payload overwrites it. */
function allocate(bytes: number): Uint8Array {
  const memory = Buffer.allocUnsafeSlow(bytes);
  return new Uint8Array(memory.buffer, memory.byteOffset, bytes);
}

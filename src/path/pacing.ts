import { PACING_BURST_MS } from './limits.ts';

/**
 * Lets bytes pass at a given rate.
 *
 * A frame passes as soon as the debt of those before it is paid, and leaves its own: so frames of
 * any length pass, and the rate is kept in the long run. What was not used for a while may be made
 * up for in one burst, as long as `PACING_BURST_MS`.
 */
export class Pacer {
  #bytesPerSecond: number;
  /** Bytes that may pass; negative for a debt. Right at `#atMs`. */
  #allowedBytes = 0;
  #atMs: number;

  /** @param bytesPerSecond More than 0. */
  constructor(bytesPerSecond: number, nowMs: number) {
    this.#bytesPerSecond = bytesPerSecond;
    this.#atMs = nowMs;
  }

  get bytesPerSecond(): number {
    return this.#bytesPerSecond;
  }

  /** How long the next frame has to wait, whatever its length; milliseconds. */
  waitMs(nowMs: number): number {
    this.#refill(nowMs);
    // Less than a byte is what rounding leaves.
    return this.#allowedBytes > -1 ? 0 : (-this.#allowedBytes * 1000) / this.#bytesPerSecond;
  }

  /** Notes that `bytes` bytes have passed. */
  pass(bytes: number, nowMs: number): void {
    this.#refill(nowMs);
    this.#allowedBytes -= bytes;
  }

  #refill(nowMs: number): void {
    const most = (this.#bytesPerSecond * PACING_BURST_MS) / 1000;
    const earned = (this.#bytesPerSecond * (nowMs - this.#atMs)) / 1000;
    this.#allowedBytes = Math.min(most, this.#allowedBytes + earned);
    this.#atMs = nowMs;
  }
}

import { RATE_SPAN_MS } from './limits.ts';

/**
 * Rate of an intermediary, learnt from what it took or gave while it was busy.
 *
 * smoothed = 3/4 smoothed + 1/4 sample; the first sample is taken as it is. A sample is made of
 * RATE_SPAN_MS of busy time; before the first, what there is must do.
 */
export class BusyRate {
  #smoothed = 0;
  #spanBytes = 0;
  #spanMs = 0;
  #inFlight = 0;
  #atMs = 0;

  /** Bytes per second; 0 as long as nothing is known. */
  get bytesPerSecond(): number {
    if (this.#smoothed > 0) return this.#smoothed;
    return this.#spanMs > 0 ? (this.#spanBytes * 1000) / this.#spanMs : 0;
  }

  /** Something is on its way. */
  begin(nowMs: number): void {
    this.#pass(nowMs);
    this.#inFlight++;
  }

  /** It has arrived; with 0 bytes, it has failed. */
  end(bytes: number, nowMs: number): void {
    this.#pass(nowMs);
    this.#inFlight--;
    this.#spanBytes += bytes;
    if (this.#spanMs < RATE_SPAN_MS) return;
    const sample = (this.#spanBytes * 1000) / this.#spanMs;
    this.#smoothed = this.#smoothed === 0 ? sample : (3 * this.#smoothed + sample) / 4;
    this.#spanBytes = 0;
    this.#spanMs = 0;
  }

  #pass(nowMs: number): void {
    if (this.#inFlight > 0) this.#spanMs += nowMs - this.#atMs;
    this.#atMs = nowMs;
  }
}

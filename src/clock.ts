/** Tells time and waits. Tests and simulations bring their own. */
export interface Clock {
  /** Milliseconds from some fixed moment; never goes back. */
  now(): number;
  /**
   * Calls `callback` once, `delayMs` from now.
   *
   * @returns A function that cancels the call; harmless afterwards.
   */
  after(delayMs: number, callback: () => void): () => void;
}

/** The machine's monotonic clock. Its timers do not keep the process alive. */
export const systemClock: Clock = {
  now: () => performance.now(),
  after(delayMs, callback) {
    const timer = setTimeout(callback, delayMs);
    timer.unref();
    return () => clearTimeout(timer);
  },
};

/** Tells time and waits. Tests and simulations bring their own. */
export interface Clock {
  /** Milliseconds from some fixed moment; never goes back. */
  now(): number;
  /**
   * Calls `callback` once, `delayMs` from now.
   *
   * @param options.keepsAlive Whether the process waits for it. @default false
   * @returns A function that cancels the call; harmless afterwards.
   */
  after(delayMs: number, callback: () => void, options?: { keepsAlive?: boolean }): () => void;
}

/** The machine's monotonic clock. */
export const systemClock: Clock = {
  now: () => performance.now(),
  after(delayMs, callback, { keepsAlive = false } = {}) {
    const timer = setTimeout(callback, delayMs);
    if (!keepsAlive) timer.unref();
    return () => clearTimeout(timer);
  },
};

/** What to do about SIGINT and SIGTERM. */
export interface InterruptOptions {
  /** Hears of the first one. */
  readonly onFirst: () => void;
  /** Exit code if a second one ends the process on the spot: it says where the guest is then. */
  readonly forcedExitCode: () => number;
}

/**
 * Turns the first SIGINT or SIGTERM into an abort, and a second one into the end of the process.
 */
export function interruptSignal({ onFirst, forcedExitCode }: InterruptOptions): AbortSignal {
  const controller = new AbortController();
  let count = 0;
  const interrupt = (): void => {
    count++;
    if (count > 1) process.exit(forcedExitCode());
    onFirst();
    controller.abort(new DOMException('interrupted', 'AbortError'));
  };
  process.on('SIGINT', interrupt);
  process.on('SIGTERM', interrupt);
  return controller.signal;
}

/** Whether an error says that the user ended it. */
export function isInterrupt(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError';
}

/** Resolves at the next SIGINT or SIGTERM. */
export function nextInterrupt(): Promise<void> {
  process.removeAllListeners('SIGINT');
  process.removeAllListeners('SIGTERM');
  return new Promise((resolve) => {
    process.once('SIGINT', () => resolve());
    process.once('SIGTERM', () => resolve());
  });
}

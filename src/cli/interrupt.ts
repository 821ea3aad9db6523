/**
 * Turns the first SIGINT or SIGTERM into an abort, and a second one into the end of the process.
 */
export function interruptSignal(onFirst: () => void): AbortSignal {
  const controller = new AbortController();
  let count = 0;
  const interrupt = (): void => {
    count++;
    if (count > 1) process.exit(130);
    onFirst();
    controller.abort(new DOMException('interrupted', 'AbortError'));
  };
  process.on('SIGINT', interrupt);
  process.on('SIGTERM', interrupt);
  return controller.signal;
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

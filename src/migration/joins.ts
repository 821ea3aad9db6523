/**
 * Lets channels join that QEMU opened before it wrote what was read: after two turns of the event
 * loop they have been accepted.
 */
export class Joins {
  readonly #onIn: () => void;
  #state: 'open' | 'coming' | 'in' = 'open';

  /** @param onIn Called when those that were on their way have joined. */
  constructor(onIn: () => void) {
    this.#onIn = onIn;
  }

  /** Whether all have joined that were opened before the first call; else ask again at `onIn`. */
  areIn(): boolean {
    if (this.#state === 'open') {
      this.#state = 'coming';
      setImmediate(() =>
        setImmediate(() => {
          this.#state = 'in';
          this.#onIn();
        }),
      );
    }
    return this.#state === 'in';
  }
}

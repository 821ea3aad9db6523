import { SEQUENCE_WINDOW } from './limits.ts';

/**
 * Which sequences were seen: every one below `base`, and some of the `SEQUENCE_WINDOW` from there.
 *
 * Takes the same memory whatever is put into it.
 */
export class SequenceSet {
  readonly #bits: Uint8Array = new Uint8Array(SEQUENCE_WINDOW);
  #base = 0;

  /** The lowest sequence that was not seen. */
  get base(): number {
    return this.#base;
  }

  /** Whether `sequence` was seen. */
  has(sequence: number): boolean {
    if (sequence < this.#base) return true;
    return this.fits(sequence) && this.#bits[sequence % SEQUENCE_WINDOW] === 1;
  }

  /** Whether `sequence` is not too far ahead to be added. */
  fits(sequence: number): boolean {
    return sequence < this.#base + SEQUENCE_WINDOW;
  }

  /** Adds a sequence that fits and was not seen. */
  add(sequence: number): void {
    this.#bits[sequence % SEQUENCE_WINDOW] = 1;
    while (this.#bits[this.#base % SEQUENCE_WINDOW] === 1) {
      this.#bits[this.#base % SEQUENCE_WINDOW] = 0;
      this.#base++;
    }
  }
}

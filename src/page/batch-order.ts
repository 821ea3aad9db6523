import { ProtocolError } from '../errors.ts';
import { SequenceSet } from '../frame/sequence-set.ts';

/**
 * When the batches of a stream may be decoded: each after all of those that it relies on. They are
 * begun in the order they arrived, and done in any.
 */
export class BatchOrder {
  readonly #begun = new SequenceSet();
  readonly #done = new SequenceSet();
  #waiting: { readonly base: number; readonly resume: () => void }[] = [];

  /**
   * Begins batch `number`, which relies on all before `base`.
   *
   * @returns When it may be decoded; undefined for at once.
   * @throws {ProtocolError} If the batch has no place, or relies on one that is not here.
   */
  begin(number: number, base: number): Promise<void> | undefined {
    if (this.#begun.has(number) || !this.#begun.fits(number)) {
      const text = `Cannot decode batch: number ${number} came before, or is too far ahead`;
      throw new ProtocolError('ERR_BATCH_NUMBER', text);
    }
    this.#begun.add(number);
    if (this.#begun.base < base) {
      const text =
        `Cannot decode batch: it relies on all before ${base}, and ` +
        `${this.#begun.base} is not here`;
      throw new ProtocolError('ERR_BATCH_REFERENCE', text);
    }
    if (this.#done.base >= base) return undefined;
    return new Promise((resume) => this.#waiting.push({ base, resume }));
  }

  /** Lets all go that wait: none of them is to be decoded. */
  letGo(): void {
    for (const { resume } of this.#waiting.splice(0)) resume();
  }

  /** Batch `number` is decoded. */
  finish(number: number): void {
    this.#done.add(number);
    const { base } = this.#done;
    for (const each of this.#waiting) if (each.base <= base) each.resume();
    this.#waiting = this.#waiting.filter((each) => each.base > base);
  }
}

import { FOOTER_BYTES, SectionType } from './format.ts';

const MARK_BYTES: number = FOOTER_BYTES + 1;

/**
 * Tells whether a source has written all of its post-copy: a footer, then EOF. Pages could look the
 * same at the very place where they are cut; whoever asks must not rely on a yes.
 */
export class EndMark {
  readonly #last = new Uint8Array(MARK_BYTES);

  /** Looks at the next bytes of the stream. */
  push(chunk: Uint8Array): void {
    const seen = chunk.subarray(Math.max(0, chunk.length - MARK_BYTES));
    this.#last.copyWithin(0, seen.length);
    this.#last.set(seen, MARK_BYTES - seen.length);
  }

  /** Whether the stream so far ends as a post-copy does. */
  get isSeen(): boolean {
    return this.#last[0] === SectionType.Footer && this.#last[FOOTER_BYTES] === SectionType.Eof;
  }
}

/* Chosen by us */

/** Opaque bytes gathered before they are handed on. */
const BYTES_MAX = 64 * 1024;

/** Gathers opaque bytes that follow each other, so that they go on together. */
export class OpaqueBytes {
  readonly #emit: (bytes: Uint8Array, isInsideAfter: boolean, isInsideBefore: boolean) => void;
  readonly #bytes = new Uint8Array(BYTES_MAX);
  #byteCount = 0;
  #startsInside = false;

  /** @param emit Gets what was gathered; it is overwritten afterwards. */
  constructor(emit: (bytes: Uint8Array, isInsideAfter: boolean, isInsideBefore: boolean) => void) {
    this.#emit = emit;
  }

  /** Adds bytes. @param isInside Whether a RAM section is open there. */
  put(bytes: Uint8Array, isInside: boolean): void {
    let at = 0;
    while (at < bytes.length) {
      if (this.#byteCount === BYTES_MAX) this.flush(isInside);
      if (this.#byteCount === 0) this.#startsInside = isInside;
      const count = Math.min(bytes.length - at, BYTES_MAX - this.#byteCount);
      this.#bytes.set(bytes.subarray(at, at + count), this.#byteCount);
      this.#byteCount += count;
      at += count;
    }
  }

  /** Hands on what there is. @param isInsideAfter Whether a RAM section is open after it. */
  flush(isInsideAfter: boolean): void {
    if (this.#byteCount === 0) return;
    const bytes = this.#bytes.subarray(0, this.#byteCount);
    this.#byteCount = 0;
    this.#emit(bytes, isInsideAfter, this.#startsInside);
  }
}

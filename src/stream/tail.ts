import { SectionType } from './format.ts';

/* Chosen by us */

/** Most bytes of a stream's end that are looked at; a description is some tens of KiB. */
const TAIL_BYTES_MAX = 1024 * 1024;

/**
 * Tells a whole stream from one that was cut in its device state, which has no lengths of its own.
 *
 * A whole pre-copy stream ends with EOF and a VMDESCRIPTION whose length reaches exactly to its
 * last byte. Needed where no return path says how it went.
 */
export class TailWatcher {
  #bytes: Uint8Array = new Uint8Array(64 * 1024);
  #count = 0;

  /** Looks at the next bytes of the stream. */
  push(chunk: Uint8Array): void {
    const bytes = chunk.subarray(Math.max(0, chunk.length - TAIL_BYTES_MAX));
    if (this.#count + bytes.length > this.#bytes.length) this.#makeRoom(bytes.length);
    this.#bytes.set(bytes, this.#count);
    this.#count += bytes.length;
  }

  /** True if the bytes so far end as a whole stream does. */
  endsWhole(): boolean {
    return this.endBytes() > 0;
  }

  /** Bytes of EOF and description at the end of what is a whole stream; 0 if it is none. */
  endBytes(): number {
    const view = new DataView(this.#bytes.buffer, 0, this.#count);
    for (let at = this.#count - 5; at >= 1; at--) {
      if (this.#bytes[at] !== SectionType.VmDescription) continue;
      const isWhole = view.getUint32(at + 1) === this.#count - at - 5;
      if (isWhole && this.#bytes[at - 1] === SectionType.Eof) return this.#count - at + 1;
    }
    return 0;
  }

  #makeRoom(moreBytes: number): void {
    const keptBytes = Math.min(this.#count, TAIL_BYTES_MAX);
    const grown = new Uint8Array(2 * (keptBytes + moreBytes));
    grown.set(this.#bytes.subarray(this.#count - keptBytes, this.#count));
    this.#bytes = grown;
    this.#count = keptBytes;
  }
}

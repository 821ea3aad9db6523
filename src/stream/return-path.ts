import { joined, viewOf } from './bytes.ts';

/*
 * The return path: what the destination QEMU tells the source QEMU. `u16 type, u16 length,
 * payload`.
 * Source: QEMU migration/migration.c, enum mig_rp_message_type.
 */

export const ReturnType = { Shut: 1, Pong: 2, RequestById: 3, Request: 4, RecvBitmap: 5 } as const;

const EMPTY = new Uint8Array(0);

/** Longest payload that QEMU takes. */
const PAYLOAD_BYTES_MAX = 512;

/** Most bytes of a bitmap: a bit for each page of the largest block. */
const BITMAP_BYTES_MAX = 2n ** 39n;

/**
 * Watches the bytes of a return path for its end. Changes nothing and never fails: bytes it cannot
 * follow make it stop looking.
 */
export class ReturnPathWatcher {
  #held: Uint8Array = EMPTY;
  #skipBytes = 0;
  #isBitmapNext = false;
  #isLost = false;
  #shutStatus: number | undefined;
  #messages = 0;
  readonly #onMessage: ((type: number, message: Uint8Array) => void) | undefined;

  /** @param onMessage Hears of every whole message, with its four bytes of type and length. */
  constructor(onMessage?: (type: number, message: Uint8Array) => void) {
    this.#onMessage = onMessage;
  }

  /**
   * What the destination said last: 0 it has everything and the guest is its own; other values: it
   * failed.
   */
  get shutStatus(): number | undefined {
    return this.#shutStatus;
  }

  /** True once something came that cannot be followed: nothing more is seen then. */
  get isLost(): boolean {
    return this.#isLost;
  }

  /** Whole messages seen. */
  get messages(): number {
    return this.#messages;
  }

  /** Whether what came so far ends with a whole message. */
  get isBetweenMessages(): boolean {
    return this.#held.length === 0 && this.#skipBytes === 0 && !this.#isBitmapNext;
  }

  /** Looks at the next bytes. */
  push(chunk: Uint8Array): void {
    let bytes: Uint8Array = chunk;
    while (bytes.length > 0 && !this.#isLost) {
      if (this.#skipBytes > 0) {
        const skipped = Math.min(bytes.length, this.#skipBytes);
        this.#skipBytes -= skipped;
        bytes = bytes.subarray(skipped);
        continue;
      }
      if (this.#held.length > 0) bytes = joined(this.#held, bytes);
      const used = this.#isBitmapNext ? this.#readBitmapSize(bytes) : this.#readMessage(bytes);
      this.#held = used === 0 ? bytes.slice() : EMPTY;
      if (used === 0) return;
      bytes = bytes.subarray(used);
    }
  }

  /** Reads one message: returns its bytes, or 0 if it is not all there. */
  #readMessage(bytes: Uint8Array): number {
    if (bytes.length < 4) return 0;
    const view = viewOf(bytes);
    const type = view.getUint16(0);
    const payloadBytes = view.getUint16(2);
    if (payloadBytes > PAYLOAD_BYTES_MAX) {
      this.#isLost = true;
      return 0;
    }
    if (bytes.length < 4 + payloadBytes) return 0;
    if (type === ReturnType.Shut && payloadBytes === 4) this.#shutStatus = view.getUint32(4);
    if (type === ReturnType.RecvBitmap) this.#isBitmapNext = true;
    this.#messages++;
    this.#onMessage?.(type, bytes.subarray(0, 4 + payloadBytes));
    return 4 + payloadBytes;
  }

  /** A bitmap of received pages follows its message uncounted: size, bits, and a mark. */
  #readBitmapSize(bytes: Uint8Array): number {
    if (bytes.length < 8) return 0;
    const bitmapBytes = viewOf(bytes).getBigUint64(0);
    if (bitmapBytes > BITMAP_BYTES_MAX) this.#isLost = true;
    this.#skipBytes = Number(bitmapBytes) + 8;
    this.#isBitmapNext = false;
    return 8;
  }
}

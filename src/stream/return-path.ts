/*
 * The return path: what the destination QEMU tells the source QEMU. `u16 type, u16 length,
 * payload`.
 * Source: QEMU migration/migration.c, enum mig_rp_message_type.
 */

const ReturnType = { Shut: 1, Pong: 2, RecvBitmap: 5 } as const;

/** Longest payload that QEMU takes. */
const PAYLOAD_BYTES_MAX = 512;

/**
 * Watches the bytes of a return path for its end. Changes nothing and never fails: bytes it cannot
 * follow make it stop looking.
 */
export class ReturnPathWatcher {
  #held: Uint8Array = new Uint8Array(0);
  #isLost = false;
  #shutStatus: number | undefined;
  #messages = 0;

  /**
   * What the destination said last: 0 it has everything and the guest is its own; other values: it
   * failed.
   */
  get shutStatus(): number | undefined {
    return this.#shutStatus;
  }

  /** Whole messages seen. */
  get messages(): number {
    return this.#messages;
  }

  /** Looks at the next bytes. */
  push(chunk: Uint8Array): void {
    if (this.#isLost) return;
    let bytes: Uint8Array = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    while (bytes.length >= 4) {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const type = view.getUint16(0);
      const payloadBytes = view.getUint16(2);
      // A received-pages bitmap follows its message without being counted: post-copy recovery, not
      // followed here.
      if (type === ReturnType.RecvBitmap || payloadBytes > PAYLOAD_BYTES_MAX) {
        this.#isLost = true;
        return;
      }
      if (bytes.length < 4 + payloadBytes) break;
      if (type === ReturnType.Shut && payloadBytes === 4) this.#shutStatus = view.getUint32(4);
      this.#messages++;
      bytes = bytes.subarray(4 + payloadBytes);
    }
    this.#held = bytes.slice();
  }
}

import { viewOf } from '../stream/bytes.ts';
import { ReturnType } from '../stream/return-path.ts';

/*
 * What a destination QEMU says, where there is none.
 * Source: QEMU migration/migration.c, enum mig_rp_message_type.
 */

/** The PING of a package, behind all device state. */
export const PING_LOADED = 3;

/** One of ours, behind pages: whoever answers it has them. QEMU's own are small numbers. */
export const PING_PAGES = 0x706c_6e65;

/** It has everything. */
export const SHUT_SUCCESS: Uint8Array = returnMessage(ReturnType.Shut, 0);

export function pong(value: number): Uint8Array {
  return returnMessage(ReturnType.Pong, value);
}

/** Whether it says that a package is loaded: the guest runs. */
export function isLoaded(message: Uint8Array): boolean {
  return isPong(message, PING_LOADED);
}

export function isPong(message: Uint8Array, value: number): boolean {
  return Buffer.compare(message, pong(value)) === 0;
}

function returnMessage(type: number, value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  const view = viewOf(bytes);
  view.setUint16(0, type);
  view.setUint16(2, 4);
  view.setUint32(4, value);
  return bytes;
}

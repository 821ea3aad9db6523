import { viewOf } from '../stream/bytes.ts';
import { ReturnType } from '../stream/return-path.ts';

/*
 * What a destination QEMU says, where there is none.
 * Source: QEMU migration/migration.c, enum mig_rp_message_type.
 */

/** The PINGs of a package: behind all device state; and, of QEMU 10.2 on, before it may run. */
export const PING_LOADED = 3;
export const PING_DEVICES = 0x42;

/** It has everything. */
export const SHUT_SUCCESS: Uint8Array = returnMessage(ReturnType.Shut, 0);

export function pong(value: number): Uint8Array {
  return returnMessage(ReturnType.Pong, value);
}

function returnMessage(type: number, value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  const view = viewOf(bytes);
  view.setUint16(0, type);
  view.setUint16(2, 4);
  view.setUint32(4, value);
  return bytes;
}

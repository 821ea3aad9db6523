import { CLUSTER_SLOTS } from './address.ts';

/**
 * The slot of a key in a Redis Cluster: CRC-16 of the key, or of what is between its first `{` and
 * the next `}`, modulo 16,384.
 *
 * Source: Redis Cluster specification, "Key distribution model" (CRC16-CCITT, XMODEM).
 */
export function slotOf(key: string): number {
  const open = key.indexOf('{');
  const close = open < 0 ? -1 : key.indexOf('}', open + 1);
  const hashed = close > open + 1 ? key.slice(open + 1, close) : key;
  let crc = 0;
  for (const byte of new TextEncoder().encode(hashed)) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 0x8000) === 0 ? crc << 1 : (crc << 1) ^ 0x1021;
    crc &= 0xffff;
  }
  return crc % CLUSTER_SLOTS;
}

/** What puts a key that it ends with into a slot: `{` and a number and `}`. */
export function slotTag(slot: number): string {
  // One in 16,384 numbers is right; that none of these is does not happen.
  for (let number = 0; number < 64 * CLUSTER_SLOTS; number++) {
    if (slotOf(`${number}`) === slot) return `{${number}}`;
  }
  throw new RangeError(`Cannot find a key for slot ${slot}: must be below ${CLUSTER_SLOTS}`);
}

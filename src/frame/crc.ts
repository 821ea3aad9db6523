/** Castagnoli's polynomial, bits reversed. */
const POLYNOMIAL = 0x82f63b78;

const TABLE: Uint32Array = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) {
    value = (value & 1) === 1 ? (value >>> 1) ^ POLYNOMIAL : value >>> 1;
  }
  return value >>> 0;
});

/**
 * Computes CRC-32C of `bytes` from `start` to `end`.
 *
 * @returns An unsigned 32-bit number.
 *
 * Source: RFC 3720, appendix B.4.
 */
export function crc32c(bytes: Uint8Array, start: number, end: number): number {
  let value = 0xffff_ffff;
  for (let at = start; at < end; at++) {
    value = TABLE[(value ^ bytes[at]!) & 0xff]! ^ (value >>> 8);
  }
  return (value ^ 0xffff_ffff) >>> 0;
}

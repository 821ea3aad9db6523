/* Fixed by TLS: RFC 8446, section 5.1 */
const HANDSHAKE = 0x16;
const LENGTH_AT = 3;
const HEADER_BYTES = 5;
const RECORD_BYTES_MAX = 16384;

/**
 * Tells how much is missing of the first record of a TLS client.
 *
 * @param bytes What it has sent so far, at least a byte.
 * @returns Bytes that have to follow, at least; absent if it does not speak TLS.
 */
export function missingOfClientHello(bytes: Uint8Array): number | undefined {
  if (bytes[0] !== HANDSHAKE) return undefined;
  if (bytes.length < HEADER_BYTES) return HEADER_BYTES - bytes.length;
  const recordBytes = (bytes[LENGTH_AT]! << 8) | bytes[LENGTH_AT + 1]!;
  if (recordBytes > RECORD_BYTES_MAX) return undefined;
  return Math.max(0, HEADER_BYTES + recordBytes - bytes.length);
}

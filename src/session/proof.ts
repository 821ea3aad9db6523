import { createHmac, timingSafeEqual } from 'node:crypto';

/** What both ends have said and seen on one connection, before anything is proved. */
export interface Transcript {
  readonly id: Uint8Array;
  readonly clientNonce: Uint8Array;
  readonly serverNonce: Uint8Array;
  /** Keying material of the connection; binds every proof to it. */
  readonly exporter: Uint8Array;
}

/** What a MAC is of. */
export type ProofLabel = 'new' | 'join' | 'welcome';

/** Computes the secret of a new session from its first path: 32 bytes. */
export function sessionSecret(transcript: Transcript): Uint8Array {
  return hmac(transcript.exporter, 'secret', transcript);
}

/** Computes the MAC of Proof or Welcome: 32 bytes. */
export function proofMac(
  secret: Uint8Array,
  label: ProofLabel,
  transcript: Transcript,
): Uint8Array {
  return hmac(secret, label, transcript);
}

/** Compares two MACs in constant time. */
export function isSameMac(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && timingSafeEqual(one, other);
}

function hmac(key: Uint8Array, label: string, transcript: Transcript): Uint8Array {
  const mac = createHmac('sha256', key).update(label);
  mac.update(transcript.id).update(transcript.clientNonce);
  return new Uint8Array(mac.update(transcript.serverNonce).update(transcript.exporter).digest());
}

import { ProtocolError } from '../errors.ts';
import { readU16, readU32, writeU16, writeU32 } from './bytes.ts';
import {
  MAC_BYTES,
  NONCE_BYTES,
  SESSION_ID_BYTES,
  VERSIONS_MAX,
  WINDOW_BYTES_MAX,
  WINDOW_BYTES_MIN,
} from './limits.ts';

/** What the first frame of a path asks for. Values are on the wire: never renumber. */
export const Intent = { New: 0, Join: 1 } as const;
export type Intent = (typeof Intent)[keyof typeof Intent];

/** The client's first frame. */
export interface Hello {
  readonly intent: Intent;
  /** Versions that the client speaks, best first. */
  readonly versions: readonly number[];
  readonly id: Uint8Array;
  readonly nonce: Uint8Array;
}

/** The server's answer to Hello. */
export interface Challenge {
  readonly version: number;
  readonly nonce: Uint8Array;
}

/** Payload of Proof and of Welcome. */
export interface Proof {
  readonly mac: Uint8Array;
  /** Payload bytes that the sender of this frame accepts ahead, per lane. */
  readonly windowBytes: number;
}

const MAGIC: Uint8Array = new TextEncoder().encode('pagelane');
const INTENT_AT = 8;
const COUNT_AT = 9;
const ID_AT = 10;
const HELLO_NONCE_AT = ID_AT + SESSION_ID_BYTES;
const VERSIONS_AT = HELLO_NONCE_AT + NONCE_BYTES;
const CHALLENGE_NONCE_AT = 2;
const CHALLENGE_BYTES = CHALLENGE_NONCE_AT + NONCE_BYTES;
const WINDOW_AT = MAC_BYTES;
const PROOF_BYTES = WINDOW_AT + 4;

/**
 * Writes the payload of Hello.
 *
 *    0 "pagelane"   8 u8 intent   9 u8 count   10 id (16)   26 nonce (32)   58 u16 x count versions
 */
export function encodeHello(hello: Hello): Uint8Array {
  const bytes = new Uint8Array(VERSIONS_AT + 2 * hello.versions.length);
  bytes.set(MAGIC, 0);
  bytes[INTENT_AT] = hello.intent;
  bytes[COUNT_AT] = hello.versions.length;
  bytes.set(hello.id, ID_AT);
  bytes.set(hello.nonce, HELLO_NONCE_AT);
  for (const [index, version] of hello.versions.entries()) {
    writeU16(bytes, VERSIONS_AT + 2 * index, version);
  }
  return bytes;
}

/**
 * Reads the payload of Hello.
 *
 * @throws {ProtocolError} ERR_HANDSHAKE If it is not one.
 */
export function decodeHello(bytes: Uint8Array): Hello {
  if (bytes.length < VERSIONS_AT) throw wrong('Hello', `${bytes.length} bytes`);
  if (MAGIC.some((byte, at) => bytes[at] !== byte)) throw wrong('Hello', 'no "pagelane" in it');
  const intent = bytes[INTENT_AT]!;
  if (intent !== Intent.New && intent !== Intent.Join) throw wrong('Hello', `intent ${intent}`);
  const count = bytes[COUNT_AT]!;
  if (count < 1 || count > VERSIONS_MAX) throw wrong('Hello', `${count} versions`);
  if (bytes.length !== VERSIONS_AT + 2 * count) {
    throw wrong('Hello', `${bytes.length} bytes for ${count} versions`);
  }
  return {
    intent,
    versions: Array.from({ length: count }, (_, index) => readU16(bytes, VERSIONS_AT + 2 * index)),
    id: bytes.slice(ID_AT, HELLO_NONCE_AT),
    nonce: bytes.slice(HELLO_NONCE_AT, VERSIONS_AT),
  };
}

/** Writes the payload of Challenge: `0 u16 version   2 nonce (32)`. */
export function encodeChallenge(challenge: Challenge): Uint8Array {
  const bytes = new Uint8Array(CHALLENGE_BYTES);
  writeU16(bytes, 0, challenge.version);
  bytes.set(challenge.nonce, CHALLENGE_NONCE_AT);
  return bytes;
}

/**
 * Reads the payload of Challenge.
 *
 * @throws {ProtocolError} ERR_HANDSHAKE If it is not one.
 */
export function decodeChallenge(bytes: Uint8Array): Challenge {
  if (bytes.length !== CHALLENGE_BYTES) throw wrong('Challenge', `${bytes.length} bytes`);
  return { version: readU16(bytes, 0), nonce: bytes.slice(CHALLENGE_NONCE_AT) };
}

/** Writes the payload of Proof or Welcome: `0 mac (32)   32 u32 window`. */
export function encodeProof(proof: Proof): Uint8Array {
  const bytes = new Uint8Array(PROOF_BYTES);
  bytes.set(proof.mac, 0);
  writeU32(bytes, WINDOW_AT, proof.windowBytes);
  return bytes;
}

/**
 * Reads the payload of Proof or Welcome.
 *
 * @throws {ProtocolError} ERR_HANDSHAKE If it is not one, or its window is not allowed.
 */
export function decodeProof(bytes: Uint8Array): Proof {
  if (bytes.length !== PROOF_BYTES) throw wrong('Proof', `${bytes.length} bytes`);
  const windowBytes = readU32(bytes, WINDOW_AT);
  if (windowBytes < WINDOW_BYTES_MIN || windowBytes > WINDOW_BYTES_MAX) {
    throw wrong('Proof', `a window of ${windowBytes} bytes`);
  }
  return { mac: bytes.slice(0, MAC_BYTES), windowBytes };
}

function wrong(what: string, seen: string): ProtocolError {
  return new ProtocolError('ERR_HANDSHAKE', `Cannot read ${what}: it has ${seen}`);
}

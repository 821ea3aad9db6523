import { ProtocolError } from '../errors.ts';
import type { StagingScope } from '../staging/extent.ts';
import {
  ATTEMPT_BYTES,
  ENTRIES_BYTES_MAX,
  EXTENT_KEY_BYTES,
  INTERMEDIARIES_MAX,
} from '../staging/limits.ts';
import { viewOf } from '../stream/bytes.ts';
import { jsonObjectOf } from '../stream/json.ts';
import { type EncodedMessage, MessageKind } from '../stream/message.ts';

/*
 * The messages by which a post-copy goes by way of intermediaries: docs/protocol.md, section 12.
 *
 *   stage     source       where extents are, and the key that opens them
 *   staged    destination  it reaches the intermediaries; later: it knows where every page is
 *   entries   source       of the manifest; the first, without any, says that post-copy begins
 *
 * Encoders leave `roomBytes` free in front of the message, for what carries it.
 */

/* Fixed by the protocol */
const STAGE_BYTES_MAX = 65_000;
const STAGED_BYTES = 16;
const ADDRESS_CHARACTERS_MAX = 512;

/** Where a guest's pages will be. */
export interface StageMessage {
  readonly scope: StagingScope;
  /** EXTENT_KEY_BYTES: never to be seen by an intermediary. */
  readonly key: Uint8Array;
  /** As the source reaches them, in its order. */
  readonly intermediaries: readonly string[];
}

/** How far the destination is. */
export interface StagedMessage {
  /** False: it can begin to gather. True: it needs the source no more. */
  readonly hasAll: boolean;
  /** Whether it takes pages that no intermediary has room for. */
  readonly takesPages: boolean;
  /** Digest of what it was given. */
  readonly digest: bigint;
}

export function encodeStage(stage: StageMessage, roomBytes: number): EncodedMessage {
  const { scope, key, intermediaries } = stage;
  const fields = { v: 1, ...scope, key: Buffer.from(key).toString('base64'), intermediaries };
  const text = Buffer.from(JSON.stringify(fields));
  if (text.length >= STAGE_BYTES_MAX) {
    throw new RangeError('Cannot stage: the addresses of the intermediaries are too long');
  }
  const buffer = new Uint8Array(roomBytes + 1 + text.length);
  buffer[roomBytes] = MessageKind.Stage;
  buffer.set(text, roomBytes + 1);
  return { buffer, start: roomBytes, end: buffer.length };
}

/** @throws {ProtocolError} ERR_MESSAGE If it is not one. */
export function decodeStage(payload: Uint8Array): StageMessage {
  check(payload.length <= STAGE_BYTES_MAX, 'it is too long');
  const fields = jsonObjectOf(payload.subarray(1));
  check(fields !== undefined, 'it is no JSON object');
  const { v, vm, attempt, key, intermediaries } = fields;
  check(v === 1, 'its version is not 1');
  check(typeof vm === 'string' && /^[\w-]{1,64}$/.test(vm), 'it names no guest');
  const isAttempt = typeof attempt === 'string' && /^[0-9a-f]+$/.test(attempt);
  check(isAttempt && attempt.length === 2 * ATTEMPT_BYTES, 'it names no attempt');
  const bytes = Buffer.from(typeof key === 'string' ? key : '', 'base64');
  check(bytes.length === EXTENT_KEY_BYTES, 'its key is wrong');
  check(Array.isArray(intermediaries) && isSome(intermediaries), 'its intermediaries are wrong');
  return { scope: { vm, attempt }, key: bytes, intermediaries };
}

export function encodeStaged(
  { hasAll, takesPages, digest }: StagedMessage,
  roomBytes: number,
): EncodedMessage {
  const buffer = new Uint8Array(roomBytes + STAGED_BYTES);
  const view = viewOf(buffer.subarray(roomBytes));
  view.setUint8(0, MessageKind.Staged);
  view.setUint8(1, hasAll ? 1 : 0);
  view.setUint8(2, takesPages ? 1 : 0);
  view.setBigUint64(8, digest, true);
  return { buffer, start: roomBytes, end: buffer.length };
}

/** @throws {ProtocolError} ERR_MESSAGE If it is not one. */
export function decodeStaged(payload: Uint8Array): StagedMessage {
  const [, hasAll = 2, takesPages = 2] = payload;
  const isRight = payload.length === STAGED_BYTES && hasAll <= 1 && takesPages <= 1;
  check(isRight, 'it has no such form');
  const digest = viewOf(payload).getBigUint64(8, true);
  return { hasAll: hasAll === 1, takesPages: takesPages === 1, digest };
}

/** @param entries Of the manifest, as `EntryWriter` puts them together. */
export function encodeEntries(entries: Uint8Array, roomBytes: number): EncodedMessage {
  const buffer = new Uint8Array(roomBytes + 1 + entries.length);
  buffer[roomBytes] = MessageKind.Entries;
  buffer.set(entries, roomBytes + 1);
  return { buffer, start: roomBytes, end: buffer.length };
}

/** @throws {ProtocolError} ERR_MESSAGE If there are too many. */
export function decodeEntriesMessage(payload: Uint8Array): Uint8Array {
  check(payload.length <= 1 + ENTRIES_BYTES_MAX, 'it is too long');
  return payload.subarray(1);
}

function isSome(intermediaries: readonly unknown[]): intermediaries is string[] {
  const { length } = intermediaries;
  if (length > INTERMEDIARIES_MAX) return false;
  return intermediaries.every(
    (each) => typeof each === 'string' && each.length <= ADDRESS_CHARACTERS_MAX,
  );
}

function check(isRight: boolean, why: string): asserts isRight {
  if (!isRight) throw new ProtocolError('ERR_MESSAGE', `Cannot read message of staging: ${why}`);
}

import { ProtocolError } from '../errors.ts';
import { HASH_SECRET_BYTES, PAGE_HASH_BYTES } from '../native.ts';
import type { RamLayout } from '../page/block.ts';
import { viewOf } from '../stream/bytes.ts';
import { jsonObjectOf } from '../stream/json.ts';
import { type EncodedMessage, MessageKind } from '../stream/message.ts';

/*
 * The messages by which an embedder's guest travels, beside blocks, batches, bytes, end and applied
 * of stream/message.ts and those of the hand-over: docs/protocol.md, section 10.
 *
 * Encoders leave `roomBytes` free in front of the message, for what carries it.
 */

/* Fixed by the protocol: docs/protocol.md, section 8 */

/** Most pages whose hashes one message has. */
export const HELD_PAGES_MAX = 16_384;

/** Most rounds of a migration. */
export const ROUNDS_MAX = 1_000_000;

/** Most bytes of device state. */
export const DEVICE_STATE_BYTES_MAX: number = 256 * 1024 * 1024;

const NAME_CHARACTERS_MAX = 256;
const OPEN_BYTES_MAX = 4096;
const ROUND_BYTES = 8;
const HELD_HEADER_BYTES = 24 + HASH_SECRET_BYTES;

/** What the source says first. */
export interface OpenGuestMessage {
  /** Name of the virtual machine. */
  readonly name: string;
  /** 32 hexadecimal digits. */
  readonly migration: string;
  readonly attempt: number;
  /** Memory is copied ahead: the guest stays at the source. */
  readonly isWarm: boolean;
}

/** Hashes of pages that the destination holds already, or the last word about them. */
export interface HeldMessage {
  readonly isLast: boolean;
  readonly block: number;
  readonly firstPage: number;
  readonly pageCount: number;
  readonly secret: Uint8Array;
  /** PAGE_HASH_BYTES for each; zeros where nothing is held. */
  readonly hashes: Uint8Array;
}

export function encodeOpenGuest(open: OpenGuestMessage, roomBytes: number): EncodedMessage {
  const name = open.name.slice(0, NAME_CHARACTERS_MAX);
  const text = Buffer.from(JSON.stringify({ v: 1, ...open, name }));
  const buffer = new Uint8Array(roomBytes + 1 + text.length);
  buffer[roomBytes] = MessageKind.OpenGuest;
  buffer.set(text, roomBytes + 1);
  return { buffer, start: roomBytes, end: buffer.length };
}

/** @throws {ProtocolError} ERR_MESSAGE If it is not one. */
export function decodeOpenGuest(payload: Uint8Array): OpenGuestMessage {
  check(payload.length <= OPEN_BYTES_MAX, 'its first message is too long');
  const fields = jsonObjectOf(payload.subarray(1));
  check(fields !== undefined, 'its text is no JSON object');
  const { v, name, migration, attempt, isWarm } = fields;
  check(v === 1, 'its version is not 1');
  check(typeof name === 'string' && name.length <= NAME_CHARACTERS_MAX, 'its name is wrong');
  check(typeof migration === 'string' && /^[0-9a-f]{32}$/.test(migration), 'it has no identity');
  const isAttempt = Number.isInteger(attempt) && Number(attempt) >= 1;
  check(isAttempt && Number(attempt) < 2 ** 32, 'its attempt is wrong');
  check(typeof isWarm === 'boolean', 'it does not say whether it is warm');
  return { name, migration, attempt: Number(attempt), isWarm };
}

/**
 * Checks that memory may be like this: blocks of whole pages, each with a name of its own.
 *
 * @throws {ProtocolError} ERR_MESSAGE If it may not.
 */
export function checkGuestLayout({ pageBits, blocks }: RamLayout): void {
  const names = new Set(blocks.map(({ name }) => name));
  check(blocks.length > 0 && names.size === blocks.length, 'two of its blocks have one name');
  for (const { usedBytes } of blocks) {
    const isWhole = usedBytes > 0 && usedBytes % 2 ** pageBits === 0;
    check(isWhole, 'a block is not of whole pages');
  }
}

/** Says that a round was sent; from the destination: that all of it is applied. */
export function encodeRound(round: number, roomBytes: number): EncodedMessage {
  const buffer = new Uint8Array(roomBytes + ROUND_BYTES);
  buffer[roomBytes] = MessageKind.Round;
  new DataView(buffer.buffer, roomBytes).setUint32(4, round, true);
  return { buffer, start: roomBytes, end: buffer.length };
}

/** @throws {ProtocolError} ERR_MESSAGE If it is not one. */
export function decodeRound(payload: Uint8Array): number {
  check(payload.length === ROUND_BYTES, 'the end of a round has a wrong length');
  const view = viewOf(payload);
  check(
    (view.getUint32(0, true) & 0xffff_ff00) === 0,
    'the end of a round has bytes that are not 0',
  );
  const round = view.getUint32(4, true);
  check(round >= 1 && round <= ROUNDS_MAX, 'the number of a round is out of range');
  return round;
}

export function encodeHeld(held: HeldMessage, roomBytes: number): EncodedMessage {
  const buffer = new Uint8Array(roomBytes + HELD_HEADER_BYTES + held.hashes.length);
  const view = new DataView(buffer.buffer, roomBytes);
  view.setUint8(0, MessageKind.Held);
  view.setUint8(1, held.isLast ? 1 : 0);
  view.setUint16(2, held.block, true);
  view.setUint32(4, held.pageCount, true);
  view.setBigUint64(8, BigInt(held.firstPage), true);
  buffer.set(held.secret, roomBytes + 24);
  buffer.set(held.hashes, roomBytes + HELD_HEADER_BYTES);
  return { buffer, start: roomBytes, end: buffer.length };
}

/**
 * Block and pages are not checked against any memory.
 *
 * @throws {ProtocolError} ERR_MESSAGE If a length or a limit is wrong.
 */
export function decodeHeld(payload: Uint8Array): HeldMessage {
  check(payload.length >= HELD_HEADER_BYTES, 'a list of hashes is too short');
  const view = viewOf(payload);
  const pageCount = view.getUint32(4, true);
  const firstPage = view.getBigUint64(8, true);
  check(pageCount <= HELD_PAGES_MAX, 'a list of hashes is too long');
  check(firstPage <= BigInt(Number.MAX_SAFE_INTEGER), 'a page index is too large');
  check(view.getUint8(1) <= 1, 'flags of a list of hashes are wrong');
  check(view.getUint8(1) === 0 || pageCount === 0, 'the end of the hashes has some');
  check(view.getBigUint64(16, true) === 0n, 'a list of hashes has bytes that are not 0');
  const hashes = payload.subarray(HELD_HEADER_BYTES);
  check(hashes.length === pageCount * PAGE_HASH_BYTES, 'a list of hashes has a wrong length');
  return {
    isLast: view.getUint8(1) === 1,
    block: view.getUint16(2, true),
    firstPage: Number(firstPage),
    pageCount,
    secret: payload.slice(24, HELD_HEADER_BYTES),
    hashes,
  };
}

function check(condition: boolean, what: string): asserts condition {
  if (!condition) throw new ProtocolError('ERR_MESSAGE', `Cannot read the guest: ${what}`);
}

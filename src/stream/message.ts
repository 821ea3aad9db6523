import { type GuestPlace, ProtocolError } from '../errors.ts';
import { native } from '../native.ts';
import {
  BLOCK_BYTES_MAX,
  BLOCKS_MAX,
  PAGE_BITS_MAX,
  PAGE_BITS_MIN,
  type RamBlock,
  type RamLayout,
} from '../page/block.ts';
import { viewOf } from './bytes.ts';
import { jsonObjectOf } from './json.ts';
import type { BytesPlace } from './sink.ts';

/*
 * The messages of a migration lane but for page batches: docs/protocol.md, section 6.
 *
 * Encoders leave `roomBytes` free in front of the message, for what carries it.
 */

/** First byte of every message. Values are on the wire: never renumber. */
export const MessageKind = {
  Open: 1,
  Blocks: 2,
  Bytes: 3,
  Pages: 4,
  End: 5,
  Applied: 6,
  Store: 7,
  OpenGuest: 8,
  Round: 9,
  Held: 10,
  Stage: 11,
  Staged: 12,
  Entries: 13,
  Preempt: 14,
} as const;

/** Most bytes of data in one bytes message. */
export const BYTES_DATA_MAX: number = 1024 * 1024;

/** Bytes of a bytes message in front of its data. */
export const BYTES_HEADER_BYTES = 16;

/** Offset of the checksum in a page batch. */
const BATCH_CHECKSUM_AT = 32;
/** Offset of the bytes of its page contents, decoded. */
const BATCH_LITERALS_AT = 12;
/** Offset of the checksum in a bytes message. */
const BYTES_CHECKSUM_AT = 8;

const JSON_BYTES_MAX = 4096;

/** Longest reason that is sent: as JSON it may take six bytes for each. */
const REASON_CHARACTERS_MAX = 512;

const PlaceFlag = { InsideBefore: 1, InsideAfter: 2, Verbatim: 4, HasBlock: 8 } as const;

/** A message in its buffer: `buffer[start, end)`. */
export interface EncodedMessage {
  readonly buffer: Uint8Array;
  readonly start: number;
  readonly end: number;
}

/** What the source says first. */
export interface OpenMessage {
  readonly v: 1;
  /** Name of the virtual machine, for reports. */
  readonly name: string;
}

/** How the destination ended. */
export interface AppliedMessage {
  readonly isApplied: boolean;
  /** Where the guest is, as far as the destination can know. */
  readonly guest: GuestPlace;
  /** Digest of what was applied. */
  readonly digest: bigint;
  readonly code: string;
  readonly message: string;
}

function allocate(roomBytes: number, messageBytes: number): EncodedMessage & { view: DataView } {
  const buffer = new Uint8Array(roomBytes + messageBytes);
  const view = new DataView(buffer.buffer, roomBytes, messageBytes);
  return { buffer, start: roomBytes, end: buffer.length, view };
}

export function encodeOpen(open: OpenMessage, roomBytes: number): EncodedMessage {
  const text = Buffer.from(JSON.stringify(open));
  const message = allocate(roomBytes, 1 + text.length);
  message.view.setUint8(0, MessageKind.Open);
  message.buffer.set(text, roomBytes + 1);
  return message;
}

/** @throws {ProtocolError} ERR_MESSAGE If it is not one. */
export function decodeOpen(payload: Uint8Array): OpenMessage {
  const value = parseJson(payload.subarray(1));
  const name = value['name'];
  if (value['v'] !== 1 || typeof name !== 'string' || name.length > 256) {
    throw new ProtocolError('ERR_MESSAGE', 'Cannot read open message: version or name is wrong');
  }
  return { v: 1, name };
}

export function encodeBlocks(layout: RamLayout, roomBytes: number): EncodedMessage {
  const names = layout.blocks.map((block) => Buffer.from(block.name, 'latin1'));
  const namesBytes = names.reduce((sum, name) => sum + 9 + name.length, 0);
  const message = allocate(roomBytes, 10 + namesBytes);
  const { view, buffer } = message;
  view.setUint8(0, MessageKind.Blocks);
  view.setUint8(1, layout.pageBits);
  view.setUint8(2, layout.hasFooter ? 1 : 0);
  view.setUint32(4, layout.sectionId, true);
  view.setUint16(8, layout.blocks.length, true);
  let at = 10;
  for (const [index, name] of names.entries()) {
    view.setBigUint64(at, BigInt(layout.blocks[index]!.usedBytes), true);
    view.setUint8(at + 8, name.length);
    buffer.set(name, roomBytes + at + 9);
    at += 9 + name.length;
  }
  return message;
}

/** @throws {ProtocolError} ERR_MESSAGE If a length or a limit is wrong. */
export function decodeBlocks(payload: Uint8Array): RamLayout {
  const view = viewOf(payload);
  require(payload.length >= 10, 'blocks message is too short');
  const pageBits = view.getUint8(1);
  require(pageBits >= PAGE_BITS_MIN && pageBits <= PAGE_BITS_MAX, 'page bits are out of range');
  const count = view.getUint16(8, true);
  require(count <= BLOCKS_MAX, `there are more than ${BLOCKS_MAX} blocks`);
  const blocks: RamBlock[] = [];
  let at = 10;
  for (let index = 0; index < count; index++) {
    require(payload.length >= at + 9, 'blocks message is cut');
    const usedBytes = view.getBigUint64(at, true);
    const nameBytes = view.getUint8(at + 8);
    require(usedBytes <= BigInt(BLOCK_BYTES_MAX), 'a block is too large');
    require(nameBytes > 0 && payload.length >= at + 9 + nameBytes, 'a block has no name');
    const name = Buffer.from(payload.subarray(at + 9, at + 9 + nameBytes)).toString('latin1');
    blocks.push({ name, usedBytes: Number(usedBytes) });
    at += 9 + nameBytes;
  }
  require(at === payload.length, 'blocks message is too long');
  const hasFooter = view.getUint8(2) === 1;
  return { pageBits, hasFooter, sectionId: view.getUint32(4, true), blocks };
}

const NO_PLACE: BytesPlace = {
  isInsideBefore: false,
  isInsideAfter: false,
  isVerbatim: true,
  lastBlock: -1,
};

/** Bytes of a return path. */
export function encodeReturn(data: Uint8Array, roomBytes: number): EncodedMessage {
  return encodeBytes(data, NO_PLACE, roomBytes);
}

/** Bytes of the second channel of postcopy-preempt; with none, that there is one. */
export function encodePreempt(data: Uint8Array, roomBytes: number): EncodedMessage {
  return encodeBytes(data, NO_PLACE, roomBytes, MessageKind.Preempt);
}

/** Copies `data` into a message. */
export function encodeBytes(
  data: Uint8Array,
  place: BytesPlace,
  roomBytes: number,
  kind: number = MessageKind.Bytes,
): EncodedMessage {
  const message = allocate(roomBytes, BYTES_HEADER_BYTES + data.length);
  const { view, buffer } = message;
  view.setUint8(0, kind);
  view.setUint8(
    1,
    (place.isInsideBefore ? PlaceFlag.InsideBefore : 0) |
      (place.isInsideAfter ? PlaceFlag.InsideAfter : 0) |
      (place.isVerbatim ? PlaceFlag.Verbatim : 0) |
      (place.lastBlock >= 0 ? PlaceFlag.HasBlock : 0),
  );
  view.setUint16(2, Math.max(0, place.lastBlock), true);
  view.setUint32(4, data.length, true);
  buffer.set(data, roomBytes + BYTES_HEADER_BYTES);
  view.setBigUint64(BYTES_CHECKSUM_AT, bytesChecksum(buffer.subarray(roomBytes)), true);
  return message;
}

/** @throws {ProtocolError} ERR_MESSAGE, ERR_MESSAGE_CHECKSUM If it is damaged. */
export function decodeBytes(payload: Uint8Array): { data: Uint8Array; place: BytesPlace } {
  require(payload.length >= BYTES_HEADER_BYTES, 'bytes message is too short');
  const view = viewOf(payload);
  const dataBytes = view.getUint32(4, true);
  require(dataBytes <= BYTES_DATA_MAX &&
    payload.length === BYTES_HEADER_BYTES + dataBytes, 'bytes message has a wrong length');
  if (view.getBigUint64(BYTES_CHECKSUM_AT, true) !== bytesChecksum(payload)) {
    throw new ProtocolError(
      'ERR_MESSAGE_CHECKSUM',
      'Bytes of the stream differ from what was sent',
    );
  }
  const flags = view.getUint8(1);
  const place = {
    isInsideBefore: (flags & PlaceFlag.InsideBefore) !== 0,
    isInsideAfter: (flags & PlaceFlag.InsideAfter) !== 0,
    isVerbatim: (flags & PlaceFlag.Verbatim) !== 0,
    lastBlock: (flags & PlaceFlag.HasBlock) !== 0 ? view.getUint16(2, true) : -1,
  };
  return { data: payload.subarray(BYTES_HEADER_BYTES), place };
}

function bytesChecksum(message: Uint8Array): bigint {
  const seed = native.hash64(message.subarray(0, BYTES_CHECKSUM_AT), 0n);
  return native.hash64(message.subarray(BYTES_HEADER_BYTES), seed);
}

export function encodeEnd(digest: bigint, roomBytes: number): EncodedMessage {
  const message = allocate(roomBytes, 16);
  message.view.setUint8(0, MessageKind.End);
  message.view.setBigUint64(8, digest, true);
  return message;
}

/** @returns The digest of all that was sent. */
export function decodeEnd(payload: Uint8Array): bigint {
  require(payload.length === 16, 'end message has a wrong length');
  return viewOf(payload).getBigUint64(8, true);
}

export function encodeApplied(applied: AppliedMessage, roomBytes: number): EncodedMessage {
  const { code, guest, message: reason } = applied;
  const fields = { code, guest, message: reason.slice(0, REASON_CHARACTERS_MAX) };
  const text = Buffer.from(JSON.stringify(fields));
  const message = allocate(roomBytes, 16 + text.length);
  message.view.setUint8(0, MessageKind.Applied);
  message.view.setUint8(1, applied.isApplied ? 0 : 1);
  message.view.setBigUint64(8, applied.digest, true);
  message.buffer.set(text, roomBytes + 16);
  return message;
}

/** @throws {ProtocolError} ERR_MESSAGE If it is not one. */
export function decodeApplied(payload: Uint8Array): AppliedMessage {
  require(payload.length >= 16, 'applied message is too short');
  const view = viewOf(payload);
  const value = parseJson(payload.subarray(16));
  const isApplied = view.getUint8(1) === 0;
  return {
    isApplied,
    guest: isApplied ? 'destination' : readGuest(value['guest']),
    digest: view.getBigUint64(8, true),
    code: String(value['code'] ?? ''),
    message: String(value['message'] ?? ''),
  };
}

export function encodeStore(storeBytes: number, roomBytes: number): EncodedMessage {
  const message = allocate(roomBytes, 16);
  message.view.setUint8(0, MessageKind.Store);
  message.view.setBigUint64(8, BigInt(storeBytes), true);
  return message;
}

/** @returns Bytes of pages that the destination can keep. */
export function decodeStore(payload: Uint8Array): number {
  require(payload.length === 16, 'store message has a wrong length');
  const bytes = viewOf(payload).getBigUint64(8, true);
  require(bytes <= BigInt(BLOCK_BYTES_MAX), 'store is too large');
  return Number(bytes);
}

/** Bytes of page contents in a page batch, decoded; the batch was checked before. */
export function batchLiteralBytes(payload: Uint8Array): number {
  return viewOf(payload).getUint32(BATCH_LITERALS_AT, true);
}

/** A destination that does not say has not started the guest. */
function readGuest(value: unknown): GuestPlace {
  return value === 'destination' || value === 'unknown' ? value : 'source';
}

/**
 * Sum over messages of what they carried, whatever their order.
 *
 * Both ends keep one; equal sums say that the same messages with the same contents were sent and
 * applied.
 */
export class Digest {
  /** Whether messages of a kind count. */
  static counts(kind: number | undefined): boolean {
    const { Bytes, Pages, Preempt } = MessageKind;
    return kind === Bytes || kind === Pages || kind === Preempt;
  }

  #sum = 0n;
  readonly #checksum = new Uint8Array(8);

  /** Adds a message of a kind that counts, which begins at `at`. */
  add(buffer: Uint8Array, at: number, sequence: number): void {
    const isPages = buffer[at] === MessageKind.Pages;
    const from = at + (isPages ? BATCH_CHECKSUM_AT : BYTES_CHECKSUM_AT);
    this.#checksum.set(buffer.subarray(from, from + 8));
    this.#sum = BigInt.asUintN(64, this.#sum + native.hash64(this.#checksum, BigInt(sequence)));
  }

  get value(): bigint {
    return this.#sum;
  }
}

/** A digest as it is printed. */
export function formatDigest(digest: bigint): string {
  return digest.toString(16).padStart(16, '0');
}

function parseJson(bytes: Uint8Array): Readonly<Record<string, unknown>> {
  require(bytes.length <= JSON_BYTES_MAX, 'text is too long');
  const fields = jsonObjectOf(bytes);
  require(fields !== undefined, 'its text is no JSON object');
  return fields;
}

function require(condition: boolean, what: string): asserts condition {
  if (!condition) throw new ProtocolError('ERR_MESSAGE', `Cannot read message: ${what}`);
}

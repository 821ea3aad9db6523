import { ProtocolError } from '../errors.ts';
import { viewOf } from '../stream/bytes.ts';
import { jsonObjectOf } from '../stream/json.ts';
import type { EncodedMessage } from '../stream/message.ts';
import type { HandoverId, Word } from './commit.ts';

/*
 * The messages of the hand-over: docs/protocol.md, section 9.
 *
 *   0  u8   kind
 *   1  3 bytes zero
 *   4  u32  attempt
 *   8  16 bytes: migration
 *  24  JSON: {"name"} of reserve, {"code","message"} of abort and aborted; of others nothing
 */

/** First byte of each. Values are on the wire: never renumber. 1 to 15 are stream/message.ts's. */
export const HandoverKind: Readonly<Record<Word, number>> = {
  reserve: 16,
  reserved: 17,
  ready: 18,
  commit: 19,
  active: 20,
  released: 21,
  abort: 22,
  aborted: 23,
};

/** Bytes of the longest message. */
export const HANDOVER_BYTES_MAX = 4096;

const FIXED_BYTES = 24;
const MIGRATION_AT = 8;

/** Longest texts: in JSON each character may take six bytes. */
const NAME_CHARACTERS_MAX = 256;
const REASON_CHARACTERS_MAX = 512;
const CODE_CHARACTERS_MAX = 64;
const CODE = /^[A-Za-z]\w{0,63}$/;

/** What one side says to the other about the hand-over. */
export type HandoverMessage = HandoverId &
  (
    | { readonly word: 'reserve'; readonly name: string }
    | { readonly word: 'abort' | 'aborted'; readonly code: string; readonly message: string }
    | { readonly word: Exclude<Word, 'reserve' | 'abort' | 'aborted'> }
  );

/** Whether a message of a lane, by its first byte, is one of the hand-over. */
export function isHandoverKind(kind: number): boolean {
  return WORDS.has(kind);
}

const WORDS: ReadonlyMap<number, Word> = new Map(
  Object.entries(HandoverKind).map(([word, kind]) => [kind, word as Word]),
);

/**
 * Leaves `roomBytes` free in front of the message. Texts that are too long are cut, and a code that
 * is none becomes ERR_INTERNAL.
 */
export function encodeHandover(message: HandoverMessage, roomBytes: number): EncodedMessage {
  const text = textOf(message);
  const buffer = new Uint8Array(roomBytes + FIXED_BYTES + text.length);
  const view = new DataView(buffer.buffer, roomBytes);
  view.setUint8(0, HandoverKind[message.word]);
  view.setUint32(4, message.attempt, true);
  buffer.set(Buffer.from(message.migration, 'hex'), roomBytes + MIGRATION_AT);
  buffer.set(text, roomBytes + FIXED_BYTES);
  return { buffer, start: roomBytes, end: buffer.length };
}

function textOf(message: HandoverMessage): Uint8Array {
  if (message.word === 'reserve') {
    return json({ name: message.name.slice(0, NAME_CHARACTERS_MAX) });
  }
  if (message.word === 'abort' || message.word === 'aborted') {
    const code = CODE.test(message.code) ? message.code : 'ERR_INTERNAL';
    return json({ code, message: message.message.slice(0, REASON_CHARACTERS_MAX) });
  }
  return new Uint8Array(0);
}

function json(fields: Readonly<Record<string, string>>): Uint8Array {
  return Buffer.from(JSON.stringify(fields));
}

/** @throws {ProtocolError} ERR_MESSAGE If it is not one. */
export function decodeHandover(payload: Uint8Array): HandoverMessage {
  require(payload.length >= FIXED_BYTES, 'it is too short');
  require(payload.length <= HANDOVER_BYTES_MAX, 'it is too long');
  const view = viewOf(payload);
  const word = WORDS.get(view.getUint8(0));
  require(word !== undefined, 'its kind is none');
  require((view.getUint32(0, true) & 0xffff_ff00) === 0, 'bytes that must be zero are not');
  const attempt = view.getUint32(4, true);
  require(attempt >= 1, 'its attempt is 0');
  const migration = Buffer.from(payload.subarray(MIGRATION_AT, FIXED_BYTES)).toString('hex');
  const rest = payload.subarray(FIXED_BYTES);
  if (word === 'reserve') {
    const name = textField(parse(rest), 'name', NAME_CHARACTERS_MAX);
    return { word, migration, attempt, name };
  }
  if (word === 'abort' || word === 'aborted') {
    const fields = parse(rest);
    const code = textField(fields, 'code', CODE_CHARACTERS_MAX);
    require(CODE.test(code), '"code" is none');
    const message = textField(fields, 'message', REASON_CHARACTERS_MAX);
    return { word, migration, attempt, code, message };
  }
  require(rest.length === 0, 'it is too long');
  return { word, migration, attempt };
}

function parse(bytes: Uint8Array): Readonly<Record<string, unknown>> {
  const fields = jsonObjectOf(bytes);
  require(fields !== undefined, 'its text is no JSON object');
  return fields;
}

function textField(
  fields: Readonly<Record<string, unknown>>,
  name: string,
  charactersMax: number,
): string {
  const value = Object.hasOwn(fields, name) ? fields[name] : undefined;
  require(typeof value === 'string' && value.length <= charactersMax, `"${name}" is wrong`);
  return value;
}

const CANNOT = 'Cannot read message of the hand-over';

function require(condition: boolean, what: string): asserts condition {
  if (!condition) throw new ProtocolError('ERR_MESSAGE', `${CANNOT}: ${what}`);
}

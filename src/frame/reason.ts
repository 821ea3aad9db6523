import { ProtocolError } from '../errors.ts';
import { SMALL_PAYLOAD_BYTES_MAX } from './limits.ts';

/** Why a path was refused, or a session ended. Code `""` is a clean end. */
export interface Reason {
  readonly code: string;
  readonly message: string;
}

/* Chosen by us */
/** Most characters of a message that are sent or believed. */
const MESSAGE_CHARACTERS_MAX = 480;

const CODE = /^[A-Z][A-Z0-9_]{0,63}$/;

/** Writes the payload of Refuse or Close. What is too long of the message is left out. */
export function encodeReason({ code, message }: Reason): Uint8Array {
  const safeCode = code === '' || CODE.test(code) ? code : 'ERR_INTERNAL';
  let text = plain(message);
  let bytes = new TextEncoder().encode(JSON.stringify({ code: safeCode, message: text }));
  while (bytes.length > SMALL_PAYLOAD_BYTES_MAX) {
    text = text.slice(0, Math.floor(text.length / 2));
    bytes = new TextEncoder().encode(JSON.stringify({ code: safeCode, message: text }));
  }
  return bytes;
}

/**
 * Reads the payload of Refuse or Close.
 *
 * @throws {ProtocolError} ERR_FRAME_REASON If it is not one.
 */
export function decodeReason(bytes: Uint8Array): Reason {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new ProtocolError('ERR_FRAME_REASON', 'Cannot read reason: it is not JSON', { cause });
  }
  if (typeof value === 'object' && value !== null && 'code' in value && 'message' in value) {
    const { code, message } = value;
    if (typeof code === 'string' && typeof message === 'string') {
      if (code === '' || CODE.test(code)) return { code, message: plain(message) };
    }
  }
  throw new ProtocolError('ERR_FRAME_REASON', 'Cannot read reason: no "code" and "message" in it');
}

/** One line without control characters, so that a peer cannot write on our terminal. */
function plain(message: string): string {
  return message
    .slice(0, MESSAGE_CHARACTERS_MAX)
    .replace(/[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]+/gu, ' ')
    .trim();
}

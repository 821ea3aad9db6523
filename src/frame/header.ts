import { ProtocolError } from '../errors.ts';
import { readU16, readU32, readU64, writeU16, writeU32, writeU64 } from './bytes.ts';
import { crc32c } from './crc.ts';
import {
  HEADER_BYTES,
  LANES_MAX,
  NUMBER_MAX,
  PAYLOAD_BYTES_MAX,
  SMALL_PAYLOAD_BYTES_MAX,
} from './limits.ts';

/** Kind of a frame. Values are on the wire: never renumber. */
export const FrameType = {
  /** Opens or joins a session; payload of `hello.ts`. */
  Hello: 0x01,
  /** Chooses the version; payload of `hello.ts`. */
  Challenge: 0x02,
  /** Proves knowledge of the session's secret; payload of `hello.ts`. */
  Proof: 0x03,
  /** Proves the same of the server; the path is open. */
  Welcome: 0x04,
  /** Turns the path away; payload of `reason.ts`. */
  Refuse: 0x05,
  /** Carries a message of a lane: `sequence` is its number, `epoch` what must come before. */
  Data: 0x10,
  /** `sequence` is how many Data frames this path has brought. */
  Ack: 0x11,
  /** `sequence` is how many payload bytes may be sent on `lane` in total. */
  Credit: 0x12,
  /** Asks for a Pong with the same `sequence`. */
  Ping: 0x13,
  /** Answers a Ping. */
  Pong: 0x14,
  /** Closes this path; the session goes on. */
  Goodbye: 0x15,
  /** Ends the session; payload of `reason.ts`. */
  Close: 0x16,
  /** Tells a client where else the server can be reached; payload of `offer.ts`. */
  Offer: 0x17,
} as const;
export type FrameType = (typeof FrameType)[keyof typeof FrameType];

/** Flag of a Data frame: the last of its lane and direction. */
export const FLAG_FIN = 0x01;

/** What the two turns of a path's life allow: frames of the handshake, or all others. */
export type Stage = 'handshake' | 'session';

/** The header of a frame, decoded. */
export interface FrameHeader {
  type: FrameType;
  flags: number;
  lane: number;
  /** Bytes of payload. */
  length: number;
  sequence: number;
  epoch: number;
}

/*
 *   0  u8   type
 *   1  u8   flags
 *   2  u16  lane
 *   4  u32  length
 *   8  u64  sequence
 *  16  u64  epoch
 *  24  u32  zero
 *  28  u32  check, CRC-32C of bytes 0 to 27
 */
const FLAGS_AT = 1;
const LANE_AT = 2;
const LENGTH_AT = 4;
const SEQUENCE_AT = 8;
const EPOCH_AT = 16;
const ZERO_AT = 24;
const CHECK_AT = 28;

interface TypeRule {
  readonly stage: Stage;
  readonly flags: number;
  readonly hasLane: boolean;
  readonly hasSequence: boolean;
  readonly hasEpoch: boolean;
  readonly lengthMax: number;
}

function rule(stage: Stage, lengthMax: number, parts: Partial<TypeRule> = {}): TypeRule {
  const none = { flags: 0, hasLane: false, hasSequence: false, hasEpoch: false };
  return { stage, lengthMax, ...none, ...parts };
}

const DATA_RULE: Partial<TypeRule> = {
  flags: FLAG_FIN,
  hasLane: true,
  hasSequence: true,
  hasEpoch: true,
};

const RULES: ReadonlyMap<number, TypeRule> = new Map<number, TypeRule>([
  [FrameType.Hello, rule('handshake', SMALL_PAYLOAD_BYTES_MAX)],
  [FrameType.Challenge, rule('handshake', SMALL_PAYLOAD_BYTES_MAX)],
  [FrameType.Proof, rule('handshake', SMALL_PAYLOAD_BYTES_MAX)],
  [FrameType.Welcome, rule('handshake', SMALL_PAYLOAD_BYTES_MAX)],
  [FrameType.Refuse, rule('handshake', SMALL_PAYLOAD_BYTES_MAX)],
  [FrameType.Data, rule('session', PAYLOAD_BYTES_MAX, DATA_RULE)],
  [FrameType.Ack, rule('session', 0, { hasSequence: true })],
  [FrameType.Credit, rule('session', 0, { hasLane: true, hasSequence: true })],
  [FrameType.Ping, rule('session', 0, { hasSequence: true })],
  [FrameType.Pong, rule('session', 0, { hasSequence: true })],
  [FrameType.Goodbye, rule('session', 0)],
  [FrameType.Close, rule('session', SMALL_PAYLOAD_BYTES_MAX)],
  [FrameType.Offer, rule('session', SMALL_PAYLOAD_BYTES_MAX)],
]);

/** Writes `header` into the `HEADER_BYTES` of `into` that begin at `at`. */
export function encodeHeader(into: Uint8Array, at: number, header: Readonly<FrameHeader>): void {
  into[at] = header.type;
  into[at + FLAGS_AT] = header.flags;
  writeU16(into, at + LANE_AT, header.lane);
  writeU32(into, at + LENGTH_AT, header.length);
  writeU64(into, at + SEQUENCE_AT, header.sequence);
  writeU64(into, at + EPOCH_AT, header.epoch);
  writeU32(into, at + ZERO_AT, 0);
  writeU32(into, at + CHECK_AT, crc32c(into, at, at + CHECK_AT));
}

/**
 * Reads the header at `at` into `header`, and checks every field of it.
 *
 * @param stage Which frames are allowed now.
 * @throws {ProtocolError} ERR_FRAME_CHECK If the bytes are not a header.
 * @throws {ProtocolError} ERR_FRAME_TYPE If the type is unknown, or not allowed at this stage.
 * @throws {ProtocolError} ERR_FRAME_FLAGS, ERR_FRAME_LANE, ERR_FRAME_LENGTH, ERR_FRAME_SEQUENCE,
 * ERR_FRAME_EPOCH If a field has a value that the type does not allow.
 */
export function decodeHeader(
  bytes: Uint8Array,
  at: number,
  { into: header, stage }: { into: FrameHeader; stage: Stage },
): void {
  const check = readU32(bytes, at + CHECK_AT);
  const wanted = crc32c(bytes, at, at + CHECK_AT);
  if (check !== wanted) {
    throw new ProtocolError(
      'ERR_FRAME_CHECK',
      `Cannot decode frame: check is ${hex(check)}, bytes give ${hex(wanted)}`,
    );
  }
  header.type = bytes[at]! as FrameType;
  header.flags = bytes[at + FLAGS_AT]!;
  header.lane = readU16(bytes, at + LANE_AT);
  header.length = readU32(bytes, at + LENGTH_AT);
  header.sequence = readU64(bytes, at + SEQUENCE_AT);
  header.epoch = readU64(bytes, at + EPOCH_AT);
  checkHeader(header, stage);
  if (readU32(bytes, at + ZERO_AT) !== 0) {
    throw new ProtocolError('ERR_FRAME_FLAGS', 'Cannot decode frame: bytes 24 to 27 must be 0');
  }
}

function checkHeader(header: FrameHeader, stage: Stage): void {
  const { type, flags, lane, length, sequence, epoch } = header;
  const allowed = RULES.get(type);
  if (allowed === undefined) throw wrong('ERR_FRAME_TYPE', `type ${hex(type)} is unknown`);
  if (allowed.stage !== stage) {
    throw wrong('ERR_FRAME_TYPE', `${nameOf(type)} is not allowed in the ${stage} stage`);
  }
  if ((flags & ~allowed.flags) !== 0) {
    throw wrong('ERR_FRAME_FLAGS', `${nameOf(type)} with flags ${hex(flags)}`);
  }
  if (allowed.hasLane ? lane >= LANES_MAX : lane !== 0) {
    const limit = allowed.hasLane ? `< ${LANES_MAX}` : '0';
    throw wrong('ERR_FRAME_LANE', `lane of ${nameOf(type)} must be ${limit}: lane is ${lane}`);
  }
  if (length > allowed.lengthMax) {
    throw wrong(
      'ERR_FRAME_LENGTH',
      `payload of ${nameOf(type)} must be <= ${allowed.lengthMax} bytes: length is ${length}`,
    );
  }
  const sequenceMax = allowed.hasSequence ? NUMBER_MAX : 0;
  if (sequence > sequenceMax) {
    throw wrong(
      'ERR_FRAME_SEQUENCE',
      `sequence of ${nameOf(type)} must be <= ${sequenceMax}: sequence is ${sequence}`,
    );
  }
  const epochMax = allowed.hasEpoch ? sequence : 0;
  if (epoch > epochMax) {
    throw wrong(
      'ERR_FRAME_EPOCH',
      `epoch of ${nameOf(type)} must be <= ${epochMax}: epoch is ${epoch}`,
    );
  }
}

/** The name of a frame's type, for messages. */
export function nameOf(type: number): string {
  for (const [name, value] of Object.entries(FrameType)) if (value === type) return name;
  return hex(type);
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}

function wrong(code: string, what: string): ProtocolError {
  return new ProtocolError(code, `Cannot decode frame: ${what}`);
}

/** A header with nothing in it, to decode into. */
export function emptyHeader(): FrameHeader {
  return { type: FrameType.Ping, flags: 0, lane: 0, length: 0, sequence: 0, epoch: 0 };
}

/** Bytes of a whole frame with this header. */
export function frameBytes(header: Readonly<FrameHeader>): number {
  return HEADER_BYTES + header.length;
}

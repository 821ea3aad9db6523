import { HEADER_BYTES } from '../../src/frame/limits.ts';
import { native } from '../../src/native.ts';
import type { Security } from '../../src/path/secure.ts';

/*
 * A message of a measured transfer
 *
 *   0  checksum   XXH3_64 of all that follows, seeded with the index
 *   8  index      0 for the first; on the last of the lane, how many there were
 *  16  pages
 */

/** Bytes in front of the pages. */
export const PREFACE_BYTES: number = 16;

/** The settings of both workers, as JSON in their first argument. */
export interface WorkerSettings {
  /** 64 hexadecimal digits; no TLS if absent. */
  readonly key?: string;
  readonly port: number;
  /** Bytes of pages in a message. */
  readonly messageBytes: number;
}

/** One path of the sender. */
export interface WorkerPath {
  readonly host: string;
  readonly port: number;
  readonly local: string;
}

/** What the sender does besides. */
export interface SenderSettings extends WorkerSettings {
  /** Paths to begin with. */
  readonly paths: readonly WorkerPath[];
  /** Sends for so long, or so much, whichever ends first. */
  readonly seconds: number;
  readonly bytes: number;
  /** TCP connects by which the round trip of each path is measured before. @default 0 */
  readonly probes?: number;
  /** A path that is added so many milliseconds after the beginning. */
  readonly late?: { readonly path: WorkerPath; readonly afterMs: number };
}

/** What a path of the sender has carried. */
export interface PathBytes {
  readonly remote: string;
  readonly state: string;
  readonly sentBytes: number;
}

/** What the sender tells. */
export interface SenderReport {
  /** When the first message was sent; milliseconds on the machine's monotonic clock. */
  readonly begunMs: number;
  /** When each was given to the lane. */
  readonly sentMs: readonly number[];
  readonly cpuSeconds: number;
  /** Shortest TCP connect over each path, before there was traffic; Infinity without probes. */
  readonly rttMs: readonly number[];
  /** When the late path was asked for, and when it had joined. */
  readonly addedMs?: number;
  readonly joinedMs?: number;
  readonly paths: readonly PathBytes[];
}

/** What the receiver tells. */
export interface ReceiverReport {
  /** When each message was in memory and checked; milliseconds on the machine's monotonic clock. */
  readonly arrivalsMs: readonly number[];
  readonly cpuSeconds: number;
}

/** How the paths of a worker are protected. */
export function securityOf({ key }: WorkerSettings): Security {
  if (key === undefined) return { kind: 'none' };
  return { kind: 'key', key: new Uint8Array(Buffer.from(key, 'hex')) };
}

/** A buffer for messages, with random pages, that a lane can send. */
export interface MessageBuffer {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** What the checksum covers. */
  readonly covered: Uint8Array;
}

/** Makes a buffer for messages with these pages. */
export function makeMessage(pages: Uint8Array): MessageBuffer {
  const bytes = new Uint8Array(HEADER_BYTES + PREFACE_BYTES + pages.length);
  bytes.set(pages, HEADER_BYTES + PREFACE_BYTES);
  const covered = bytes.subarray(HEADER_BYTES + 8);
  return { bytes, view: new DataView(bytes.buffer, HEADER_BYTES), covered };
}

/** Makes it message `index`: number and checksum. */
export function seal({ view, covered }: MessageBuffer, index: number): void {
  view.setBigUint64(8, BigInt(index), true);
  view.setBigUint64(0, native.hash64(covered, BigInt(index)), true);
}

/**
 * Reads and checks a message.
 *
 * @returns Its index.
 * @throws {Error} If the checksum is wrong.
 */
export function check(payload: Uint8Array): number {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const index = view.getBigUint64(8, true);
  if (native.hash64(payload.subarray(8), index) !== view.getBigUint64(0, true)) {
    throw new Error(`Message ${index} of ${payload.length} bytes has a wrong checksum`);
  }
  return Number(index);
}

import { GiB, KiB, MiB } from '../units.ts';

/* Fixed by the protocol: docs/protocol.md, sections 2 to 5 and 8 */

/** Version of the protocol that this code speaks best. */
export const PROTOCOL_VERSION: number = 1;

/** Bytes of the header that precedes every frame's payload. */
export const HEADER_BYTES: number = 32;

/** Largest payload of a frame, in bytes; bounds what a hostile peer can make us hold. */
export const PAYLOAD_BYTES_MAX: number = 2 * MiB;

/** Largest payload of every frame that is not Data, in bytes. */
export const SMALL_PAYLOAD_BYTES_MAX: number = 1 * KiB;

/** Largest sequence, epoch, credit and token. */
export const NUMBER_MAX: number = Number.MAX_SAFE_INTEGER;

/** Most lanes of a session; lane ids are below it. */
export const LANES_MAX: number = 8;

/** Most paths of a session. */
export const PATHS_MAX: number = 16;

/** Smallest and largest window of a lane, in bytes. */
export const WINDOW_BYTES_MIN: number = 64 * KiB;
export const WINDOW_BYTES_MAX: number = 1 * GiB;

/** Bytes of credit that a frame costs at least, however short it is. */
export const FRAME_COST_MIN: number = 1 * KiB;

/** Frames that a sender may be ahead of the lowest sequence that was not acked, per lane. */
export const SEQUENCE_WINDOW: number = 16384;

/** Bytes of a session's id, of a nonce, of a MAC and of a key. */
export const SESSION_ID_BYTES: number = 16;
export const NONCE_BYTES: number = 32;
export const MAC_BYTES: number = 32;

/** Most versions that a Hello may offer. */
export const VERSIONS_MAX: number = 8;

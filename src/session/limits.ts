import { KiB, MiB } from '../units.ts';

/* Chosen by us. What the protocol fixes is in frame/limits.ts. */

/** Payload bytes that we accept ahead, per lane, unless told otherwise. */
export const WINDOW_BYTES: number = 16 * MiB;

/** A grant of credit is worth a frame when it is this part of the window. */
export const GRANT_PARTS: number = 8;

/** How long a clean close waits for the acks of what was sent; milliseconds. */
export const CLOSE_TIMEOUT_MS: number = 10_000;

/** Events that are kept for readers that are late. */
export const EVENTS_MAX: number = 256;

/** Paths that are gone and still reported. */
export const GONE_PATHS_MAX: number = 64;

/** Sessions of a listener at a time, unless told otherwise. */
export const SESSIONS_MAX: number = 64;

/** How much later than the others a path may bring a frame, while there is more to send; ms. */
export const LATENESS_MS: number = 100;

/** The same, in times that the others need for such a frame. */
export const LATENESS_FRAMES: number = 4;

/** Another path is not waited for if it was silent for so long; milliseconds. */
export const STALLED_MS: number = 500;

/** Bytes in flight after which a path of which nothing is known, one of several, gets no more. */
export const TRIAL_BYTES: number = 64 * KiB;

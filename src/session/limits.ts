import { GiB, KiB, MiB } from '../units.ts';

/* Chosen by us. What the protocol fixes is in frame/limits.ts. */

/** Payload bytes that we accept ahead, per lane, unless told otherwise. */
export const WINDOW_BYTES: number = 64 * MiB;

/** How long a session that lost its last path waits for another, unless told otherwise; ms. */
export const RESUME_TIMEOUT_MS: number = 60_000;

/** A path that has carried so much gets a new connection in its place, and so new keys. */
export const WORN_BYTES: number = 64 * GiB;

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

/** Joins that may be wrong, of a session or from a network, before more of them are refused. */
export const JOIN_FAULTS_MAX: number = 3;

/** Within how long they are counted, and for how long joins are refused then; milliseconds. */
export const JOIN_FAULTS_MS: number = 30_000;

/** Networks, sessions and pairs of them, of each so many, whose wrong joins are remembered. */
export const JOIN_RECORDS_MAX: number = 1024;

/**
 * How much later than the others a path may bring a frame, while there is more to send: the time in
 * which the others would use up this part of the window, within these bounds; milliseconds.
 */
export const LATENESS_SHARE: number = 0.25;
export const LATENESS_MS_MIN: number = 100;
export const LATENESS_MS_MAX: number = 1000;

/** The same, in times that the others need for such a frame. */
export const LATENESS_FRAMES: number = 4;

/** Another path is not waited for if it was silent for so long; milliseconds. */
export const STALLED_MS: number = 500;

/** Bytes in flight after which a path of which nothing is known, one of several, gets no more. */
export const TRIAL_BYTES: number = 64 * KiB;

/** A path is parked when so many frames waited for others, for so long, though it had room. */
export const PARKED_AFTER: number = 16;
export const PARKED_AFTER_MS: number = 1000;

/** How often a parked path is tried with a copy; milliseconds. */
export const PROBE_MS: number = 5000;

/** A copy is made for a path that brings it so many times sooner than the one that has it. */
export const COPY_GAIN: number = 2;

/** Bytes that may be copied for that, and the share of all that was sent on top. */
export const COPIED_BYTES_MIN: number = 4 * MiB;
export const COPIED_SHARE: number = 0.01;

/** Urgent frames are copied onto a path whose queue is not longer; milliseconds. */
export const COPY_QUEUE_MS: number = 5;

/** Frames of a path that are looked at to find one to copy. */
export const COPY_LOOK_MAX: number = 64;

/** Redialling of a lost path: the first wait, and the longest; milliseconds. */
export const REDIAL_MS_MIN: number = 50;
export const REDIAL_MS_MAX: number = 2000;

/** A path that was lost before it was so old counts as a failed attempt; milliseconds. */
export const SHORT_LIFE_MS: number = 5000;

/** How long an attempt to open a lost path again may take; milliseconds. */
export const REDIAL_TIMEOUT_MS: number = 2000;

/** When nobody listens at any of the peer's addresses for so long, it is gone; milliseconds. */
export const PEER_GONE_MS: number = 3000;

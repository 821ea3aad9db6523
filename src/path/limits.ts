import { KiB, MiB } from '../units.ts';

/* Chosen by us. What the protocol fixes is in frame/limits.ts. */

/** How often paths are looked at, milliseconds. */
export const TICK_MS: number = 50;

/** Ticks without a byte in one direction after which a Ping is sent. */
export const HEARTBEAT_TICKS: number = 5;

/** Bytes in a tick that are worth an answer, so that who sends them knows that they come. */
export const ANSWERED_BYTES_MIN: number = 256;

/** A path that waits for acks is doubted after so long a silence, or so many round trips. */
export const DOUBT_MS_MIN: number = 200;
export const DOUBT_ROUND_TRIPS: number = 3;

/** A path was heard just now if it was so long ago at most; milliseconds. */
export const HEARD_MS: number = 100;

/** A path that was silent for so long is lost, while others are heard; milliseconds. */
export const SILENCE_MS_MIN: number = 1500;

/** The same, if no path is heard: it may be the peer that stands still. */
export const SILENCE_ALONE_MS_MIN: number = 3000;

/** A path is not lost before so many round trips of silence. */
export const SILENCE_ROUND_TRIPS: number = 5;

/** A path that was silent for so long is lost, however long its round trips; milliseconds. */
export const SILENCE_MS_MAX: number = 30_000;

/** How long a path that is removed may wait for the acks of what it carries; milliseconds. */
export const DRAIN_TIMEOUT_MS: number = 5000;

/** What a pacer lets pass at once after a pause, in time at its rate; milliseconds. */
export const PACING_BURST_MS: number = 10;

/** Bytes in flight on a path of which no rate is known. */
export const IN_FLIGHT_BYTES_FIRST: number = 1 * MiB;

/** Bytes in flight that every path may have. */
export const IN_FLIGHT_BYTES_MIN: number = 64 * KiB;

/** Most bytes that are in flight on top of what the round trip needs. */
export const IN_FLIGHT_SLACK_BYTES_MAX: number = 8 * MiB;

/** Most bytes in flight on a path. */
export const IN_FLIGHT_BYTES_MAX: number = 64 * MiB;

/** Time that frames may wait in a path's queues, beside the round trip; milliseconds. */
export const IN_FLIGHT_SLACK_MS: number = 20;

/** How much more than what is known to fit is put in flight, to find out whether more fits. */
export const IN_FLIGHT_GAIN: number = 1.5;

/**
 * The same for the round trip's part as long as the rate grows: TCP takes several round trips for
 * the first frames, and should find more whenever it could go faster. What it cannot take yet waits
 * in our own socket.
 */
export const IN_FLIGHT_GAIN_FIRST: number = 8;

/** Span of the maximum that is taken of a path's rate, milliseconds: slots x span of a slot. */
export const RATE_SLOTS: number = 10;
export const RATE_SLOT_MS: number = 100;

/** A path has shown its rate after so many round trips without growth by this factor. */
export const SATURATED_ROUNDS: number = 3;
export const SATURATED_GROWTH: number = 1.25;

/** How much faster than measured a path is thought to be that has not shown its rate. */
export const UNSATURATED_FACTOR: number = 4;

/** A path that is not used is thought to be twice as fast after so long; milliseconds. */
export const UNUSED_DOUBLING_MS: number = 10_000;

/** A shortest round trip is measured again after so long, with an empty path; milliseconds. */
export const ROUND_TRIP_AGE_MS_MAX: number = 10_000;

/** A round trip that is longer by this factor at most shows that the shortest is still right. */
export const ROUND_TRIP_LIKE: number = 1.1;

/** Data received before an Ack is sent at once; else it waits for the end of the turn. Bytes. */
export const ACK_BYTES: number = 1 * MiB;

/** Control bytes that may wait in a socket before further ones wait to be merged. */
export const CONTROL_PENDING_BYTES_MAX: number = 16 * KiB;

/** Data bytes that may wait in a socket when another frame is given to it. */
export const DATA_PENDING_BYTES_MAX: number = 64 * KiB;

/** Bytes read from a socket at once. */
export const READ_BYTES: number = 256 * KiB;

/** Payloads that are so long are read right into their buffers; bytes. */
export const READ_DIRECT_BYTES_MIN: number = 64 * KiB;

/** Bytes read at once where the header of the next long payload is expected. */
export const READ_HEAD_BYTES: number = 4 * KiB;

/** How long a socket that was ended may take to close; milliseconds. */
export const LINGER_MS: number = 2000;

/** How long a connection and its handshakes may take by default; milliseconds. */
export const HANDSHAKE_TIMEOUT_MS: number = 10_000;

/** Most incoming connections that have not finished their handshake. */
export const HANDSHAKES_MAX: number = 256;

/** Of them, who is safe from newcomers: so many that were silent, that spoke, that are known. */
export const SILENT_SHARE: number = 64;
export const SPEAKING_SHARE: number = 96;
export const KNOWN_SHARE: number = 96;

/** Connections in their handshake that one network may have like any other: a session's paths. */
export const NETWORK_SHARE: number = 16;

/** Most connections of a listener that were welcomed: 64 sessions of 16 paths. */
export const CONNECTIONS_MAX: number = 1024;

/** Connections that the system may hold until a listener takes them. */
export const BACKLOG: number = 2048;

/** Refusals that are told one by one, in each span; milliseconds. */
export const REFUSALS_TOLD_MAX: number = 64;
export const REFUSALS_SPAN_MS: number = 1000;

/** Smaller payloads are not worth pooling; bytes. */
export const POOLED_BYTES_MIN: number = 16 * KiB;

/** Most bytes that a pool keeps free, and buffers of one size. */
export const POOL_FREE_BYTES_MAX: number = 32 * MiB;

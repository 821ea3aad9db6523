import { KiB } from '../units.ts';

/* Fixed by the system */

/** Longest path of a unix socket on Linux, in bytes; a longer one would be cut off in silence. */
export const SOCKET_PATH_BYTES_MAX: number = 107;

/** Highest port, and longest name, of a host. */
export const PORT_MAX = 65535;
export const HOST_CHARACTERS_MAX = 255;

/* Fixed by the protocol of the control socket */

/** Version of requests and answers; both sides of a socket are of one host, so there is but one. */
export const CONTROL_VERSION = 1;

/* Chosen by us */

/** Longest line of a request, its end included; bytes. */
export const REQUEST_BYTES_MAX: number = 4 * KiB;

/** Longest line of an answer: every path that a session may report, several times over; bytes. */
export const ANSWER_BYTES_MAX: number = 256 * KiB;

/** Longest text in one field of an answer, in characters. */
export const TEXT_CHARACTERS_MAX: number = 4096;

/** Connections that a control socket serves at a time. */
export const CONNECTIONS_MAX = 8;

/** How long a request, and the answer to what is done at once, may take; milliseconds. */
export const LINE_TIMEOUT_MS: number = 5000;

/** How long opening a path, or closing it when what is in flight has arrived, may take; ms. */
export const CHANGE_TIMEOUT_MS: number = 30_000;

/** Sockets that are asked at a time. */
export const ASKED_MAX = 32;

/** Hexadecimal digits of a session's id that are enough to name it, if no other begins so. */
export const ID_DIGITS_MIN = 4;

import { KiB, MiB } from '../units.ts';

/* Fixed by the protocol: docs/protocol.md, section "Extents" */

/** Most bytes of an extent as Redis holds it: the most that costs it hardly more than its bytes. */
export const EXTENT_BYTES_MAX: number = 65_526;

/** Bytes of the seal behind an extent's contents. */
export const SEAL_BYTES = 16;

/** Most bytes of an extent's contents. */
export const EXTENT_PLAIN_BYTES_MAX: number = EXTENT_BYTES_MAX - SEAL_BYTES;

/** Bytes in front of each batch of an extent: its length. */
export const BATCH_LENGTH_BYTES = 2;

/** Bytes of the key that seals extents. */
export const EXTENT_KEY_BYTES = 32;

/** Bytes of an attempt's name. */
export const ATTEMPT_BYTES = 16;

/** Most extents of an attempt. */
export const EXTENTS_MAX: number = 2 ** 25;

/** Pages from the first to the last of an extent. */
export const EXTENT_SPAN_PAGES_MAX: number = 65_536;

/** Most runs of pages in an extent. */
export const EXTENT_RUNS_MAX = 4096;

/** An extent's number is above the highest before it by no more than this. */
export const EXTENTS_AHEAD_MAX: number = 65_536;

/** Most intermediaries of an attempt. */
export const INTERMEDIARIES_MAX = 64;

/** Most bytes of a message with entries of the manifest: sealed, it is no longer than an extent. */
export const ENTRIES_BYTES_MAX: number = 65_000;

/** Most bytes of what a stored manifest says of RAM blocks, and of its parts. */
export const LAYOUT_BYTES_MAX: number = 65_000;
export const MANIFEST_PARTS_MAX: number = 65_536;

/** Most parts of what a stream has beside pages. */
export const STREAM_PARTS_MAX: number = 65_536;

/* Chosen by us */

/** Pages of a batch that lies in an extent: so many map entries leave room for contents. */
export const BATCH_PAGES_MAX = 128;

/** Pages that one worker encodes, one batch after another. */
export const PARTITION_PAGES = 4096;

/** Largest page that may be staged: a batch has room for two. */
export const STAGED_PAGE_BYTES_MAX: number = 16 * KiB;

/** Connections to an intermediary that carry extents; one more carries everything else. */
export const CONNECTIONS = 8;

/** Most connections to an intermediary. */
export const CONNECTIONS_MAX = 64;

/** Extents on their way on one connection, for each millisecond of round trip, and at most. */
export const DEPTH_PER_MS = 4;
export const DEPTH_MAX = 32;

/** How long a connection to an intermediary may take, milliseconds. */
export const CONNECT_TIMEOUT_MS = 5000;

/** How long an intermediary may take to answer, milliseconds. */
export const REPLY_TIMEOUT_MS = 10_000;

/** A wanted page is also looked for elsewhere when its intermediary takes longer, milliseconds. */
export const WANTED_WAIT_MS = 250;

/** Longest pause between two tries to connect anew, milliseconds. */
export const RETRY_MS_MAX = 1000;

/** How long an intermediary that is gone is waited for while the source has the pages. */
export const SCATTER_PATIENCE_MS = 5000;

/** How long an intermediary that is gone is waited for if nobody else has its pages. */
export const GATHER_PATIENCE_MS = 60_000;

/** How long an intermediary keeps what nobody asks for, milliseconds. */
export const TTL_MS: number = 60 * 60_000;

/** Part of its time to live after which a key is renewed. */
export const RENEWAL_FRACTION: number = 1 / 3;

/** Keys in one request to renew, remove or list. */
export const KEYS_TOGETHER = 256;

/** Gathered extents wait so long for others, to be removed together; milliseconds. */
export const REMOVE_DELAY_MS = 50;

/** Sealed extents that are not yet acknowledged. Bounds a scatter's memory. */
export const SCATTER_BYTES_MAX: number = 16 * MiB;

/** Extents on their way at once: so an extent's number is never far ahead of others. */
export const SCATTER_EXTENTS_MAX = 4096;

/** Part of the announced bytes that must be free besides. */
export const MEMORY_RESERVE_FRACTION = 0.05;

/** A limit that is changed holds after so long at most, milliseconds. */
export const LIMIT_LOOK_MS = 100;

/** Pause between two looks whether an intermediary is back, milliseconds. */
export const RETURN_LOOK_MS = 50;

/** Busy time after which a rate is measured anew, milliseconds. */
export const RATE_SPAN_MS = 100;

/* Chosen by us */

/** Pages of a batch of post-copy, and from the first of them to the last. */
export const POSTCOPY_PAGES_MAX = 128;
export const POSTCOPY_SPAN_MAX = 32_768;

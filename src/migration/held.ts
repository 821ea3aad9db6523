import { randomBytes } from 'node:crypto';
import { ProtocolError } from '../errors.ts';
import { HEADER_BYTES } from '../frame/limits.ts';
import { HASH_SECRET_BYTES, native, PAGE_HASH_BYTES } from '../native.ts';
import type { PageDigests } from '../native-memory.ts';
import type { DirtyBitmap } from '../page/bitmap.ts';
import type { GuestMemory } from '../page/memory.ts';
import type { IncomingMessage, Lane } from '../session/lane.ts';
import { decodeHeld, encodeHeld, HELD_PAGES_MAX, type HeldMessage } from './guest-message.ts';

/*
 * What the destination holds of a guest from an earlier time, so that it need not be sent
 *
 *   1. tell      the hashes of all pages it holds, with a secret made for this once     tellHeld
 *   2. compare   with the hashes of the source's own; equal pages are not sent          compareHeld
 *
 * Whoever runs in the guest does not know the secret, and so cannot make two pages that are taken
 * for one. A page that changes after it was compared is in the dirty log, which was started before.
 */

/* Chosen by us */

/** Hashes that may wait for a path. */
const WAITING_BYTES_MAX = 1024 * 1024;

/**
 * Tells the source what `memory` holds, all of its populated pages.
 *
 * @param drained Resolves when there may be room on the lane.
 */
export async function tellHeld(
  memory: GuestMemory,
  lane: Lane,
  drained: () => Promise<void>,
): Promise<void> {
  const secret = randomBytes(HASH_SECRET_BYTES);
  const all = await memory.scanAllPopulated();
  for (const [block, bitmap] of all.entries()) {
    let from = nextSet(bitmap, 0);
    while (from < bitmap.pageCount) {
      while (lane.queuedBytes >= WAITING_BYTES_MAX) await drained();
      const pageCount = Math.min(HELD_PAGES_MAX, bitmap.pageCount - from);
      const pages = { block, bitmap, firstPage: from, pageCount };
      const hashes = await hashPages(memory, pages, secret);
      tell(lane, { isLast: false, block, firstPage: from, pageCount, secret, hashes });
      from = nextSet(bitmap, from + pageCount);
    }
  }
  tellNothingMore(lane);
}

/** Tells the source that there is nothing, or nothing more, that it need not send. */
export function tellNothingMore(lane: Lane): void {
  const hashes = new Uint8Array(0);
  const secret = new Uint8Array(HASH_SECRET_BYTES);
  tell(lane, { isLast: true, block: 0, firstPage: 0, pageCount: 0, secret, hashes });
}

function tell(lane: Lane, held: HeldMessage): void {
  lane.send({ ...encodeHeld(held, HEADER_BYTES), isOrdered: true });
}

/**
 * Takes pages that the destination holds as they are out of `toSend`, and puts in those that it
 * holds otherwise. One message after the other: the bitmaps must not change meanwhile.
 *
 * @param toSend One for each block; at first all populated pages.
 * @param digests Where it is noted what each page was.
 * @returns How many pages it holds as they are.
 * @throws {ProtocolError} ERR_MESSAGE If the message names pages that there are not.
 */
export async function compareHeld(
  memory: GuestMemory,
  held: HeldMessage,
  toSend: readonly DirtyBitmap[],
  digests?: PageDigests,
): Promise<number> {
  const { block, firstPage, pageCount, secret } = held;
  const bitmap = toSend[block];
  if (bitmap === undefined || firstPage + pageCount > bitmap.pageCount) {
    throw new ProtocolError('ERR_MESSAGE', 'Destination holds pages that the guest has not');
  }
  const theirs = Buffer.from(held.hashes.buffer, held.hashes.byteOffset, held.hashes.length);
  const pages = { block, bitmap, firstPage, pageCount };
  const own = await hashPages(memory, pages, secret, digests);
  let equal = 0;
  for (let index = 0; index < pageCount; index++) {
    const at = index * PAGE_HASH_BYTES;
    const end = at + PAGE_HASH_BYTES;
    if (isNothing(theirs, at)) continue;
    if (theirs.compare(own, at, end, at, end) === 0) {
      bitmap.clear(firstPage + index);
      equal++;
    } else bitmap.set(firstPage + index);
  }
  return equal;
}

/** The first page from `from` on whose bit is set; the number of pages if there is none. */
function nextSet(bitmap: DirtyBitmap, from: number): number {
  const { end, count } = bitmap.endOf(from, 1);
  return count === 0 ? bitmap.pageCount : end - 1;
}

type HeldIncoming = Pick<IncomingMessage, 'payload' | 'release'>;

/** Hears what the destination holds, and compares it one message after the other. */
export class HeldComparison {
  readonly #waiting: { readonly held: HeldMessage; readonly incoming: HeldIncoming }[] = [];
  #hasLast = false;
  #wake: () => void = () => {};

  /**
   * Takes a message, whose buffer it gives back when it is compared: so the lane's credit bounds
   * what waits.
   *
   * @throws {ProtocolError} ERR_MESSAGE If it is malformed, or comes after the last.
   */
  take(incoming: HeldIncoming): void {
    if (this.#hasLast) {
      throw new ProtocolError('ERR_MESSAGE', 'Destination holds more than it said');
    }
    const held = decodeHeld(incoming.payload);
    this.#hasLast = held.isLast;
    this.#waiting.push({ held, incoming });
    this.#wake();
  }

  /**
   * Compares all that comes until the last message, as `compareHeld` does.
   *
   * @param within Waits for the next message, so long as that may take.
   * @returns How many pages the destination holds as they are.
   */
  async run(
    compare: (held: HeldMessage) => Promise<number>,
    within: (next: Promise<void>) => Promise<void>,
  ): Promise<number> {
    let pages = 0;
    for (;;) {
      const next = this.#waiting.shift();
      if (next === undefined) {
        if (this.#hasLast) return pages;
        await within(
          new Promise((resolve) => {
            this.#wake = resolve;
          }),
        );
        continue;
      }
      if (!next.held.isLast) pages += await compare(next.held);
      next.incoming.release();
    }
  }
}

function isNothing(hashes: Buffer, at: number): boolean {
  return hashes.readBigUInt64LE(at) === 0n && hashes.readBigUInt64LE(at + 8) === 0n;
}

async function hashPages(
  memory: GuestMemory,
  pages: {
    readonly block: number;
    readonly bitmap: DirtyBitmap;
    readonly firstPage: number;
    readonly pageCount: number;
  },
  secret: Uint8Array,
  digests?: PageDigests,
): Promise<Uint8Array> {
  const { block, bitmap, firstPage, pageCount } = pages;
  const hashes = new Uint8Array(new ArrayBuffer(pageCount * PAGE_HASH_BYTES));
  const end = firstPage + pageCount;
  await native.hashPages(
    memory.native,
    block,
    bitmap.words,
    firstPage,
    end,
    secret,
    hashes,
    digests,
  );
  return hashes;
}

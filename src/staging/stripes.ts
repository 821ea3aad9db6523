import type { Manifest, ParityEntry } from './manifest.ts';

const ROOM_FIRST = 1024;

/**
 * Where the parity of each stripe is, and of how many extents it is made. Which these are, the
 * manifest says. Takes 2 bytes for a stripe.
 */
export class StripeTable {
  /** One more than the index of the intermediary; 0 if there is no parity. */
  #intermediary = new Uint8Array(ROOM_FIRST);
  #members = new Uint8Array(ROOM_FIRST);
  #stripes = 0;

  /** Notes what became of a stripe's parity. */
  add({ stripe, intermediary, members }: ParityEntry): void {
    if (stripe >= this.#members.length) {
      const room = Math.max(stripe + 1, 2 * this.#members.length);
      this.#intermediary = grown(this.#intermediary, room);
      this.#members = grown(this.#members, room);
    }
    this.#stripes = Math.max(this.#stripes, stripe + 1);
    this.#intermediary[stripe] = intermediary === undefined ? 0 : intermediary + 1;
    this.#members[stripe] = members.length;
  }

  /** The parity is gone. */
  lose(stripe: number): void {
    this.#intermediary[stripe] = 0;
  }

  /** The stripes whose parity is at an intermediary. */
  *at(intermediary: number): Generator<number, void, undefined> {
    for (let stripe = 0; stripe < this.#stripes; stripe++) {
      if (this.#intermediary[stripe] === intermediary + 1) yield stripe;
    }
  }

  /** Extents of which nothing can be made again: their parity is gone, or another of the stripe. */
  unprotected(manifest: Manifest, isGone: (extent: number) => boolean): number {
    let count = 0;
    for (const { members, intermediary } of this.entries(manifest)) {
      if (intermediary === undefined || members.some(isGone)) count += members.length;
    }
    return count;
  }

  /** For each stripe with extents that hold: its parity, if nothing of the stripe is missing. */
  *entries(manifest: Manifest): Generator<ParityEntry, void, undefined> {
    const held = new Map<number, number[]>();
    for (let number = 0; number < manifest.extents; number++) {
      const stripe = manifest.at(number)?.stripe;
      if (stripe === undefined) continue;
      const members = held.get(stripe);
      if (members === undefined) held.set(stripe, [number]);
      else members.push(number);
    }
    for (const [stripe, members] of held) {
      const place = this.#intermediary[stripe] ?? 0;
      const isWhole = place !== 0 && this.#members[stripe] === members.length;
      yield { kind: 'parity', stripe, intermediary: isWhole ? place - 1 : undefined, members };
    }
  }
}

function grown(from: Uint8Array<ArrayBuffer>, room: number): Uint8Array<ArrayBuffer> {
  const to = new Uint8Array(room);
  to.set(from);
  return to;
}

import { EXTENT_BYTES_MAX } from './limits.ts';

/**
 * Adds a value to a sum by XOR. Values are added as if zeros followed them.
 *
 * Both must begin at a multiple of 4 bytes to be added by words; else it is done byte by byte.
 */
export function xorInto(sum: Uint8Array, value: Uint8Array): void {
  const words = value.byteOffset % 4 === 0 && sum.byteOffset % 4 === 0 ? value.length >>> 2 : 0;
  const sumWords = words === 0 ? NO_WORDS : new Uint32Array(sum.buffer, sum.byteOffset, words);
  const valueWords =
    words === 0 ? NO_WORDS : new Uint32Array(value.buffer, value.byteOffset, words);
  for (let at = 0; at < words; at++) sumWords[at]! ^= valueWords[at]!;
  for (let at = 4 * words; at < value.length; at++) sum[at]! ^= value[at]!;
}

const NO_WORDS = new Uint32Array(0);

/** The sum of sealed extents, from which any one of them can be had again with all others. */
export class ParitySum {
  readonly #sum = new Uint8Array(EXTENT_BYTES_MAX);
  readonly #members: number[] = [];
  #length = 0;

  /** Extents in the sum. */
  get members(): readonly number[] {
    return this.#members;
  }

  add(extent: number, value: Uint8Array): void {
    xorInto(this.#sum, value);
    this.#members.push(extent);
    this.#length = Math.max(this.#length, value.length);
  }

  /** The parity: as long as the longest member. */
  value(): Uint8Array {
    return this.#sum.subarray(0, this.#length);
  }
}

/**
 * Makes a lost member of a stripe from all else: the parity and the other members.
 *
 * Whether it is right, its seal tells.
 *
 * @param values At most EXTENT_BYTES_MAX bytes each.
 * @param bytes How long the lost member was.
 */
export function rebuild(values: readonly Uint8Array[], bytes: number): Uint8Array {
  const sum = new Uint8Array(EXTENT_BYTES_MAX);
  for (const value of values) xorInto(sum, value);
  return sum.subarray(0, bytes);
}

/**
 * Places the extents of a stripe: each at another intermediary, the parity last; who has the parity
 * rotates from stripe to stripe.
 *
 * @param places Indexes of the intermediaries that may be used, at least two.
 * @returns As many indexes as there are places.
 */
export function stripePlaces(stripe: number, places: readonly number[]): readonly number[] {
  const first = (stripe + 1) % places.length;
  return [...places.slice(first), ...places.slice(0, first)];
}

/**
 * Random numbers that are the same for the same seed (mulberry32).
 *
 * @param seed An integer; its low 32 bits count. Put it in the test's name.
 * @returns A function that returns the next number, from 0 to below 1.
 */
export function createPrng(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}

/** The next integer, from 0 to below `end`. */
export function integerBelow(random: () => number, end: number): number {
  return Math.floor(random() * end);
}

/** Random bytes in a buffer of their own and of exactly that size, so that no overrun hides. */
export function exactRandomBytes(random: () => number, byteCount: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(new ArrayBuffer(byteCount));
  for (let index = 0; index < byteCount; index++) bytes[index] = random() * 256;
  return bytes;
}

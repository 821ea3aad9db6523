import { integerBelow } from '../support/prng.ts';

/*
 * Bytes that are nearly right, as driver.cc makes them for the kernels.
 */

/** How many inputs each target gets; `scripts/fuzz` asks for more. */
export const ROUNDS: number = Number(process.env['PAGELANE_FUZZ_ROUNDS'] ?? 400);

/** Where the seeds begin. */
export const FIRST_SEED: number = Number(process.env['PAGELANE_FUZZ_SEED'] ?? 1);

const EDGES: readonly number[] = [
  ...[0, 1, 2, 0x10, 0x20, 0x28, 0x7f, 0x80, 0xff, 0x100, 0x3ff, 0x400, 0x401, 0x7fff, 0x8000],
  ...[0xffff, 0x1_0000, 0x10_0000, 0x20_0000, 0x20_0001, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff],
  ...[2 ** 52, 2 ** 53 - 1, 2 ** 53, 2 ** 63],
];

/** Changes one to four things of `input`, and leaves it as it was. */
export function mutate(input: Uint8Array, random: () => number): Uint8Array {
  let bytes: Uint8Array = input.slice();
  for (let left = 1 + integerBelow(random, 4); left > 0 && bytes.length > 0; left--) {
    bytes = mutateOnce(bytes, random);
  }
  return bytes;
}

function mutateOnce(bytes: Uint8Array, random: () => number): Uint8Array {
  const at = integerBelow(random, bytes.length);
  const count = Math.min(1 + integerBelow(random, 64), bytes.length - at);
  switch (integerBelow(random, 6)) {
    case 0:
      bytes[at]! ^= 1 << integerBelow(random, 8);
      return bytes;
    case 1:
      bytes[at] = integerBelow(random, 256);
      return bytes;
    case 2:
      return putEdge(bytes, at, random);
    case 3:
      return bytes.slice(0, at);
    case 4:
      return joined(bytes.subarray(0, at), bytes.subarray(at, at + count), bytes.subarray(at));
    default:
      return joined(bytes.subarray(0, at), bytes.subarray(at + count));
  }
}

/** Puts a number at the edge of some range there, in one of the widths and byte orders. */
function putEdge(bytes: Uint8Array, at: number, random: () => number): Uint8Array {
  const edge = BigInt(EDGES[integerBelow(random, EDGES.length)]!);
  const wide = new Uint8Array(8);
  const isLittle = random() < 0.5;
  new DataView(wide.buffer).setBigUint64(0, edge, isLittle);
  const width = Math.min(2 ** integerBelow(random, 4), bytes.length - at);
  bytes.set(isLittle ? wide.subarray(0, width) : wide.subarray(8 - width), at);
  return bytes;
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

/** Cuts bytes into chunks at random, none larger than `chunkBytesMax`. */
export function cutAtRandom(
  bytes: Uint8Array,
  random: () => number,
  chunkBytesMax: number,
): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = Math.min(bytes.length, at + 1 + integerBelow(random, chunkBytesMax));
    chunks.push(bytes.slice(at, end));
    at = end;
  }
  return chunks;
}

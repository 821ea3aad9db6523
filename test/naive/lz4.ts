/**
 * Decodes one LZ4 block, byte by byte.
 *
 * Source: lz4, doc/lz4_Block_format.md.
 */
export function naiveLz4(source: Uint8Array, decodedBytes: number): Uint8Array {
  const target = new Uint8Array(decodedBytes);
  let from = 0;
  let to = 0;
  const long = (length: number): number => {
    if (length !== 15) return length;
    let total = 15;
    let more = 255;
    while (more === 255) {
      more = source[from++]!;
      total += more;
    }
    return total;
  };
  while (from < source.length) {
    const token = source[from++]!;
    for (let left = long(token >> 4); left > 0; left--) target[to++] = source[from++]!;
    if (from >= source.length) break;
    const offset = source[from]! | (source[from + 1]! << 8);
    from += 2;
    for (let left = long(token & 15) + 4; left > 0; left--, to++) target[to] = target[to - offset]!;
  }
  if (to !== decodedBytes) throw new Error(`LZ4 block has ${to} bytes, not ${decodedBytes}`);
  return target;
}

const WORD_BYTES = 8;

function pushCount(out: number[], count: number): void {
  for (; count >= 128; count = Math.floor(count / 128)) out.push(128 + (count % 128));
  out.push(count);
}

/** The difference of two pages of one size, word by word; native/kernel/delta.h has the format. */
export function naiveDelta(base: Uint8Array, page: Uint8Array): Uint8Array {
  const words = page.length / WORD_BYTES;
  const differs = (word: number): boolean =>
    page
      .subarray(word * WORD_BYTES, (word + 1) * WORD_BYTES)
      .some((byte, index) => byte !== base[word * WORD_BYTES + index]);
  const out: number[] = [];
  let lastEnd = 0;
  for (let word = 0; word < words; word++) {
    if (!differs(word)) continue;
    const begin = word;
    while (word < words && differs(word)) word++;
    pushCount(out, begin - lastEnd);
    pushCount(out, word - begin);
    for (let at = begin * WORD_BYTES; at < word * WORD_BYTES; at++) out.push(base[at]! ^ page[at]!);
    lastEnd = word;
  }
  return Uint8Array.from(out);
}

/**
 * The page that a delta makes of `base`.
 *
 * @throws {Error} If it is no delta of such a page.
 */
export function applyNaiveDelta(base: Uint8Array, delta: Uint8Array): Uint8Array {
  const page = base.slice();
  let at = 0;
  let word = 0;
  const takeCount = (): number => {
    let count = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = delta[at++];
      if (byte === undefined || scale > 128 ** 4) throw new Error('delta ends in a count');
      count += (byte % 128) * scale;
      if (byte < 128) {
        if (byte === 0 && scale > 1) throw new Error('count is longer than it need be');
        return count;
      }
    }
  };
  while (at < delta.length) {
    const isFirst = at === 0;
    const skipped = takeCount();
    const changed = takeCount();
    const end = (word + skipped + changed) * WORD_BYTES;
    const isWhole = at + changed * WORD_BYTES <= delta.length;
    if ((skipped === 0 && !isFirst) || changed === 0 || end > page.length || !isWhole) {
      throw new Error('delta has a wrong run');
    }
    for (let to = (word + skipped) * WORD_BYTES; to < end; to++, at++) page[to]! ^= delta[at]!;
    word = end / WORD_BYTES;
  }
  return page;
}

/*
 * What the guest does: at step n it writes one page, and which one and what follows from its seed
 * and n alone. So whoever knows seed and step knows all of its memory: a page that was lost, or
 * that is older than it should be, is found.
 */

export const PAGE_BYTES = 4096;
const PAGE_WORDS: number = PAGE_BYTES / 4;

/** Of each page only so many words are as good as random; the rest compresses, as memory does. */
const RANDOM_WORDS: number = PAGE_WORDS / 4;

/** The first steps fill half of memory from its start: the guest boots. */
export function bootSteps(pageCount: number): number {
  return pageCount >>> 1;
}

/** The page that is written at a step, which is 1 or more. */
export function pageOf(seed: number, step: number, pageCount: number): number {
  if (step <= bootSteps(pageCount)) return step - 1;
  return mix(seed ^ Math.imul(step, 0x9e37_79b1)) % pageCount;
}

/** Writes what `page` holds from `step` on. */
export function fillPage(words: Uint32Array, page: number, seed: number, step: number): void {
  const first = page * PAGE_WORDS;
  words.fill(step, first, first + PAGE_WORDS);
  words[first] = page;
  for (let index = 1; index <= RANDOM_WORDS; index++) {
    words[first + index] = mix(seed ^ Math.imul(step + index, 0x85eb_ca6b));
  }
}

/**
 * Compares all of memory with what the guest wrote until `step`.
 *
 * @param isPopulated Whether a page may hold something; the others are not touched, for that would
 *   give them memory.
 * @returns The first page that differs; -1 if there is none.
 */
export function findWrongPage(
  words: Uint32Array,
  { seed, step }: { readonly seed: number; readonly step: number },
  isPopulated: (page: number) => boolean,
): number {
  const pageCount = words.length / PAGE_WORDS;
  const lastSteps = new Uint32Array(pageCount);
  for (let at = 1; at <= step; at++) lastSteps[pageOf(seed, at, pageCount)] = at;
  const expected = new Uint32Array(PAGE_WORDS);
  for (let page = 0; page < pageCount; page++) {
    const isWritten = lastSteps[page] !== 0;
    if (!isPopulated(page)) {
      if (isWritten) return page;
      continue;
    }
    expected.fill(0);
    if (isWritten) {
      // Written in a page of its own, it is where page 0 would be.
      fillPage(expected, 0, seed, lastSteps[page]!);
      expected[0] = page;
    }
    const first = page * PAGE_WORDS;
    for (let index = 0; index < PAGE_WORDS; index++) {
      if (words[first + index] !== expected[index]) return page;
    }
  }
  return -1;
}

function mix(value: number): number {
  let mixed = Math.imul(value ^ (value >>> 16), 0x7feb_352d);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x846c_a68b);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

/** Which pages are all zero, one byte after another. */
export function naiveZeroPages(pages: Uint8Array, pageBytes: number): boolean[] {
  const found: boolean[] = [];
  for (let begin = 0; begin < pages.length; begin += pageBytes) {
    found.push(pages.subarray(begin, begin + pageBytes).every((byte) => byte === 0));
  }
  return found;
}

/** A dirty bitmap as a set of page indexes: slow and obvious. */
export class NaiveBitmap {
  readonly pageCount: number;
  readonly pages: Set<number> = new Set();

  constructor(pageCount: number) {
    this.pageCount = pageCount;
  }

  set(first: number, count: number): void {
    for (let page = first; page < first + count; page++) this.pages.add(page);
  }

  clear(first: number, count: number): void {
    for (let page = first; page < first + count; page++) this.pages.delete(page);
  }

  count(from: number, to: number): number {
    let count = 0;
    for (const page of this.pages) if (page >= from && page < to) count++;
    return count;
  }

  runs(from: number, to: number): { first: number; count: number }[] {
    const runs: { first: number; count: number }[] = [];
    for (let page = from; page < to; page++) {
      if (!this.pages.has(page)) continue;
      const last = runs.at(-1);
      if (last !== undefined && last.first + last.count === page) last.count++;
      else runs.push({ first: page, count: 1 });
    }
    return runs;
  }

  endOf(from: number, pages: number): { end: number; count: number } {
    let count = 0;
    let page = from;
    for (; page < this.pageCount && count < pages; page++) if (this.pages.has(page)) count++;
    return { end: count < pages ? this.pageCount : page, count };
  }

  /** 32-bit words, lowest bit first, as many as whole 64-bit words have. */
  words(): number[] {
    const words = Array<number>(2 * Math.ceil(this.pageCount / 64)).fill(0);
    for (const page of this.pages) words[Math.floor(page / 32)]! += 2 ** (page % 32);
    return words;
  }
}

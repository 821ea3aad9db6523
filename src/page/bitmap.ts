export class DirtyBitmap {
  readonly words: Uint32Array;
  readonly pageCount: number;
  constructor(pageCount: number) {
    this.pageCount = pageCount;
    this.words = new Uint32Array(2 * Math.ceil(pageCount / 64));
  }
  has(p: number): boolean {
    return ((this.words[p >>> 5]! >>> (p & 31)) & 1) === 1;
  }
  set(p: number): void {
    this.words[p >>> 5]! |= 1 << (p & 31);
  }
  clear(p: number): void {
    this.words[p >>> 5]! &= ~(1 << (p & 31));
  }
  merge(o: DirtyBitmap): void {
    for (let i = 0; i < this.words.length; i++) this.words[i]! |= o.words[i]!;
  }
  count(): number {
    let n = 0;
    for (let w of this.words)
      while (w !== 0) {
        w &= w - 1;
        n++;
      }
    return n;
  }
  nextSet(p: number): number {
    while (p < this.pageCount && !this.has(p)) p++;
    return Math.min(p, this.pageCount);
  }
  endOf(from: number, pages: number): { page: number; count: number } {
    let count = 0;
    let p = from;
    for (; p < this.pageCount && count < pages; p++) if (this.has(p)) count++;
    return { page: p, count };
  }
}

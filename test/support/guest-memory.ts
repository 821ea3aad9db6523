import {
  closeSync,
  ftruncateSync,
  openSync,
  readFileSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';

/* Chosen by us */
const HUGE_PAGES = '/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages';

export const HUGE_PAGE_BYTES: number = 2 * 1024 * 1024;

let fileCount = 0;

/** A path on /dev/shm that no other test has. */
export function shmPath(): string {
  return `/dev/shm/pagelane-test-${process.pid}-${fileCount++}`;
}

/** A file of zeros on /dev/shm that nobody else can open. */
export function openShmFile(bytes: number): number {
  const path = shmPath();
  const file = openSync(path, 'wx+');
  unlinkSync(path);
  ftruncateSync(file, bytes);
  return file;
}

/** Descriptors that are closed in the end. */
export class OpenFiles implements Disposable {
  readonly #files: number[] = [];

  add(file: number): number {
    this.#files.push(file);
    return file;
  }

  shm(bytes: number): number {
    return this.add(openShmFile(bytes));
  }

  [Symbol.dispose](): void {
    for (const file of this.#files) closeSync(file);
  }
}

/**
 * Huge pages of 2 MiB, given back in the end. `count` is how many there are: 0 where the system has
 * none to give, or this process may not ask.
 */
export class HugePages implements Disposable {
  readonly count: number;
  readonly #before: string | undefined;

  constructor(wanted: number) {
    let count = 0;
    try {
      this.#before = readFileSync(HUGE_PAGES, 'utf8');
      writeFileSync(HUGE_PAGES, `${Number(this.#before) + wanted}`);
      count = Number(readFileSync(HUGE_PAGES, 'utf8')) - Number(this.#before);
    } catch {
      // Not ours to change: whoever asked says what it checks instead.
    }
    this.count = count < wanted ? 0 : count;
  }

  [Symbol.dispose](): void {
    if (this.#before !== undefined) writeFileSync(HUGE_PAGES, this.#before);
  }
}

/** Indexes of the bits that are set. */
export function pagesIn(words: Uint32Array): number[] {
  const pages: number[] = [];
  for (const [index, word] of words.entries()) {
    for (let bit = 0; bit < 32; bit++) if ((word >>> bit) & 1) pages.push(index * 32 + bit);
  }
  return pages;
}

/** Words of a bitmap with a bit per page. */
export function wordsFor(pages: number): Uint32Array {
  return new Uint32Array(Math.ceil(pages / 32));
}

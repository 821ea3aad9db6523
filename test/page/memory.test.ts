import { execFileSync } from 'node:child_process';
import {
  closeSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { createMemoryFile, GuestMemory, type MemoryBlockSource } from '../../src/page/memory.ts';
import {
  HUGE_PAGE_BYTES,
  HugePages,
  OpenFiles,
  pagesIn,
  shmPath,
  wordsFor,
} from '../support/guest-memory.ts';

const PAGE = 4096;
const TERABYTE = 1e12;

const code = (name: string): unknown =>
  expect.objectContaining({ name: 'MemoryError', code: name });

function byteAt(file: number, offset: number): number {
  const byte = new Uint8Array(1);
  readSync(file, byte, 0, 1, offset);
  return byte[0]!;
}

function write(file: number, offset: number, text: string): void {
  writeSync(file, Buffer.from(text), 0, text.length, offset);
}

/** Kinds of memory a block may be in. */
const KINDS: Record<string, (files: OpenFiles, bytes: number) => MemoryBlockSource> = {
  'a memfd': (files, bytes) => ({ name: 'ram', file: files.add(createMemoryFile('ram', bytes)) }),
  '/dev/shm': (files, bytes) => ({ name: 'ram', file: files.shm(bytes) }),
  'a buffer': (_, bytes) => ({ name: 'ram', buffer: new Uint8Array(bytes) }),
  'a shared buffer': (_, bytes) => ({
    name: 'ram',
    buffer: new Uint8Array(new SharedArrayBuffer(bytes)),
  }),
};

describe.each(Object.entries(KINDS))('GuestMemory of %s', (kind, make) => {
  test('is seen through its view, and by whoever attaches', () => {
    using files = new OpenFiles();
    using memory = new GuestMemory([make(files, 8 * PAGE)], { isWritable: true });
    expect(memory.layout).toEqual({
      pageBits: 12,
      hasFooter: false,
      sectionId: 0,
      blocks: [{ name: 'ram', usedBytes: 8 * PAGE }],
    });
    expect(memory.pageCount(0)).toBe(8);
    const view = memory.view(0);
    expect(view.length).toBe(8 * PAGE);
    expect(memory.view(0)).toBe(view);
    view[5 * PAGE] = 77;
    if (kind === 'a buffer') {
      expect(() => memory.handle).toThrow(code('ERR_MEMORY_SHARE'));
    } else {
      using other = GuestMemory.attach(structuredClone(memory.handle));
      expect(other.view(0)[5 * PAGE]).toBe(77);
      memory.dispose();
      expect(other.view(0)[5 * PAGE]).toBe(77);
    }
  });

  test('gives back what is punched', async () => {
    using files = new OpenFiles();
    using memory = new GuestMemory([make(files, 8 * PAGE)], { isWritable: true });
    memory.view(0).fill(9);
    memory.punch(0, 2, 3);
    const words = wordsFor(8);
    await memory.scanPopulated(0, words);
    const isBuffer = kind.includes('buffer');
    expect(pagesIn(words)).toEqual(isBuffer ? [0, 1, 2, 3, 4, 5, 6, 7] : [0, 1, 5, 6, 7]);
    const sums = Array.from({ length: 8 }, (_, page) =>
      memory
        .view(0)
        .subarray(page * PAGE, (page + 1) * PAGE)
        .every((byte) => byte === 9),
    );
    expect(sums).toEqual([true, true, false, false, false, true, true, true]);
    expect(
      memory
        .view(0)
        .subarray(2 * PAGE, 5 * PAGE)
        .every((byte) => byte === 0),
    ).toBe(true);
    expect(() => memory.punch(0, 6, 3)).toThrow(RangeError);
    expect(() => memory.punch(1, 0, 1)).toThrow(RangeError);
  });

  test('after dispose() every method says that it is closed, and views are empty', async () => {
    using files = new OpenFiles();
    const memory = new GuestMemory([make(files, 2 * PAGE)], { isWritable: true });
    const view = memory.view(0);
    memory.dispose();
    memory.dispose();
    const isBuffer = kind.includes('buffer');
    expect(view.length).toBe(isBuffer ? 2 * PAGE : 0);
    view[0] = 1;
    expect(view[0]).toBe(isBuffer ? 1 : undefined);
    expect(() => memory.view(0)).toThrow(code('ERR_MEMORY_CLOSED'));
    expect(() => memory.findPopulated(0, wordsFor(2))).toThrow(code('ERR_MEMORY_CLOSED'));
    await expect(memory.scanPopulated(0, wordsFor(2))).rejects.toThrow(code('ERR_MEMORY_CLOSED'));
    expect(() => memory.punch(0, 0, 1)).toThrow(code('ERR_MEMORY_CLOSED'));
    expect(() => memory.checkIntact()).toThrow(code('ERR_MEMORY_CLOSED'));
    expect(memory.pageCount(0)).toBe(2);
    if (kind !== 'a buffer') {
      expect(() => GuestMemory.attach(memory.handle)).toThrow(code('ERR_MEMORY_CLOSED'));
    }
  });
});

describe('GuestMemory of files', () => {
  test('maps a path, a part of it, and several blocks in pages of 1 and 64 KiB', () => {
    const path = shmPath();
    writeFileSync(path, Buffer.alloc(32 * 65536, 1));
    try {
      for (const pageBytes of [1024, 65536]) {
        using memory = new GuestMemory(
          [
            { name: 'low', path, bytes: 65536 },
            { name: 'high', path, offset: 4 * 65536 },
            { name: 'own', buffer: new Uint8Array(65536) },
          ],
          { pageBytes },
        );
        expect([0, 1, 2].map((block) => memory.pageCount(block) * pageBytes)).toEqual([
          65536,
          28 * 65536,
          65536,
        ]);
        expect([0, 1, 2].map((block) => memory.view(block).at(-1))).toEqual([1, 1, 0]);
      }
    } finally {
      unlinkSync(path);
    }
  });

  test('what is written to a view of memory for reading stays there', () => {
    using files = new OpenFiles();
    const file = files.shm(2 * PAGE);
    using memory = new GuestMemory([{ name: 'ram', file }]);
    const view = memory.view(0);
    write(file, 0, 'early');
    view[PAGE] = 5;
    write(file, 4, 'Y');
    expect(Buffer.from(view.subarray(0, 5)).toString()).toBe('earlY');
    expect([view[PAGE], byteAt(file, PAGE)]).toEqual([5, 0]);
    expect(() => memory.punch(0, 0, 1)).toThrow(code('ERR_MEMORY_READ_ONLY'));
  });

  test('needs no descriptor once it is made, and leaves its position alone', () => {
    using files = new OpenFiles();
    const own = createMemoryFile('ram', 4 * PAGE);
    write(own, 2 * PAGE, 'x');
    writeSync(own, Buffer.from('abc'));
    const memory = new GuestMemory([{ name: 'ram', file: own }]);
    const words = wordsFor(4);
    memory.findPopulated(0, words);
    writeSync(own, Buffer.from('d'));
    closeSync(own);
    files.shm(PAGE);
    expect(pagesIn(words)).toEqual([0, 2]);
    expect(Buffer.from(memory.view(0).subarray(0, 4)).toString()).toBe('abcd');
    memory.checkIntact();
    memory.dispose();
  });

  test('findPopulated() makes no page, adds bits, and wants as many words as there are pages', () => {
    using files = new OpenFiles();
    const file = files.shm(100 * PAGE);
    write(file, 3 * PAGE + 100, 'x');
    write(file, 99 * PAGE, 'x');
    using memory = new GuestMemory([{ name: 'ram', file }]);
    const words = Uint32Array.of(1, 0, 0, 0);
    memory.findPopulated(0, words);
    expect(pagesIn(words)).toEqual([0, 3, 99]);
    expect(fstatSync(file).blocks * 512).toBe(2 * PAGE);
    for (const count of [3, 5]) {
      expect(() => memory.findPopulated(0, new Uint32Array(count))).toThrow(RangeError);
    }
    using odd = new GuestMemory([{ name: 'ram', file, bytes: 70 * PAGE }]);
    for (const count of [3, 4]) odd.findPopulated(0, new Uint32Array(count));
    for (const count of [2, 5]) {
      expect(() => odd.findPopulated(0, new Uint32Array(count))).toThrow(RangeError);
    }
  });

  test('12 TB with three pages are mapped and searched by their holes', async () => {
    using files = new OpenFiles();
    const bytes = 12 * TERABYTE - ((12 * TERABYTE) % PAGE);
    const file = files.add(createMemoryFile('large', bytes));
    const pages = bytes / PAGE;
    for (const page of [0, 1_000_000_007, pages - 1]) write(file, page * PAGE, 'x');
    using memory = new GuestMemory([{ name: 'ram', file }]);
    const words = wordsFor(pages);
    await memory.scanPopulated(0, words);
    expect(words[0]).toBe(1);
    expect(words[Math.floor(1_000_000_007 / 32)]).toBe(2 ** (1_000_000_007 % 32));
    expect(words.at(-1)).toBe(2 ** ((pages - 1) % 32));
    expect(words.reduce((sum, word) => sum + (word === 0 ? 0 : 1), 0)).toBe(3);
    expect(fstatSync(file).blocks * 512).toBe(3 * PAGE);
    const again = words.slice().fill(0);
    memory.findPopulated(0, again);
    expect(Buffer.from(again.buffer).equals(Buffer.from(words.buffer))).toBe(true);
    expect(() => memory.view(0)).toThrow(code('ERR_MEMORY_SIZE'));
  });
});

describe('GuestMemory on hugetlbfs', () => {
  test('finds and punches pages without making any; without huge pages, says that it has none', () => {
    using pages = new HugePages(4);
    using files = new OpenFiles();
    const bytes = 4 * HUGE_PAGE_BYTES;
    if (pages.count === 0) {
      // The machine gives none: what is left to check is that it is said, and where.
      expect(() => {
        const file = files.add(createMemoryFile('huge', bytes, HUGE_PAGE_BYTES));
        new GuestMemory([{ name: 'ram', file }], { isWritable: true });
      }).toThrow(
        expect.objectContaining({ code: expect.stringMatching(/^ERR_MEMORY_(CREATE|MAP)$/) }),
      );
      return;
    }
    const file = files.add(createMemoryFile('huge', bytes, HUGE_PAGE_BYTES));
    using memory = new GuestMemory([{ name: 'ram', file }], { isWritable: true });
    const find = (): number[] => {
      const words = wordsFor(bytes / PAGE);
      memory.findPopulated(0, words);
      return [...new Set(pagesIn(words).map((page) => Math.floor(page / 512)))];
    };
    const used = (): number => (fstatSync(file).blocks * 512) / HUGE_PAGE_BYTES;
    expect([find(), used()]).toEqual([[], 0]);
    const view = memory.view(0);
    view[HUGE_PAGE_BYTES + 12345] = 1;
    view[3 * HUGE_PAGE_BYTES] = 1;
    expect([find(), used()]).toEqual([[1, 3], 2]);
    view[0] = 1;
    view[2 * HUGE_PAGE_BYTES] = 1;
    expect([find(), used()]).toEqual([[0, 1, 2, 3], 4]);
    // From the last page of the first host page to the first of the fourth.
    view.fill(7);
    memory.punch(0, 511, 2 * 512 + 2);
    expect(used()).toBe(2);
    expect(view.indexOf(0)).toBe(511 * PAGE);
    expect(view.lastIndexOf(0)).toBe(3 * HUGE_PAGE_BYTES + PAGE - 1);
    expect(view.subarray(511 * PAGE, 3 * HUGE_PAGE_BYTES + PAGE).every((byte) => byte === 0)).toBe(
      true,
    );
    memory.checkIntact();
    for (const odd of [
      { bytes: HUGE_PAGE_BYTES + PAGE },
      { offset: PAGE, bytes: HUGE_PAGE_BYTES },
    ]) {
      expect(() => new GuestMemory([{ name: 'ram', file, ...odd }])).toThrow(
        code('ERR_MEMORY_SIZE'),
      );
    }
  });

  test('is refused where it is mapped if there are fewer huge pages than it has', () => {
    using pages = new HugePages(1);
    using files = new OpenFiles();
    const make = (): GuestMemory => {
      const file = files.add(createMemoryFile('huge', 2 ** 40, HUGE_PAGE_BYTES));
      return new GuestMemory([{ name: 'ram', file }], { isWritable: true });
    };
    const codes = pages.count === 0 ? /^ERR_MEMORY_(CREATE|MAP)$/ : /^ERR_MEMORY_MAP$/;
    expect(make).toThrow(expect.objectContaining({ code: expect.stringMatching(codes) }));
  });

  test('createMemoryFile() says so where there are no pages of that size', () => {
    expect(() => createMemoryFile('huge', 2 ** 33, 2 ** 33)).toThrow(code('ERR_MEMORY_CREATE'));
    expect(() => createMemoryFile('huge', 4096, 3000)).toThrow(RangeError);
    expect(() => createMemoryFile('huge', -1)).toThrow(RangeError);
  });
});

describe('GuestMemory is refused', () => {
  const folder = mkdtempSync(join(tmpdir(), 'pagelane-test-'));
  const path = (name: string): string => join(folder, name);
  const shared = new Uint8Array(new SharedArrayBuffer(4 * PAGE));
  writeFileSync(path('ram'), Buffer.alloc(4 * PAGE));
  writeFileSync(path('odd'), Buffer.alloc(PAGE + 1));
  writeFileSync(path('none'), '');
  execFileSync('mkfifo', [path('fifo')]);

  const ram = (name: string, more: object = {}): MemoryBlockSource => ({
    name,
    path: path('ram'),
    ...more,
  });
  const CASES: Record<string, [MemoryBlockSource[], string]> = {
    'without its file': [[{ name: 'a', path: path('missing') }], 'ERR_MEMORY_OPEN'],
    'as a FIFO that nobody writes to': [[{ name: 'a', path: path('fifo') }], 'ERR_MEMORY_OPEN'],
    'as a folder': [[{ name: 'a', path: folder }], 'ERR_MEMORY_OPEN'],
    'as a device': [[{ name: 'a', path: '/dev/zero', bytes: PAGE }], 'ERR_MEMORY_OPEN'],
    'as a closed descriptor': [[{ name: 'a', file: 1_000_000, bytes: PAGE }], 'ERR_MEMORY_OPEN'],
    'longer than its file': [[ram('a', { bytes: 5 * PAGE })], 'ERR_MEMORY_SIZE'],
    'behind its file': [[ram('a', { offset: 8 * PAGE })], 'ERR_MEMORY_SIZE'],
    'past its file': [[ram('a', { offset: 3 * PAGE, bytes: 2 * PAGE })], 'ERR_MEMORY_SIZE'],
    'at a broken offset': [[ram('a', { offset: 100, bytes: PAGE })], 'ERR_MEMORY_SIZE'],
    'at an offset below 0': [[ram('a', { offset: -PAGE, bytes: PAGE })], 'ERR_MEMORY_SIZE'],
    'of a broken size': [[{ name: 'a', path: path('odd') }], 'ERR_MEMORY_SIZE'],
    'of half a byte': [[ram('a', { bytes: PAGE + 0.5 })], 'ERR_MEMORY_SIZE'],
    'of no page': [[{ name: 'a', path: path('none') }], 'ERR_MEMORY_SIZE'],
    'of a buffer of a broken size': [
      [{ name: 'a', buffer: shared.subarray(1) }],
      'ERR_MEMORY_SIZE',
    ],
    'with a name twice': [
      [ram('a', { bytes: PAGE }), ram('a', { offset: PAGE })],
      'ERR_MEMORY_NAME',
    ],
    'without a name': [[ram('')], 'ERR_MEMORY_NAME'],
    'with a name of 256 bytes': [[ram('é'.repeat(128))], 'ERR_MEMORY_NAME'],
    'with blocks that overlap in a file': [
      [ram('a', { bytes: 2 * PAGE }), ram('b', { offset: PAGE })],
      'ERR_MEMORY_OVERLAP',
    ],
    'with blocks that overlap in a buffer': [
      [
        { name: 'a', buffer: shared.subarray(PAGE) },
        { name: 'b', buffer: shared.subarray(0, 2 * PAGE) },
      ],
      'ERR_MEMORY_OVERLAP',
    ],
  };

  test.each(Object.entries(CASES))('%s', (_, [blocks, wanted]) => {
    expect(() => new GuestMemory(blocks)).toThrow(code(wanted));
  });

  test('for writing, where the descriptor is for reading', () => {
    using files = new OpenFiles();
    const file = files.add(openSync(path('ram'), 'r'));
    expect(() => new GuestMemory([{ name: 'a', file }], { isWritable: true })).toThrow(
      code('ERR_MEMORY_MAP'),
    );
    using memory = new GuestMemory([{ name: 'a', file }]);
    memory.checkIntact();
  });

  test('with a wrong number of blocks or bytes per page', () => {
    expect(() => new GuestMemory([])).toThrow(RangeError);
    for (const pageBytes of [0, 512, 4095, 131072, Number.NaN]) {
      expect(() => new GuestMemory([ram('a')], { pageBytes })).toThrow(RangeError);
    }
  });

  test('and folders are cleared', () => {
    rmSync(folder, { recursive: true });
    expect(() => new GuestMemory([ram('a')])).toThrow(code('ERR_MEMORY_OPEN'));
  });
});

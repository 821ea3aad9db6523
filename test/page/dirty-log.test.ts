import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { fstatSync, ftruncateSync, readSync, writeSync } from 'node:fs';
import { resolve } from 'node:path';
import { Worker } from 'node:worker_threads';
import { describe, expect, test } from 'vitest';
import { native } from '../../src/native.ts';
import {
  callbackDirtyLog,
  type DirtyLog,
  hashDirtyLog,
  writeProtectDirtyLog,
} from '../../src/page/dirty-log.ts';
import { createMemoryFile, GuestMemory } from '../../src/page/memory.ts';
import {
  HUGE_PAGE_BYTES,
  HugePages,
  OpenFiles,
  pagesIn,
  wordsFor,
} from '../support/guest-memory.ts';
import { Precopy } from '../support/precopy.ts';
import { createPrng, integerBelow } from '../support/prng.ts';

const PAGE = 4096;
const ADDON = process.env['PAGELANE_ADDON'] ?? resolve('build/Release/pagelane.node');
const SEEDS = Array.from({ length: 40 }, (_, index) => index + 1);

/** Memory that a seeded guest writes to, and the log of a hypervisor that sees each write. */
class Guest implements Disposable {
  readonly files = new OpenFiles();
  readonly memory: GuestMemory;
  readonly seen: Uint32Array[];
  readonly #random: () => number;

  constructor(seed: number, pageBytesWanted?: number) {
    this.#random = createPrng(seed);
    const pageBytes = pageBytesWanted ?? 2 ** (10 + integerBelow(this.#random, 7));
    const pages = [1 + integerBelow(this.#random, 70), 1 + integerBelow(this.#random, 200)];
    this.memory = new GuestMemory(
      pages.map((count, block) => ({
        name: `block ${block}`,
        file: this.files.shm(count * pageBytes),
      })),
      { pageBytes, isWritable: true },
    );
    this.seen = pages.map((count) => new Uint32Array(Math.ceil(count / 64) * 2));
    for (let write = 0; write < 30; write++) this.write();
  }

  /** Writes few values to few places, so that pages often become what they were. */
  write(): void {
    const block = integerBelow(this.#random, 2);
    const page = integerBelow(this.#random, this.memory.pageCount(block));
    const at = page * 2 ** this.memory.layout.pageBits + 8 * integerBelow(this.#random, 2);
    this.memory.view(block)[at] = integerBelow(this.#random, 2);
    this.seen[block]![page >> 5]! |= 1 << (page & 31);
  }

  maybeWrite(): void {
    while (this.#random() < 0.4) this.write();
  }

  [Symbol.dispose](): void {
    this.memory.dispose();
    this.files[Symbol.dispose]();
  }
}

/** KVM's log: gives the bits, and forgets them. */
function seenBy(guest: Guest): DirtyLog {
  return callbackDirtyLog((block, words) => {
    words.set(guest.seen[block]!.subarray(0, words.length));
    guest.seen[block]!.fill(0);
  });
}

const LOGS: Record<string, (guest: Guest) => DirtyLog> = {
  callback: seenBy,
  'write protection': ({ memory }) => writeProtectDirtyLog(memory),
  hash: ({ memory }) => hashDirtyLog(memory, { threads: 2 }),
};

/** Pre-copies a guest that goes on writing, stops it, and says which pages are stale then. */
async function precopy(guest: Guest, log: DirtyLog): Promise<number[][]> {
  const moving = new Precopy(guest.memory, log);
  await moving.first(() => guest.maybeWrite());
  for (let round = 0; round < 6; round++) await moving.round(() => guest.maybeWrite());
  await moving.round();
  await log.stop();
  return moving.stale();
}

describe.each(Object.entries(LOGS))('a pre-copy by the log of %s', (name, make) => {
  test.each(SEEDS)('leaves no page stale, whenever it is written, seed %i', async (seed) => {
    using guest = new Guest(seed);
    const log = make(guest);
    expect(log.name).toBe(name);
    expect(await precopy(guest, log)).toEqual([[], []]);
  });

  test('copies nothing when nothing is written, and what is written once', async () => {
    using guest = new Guest(7, PAGE);
    const log = make(guest);
    const moving = new Precopy(guest.memory, log);
    await moving.first();
    for (const words of guest.seen) words.fill(0);
    expect(await moving.round()).toBe(0);
    const view = guest.memory.view(1);
    view[0] = 123;
    guest.seen[1]![0] = 1;
    expect(await moving.round()).toBe(1);
    expect(await moving.round()).toBe(0);
    await log.stop();
    expect(moving.stale()).toEqual([[], []]);
  });
});

describe('a wrong log leaves pages stale', () => {
  /** Clears what was written when the pages are copied, and not before. */
  test('that clears after the pages were read', async () => {
    const stale: number[] = [];
    for (const seed of SEEDS) {
      using guest = new Guest(seed);
      let reported = guest.seen.map((words) => words.slice());
      const late = callbackDirtyLog((block, words) => {
        // What came since the last report is forgotten with it.
        if (block === 0) {
          reported = guest.seen.map((seen) => seen.slice());
        }
        words.set(reported[block]!.subarray(0, words.length));
      });
      const moving = new Precopy(guest.memory, late);
      await moving.first(() => guest.maybeWrite());
      for (let round = 0; round < 6; round++) {
        await moving.round(() => guest.maybeWrite());
        for (const seen of guest.seen) seen.fill(0);
      }
      await moving.round();
      stale.push(...moving.stale().flat());
    }
    expect(stale.length).toBeGreaterThan(0);
  });

  test('that protects pages again only when they were read', async () => {
    const stale: number[] = [];
    for (const seed of SEEDS) {
      using guest = new Guest(seed);
      const log = writeProtectDirtyLog(guest.memory);
      const moving = new Precopy(guest.memory, log);
      await moving.first(() => guest.maybeWrite());
      for (let round = 0; round < 6; round++) {
        await moving.round(() => guest.maybeWrite());
        await log.collect(moving.bitmaps());
      }
      await moving.round();
      await log.stop();
      stale.push(...moving.stale().flat());
    }
    expect(stale.length).toBeGreaterThan(0);
  });

  test('that compares with what memory was, and not with what was copied', async () => {
    const stale: number[] = [];
    for (const seed of SEEDS) {
      using guest = new Guest(seed);
      const pageBytes = 2 ** guest.memory.layout.pageBits;
      const known = new Map<string, bigint>();
      const naive = callbackDirtyLog((block, words) => {
        for (let page = 0; page < guest.memory.pageCount(block); page++) {
          const from = page * pageBytes;
          const bytes = guest.memory.view(block).slice(from, from + pageBytes);
          const hash = native.hash64(bytes, 1n);
          const key = `${block} ${page}`;
          if (known.get(key) !== hash) words[page >> 5]! |= 1 << (page & 31);
          known.set(key, hash);
        }
      });
      stale.push(...(await precopy(guest, naive)).flat());
    }
    expect(stale.length).toBeGreaterThan(0);
  });
});

/** Threads that attach to memory, and write to it until they are stopped. */
class Writers {
  readonly #counts = new Int32Array(new SharedArrayBuffer(8));
  readonly #workers: Worker[] = [];

  async start(memory: GuestMemory, seeds: readonly number[]): Promise<void> {
    const code = `
      const { workerData: { id, counts, seed }, parentPort } = require('node:worker_threads');
      const native = require(${JSON.stringify(ADDON)});
      const view = new native.GuestMemory(id, []).view(0);
      let state = seed;
      const below = (end) => {
        state = (Math.imul(state, 1103515245) + 12345) >>> 0;
        return (state >>> 8) % end;
      };
      while (Atomics.load(counts, 0) === 0) {
        for (let write = 0; write < 20; write++) {
          const page = below(view.length / 4096);
          view[page * 4096 + below(64) * 64] = below(2);
          if (below(8) === 0) view.fill(below(256), page * 4096, page * 4096 + 4096);
        }
        Atomics.add(counts, 1, 1);
      }`;
    for (const seed of seeds) {
      const workerData = { id: memory.handle.id, counts: this.#counts, seed };
      this.#workers.push(new Worker(code, { eval: true, workerData }));
    }
    await this.moreWrites();
  }

  /** Waits until there were more writes. */
  async moreWrites(): Promise<void> {
    const before = Atomics.load(this.#counts, 1);
    while (Atomics.load(this.#counts, 1) === before) await new Promise(setImmediate);
  }

  async stop(): Promise<void> {
    Atomics.store(this.#counts, 0, 1);
    await Promise.all(this.#workers.map((worker) => once(worker, 'exit')));
  }
}

describe.each([
  ['write protection', writeProtectDirtyLog],
  ['hash', (memory: GuestMemory) => hashDirtyLog(memory)],
] as const)('the log of %s, while other threads write', (_, make) => {
  test.each([1, 2, 3, 4, 5, 6])('loses no write, seed %i', async (seed) => {
    using files = new OpenFiles();
    using memory = new GuestMemory([{ name: 'ram', file: files.shm(300 * PAGE) }], {
      isWritable: true,
    });
    const log = make(memory);
    const moving = new Precopy(memory, log);
    const writers = new Writers();
    await writers.start(memory, [seed, seed + 100]);
    await moving.first();
    let copied = 0;
    for (let round = 0; round < 40; round++) {
      await writers.moreWrites();
      copied += await moving.round();
    }
    await writers.stop();
    await moving.round();
    await log.stop();
    expect(copied).toBeGreaterThan(0);
    expect(moving.stale()).toEqual([[]]);
  });
});

describe('writeProtectDirtyLog()', () => {
  const unsupported = (text: string): unknown =>
    expect.objectContaining({
      name: 'DirtyLogError',
      code: 'ERR_DIRTY_LOG_UNSUPPORTED',
      message: expect.stringContaining(text),
    });

  test('says why it cannot be used', async () => {
    using files = new OpenFiles();
    const file = files.shm(4 * PAGE);
    using reading = new GuestMemory([{ name: 'ram', file }]);
    await expect(writeProtectDirtyLog(reading).start()).rejects.toThrow(
      unsupported('mapped for reading'),
    );
    using buffer = new GuestMemory([{ name: 'ram', buffer: new Uint8Array(PAGE) }], {
      isWritable: true,
    });
    await expect(writeProtectDirtyLog(buffer).start()).rejects.toThrow(unsupported('a buffer'));
    using memory = new GuestMemory([{ name: 'ram', file }], { isWritable: true });
    const [one, other] = [writeProtectDirtyLog(memory), writeProtectDirtyLog(memory)];
    await one.start();
    await expect(other.start()).rejects.toThrow(unsupported('another userfaultfd'));
    await expect(other.collect([wordsFor(4)])).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_DIRTY_LOG_STOPPED' }),
    );
    await one.stop();
    await other.start();
    await other.stop();
  });

  test('sees what the kernel writes for this process', async () => {
    using files = new OpenFiles();
    const file = files.shm(4 * PAGE);
    writeSync(file, randomBytes(4 * PAGE), 0, 4 * PAGE, 0);
    using memory = new GuestMemory([{ name: 'ram', file }], { isWritable: true });
    const log = writeProtectDirtyLog(memory);
    const view = memory.view(0);
    await log.start();
    readSync(file, view, 3 * PAGE, PAGE, 0);
    const words = wordsFor(4);
    await log.collect([words]);
    expect(pagesIn(words)).toEqual([3]);
    await log.stop();
  });

  test('makes no page where there is none, and starts on a TiB of holes', async () => {
    using files = new OpenFiles();
    const file = files.add(createMemoryFile('sparse', 2 ** 40));
    using memory = new GuestMemory([{ name: 'ram', file }], { isWritable: true });
    writeSync(file, Buffer.from('x'), 0, 1, 2 ** 39);
    const log = writeProtectDirtyLog(memory);
    await log.start();
    const words = wordsFor(2 ** 28);
    await log.collect([words]);
    expect(words.every((word) => word === 0)).toBe(true);
    expect(fstatSync(file).blocks * 512).toBe(PAGE);
    // What is there for the first time counts as written, whoever wrote it.
    writeSync(file, Buffer.from('x'), 0, 1, 2 ** 38);
    for (const first of [2 ** 21, -1]) {
      words.fill(0);
      await log.collect([words]);
      expect(words.findIndex((word) => word !== 0)).toBe(first);
    }
    await log.stop();
  });

  test('reports what is written between holes, and none of the holes', async () => {
    using files = new OpenFiles();
    const file = files.shm(5000 * PAGE);
    using memory = new GuestMemory([{ name: 'ram', file }], { isWritable: true });
    const view = memory.view(0);
    view[700 * PAGE] = 1;
    const log = writeProtectDirtyLog(memory);
    await log.start();
    const collect = async (...pages: number[]): Promise<number[]> => {
      for (const page of pages) view[page * PAGE + 1]!++;
      const words = wordsFor(5000);
      await log.collect([words]);
      return pagesIn(words);
    };
    expect(await collect()).toEqual([]);
    expect(await collect(3, 4, 5, 2600)).toEqual([3, 4, 5, 2600]);
    expect(await collect()).toEqual([]);
    expect(await collect(4, 6, 511, 512, 700, 4999)).toEqual([4, 6, 511, 512, 700, 4999]);
    expect(fstatSync(file).blocks * 512).toBe(9 * PAGE);
    await log.stop();
  });
});

describe('hashDirtyLog()', () => {
  test('sees what others write and punch, and makes no page', async () => {
    using files = new OpenFiles();
    const file = files.shm(100 * PAGE);
    for (const page of [1, 40, 99]) writeSync(file, Buffer.from('x'), 0, 1, page * PAGE);
    using memory = new GuestMemory([{ name: 'ram', file }]);
    using others = new GuestMemory([{ name: 'ram', file }], { isWritable: true });
    const log = hashDirtyLog(memory, { threads: 1 });
    const moving = new Precopy(memory, log);
    expect(await moving.first()).toBe(3);
    expect(await moving.round()).toBe(0);
    writeSync(file, Buffer.from('y'), 0, 1, 40 * PAGE);
    others.punch(0, 99, 1);
    expect(await moving.round()).toBe(2);
    expect(fstatSync(file).blocks * 512).toBe(3 * PAGE);
    expect(moving.stale()).toEqual([[]]);
    await log.stop();
  });

  test('reports what nobody noted again and again', async () => {
    using memory = new GuestMemory([{ name: 'ram', buffer: new Uint8Array(40 * PAGE).fill(1) }]);
    const log = hashDirtyLog(memory, { threads: 3 });
    await log.start();
    for (let time = 0; time < 3; time++) {
      const words = wordsFor(40);
      await log.collect([words]);
      expect(pagesIn(words).length).toBe(40);
    }
  });

  test('threads of the addon that read what is truncated live on, and say that it is lost', async () => {
    using files = new OpenFiles();
    for (let time = 0; time < 10; time++) {
      const file = files.shm(2000 * PAGE);
      using memory = new GuestMemory([{ name: 'ram', file }], { isWritable: true });
      memory.view(0).fill(1);
      const log = hashDirtyLog(memory);
      await log.start();
      const collected = log.collect([wordsFor(2000)]);
      ftruncateSync(file, time * PAGE);
      await expect(collected).rejects.toThrow(
        expect.objectContaining({ name: 'MemoryError', code: 'ERR_MEMORY_LOST' }),
      );
    }
  });

  test('takes a number of threads from 1 on', () => {
    using memory = new GuestMemory([{ name: 'ram', buffer: new Uint8Array(PAGE) }]);
    for (const threads of [0, -1, 1.5, Number.NaN]) {
      expect(() => hashDirtyLog(memory, { threads })).toThrow(RangeError);
    }
  });
});

describe.each([
  ['write protection', writeProtectDirtyLog],
  ['hash', (memory: GuestMemory) => hashDirtyLog(memory)],
] as const)('the log of %s', (_, make) => {
  test('refuses bitmaps that are too short, too long, or too few', async () => {
    using files = new OpenFiles();
    using memory = new GuestMemory(
      [
        { name: 'one', file: files.shm(70 * PAGE) },
        { name: 'two', file: files.shm(PAGE) },
      ],
      { isWritable: true },
    );
    const log = make(memory);
    const collect = async (...counts: number[]): Promise<void> =>
      log.collect(counts.map((count) => new Uint32Array(count)));
    await expect(collect(3, 1)).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_DIRTY_LOG_STOPPED' }),
    );
    await log.start();
    for (const counts of [[2, 1], [5, 1], [3, 3], [3, 0], [3], [], [3, 1, 1]]) {
      await expect(collect(...counts)).rejects.toThrow(RangeError);
    }
    await collect(3, 1);
    await collect(4, 2);
    const shared = [wordsFor(70), new Uint32Array(new SharedArrayBuffer(4))];
    await expect(log.collect(shared)).rejects.toThrow(TypeError);
    await log.stop();
    await log.stop();
    await expect(collect(3, 1)).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_DIRTY_LOG_STOPPED' }),
    );
  });

  test('says that memory is lost, or closed', async () => {
    using files = new OpenFiles();
    const file = files.shm(10 * PAGE);
    using memory = new GuestMemory([{ name: 'ram', file }], { isWritable: true });
    const log = make(memory);
    await log.start();
    ftruncateSync(file, PAGE);
    await expect(log.collect([wordsFor(10)])).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_MEMORY_LOST' }),
    );
    memory.dispose();
    const closed = expect.objectContaining({ name: 'MemoryError', code: 'ERR_MEMORY_CLOSED' });
    await expect(log.collect([wordsFor(10)])).rejects.toThrow(closed);
    await log.stop();
    await expect((async () => log.start())()).rejects.toThrow(closed);
  });

  test('may be stopped, and memory closed, while it collects', async () => {
    using files = new OpenFiles();
    const file = files.shm(4000 * PAGE);
    const memory = new GuestMemory([{ name: 'ram', file }], { isWritable: true });
    memory.view(0).fill(3);
    const log = make(memory);
    await log.start();
    const collected = log.collect([wordsFor(4000)]);
    await log.stop();
    memory.dispose();
    await expect(collected).rejects.toThrow(expect.objectContaining({ code: 'ERR_MEMORY_CLOSED' }));
  });

  test('works on hugetlbfs; without huge pages, the memory for it cannot be had', async () => {
    using pages = new HugePages(3);
    using files = new OpenFiles();
    const bytes = 3 * HUGE_PAGE_BYTES;
    const map = (): GuestMemory => {
      const file = files.add(createMemoryFile('huge', bytes, HUGE_PAGE_BYTES));
      return new GuestMemory([{ name: 'ram', file }], { isWritable: true });
    };
    if (pages.count === 0) {
      expect(map).toThrow(expect.objectContaining({ name: 'MemoryError' }));
      return;
    }
    using memory = map();
    const view = memory.view(0);
    view[HUGE_PAGE_BYTES] = 1;
    const log = make(memory);
    const moving = new Precopy(memory, log);
    await moving.first();
    view[HUGE_PAGE_BYTES + 5 * PAGE] = 2;
    view[2 * HUGE_PAGE_BYTES + PAGE] = 3;
    expect(await moving.round()).toBeGreaterThanOrEqual(2);
    expect(await moving.round()).toBe(0);
    expect(moving.stale()).toEqual([[]]);
    await log.stop();
  });
});

describe('callbackDirtyLog()', () => {
  test('gives even words of zeros, adds to what is set, and waits', async () => {
    const asked: unknown[] = [];
    const log = callbackDirtyLog(async (block, words) => {
      asked.push([block, [...words]]);
      await new Promise(setImmediate);
      words[0] = 5;
    });
    const bitmaps = [Uint32Array.of(2, 0, 1), Uint32Array.of(0, 0)];
    await expect((async () => log.collect(bitmaps))()).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_DIRTY_LOG_STOPPED' }),
    );
    await log.start();
    await log.collect(bitmaps);
    await log.collect(bitmaps);
    const each = [
      [0, [0, 0, 0, 0]],
      [1, [0, 0]],
    ];
    expect(asked).toEqual([...each, ...each]);
    expect(bitmaps.map((words) => [...words])).toEqual([
      [7, 0, 1],
      [5, 0],
    ]);
  });

  test('says what it threw, and that bits are past the end', async () => {
    const failed = expect.objectContaining({ name: 'DirtyLogError', code: 'ERR_DIRTY_LOG_FAILED' });
    const cause = new Error('no KVM');
    const throwing = callbackDirtyLog(() => {
      throw cause;
    });
    await throwing.start();
    const thrown = expect.objectContaining({ cause, message: expect.stringContaining('no KVM') });
    await expect(throwing.collect([wordsFor(1)])).rejects.toThrow(failed);
    await expect(throwing.collect([wordsFor(1)])).rejects.toThrow(thrown);
    const long = callbackDirtyLog((_, words) => {
      words[1] = 1;
    });
    await long.start();
    await expect(long.collect([wordsFor(1)])).rejects.toThrow(failed);
  });
});

import { closeSync, ftruncateSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import {
  createMemoryFile,
  GuestMemory,
  type GuestResult,
  type IncomingGuest,
  type MoveOptions,
  PagelaneError,
  type ReceiveOptions,
} from '../../src/index.ts';
import { DEVICE_STATE_BYTES_MAX } from '../../src/migration/guest-message.ts';
import { createPrng, exactRandomBytes } from '../support/prng.ts';
import {
  type GuestEnds,
  isEqual,
  move,
  openGuestEnds,
  openMemory,
  PAGE_BYTES,
  SmallGuest,
} from './guest-support.ts';

/*
 * Whatever goes wrong: the migration ends with an error that has a code, and the guest runs at the
 * source. `pause` is not even called where the fault could be seen before.
 */

const BLOCKS = [700, 64, 1];
const TRAP = new Error('Trap');

function trap(): never {
  throw TRAP;
}

/** A guest that writes all the time, and what was done to it. */
class WatchedGuest implements Disposable {
  readonly memory: GuestMemory;
  readonly there: GuestMemory;
  readonly guest: SmallGuest;
  readonly calls: string[] = [];
  readonly #timer: NodeJS.Timeout;

  constructor(there: GuestMemory = openMemory(BLOCKS)) {
    this.memory = openMemory(BLOCKS);
    this.there = there;
    this.guest = new SmallGuest(this.memory, 1);
    this.guest.write(500);
    this.#timer = setInterval(() => this.guest.isRunning && this.guest.write(5), 1);
  }

  moving(changed: Partial<MoveOptions> = {}): MoveOptions {
    return {
      source: this.memory,
      dirtyLog: this.guest.dirtyLog,
      downtimeMs: 100,
      pause: () => this.#note('pause', false),
      resume: () => this.#note('resume', true),
      discard: () => void this.calls.push('discard'),
      ...changed,
    };
  }

  receiving(changed: Partial<ReceiveOptions> = {}): ReceiveOptions {
    return {
      memory: this.there,
      start: () => void this.calls.push('start'),
      discard: () => void this.calls.push('discard there'),
      ...changed,
    };
  }

  #note(call: string, isRunning: boolean): void {
    this.calls.push(call);
    this.guest.isRunning = isRunning;
  }

  /** Nothing but a failure was told, and the guest runs here and nowhere else. */
  expectHere(result: GuestResult, code: string, outcome = 'failed'): void {
    expect(result).toMatchObject({ outcome, guest: 'source', error: { code } });
    expect(this.calls).not.toContain('start');
    expect(this.calls).not.toContain('discard');
    expect(this.guest.isRunning).toBe(true);
    // A migration that had paused it, or was about to, has let it run on.
    expect(this.calls.lastIndexOf('resume')).toBeGreaterThanOrEqual(this.calls.indexOf('pause'));
  }

  /** The next attempt finds nothing in its way. */
  async expectMovesNow(ends: GuestEnds): Promise<void> {
    const { source, destination } = await move(ends, this.moving(), this.receiving());
    expect(source.error).toBeUndefined();
    expect(destination.guest).toBe('destination');
    expect(isEqual(this.memory, this.there)).toBe(true);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.memory.dispose();
    this.there.dispose();
  }
}

/** Memory of one file for each block, whose files stay open. */
class FileMemory implements Disposable {
  readonly files: readonly number[];
  readonly memory: GuestMemory;

  constructor() {
    this.files = BLOCKS.map((pages, block) =>
      createMemoryFile(`block-${block}`, pages * PAGE_BYTES),
    );
    const blocks = this.files.map((file, block) => ({ name: `block-${block}`, file }));
    this.memory = new GuestMemory(blocks, { isWritable: true });
  }

  truncate(): void {
    ftruncateSync(this.files[0]!, 10 * PAGE_BYTES);
  }

  [Symbol.dispose](): void {
    this.memory.dispose();
    for (const file of this.files) closeSync(file);
  }
}

/** Makes memory of blocks by their names and sizes. */
function memoryOf(blocks: Readonly<Record<string, number>>, pageBytes = PAGE_BYTES): GuestMemory {
  const sources = Object.entries(blocks).map(([name, pages]) => ({
    name,
    buffer: new Uint8Array(new SharedArrayBuffer(pages * PAGE_BYTES)),
  }));
  return new GuestMemory(sources, { isWritable: true, pageBytes });
}

describe('memory that is not alike', () => {
  test.each([
    ['a block is missing', { 'block-0': 700, 'block-1': 64 }, PAGE_BYTES],
    ['a block is one page longer', { 'block-0': 700, 'block-1': 65, 'block-2': 1 }, PAGE_BYTES],
    ['a block is shorter', { 'block-0': 699, 'block-1': 64, 'block-2': 1 }, PAGE_BYTES],
    ['a block has another name', { 'block-0': 700, ram: 64, 'block-2': 1 }, PAGE_BYTES],
    ['blocks are in another order', { 'block-1': 64, 'block-0': 700, 'block-2': 1 }, PAGE_BYTES],
    ['a block more', { 'block-0': 700, 'block-1': 64, 'block-2': 1, more: 1 }, PAGE_BYTES],
    ['pages have another size', { 'block-0': 700, 'block-1': 64, 'block-2': 1 }, 1024],
  ])('%s', async (_, blocks, pageBytes) => {
    await using ends = await openGuestEnds();
    using watched = new WatchedGuest(memoryOf(blocks, pageBytes));
    const { source, destination } = await move(ends, watched.moving(), watched.receiving());
    watched.expectHere(source, 'ERR_MEMORY_LAYOUT');
    expect(watched.calls).not.toContain('pause');
    expect(destination).toMatchObject({ outcome: 'failed', guest: 'source' });
    expect(destination.error?.code).toBe('ERR_MEMORY_LAYOUT');
  });
});

describe('a hook that fails', () => {
  const late = async (): Promise<never> => trap();
  const log = { name: 'trap', start: () => {}, stop: () => {}, collect: () => {} };
  const big = new Uint8Array(DEVICE_STATE_BYTES_MAX + 1);

  test.each([
    ['dirtyLog.start() throws', { dirtyLog: { ...log, start: trap } }],
    ['dirtyLog.start() rejects', { dirtyLog: { ...log, start: late } }],
    ['dirtyLog.collect() throws', { dirtyLog: { ...log, collect: trap } }],
    ['dirtyLog.collect() rejects', { dirtyLog: { ...log, collect: late } }],
    ['pause() throws', { pause: trap }],
    ['pause() rejects', { pause: late }],
    ['deviceState() throws', { deviceState: trap }],
    ['deviceState() rejects', { deviceState: late }],
    ['deviceState() gives more than there may be', { deviceState: () => big }],
    ['deviceState() gives no bytes', { deviceState: () => 'text' as unknown as Uint8Array }],
    ['onRound() throws', { onRound: trap }],
    ['onProgress() throws', { onProgress: trap, pause: () => new Promise(() => {}) }],
    ['dirtyLog.stop() throws as well', { pause: trap, dirtyLog: { ...log, stop: trap } }],
    [
      'throttle() throws as well',
      { pause: trap, throttle: (percent: number) => percent === 0 && trap() },
    ],
  ] as [string, Partial<MoveOptions>][])('%s', async (_, changed) => {
    await using ends = await openGuestEnds();
    using watched = new WatchedGuest();
    const { source, destination } = await move(ends, watched.moving(changed), watched.receiving());
    expect(source.error?.code).toMatch(/^ERR_/);
    watched.expectHere(source, source.error!.code);
    expect(destination).toMatchObject({ outcome: 'failed', guest: 'source' });
    await watched.expectMovesNow(ends);
  });

  test.each([
    ['load() throws', { load: trap }],
    ['load() rejects', { load: late }],
    ['discard() throws as well', { load: trap, discard: trap }],
  ])('%s at the destination', async (_, changed) => {
    await using ends = await openGuestEnds();
    using watched = new WatchedGuest();
    const { source, destination } = await move(ends, watched.moving(), watched.receiving(changed));
    watched.expectHere(source, source.error!.code);
    expect(source.error?.message).toContain('Trap');
    expect(destination).toMatchObject({ outcome: 'failed', guest: 'source' });
    await watched.expectMovesNow(ends);
  });

  test('a log that sets bits of pages that there are not does no harm', async () => {
    await using ends = await openGuestEnds();
    using watched = new WatchedGuest();
    const own = watched.guest.dirtyLog;
    const collect = (bitmaps: readonly Uint32Array[]): void => {
      own.collect(bitmaps);
      // 765 pages end in the midst of the words of each block.
      for (const words of bitmaps) words[words.length - 1]! |= 0xff00_0000;
    };
    const { source } = await move(
      ends,
      watched.moving({ dirtyLog: { ...own, collect } }),
      watched.receiving(),
    );
    expect(source).toMatchObject({ outcome: 'completed', guest: 'destination' });
    expect(isEqual(watched.memory, watched.there)).toBe(true);
  });
});

describe('a migration that comes to nothing', () => {
  test('the guest never converges', async () => {
    await using ends = await openGuestEnds();
    using watched = new WatchedGuest();
    const onRound = (): void => watched.guest.write(600);
    const own = watched.guest.dirtyLog;
    const collect = (bitmaps: readonly Uint32Array[]): void => {
      watched.guest.write(2000);
      own.collect(bitmaps);
    };
    const { source, destination } = await move(
      ends,
      watched.moving({ onRound, dirtyLog: { ...own, collect }, downtimeMs: 0.01, maxRounds: 3 }),
      watched.receiving(),
    );
    watched.expectHere(source, 'ERR_NOT_CONVERGING');
    expect(watched.calls).not.toContain('pause');
    expect(source.roundFacts.length).toBeGreaterThanOrEqual(3);
    expect(destination).toMatchObject({ outcome: 'failed', guest: 'source' });
    expect(destination.error?.code).toBe('ERR_NOT_CONVERGING');
    await watched.expectMovesNow(ends);
  });

  test('the destination refuses', async () => {
    await using ends = await openGuestEnds();
    using watched = new WatchedGuest();
    const [source] = await Promise.all([
      ends.source.migrateGuest(watched.moving()),
      ends.destination
        .acceptGuest()
        .then((incoming) => (incoming as IncomingGuest).refuse('ERR_NO_ROOM', 'Full')),
    ]);
    watched.expectHere(source, 'ERR_NO_ROOM');
    expect(source.error?.message).toContain('Full');
    expect(watched.calls).not.toContain('pause');
    await watched.expectMovesNow(ends);
  });
});

function after<Value>(act: () => void, hook: () => Value): () => Value {
  return () => {
    act();
    return hook();
  };
}

/** Where in a migration something happens; what happens there is the test's. */
const PHASES: Readonly<
  Record<
    string,
    (act: () => void, own: MoveOptions) => [Partial<MoveOptions>, Partial<ReceiveOptions>]
  >
> = {
  'before rounds': (act, { dirtyLog }) => [
    { dirtyLog: { ...dirtyLog, start: after(act, dirtyLog.start) } },
    {},
  ],
  'between rounds': (act) => [{ onRound: act }, {}],
  'in the last collection': (act, { dirtyLog, pause }) => {
    let isPaused = false;
    return [
      {
        pause: () => {
          isPaused = true;
          return pause();
        },
        dirtyLog: {
          ...dirtyLog,
          collect: (bitmaps) => {
            if (isPaused) act();
            return dirtyLog.collect(bitmaps);
          },
        },
      },
      {},
    ];
  },
  'in pause()': (act, { pause }) => [{ pause: after(act, pause) }, {}],
  'in deviceState()': (act) => [{ deviceState: after(act, () => new Uint8Array(10)) }, {}],
  'in load()': (act) => [{}, { load: act }],
};

describe('a session that is lost', () => {
  const lost = new PagelaneError('ERR_TEST_LOST', 'Lost');

  for (const side of ['source', 'destination'] as const) {
    test.each(Object.entries(PHASES))(`%s, by the ${side}`, async (_, at) => {
      await using ends = await openGuestEnds();
      using watched = new WatchedGuest();
      const own = watched.moving();
      const [moving, receiving] = at(() => ends[side].fail(lost), own);
      const accepting = ends.destination.acceptGuest();
      accepting.then((incoming) =>
        (incoming as IncomingGuest).receive(watched.receiving(receiving)),
      );
      const source = await ends.source.migrateGuest({ ...own, ...moving });
      watched.expectHere(source, 'ERR_TEST_LOST');
      await using again = await openGuestEnds();
      using there = openMemory(BLOCKS);
      const moved = await move(again, watched.moving(), { ...watched.receiving(), memory: there });
      expect(moved.source).toMatchObject({ outcome: 'completed', guest: 'destination' });
      expect(isEqual(watched.memory, there)).toBe(true);
    });

    test(`while it is started there, by the ${side}: the source keeps it paused`, async () => {
      await using ends = await openGuestEnds();
      using watched = new WatchedGuest();
      const start = async (): Promise<void> => {
        ends[side].fail(lost);
        await ends.source.ended;
        watched.calls.push('start');
      };
      const { source, destination } = await move(
        ends,
        watched.moving(),
        watched.receiving({ start }),
      );
      expect(source).toMatchObject({ outcome: 'failed', guest: 'unknown' });
      expect(source.error?.code).toBe('ERR_HANDOVER_UNDECIDED');
      expect(destination).toMatchObject({ outcome: 'completed', guest: 'destination' });
      expect(watched.calls).toEqual(['pause', 'start']);
    });
  }

  test('before the destination has answered', async () => {
    await using ends = await openGuestEnds();
    using watched = new WatchedGuest();
    ends.destination.acceptGuest().then(() => ends.destination.fail(lost));
    const source = await ends.source.migrateGuest(watched.moving());
    watched.expectHere(source, 'ERR_TEST_LOST');
    expect(watched.calls).not.toContain('pause');
  });
});

describe('a migration that is cancelled', () => {
  test.each(['before rounds', 'between rounds'])('%s', async (phase) => {
    await using ends = await openGuestEnds();
    using watched = new WatchedGuest();
    const cancel = new AbortController();
    const own = watched.moving({ signal: cancel.signal });
    const [moving] = PHASES[phase]!(() => cancel.abort(), own);
    const { source, destination } = await move(ends, { ...own, ...moving }, watched.receiving());
    watched.expectHere(source, 'ERR_CANCELLED', 'cancelled');
    expect(watched.calls).not.toContain('pause');
    expect(destination).toMatchObject({ outcome: 'cancelled', guest: 'source' });
    await watched.expectMovesNow(ends);
  });

  test('before it has begun', async () => {
    await using ends = await openGuestEnds();
    using watched = new WatchedGuest();
    const moving = watched.moving({ signal: AbortSignal.abort() });
    const { source, destination } = await move(ends, moving, watched.receiving());
    watched.expectHere(source, 'ERR_CANCELLED', 'cancelled');
    expect(destination.guest).toBe('source');
    await watched.expectMovesNow(ends);
  });

  test.each(['in pause()', 'in the last collection', 'in deviceState()', 'in load()'])(
    '%s it is too late',
    async (phase) => {
      await using ends = await openGuestEnds();
      using watched = new WatchedGuest();
      const cancel = new AbortController();
      const own = watched.moving({ signal: cancel.signal });
      const [moving, receiving] = PHASES[phase]!(() => cancel.abort(), own);
      const { source } = await move(ends, { ...own, ...moving }, watched.receiving(receiving));
      expect(source).toMatchObject({ outcome: 'completed', guest: 'destination' });
      expect(isEqual(watched.memory, watched.there)).toBe(true);
    },
  );
});

test.each([1, 2, 3, 4])(
  'what a migration that was given up had sent is not written later, %i',
  async (seed) => {
    await using ends = await openGuestEnds();
    using memory = openMemory([8192]);
    using there = openMemory([8192]);
    const guest = new SmallGuest(memory, seed);
    const random = createPrng(seed);
    memory.view(0).set(exactRandomBytes(random, 8192 * PAGE_BYTES));
    let discarded: Buffer | undefined;
    const cancel = new AbortController();
    const moving = {
      source: memory,
      dirtyLog: guest.dirtyLog,
      downtimeMs: 100,
      pause: () => {},
      resume: () => {},
      signal: cancel.signal,
    };
    const ending = untilWritten(there).then(() => cancel.abort());
    const discard = (): void => {
      discarded = Buffer.from(there.view(0));
    };
    const { destination } = await move(ends, moving, { memory: there, start: () => {}, discard });
    await ending;
    expect(destination).toMatchObject({ outcome: 'cancelled', guest: 'source' });
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(Buffer.compare(discarded!, there.view(0))).toBe(0);
  },
);

/** Waits until something has arrived. */
async function untilWritten(memory: GuestMemory): Promise<void> {
  while ((await memory.scanAllPopulated())[0]!.count() < 300) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}

describe('memory whose file is truncated', () => {
  test.each(['before rounds', 'between rounds', 'in pause()', 'in load()'])(
    'at the destination, %s',
    async (phase) => {
      await using ends = await openGuestEnds();
      using files = new FileMemory();
      using watched = new WatchedGuest(files.memory);
      const own = watched.moving();
      const [moving, receiving] = PHASES[phase]!(() => files.truncate(), own);
      const { source, destination } = await move(
        ends,
        { ...own, ...moving },
        watched.receiving(receiving),
      );
      watched.expectHere(source, 'ERR_MEMORY_LOST');
      expect(destination).toMatchObject({ outcome: 'failed', guest: 'source' });
    },
  );

  test.each(['before rounds', 'between rounds', 'in pause()', 'in deviceState()'])(
    'at the source, %s: the destination does not start what was read',
    async (phase) => {
      await using ends = await openGuestEnds();
      using files = new FileMemory();
      using watched = new WatchedGuest();
      const guest = new SmallGuest(files.memory, 2);
      guest.write(500);
      const own = watched.moving({ source: files.memory, dirtyLog: guest.dirtyLog });
      const [moving] = PHASES[phase]!(() => files.truncate(), own);
      const { source, destination } = await move(ends, { ...own, ...moving }, watched.receiving());
      watched.expectHere(source, 'ERR_MEMORY_LOST');
      expect(destination).toMatchObject({ outcome: 'failed', guest: 'source' });
    },
  );
});

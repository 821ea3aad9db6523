import { describe, expect, test } from 'vitest';
import { MigrationError } from '../../src/errors.ts';
import { type JournalEntry, ownerOf } from '../../src/migration/commit.ts';
import type { GuestHooks, HandoverTimeouts } from '../../src/migration/handover.ts';
import { DestinationHandover } from '../../src/migration/handover-destination.ts';
import type { HandoverMessage } from '../../src/migration/handover-message.ts';
import { SourceHandover } from '../../src/migration/handover-source.ts';
import type { Journal } from '../../src/migration/journal.ts';
import { recover } from '../../src/migration/recover.ts';

const MIGRATION = 'ab'.repeat(16);
const TIMEOUTS: Partial<HandoverTimeouts> = { reservedMs: 1000, readyMs: 2000, commitMs: 3000 };

/** One side: what it wrote, sent and did to the guest, in one list. */
class Side implements Journal {
  readonly log: string[] = [];
  readonly said: string[] = [];
  readonly sent: HandoverMessage[] = [];
  entry: JournalEntry | undefined;
  /** Writes of these states fail; `settle` is one. */
  readonly failing = new Set<string>();
  /** Whether a write that fails is there nevertheless. */
  isThere = false;
  brokenHook = '';
  isGuestRunning = false;
  /** Calls of the clock that are still to come. */
  readonly timers = new Set<{ readonly ms: number; run(): void }>();

  readonly hooks: GuestHooks = {
    resume: async () => this.#hook('resume'),
    discard: async () => this.#hook('discard'),
    start: async () => this.#hook('start'),
    isRunning: async () => this.isGuestRunning,
  };
  readonly clock = {
    now: () => 0,
    after: (ms: number, run: () => void) => {
      const timer = { ms, run };
      this.timers.add(timer);
      return () => this.timers.delete(timer);
    },
  };

  get options() {
    const send = (message: HandoverMessage): void => {
      this.log.push(`send ${message.word}`);
      this.sent.push(message);
    };
    const say = (text: string): void => void this.said.push(text);
    const { hooks, clock } = this;
    const all = { journal: this, migration: MIGRATION, name: 'vm', hooks, clock, send, say };
    return { ...all, timeouts: TIMEOUTS };
  }

  async read(): Promise<JournalEntry | undefined> {
    return this.entry;
  }

  async write(entry: JournalEntry): Promise<void> {
    const what = entry.isSettled ? 'settle' : `journal ${entry.state}`;
    this.log.push(what);
    const isFailing = this.failing.has(entry.isSettled ? 'settle' : entry.state);
    if (!isFailing || this.isThere) this.entry = entry;
    if (isFailing) throw new Error('no space is left');
  }

  #hook(name: string): void {
    this.log.push(name);
    if (this.brokenHook === name) throw new Error('the hypervisor says no');
  }

  /** Lets the time of those who wait so long be over. */
  pass(ms: number): void {
    const due = [...this.timers].filter((timer) => timer.ms === ms);
    expect(due.length).toBeGreaterThan(0);
    for (const timer of due) {
      this.timers.delete(timer);
      timer.run();
    }
  }

  /** What was done since it was asked last. */
  get done(): string[] {
    return this.log.splice(0);
  }
}

/** Until promises have done what they can. */
async function quiet(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
}

function said(word: HandoverMessage['word'], attempt = 1): HandoverMessage {
  const failure = { code: 'ERR_NO_MEMORY', message: 'there is no room', name: 'vm' };
  return { word, migration: MIGRATION, attempt, ...failure } as HandoverMessage;
}

async function copying(): Promise<{ side: Side; handover: SourceHandover }> {
  const side = new Side();
  const handover = new SourceHandover(side.options);
  const begun = handover.begin();
  await quiet();
  handover.receive(said('reserved'));
  await begun;
  side.done;
  return { side, handover };
}

async function committed() {
  const { side, handover } = await copying();
  const result = handover.commit();
  handover.receive(said('ready'));
  await quiet();
  expect(side.done).toEqual(['journal committed', 'send commit']);
  return { side, handover, result };
}

async function ready() {
  const side = new Side();
  const handover = new DestinationHandover(side.options);
  await handover.reserve();
  expect(side.done).toEqual(['journal reserved', 'send reserved']);
  const result = handover.ready();
  await quiet();
  expect(side.done).toEqual(['journal ready', 'send ready']);
  return { side, handover, result };
}

const RESUMED = ['journal aborted', 'send abort', 'resume', 'settle'];
const GIVEN_UP = ['journal aborted', 'send aborted', 'discard', 'settle'];

describe('SourceHandover', () => {
  test('begins by its journal, commits when the destination is ready, lets go at "active"', async () => {
    const side = new Side();
    const handover = new SourceHandover({ ...side.options, context: { at: 1 } });
    expect(handover.guest).toBe('source');
    const begun = handover.begin();
    await quiet();
    expect(side.done).toEqual(['journal copying', 'send reserve']);
    expect(side.entry).toMatchObject({ state: 'copying', name: 'vm', context: { at: 1 } });
    handover.receive(said('reserved'));
    await begun;
    const result = handover.commit({ context: { at: 2 } });
    await quiet();
    expect(side.done).toEqual([]);
    handover.receive(said('ready'));
    await quiet();
    expect(side.done).toEqual(['journal committed', 'send commit']);
    expect(side.entry?.context).toEqual({ at: 2 });
    expect(handover.guest).toBe('unknown');
    handover.receive(said('active'));
    expect(await result).toEqual({ guest: 'destination' });
    expect(side.done).toEqual(['journal released', 'send released', 'discard', 'settle']);
    expect(side.timers.size).toBe(0);
  });

  test('resumes at once when it is aborted, loses its connection, or waits in vain', async () => {
    for (const end of ['abort', 'lost', 'ready']) {
      const { side, handover } = await copying();
      const result = end === 'ready' ? handover.commit() : handover.result;
      if (end === 'abort') expect(await handover.abort('ERR_CANCELLED', 'no')).toBe(true);
      else if (end === 'lost') handover.connectionLost();
      else side.pass(2000);
      expect(await result).toEqual({
        guest: 'source',
        code: { abort: 'ERR_CANCELLED', lost: 'ERR_HANDOVER_LOST', ready: 'ERR_HANDOVER_TIMEOUT' }[
          end
        ],
        message: expect.any(String),
      });
      expect(side.done).toEqual(
        end === 'lost' ? RESUMED.filter((act) => !/send/.test(act)) : RESUMED,
      );
    }
  });

  test('says who refused, and why, and when nobody answers', async () => {
    const side = new Side();
    const refused = new SourceHandover(side.options);
    const begun = refused.begin();
    await quiet();
    refused.receive(said('aborted'));
    await expect(begun).rejects.toMatchObject({ code: 'ERR_NO_MEMORY', guest: 'source' });
    const late = new SourceHandover({ ...side.options, attempt: 2 });
    const waiting = late.begin();
    await quiet();
    side.pass(1000);
    await expect(waiting).rejects.toThrow('Waited 1000 ms for the destination to take the guest');
  });

  test('drops what is of another attempt or migration', async () => {
    const { side, handover, result } = await committed();
    handover.receive(said('aborted', 2));
    handover.receive({ ...said('active'), migration: 'cd'.repeat(16) });
    await quiet();
    expect(side.done).toEqual([]);
    handover.receive(said('aborted'));
    expect(await result).toEqual({
      guest: 'source',
      code: 'ERR_NO_MEMORY',
      message: 'there is no room',
    });
    expect(side.done).toEqual(['journal aborted', 'resume', 'settle']);
  });

  test('asks again and again once it has committed, says so, and never gives up', async () => {
    const { side, handover, result } = await committed();
    for (const ms of [200, 400, 800, 1600, 3200]) {
      side.pass(ms);
      await quiet();
    }
    expect(side.done).toEqual(Array(5).fill('send commit'));
    side.pass(5000);
    await quiet();
    expect(side.said).toEqual([ownerOf(handover.entry!).text]);
    expect(side.said[0]).toContain('who owns the guest: ask the destination');
    expect(await handover.abort('ERR_CANCELLED', 'no')).toBe(false);
    handover.connectionLost();
    await quiet();
    expect(side.done.filter((act) => act !== 'send commit')).toEqual([]);
    handover.connectionBack(side.options.send);
    await quiet();
    expect(side.done).toEqual(['send commit']);
    handover.leave();
    await expect(result).rejects.toMatchObject({
      code: 'ERR_HANDOVER_UNDECIDED',
      guest: 'unknown',
    });
    expect(side.timers.size).toBe(0);
    handover.receive(said('aborted'));
    await quiet();
    expect(side.done).toEqual([]);
  });

  test('leave() ends what waits, and what waits for a beginning', async () => {
    const side = new Side();
    const handover = new SourceHandover(side.options);
    const begun = handover.begin();
    await quiet();
    handover.leave();
    const failure = { code: 'ERR_HANDOVER_UNDECIDED', guest: 'source' };
    await expect(begun).rejects.toMatchObject(failure);
    expect(side.timers.size).toBe(0);
    expect(side.done).toEqual(['journal copying', 'send reserve']);
  });

  test('begins by no journal that is not over, or has a later attempt', async () => {
    const { side } = await committed();
    const again = new SourceHandover({ ...side.options, attempt: 2 });
    await expect(again.begin()).rejects.toMatchObject({ code: 'ERR_HANDOVER_STATE' });
    side.entry = { ...side.entry!, state: 'aborted', isSettled: true } as JournalEntry;
    const same = new SourceHandover(side.options);
    await expect(same.begin()).rejects.toThrow(/it has attempt 1 of migration/);
    expect(side.done).toEqual([]);
  });

  test('one whose connection is lost while its journal is read never begins', async () => {
    const side = new Side();
    const handover = new SourceHandover(side.options);
    const begun = handover.begin();
    handover.connectionLost();
    await expect(begun).rejects.toMatchObject({ code: 'ERR_HANDOVER_LOST', guest: 'source' });
    expect(side.done).toEqual([]);
  });
});

describe('SourceHandover with a journal that fails', () => {
  test('does not commit, and resumes when "aborted" is written', async () => {
    const { side, handover } = await copying();
    side.failing.add('committed');
    side.isThere = true;
    const result = handover.commit();
    handover.receive(said('ready'));
    expect(await result).toMatchObject({ guest: 'source', code: 'ERR_JOURNAL' });
    expect(side.done).toEqual(['journal committed', ...RESUMED]);
  });

  test('stays paused when neither can be written: the journal may say that it committed', async () => {
    const { side, handover } = await copying();
    side.failing.add('committed').add('aborted');
    side.isThere = true;
    const result = handover.commit();
    handover.receive(said('ready'));
    await expect(result).rejects.toMatchObject({ code: 'ERR_JOURNAL', guest: 'unknown' });
    expect(side.done).toEqual(['journal committed', 'journal aborted']);
    // The destination has given up, and its journal says so: that is certain.
    handover.receive(said('aborted'));
    await quiet();
    expect(side.done).toEqual(['journal aborted', 'resume', 'settle']);
  });

  test('resumes without when it had not committed', async () => {
    const { side, handover } = await copying();
    side.failing.add('aborted').add('settle');
    await handover.abort('ERR_CANCELLED', 'no');
    expect(await handover.result).toMatchObject({ guest: 'source', code: 'ERR_CANCELLED' });
    expect(side.done).toEqual(RESUMED);
    expect(side.said).toEqual(['no space is left', 'no space is left']);
  });

  test('a guest that does not resume outranks why it should', async () => {
    const { side, handover } = await copying();
    side.brokenHook = 'resume';
    const failure = { code: 'ERR_HANDOVER_HOOK', guest: 'source' };
    await expect(handover.abort('ERR_CANCELLED', 'no')).rejects.toMatchObject(failure);
    await expect(handover.result).rejects.toBeInstanceOf(MigrationError);
    expect(side.entry).toMatchObject({ state: 'aborted', isSettled: false });
  });
});

describe('DestinationHandover', () => {
  test('starts the guest when the source commits, and says so until the source lets go', async () => {
    const { side, handover, result } = await ready();
    handover.receive(said('commit'));
    expect(await result).toEqual({ guest: 'destination' });
    expect(side.done).toEqual(['journal activating', 'start', 'journal active', 'send active']);
    handover.receive(said('commit'));
    side.pass(200);
    await quiet();
    expect(side.done).toEqual(['send active', 'send active']);
    const released = handover.released();
    handover.receive(said('released'));
    expect(await released).toBe(true);
    expect(side.entry).toMatchObject({ state: 'active', isSettled: true });
    expect(side.timers.size).toBe(0);
  });

  test('gives up when it is told to, waits in vain, or has no source while it has not all', async () => {
    for (const end of ['told', 'waits', 'itself']) {
      const { side, handover, result } = await ready();
      if (end === 'told') handover.receive(said('abort'));
      else if (end === 'waits') side.pass(3000);
      else await handover.abort('ERR_DIGEST', 'memory differs');
      expect(await result).toMatchObject({ guest: 'source' });
      expect(side.done).toEqual(GIVEN_UP);
      handover.receive(said('commit'));
      await quiet();
      expect(side.done).toEqual(['send aborted']);
    }
    const side = new Side();
    const handover = new DestinationHandover(side.options);
    await handover.reserve();
    handover.connectionLost();
    expect(await handover.result).toMatchObject({ code: 'ERR_HANDOVER_LOST' });
  });

  test('heeds no commit before it is ready, and no abort after it', async () => {
    const side = new Side();
    const early = new DestinationHandover(side.options);
    await early.reserve();
    side.done;
    early.receive(said('commit'));
    await quiet();
    expect(side.done).toEqual([]);
    const { side: other, handover, result } = await ready();
    handover.receive(said('commit'));
    handover.receive(said('abort'));
    await result;
    expect(await handover.abort('ERR_CANCELLED', 'no')).toBe(false);
    expect(other.done).not.toContain('discard');
  });

  test('waits for a source that comes back when it is ready', async () => {
    const { side, handover, result } = await ready();
    handover.connectionLost();
    await quiet();
    expect(side.done).toEqual([]);
    handover.connectionBack(side.options.send);
    await quiet();
    expect(side.done).toEqual(['send ready']);
    handover.receive(said('commit'));
    expect(await result).toEqual({ guest: 'destination' });
  });

  test('does not start when "activating" cannot be written, and gives up if that can', async () => {
    const { side, handover, result } = await ready();
    side.failing.add('activating');
    side.isThere = true;
    handover.receive(said('commit'));
    expect(await result).toMatchObject({ guest: 'source', code: 'ERR_JOURNAL' });
    expect(side.done).toEqual(['journal activating', ...GIVEN_UP]);
    const broken = await ready();
    broken.side.failing.add('activating').add('aborted');
    broken.side.isThere = true;
    broken.handover.receive(said('commit'));
    await expect(broken.result).rejects.toMatchObject({ code: 'ERR_JOURNAL', guest: 'unknown' });
    expect(broken.side.done).toEqual(['journal activating', 'journal aborted']);
  });

  test('a guest that does not start stays the destination’s', async () => {
    const { side, handover, result } = await ready();
    side.brokenHook = 'start';
    handover.receive(said('commit'));
    const failure = { code: 'ERR_HANDOVER_HOOK', guest: 'destination' };
    await expect(result).rejects.toMatchObject(failure);
    handover.receive(said('abort'));
    await quiet();
    expect(side.done).toEqual(['journal activating', 'start']);
  });
});

describe('recover()', () => {
  const entryOf = (side: 'source' | 'destination', state: string, isSettled = false) =>
    ({
      v: 1,
      side,
      state,
      migration: MIGRATION,
      attempt: 1,
      name: 'vm',
      isSettled,
      context: { memory: '/dev/shm/vm' },
    }) as JournalEntry;

  test.each([
    ['source', 'copying', RESUMED],
    ['source', 'aborted', RESUMED.slice(1)],
    ['source', 'committed', ['send commit']],
    ['source', 'released', ['send released', 'discard', 'settle']],
    ['destination', 'reserved', GIVEN_UP],
    ['destination', 'ready', GIVEN_UP],
    ['destination', 'aborted', GIVEN_UP.slice(1)],
    ['destination', 'activating', ['start', 'journal active', 'send active']],
    ['destination', 'active', ['send active']],
  ] as const)('%s, %s', async (name, state, acts) => {
    const side = new Side();
    side.entry = entryOf(name, state);
    const handover = await recover(side.options);
    expect(side.done).toEqual(acts);
    expect(handover!.entry).toMatchObject({ name: 'vm', context: { memory: '/dev/shm/vm' } });
    handover!.leave();
  });

  test.each([
    ['source', 'aborted', 'source'],
    ['source', 'released', 'destination'],
    ['destination', 'aborted', 'source'],
    ['destination', 'active', 'destination'],
  ] as const)(
    '%s, %s, settled: leaves the guest alone, and answers',
    async (name, state, guest) => {
      const side = new Side();
      side.entry = entryOf(name, state, true);
      const handover = await recover(side.options);
      expect(side.done).toEqual([]);
      expect(await handover!.result).toMatchObject({ guest });
      handover!.connectionBack(side.options.send);
      await quiet();
      expect(side.done).toEqual([expect.stringMatching(/^send/)]);
      expect(side.timers.size).toBe(0);
    },
  );

  test('does not start a guest that runs, nor anything by a journal that is not there', async () => {
    const side = new Side();
    expect(await recover(side.options)).toBeUndefined();
    side.entry = entryOf('destination', 'activating');
    side.isGuestRunning = true;
    const handover = await recover(side.options);
    expect(side.done).toEqual(['journal active', 'send active']);
    expect(await handover!.result).toEqual({ guest: 'destination' });
  });

  test('leaves another migration alone', async () => {
    const side = new Side();
    side.entry = entryOf('destination', 'reserved');
    expect(await recover({ ...side.options, migration: 'cd'.repeat(16) })).toBeUndefined();
    expect(side.done).toEqual([]);
    const handover = await recover({ ...side.options, migration: MIGRATION });
    expect(side.done).toEqual(GIVEN_UP);
    expect(await handover!.result).toMatchObject({ guest: 'source' });
  });

  test('starts nothing by a journal that cannot be read', async () => {
    const side = new Side();
    const journal = { read: () => Promise.reject(new Error('damaged')), write: side.write };
    await expect(recover({ ...side.options, journal })).rejects.toThrow('damaged');
    expect(side.done).toEqual([]);
  });
});

test('a hook that takes long is said to, and waited for', async () => {
  const { side, handover } = await copying();
  let finish = (): void => {};
  side.hooks.resume = () => new Promise((resolve) => (finish = resolve));
  const aborted = handover.abort('ERR_CANCELLED', 'no');
  await quiet();
  side.pass(30_000);
  expect(side.said).toEqual([expect.stringContaining('hook "resume"')]);
  finish();
  expect(await aborted).toBe(true);
});

test('messages that a hook keeps waiting are dropped when there are too many', async () => {
  const { side, handover, result } = await ready();
  let finish = (): void => {};
  side.hooks.start = () => new Promise((resolve) => (finish = resolve));
  for (let count = 0; count < 1000; count++) handover.receive(said('commit'));
  await quiet();
  finish();
  await result;
  await quiet();
  expect(side.done.filter((act) => act === 'send active')).toHaveLength(64);
});

test('commit() and ready() need a beginning', async () => {
  const { options } = new Side();
  const code = 'ERR_HANDOVER_STATE';
  await expect(new SourceHandover(options).commit()).rejects.toMatchObject({ code });
  await expect(new DestinationHandover(options).ready()).rejects.toMatchObject({ code });
});

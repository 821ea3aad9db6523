import { describe, expect, test } from 'vitest';
import {
  type GuestHooks,
  type IncomingGuest,
  IncomingQuestion,
  type JournalEntry,
  newMigrationId,
  PagelaneError,
  recoverGuest,
} from '../../src/index.ts';
import { VolatileJournal } from '../../src/migration/journal.ts';
import { type GuestEnds, openGuestEnds, openMemory, SmallGuest } from './guest-support.ts';

const BLOCKS = [100];
const LOST = new PagelaneError('ERR_TEST_LOST', 'Lost');

function entryOf<Side extends 'source' | 'destination'>(
  side: Side,
  state: (JournalEntry & { readonly side: Side })['state'],
  migration: string,
): JournalEntry {
  const fields = { attempt: 1, name: 'vm', isSettled: false, context: { place: 'here' } };
  return { v: 1, side, state, migration, ...fields } as JournalEntry;
}

async function journalOf(entry?: JournalEntry): Promise<VolatileJournal> {
  const journal = new VolatileJournal();
  if (entry !== undefined) await journal.write(entry);
  return journal;
}

function hooksInto(calls: string[]): GuestHooks {
  return {
    resume: async () => void calls.push('resume'),
    start: async () => void calls.push('start'),
    discard: async () => void calls.push('discard'),
  };
}

/** Answers questions at the destination's end by a journal. */
async function answerAt(
  { destination }: GuestEnds,
  journal: VolatileJournal,
  calls: string[],
): Promise<unknown> {
  const question = (await destination.acceptGuest()) as IncomingQuestion;
  expect(question).toBeInstanceOf(IncomingQuestion);
  return await question.answer({ journal, hooks: hooksInto(calls) });
}

describe('recoverGuest()', () => {
  test.each([
    ['active', 'destination', 'discard', []],
    ['activating', 'destination', 'discard', ['start']],
    ['ready', 'source', 'resume', ['discard']],
  ] as const)('asks a destination that is %s', async (state, guest, here, there) => {
    await using ends = await openGuestEnds();
    const migration = newMigrationId();
    const [journal, theirs] = await Promise.all([
      journalOf(entryOf('source', 'committed', migration)),
      journalOf(entryOf('destination', state, migration)),
    ]);
    const calls: string[] = [];
    const callsThere: string[] = [];
    const answering = answerAt(ends, theirs, callsThere);
    const contexts: unknown[] = [];
    const connect = async ({ context }: JournalEntry) => {
      contexts.push(context);
      return ends.source;
    };
    expect(await recoverGuest({ journal, hooks: hooksInto(calls), connect })).toMatchObject({
      guest,
    });
    expect(await answering).toMatchObject({ guest });
    expect(calls).toEqual([here]);
    expect(callsThere).toEqual(there);
    expect(contexts).toEqual([{ place: 'here' }]);
    // The session was made for this alone.
    expect(await ends.source.ended).toBeUndefined();
  });

  test('asks again where it cannot connect, and where the session is lost', async () => {
    await using first = await openGuestEnds();
    await using second = await openGuestEnds();
    const migration = newMigrationId();
    const journal = await journalOf(entryOf('source', 'committed', migration));
    const theirs = await journalOf(entryOf('destination', 'active', migration));
    first.destination.acceptGuest().then(() => first.destination.fail(LOST));
    const answering = answerAt(second, theirs, []);
    const calls: string[] = [];
    const said: string[] = [];
    let tries = 0;
    const connect = async () => {
      tries++;
      if (tries <= 2) throw LOST;
      return tries === 3 ? first.source : second.source;
    };
    const say = (text: string): void => void said.push(text);
    const found = await recoverGuest({ journal, hooks: hooksInto(calls), connect, say });
    expect(found).toEqual({ guest: 'destination' });
    expect(await answering).toEqual({ guest: 'destination' });
    expect(tries).toBe(4);
    expect(calls).toEqual(['discard']);
    expect(said.filter((text) => text.includes('Lost'))).toHaveLength(1);
  });

  test('tells a destination that waits for a guest which stays', async () => {
    await using ends = await openGuestEnds();
    const migration = newMigrationId();
    const journal = await journalOf(entryOf('source', 'copying', migration));
    const theirs = await journalOf(entryOf('destination', 'reserved', migration));
    const callsThere: string[] = [];
    const answering = answerAt(ends, theirs, callsThere);
    const calls: string[] = [];
    const connect = async () => ends.source;
    const found = await recoverGuest({ journal, hooks: hooksInto(calls), connect });
    expect(found).toMatchObject({ guest: 'source' });
    expect(calls).toEqual(['resume']);
    expect(await answering).toMatchObject({ guest: 'source' });
    expect(callsThere).toEqual(['discard']);
  });

  test('connects to nobody if nothing is left to do', async () => {
    const entry = entryOf('source', 'aborted', newMigrationId());
    const journal = await journalOf({ ...entry, isSettled: true });
    const calls: string[] = [];
    let isAsked = false;
    const connect = async () => {
      isAsked = true;
      throw LOST;
    };
    const found = await recoverGuest({ journal, hooks: hooksInto(calls), connect });
    expect(found).toMatchObject({ guest: 'source' });
    expect(calls).toEqual([]);
    expect(isAsked).toBe(false);
  });
});

describe('IncomingQuestion answer()', () => {
  const asked = newMigrationId();
  test.each([
    ['of another migration', entryOf('destination', 'ready', newMigrationId())],
    ['of a guest that goes on from here', entryOf('source', 'copying', asked)],
    ['of nothing', undefined],
  ])('leaves a journal %s as it is', async (_, entry) => {
    await using ends = await openGuestEnds();
    const theirs = await journalOf(entry);
    const journal = await journalOf(entryOf('source', 'committed', asked));
    const calls: string[] = [];
    const answering = answerAt(ends, theirs, calls);
    const connect = async () => ends.source;
    const ending = new AbortController();
    const { signal } = ending;
    const recovering = recoverGuest({ journal, hooks: hooksInto([]), connect, signal });
    expect(await answering).toBeUndefined();
    expect(await theirs.read()).toEqual(entry);
    expect(calls).toEqual([]);
    // It is not known: who asks waits, and starts nothing.
    ending.abort();
    await expect(recovering).rejects.toMatchObject({
      code: 'ERR_HANDOVER_UNDECIDED',
      guest: 'unknown',
    });
    expect((await journal.read())?.state).toBe('committed');
  });
});

test('migrateGuest() ends "unknown" when the session is lost while it writes that it commits', async () => {
  await using ends = await openGuestEnds();
  using memory = openMemory(BLOCKS);
  using there = openMemory(BLOCKS);
  const guest = new SmallGuest(memory, 1);
  guest.write(100);
  class SlowJournal extends VolatileJournal {
    override async write(entry: JournalEntry): Promise<void> {
      if (entry.state === 'committed') {
        ends.destination.fail(LOST);
        await ends.source.ended;
      }
      await super.write(entry);
    }
  }
  const journal = new SlowJournal();
  const calls: string[] = [];
  const receive = { memory: there, start: () => void calls.push('start') };
  ends.destination.acceptGuest().then((incoming) => (incoming as IncomingGuest).receive(receive));
  const result = await ends.source.migrateGuest({
    source: memory,
    dirtyLog: guest.dirtyLog,
    downtimeMs: 100,
    pause: () => void calls.push('pause'),
    resume: () => void calls.push('resume'),
    journal,
  });
  expect(result).toMatchObject({ outcome: 'failed', guest: 'unknown' });
  expect(result.error?.code).toBe('ERR_HANDOVER_UNDECIDED');
  expect((await journal.read())?.state).toBe('committed');
  expect(calls).toEqual(['pause']);
});

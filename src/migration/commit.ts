import type { GuestPlace, Side } from '../errors.ts';

/*
 * Who may run the guest: the one table of the hand-over, for both sides
 *
 *   source                              destination
 *   copying    ── reserve ──>           reserved
 *              <── reserved ──
 *              ═══ memory ═══>
 *              <── ready ──             ready          all is applied and verified
 *   committed  ── commit ──>            activating     the guest is started
 *   released   <── active ──            active
 *              ── released ──>
 *   aborted    ── abort ──>             aborted        until committed, until activating
 *              <── aborted ──
 *
 * The acts of a step are done in their order; a process may end between any two. So a state is in
 * the journal before anything is done that relies on it. What is not in the table changes nothing.
 * test/simulation/commit-model.test.ts walks through all that can happen.
 */

export type SourceState = 'none' | 'copying' | 'committed' | 'released' | 'aborted';
export type DestinationState = 'none' | 'reserved' | 'ready' | 'activating' | 'active' | 'aborted';
export type HandoverState = SourceState | DestinationState;

/** What the sides say to each other. */
export type SourceWord = 'reserve' | 'commit' | 'abort' | 'released';
export type DestinationWord = 'reserved' | 'ready' | 'active' | 'aborted';
export type Word = SourceWord | DestinationWord;

/** What is done to the guest by whoever owns it. */
export type GuestAct = 'resume' | 'start' | 'discard';

/**
 * One thing to do. `journal` writes the state and is in it from then on; `settle` writes that
 * nothing is left to do in it.
 */
export type Act = `journal ${HandoverState}` | `send ${Word}` | `call ${GuestAct}` | 'settle';

/** Time has come to say again what the other side may have missed. */
type Remind = 'remind';
/** The process began anew, with nothing but its journal; not where that is settled. */
type Restart = 'restart';

export type SourceEvent =
  | 'begin'
  | 'commit'
  | 'abort'
  | Remind
  | Restart
  | `got ${DestinationWord}`;
export type DestinationEvent =
  | 'reserve'
  | 'ready'
  | 'abort'
  | Remind
  | Restart
  | `got ${SourceWord}`;
export type HandoverEvent = SourceEvent | DestinationEvent;

/** What an event does in a state; nothing if it is not there. */
export type Table<State extends string, Event extends string> = Readonly<
  Record<State, Readonly<Partial<Record<Event, readonly Act[]>>>>
>;

/**
 * The source owns the guest until it has journalled `committed`, at once and without asking. From
 * then on it runs it again only after the destination's `aborted`, and lets go of it only after
 * `active`; as long as it has heard neither it stays paused.
 */
export const SOURCE_TABLE: Table<SourceState, SourceEvent> = {
  none: {
    begin: ['journal copying', 'send reserve'],
  },
  copying: {
    commit: ['journal committed', 'send commit'],
    abort: ['journal aborted', 'send abort', 'call resume', 'settle'],
    restart: ['journal aborted', 'send abort', 'call resume', 'settle'],
    'got aborted': ['journal aborted', 'call resume', 'settle'],
  },
  committed: {
    remind: ['send commit'],
    restart: ['send commit'],
    'got ready': ['send commit'],
    'got aborted': ['journal aborted', 'call resume', 'settle'],
    'got active': ['journal released', 'send released', 'call discard', 'settle'],
  },
  released: {
    remind: ['send released'],
    restart: ['send released', 'call discard', 'settle'],
    'got active': ['send released'],
  },
  aborted: {
    remind: ['send abort'],
    restart: ['send abort', 'call resume', 'settle'],
    'got reserved': ['send abort'],
    'got ready': ['send abort'],
  },
};

/**
 * The destination may abort alone until it has journalled `activating`. From then on the guest is
 * its own, and nothing makes it go back.
 */
export const DESTINATION_TABLE: Table<DestinationState, DestinationEvent> = {
  none: {
    reserve: ['journal reserved', 'send reserved'],
  },
  reserved: {
    ready: ['journal ready', 'send ready'],
    abort: ['journal aborted', 'send aborted', 'call discard', 'settle'],
    restart: ['journal aborted', 'send aborted', 'call discard', 'settle'],
    'got abort': ['journal aborted', 'send aborted', 'call discard', 'settle'],
  },
  ready: {
    abort: ['journal aborted', 'send aborted', 'call discard', 'settle'],
    remind: ['send ready'],
    restart: ['journal aborted', 'send aborted', 'call discard', 'settle'],
    'got abort': ['journal aborted', 'send aborted', 'call discard', 'settle'],
    'got commit': ['journal activating', 'call start', 'journal active', 'send active'],
  },
  activating: {
    restart: ['call start', 'journal active', 'send active'],
  },
  active: {
    remind: ['send active'],
    restart: ['send active'],
    'got commit': ['send active'],
    'got released': ['settle'],
  },
  aborted: {
    remind: ['send aborted'],
    restart: ['send aborted', 'call discard', 'settle'],
    'got abort': ['send aborted'],
    'got commit': ['send aborted'],
  },
};

/** Which try of which migration something belongs to. */
export interface HandoverId {
  /** 32 hexadecimal digits, chosen at random for each migration. */
  readonly migration: string;
  /** From 1; one more for each try of the same migration. */
  readonly attempt: number;
}

/** Whether a message is of this try of this migration; others are dropped. */
export function isSame(id: HandoverId, other: HandoverId): boolean {
  return id.migration === other.migration && id.attempt === other.attempt;
}

interface EntryFields extends HandoverId {
  readonly v: 1;
  /** Name of the virtual machine, for people. */
  readonly name: string;
  /** Nothing is left to do: the guest's hook was called, or the source has let go. */
  readonly isSettled: boolean;
  /** What the embedder needs after a restart: where memory and device state are, the peer. */
  readonly context: Readonly<Record<string, unknown>>;
}

export interface SourceEntry extends EntryFields {
  readonly side: 'source';
  readonly state: Exclude<SourceState, 'none'>;
}

export interface DestinationEntry extends EntryFields {
  readonly side: 'destination';
  readonly state: Exclude<DestinationState, 'none'>;
}

/** What one side's journal holds. */
export type JournalEntry = SourceEntry | DestinationEntry;

/** Why a new hand-over must not take the place of what the journal holds; undefined if it may. */
export function whyNotReplaced(
  entry: JournalEntry | undefined,
  next: HandoverId & { readonly side: Side },
): string | undefined {
  if (entry === undefined) return undefined;
  const what = `attempt ${entry.attempt} of migration ${entry.migration}`;
  // Whoever runs the guest may send it on, though its old host has not heard that it runs.
  const runsHere = entry.state === 'active' && next.side === 'source';
  if (!entry.isSettled && !runsHere) return `${what} is "${entry.state}", and not over`;
  if (entry.migration !== next.migration) return undefined;
  // Only what was aborted is tried again.
  const isRetry = entry.state === 'aborted' && entry.side === next.side;
  return isRetry && next.attempt > entry.attempt ? undefined : `it has ${what} already`;
}

/** Whose the guest is, as far as one journal tells. */
export interface Owner {
  readonly guest: GuestPlace;
  /** A sentence for people: what that means, and what to do. */
  readonly text: string;
}

const HERE = 'the guest is at the source';
const THERE = 'the guest is at the destination';
const START_NEITHER = 'start neither copy';

const SOURCE_OWNERS: Readonly<Record<SourceEntry['state'], Owner>> = {
  copying: { guest: 'source', text: `${HERE}: nothing was committed` },
  committed: {
    guest: 'unknown',
    text: `who owns the guest: ask the destination; until then ${START_NEITHER}`,
  },
  released: { guest: 'destination', text: `${THERE}, which has said that it runs there` },
  aborted: { guest: 'source', text: `${HERE}: the migration was aborted` },
};

const DESTINATION_OWNERS: Readonly<Record<DestinationEntry['state'], Owner>> = {
  reserved: { guest: 'source', text: `${HERE}: the destination has not all of it` },
  ready: {
    guest: 'unknown',
    text: `who owns the guest: ask the source; until then ${START_NEITHER}`,
  },
  activating: {
    guest: 'destination',
    text: `${THERE}, which was about to start it; do not start it at the source`,
  },
  active: { guest: 'destination', text: `${THERE}, where it was started` },
  aborted: { guest: 'source', text: `${HERE}: the destination has given up` },
};

/** States after which nothing changes whose the guest is; a copy of such a journal stays true. */
const FINAL: readonly HandoverState[] = ['released', 'aborted', 'activating', 'active'];

/**
 * Tells whose the guest is by what one side's journal holds.
 *
 * @param others Other journals that are at hand: the other side's may know what this one cannot.
 */
export function ownerOf(entry: JournalEntry, others: readonly JournalEntry[] = []): Owner {
  const owner =
    entry.side === 'source' ? SOURCE_OWNERS[entry.state] : DESTINATION_OWNERS[entry.state];
  if (owner.guest !== 'unknown') return owner;
  const knowing = others.find(
    (other) => other.side !== entry.side && isSame(other, entry) && FINAL.includes(other.state),
  );
  return knowing === undefined ? owner : ownerOf(knowing);
}

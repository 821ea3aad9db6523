import { systemClock } from '../clock.ts';
import { messageOf, PagelaneError } from '../errors.ts';
import { HEADER_BYTES } from '../frame/limits.ts';
import type { Lane } from '../session/lane.ts';
import type { JournalEntry } from './commit.ts';
import type { GuestHooks, HandoverResult } from './handover.ts';
import type { DestinationHandover } from './handover-destination.ts';
import {
  decodeHandover,
  encodeHandover,
  type HandoverMessage,
  isHandoverKind,
} from './handover-message.ts';
import { SourceHandover } from './handover-source.ts';
import type { Journal } from './journal.ts';
import { findLive } from './live-handovers.ts';
import { type RecoverOptions, recover } from './recover.ts';

/* Chosen by us */

/** Between two tries to reach the destination: the first, and the longest. */
const RETRY_MS_MIN = 100;
const RETRY_MS_MAX = 2000;

/** Asks the peer on a lane of its own, and answers it there: a `MigrationSession`. */
export interface HandoverChannel {
  /** Settles when it is over; never rejects. */
  readonly ended: Promise<unknown>;
  openHandover(): Lane;
  /** Ends it once everything sent has arrived. */
  close(): Promise<void>;
}

/** What `recoverGuest` needs beside what `recover` does. */
export type RecoverGuestOptions = RecoverOptions & {
  /** Opens a session to the destination; it is closed when it is not needed any more. */
  connect(entry: JournalEntry): Promise<HandoverChannel>;
  /** Ends the questions; the guest is left as the journal has it. */
  readonly signal?: AbortSignal;
};

/**
 * After a crash, or when a migration ended with the guest "unknown": finds out whose the guest is,
 * by the journal, and by asking the destination if it must. `resume`, `start` or `discard` is
 * called then, unless the journal says that it was.
 *
 * It does not tell whether the guest runs: one that ended with its process is the embedder's to
 * run again, where `guest` is the `side` of the journal's entry.
 *
 * @param options.connect Called for a source that had committed, with what the journal holds, and
 *   again whenever it fails or the session is lost. Also, once, for a source that had not: so that
 *   the destination waits no longer.
 * @returns Where the guest runs; undefined if the journal has nothing. At a destination it returns
 *   as soon as that is certain; a source asks for as long as it takes.
 * @throws {PagelaneError} ERR_JOURNAL If the journal cannot be read: then start nothing.
 * @throws {MigrationError} ERR_HANDOVER_HOOK If a hook fails.
 * @throws {MigrationError} ERR_HANDOVER_UNDECIDED If `signal` was aborted before it was known whose
 *   the guest is.
 */
export async function recoverGuest(
  options: RecoverGuestOptions,
): Promise<HandoverResult | undefined> {
  const entry = await options.journal.read();
  const handover = await recover(options);
  if (handover === undefined) return undefined;
  if (handover instanceof SourceHandover) {
    if (handover.guest === 'unknown') await askUntilAborted(handover, options);
    else if (entry?.isSettled === false) tell(handover, options).catch(() => {});
  }
  return await handover.result;
}

async function askUntilAborted(
  handover: SourceHandover,
  options: RecoverGuestOptions,
): Promise<void> {
  const { signal } = options;
  const leave = (): void => handover.leave();
  signal?.addEventListener('abort', leave, { once: true });
  if (signal?.aborted) leave();
  try {
    await ask(handover, options);
  } finally {
    signal?.removeEventListener('abort', leave);
  }
}

/** Connects the source's hand-over to the destination, again and again, until it is decided. */
async function ask(handover: SourceHandover, options: RecoverGuestOptions): Promise<void> {
  const { clock = systemClock, say } = options;
  let isDecided = false;
  const decided = handover.result.then(
    () => {
      isDecided = true;
    },
    () => {
      isDecided = true;
    },
  );
  for (let delayMs = RETRY_MS_MIN; ; delayMs = Math.min(delayMs * 2, RETRY_MS_MAX)) {
    try {
      const channel = await options.connect(handover.entry!);
      join(handover, channel.openHandover());
      await Promise.race([decided, channel.ended]);
      handover.connectionLost();
      if (isDecided) return void channel.close().catch(() => {});
    } catch (error) {
      if (delayMs === RETRY_MS_MIN) say?.(`Cannot ask the destination now: ${messageOf(error)}`);
    }
    await new Promise<void>((resolve) => {
      clock.after(delayMs, resolve, { keepsAlive: true });
    });
    if (isDecided) return;
  }
}

/** Tells the destination that the guest stays; if that fails, it gives up by itself, but later. */
async function tell(handover: SourceHandover, options: RecoverGuestOptions): Promise<void> {
  const channel = await options.connect(handover.entry!);
  await join(handover, channel.openHandover());
  await channel.close();
}

function join(handover: SourceHandover | DestinationHandover, lane: Lane): Promise<void> {
  lane.onMessage = (incoming) => {
    const { payload } = incoming;
    if (!isHandoverKind(payload[0]!)) {
      throw new PagelaneError('ERR_MESSAGE', 'The peer speaks of something else than a hand-over');
    }
    handover.receive(decodeHandover(payload));
    incoming.release();
  };
  return handover.connectionBack((message: HandoverMessage) => {
    lane.send({ ...encodeHandover(message, HEADER_BYTES), isOrdered: true });
  });
}

/** A source that has lost its session asks whose its guest is. */
export class IncomingQuestion {
  /** 32 hexadecimal digits. */
  readonly migration: string;
  readonly #lane: Lane;
  readonly #first: HandoverMessage;

  constructor(lane: Lane, first: HandoverMessage) {
    this.#lane = lane;
    this.#first = first;
    this.migration = first.migration;
  }

  /**
   * Answers from what this process is in the midst of, or else from the journal.
   *
   * @returns Where the guest runs; undefined if nothing is known of it here.
   */
  async answer(options: {
    readonly journal: Journal;
    readonly hooks: GuestHooks;
  }): Promise<HandoverResult | undefined> {
    const handover = findLive(this.migration) ?? (await this.#recover(options));
    if (handover === undefined) return undefined;
    join(handover, this.#lane);
    handover.receive(this.#first);
    return await handover.result;
  }

  /** A journal that has another hand-over by now is that one's: it may be in the midst of it. */
  async #recover(options: {
    readonly journal: Journal;
    readonly hooks: GuestHooks;
  }): Promise<DestinationHandover | undefined> {
    const entry = await options.journal.read();
    if (entry?.side !== 'destination' || entry.migration !== this.migration) return undefined;
    return (await recover(options)) as DestinationHandover;
  }
}

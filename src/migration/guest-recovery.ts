import { PagelaneError } from '../errors.ts';
import { HEADER_BYTES } from '../frame/limits.ts';
import type { Lane } from '../session/lane.ts';
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

/** Asks the peer on a lane of its own, and answers it there. */
export interface HandoverChannel {
  openHandover(): Lane;
}

/**
 * After a crash, or when a migration ended with the guest "unknown": finds out whose the guest is,
 * by the journal, and by asking the destination if it must. `resume`, `start` or `discard` is
 * called then.
 *
 * @param options.session A session to the destination, for a source that had committed. It is asked
 *   for when it is needed, and again whenever it was lost.
 * @returns Where the guest runs; undefined if the journal has nothing. At a destination it returns
 *   as soon as that is certain; a source asks for as long as it takes.
 * @throws {PagelaneError} ERR_JOURNAL If the journal cannot be read: then start nothing.
 */
export async function recoverGuest(
  options: RecoverOptions & { connect(): Promise<HandoverChannel> },
): Promise<HandoverResult | undefined> {
  const handover = await recover(options);
  if (handover === undefined) return undefined;
  if (handover instanceof SourceHandover && handover.guest === 'unknown') {
    await ask(handover, options.connect);
  }
  return await handover.result;
}

/** Connects the source's hand-over to the destination. */
async function ask(
  handover: SourceHandover,
  connect: () => Promise<HandoverChannel>,
): Promise<void> {
  const lane = (await connect()).openHandover();
  join(handover, lane);
}

function join(handover: SourceHandover | DestinationHandover, lane: Lane): void {
  lane.onMessage = (incoming) => {
    const { payload } = incoming;
    if (!isHandoverKind(payload[0]!)) {
      throw new PagelaneError('ERR_MESSAGE', 'The peer speaks of something else than a hand-over');
    }
    handover.receive(decodeHandover(payload));
    incoming.release();
  };
  handover.connectionBack((message: HandoverMessage) => {
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
    const handover = findLive(this.migration) ?? (await recover(options));
    if (handover === undefined || handover instanceof SourceHandover) return undefined;
    join(handover, this.#lane);
    handover.receive(this.#first);
    return await handover.result;
  }
}

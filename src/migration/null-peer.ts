import { HEADER_BYTES } from '../frame/limits.ts';
import { setThreads, type ThreadOptions } from '../page/threads.ts';
import { type IncomingMessage, Lane, type OutgoingMessage } from '../session/lane.ts';
import * as message from '../stream/message.ts';
import type { MoveOptions } from './guest-options.ts';
import type { GuestResult } from './guest-result.ts';
import { checkMove, type GuestSession, GuestSource } from './guest-source.ts';
import { decodeHandover, encodeHandover, HandoverKind } from './handover-message.ts';
import { tellNothingMore } from './held.ts';
import { Tally } from './progress.ts';

/**
 * A destination in this process that takes everything and keeps nothing: it shows what a source
 * costs without network and destination. It answers as a destination does that is never late.
 */
export class NullPeer {
  /** The source's end. */
  readonly lane: Lane;
  readonly session: GuestSession = {
    id: '0'.repeat(32),
    ended: new Promise(() => {}),
    pathReports: () => [],
  };

  constructor() {
    const [lane, own] = joinLanes();
    this.lane = lane;
    own.onMessage = (incoming) => {
      answer(own, incoming.payload);
      incoming.release();
    };
    own.send({ ...message.encodeStore(0, HEADER_BYTES), isOrdered: true });
    tellNothingMore(own);
  }
}

/**
 * Migrates a guest to nowhere, in this process: it measures what the source alone costs. Hooks are
 * called as in any migration, `discard` at the end as well.
 *
 * @returns How it ended; never rejects.
 * @throws {RangeError | ThreadError} What `setThreads` throws, before anything is done.
 */
export function migrateToNull(options: MoveOptions & ThreadOptions): Promise<GuestResult> {
  checkMove(options);
  const threads = setThreads(options);
  const { lane, session } = new NullPeer();
  const now = (): number => performance.now();
  const parts = { lane, session, threads, tally: new Tally(), now };
  return new GuestSource(parts, { ...options, move: options }).run();
}

function answer(lane: Lane, payload: Uint8Array): void {
  const say = (encoded: message.EncodedMessage): void => {
    lane.send({ ...encoded, isOrdered: true });
  };
  switch (payload[0]) {
    case message.MessageKind.Round: {
      const start = HEADER_BYTES;
      const buffer = Buffer.concat([new Uint8Array(start), payload]);
      say({ buffer, start, end: buffer.length });
      return;
    }
    case HandoverKind.reserve:
    case HandoverKind.commit: {
      const { migration, attempt, word } = decodeHandover(payload);
      const said = word === 'reserve' ? 'reserved' : 'active';
      say(encodeHandover({ word: said, migration, attempt }, HEADER_BYTES));
      // All of it is here as soon as it was asked for.
      if (word === 'reserve')
        say(encodeHandover({ word: 'ready', migration, attempt }, HEADER_BYTES));
      return;
    }
    case message.MessageKind.End: {
      const digest = message.decodeEnd(payload);
      const applied = { isApplied: true, guest: 'source', digest, code: '', message: '' } as const;
      say(message.encodeApplied(applied, HEADER_BYTES));
      return;
    }
  }
}

/** Two lanes of which each gets what is sent on the other, by reference. */
function joinLanes(): [Lane, Lane] {
  const ends = [new LaneEnd(), new LaneEnd()] as const;
  ends[0].peer = ends[1];
  ends[1].peer = ends[0];
  return [ends[0].lane, ends[1].lane];
}

class LaneEnd {
  readonly lane: Lane;
  peer: LaneEnd | undefined;
  readonly #waiting: IncomingMessage[] = [];
  #hear: ((incoming: IncomingMessage) => void) | undefined;
  #sequence = 0;

  constructor() {
    const hears = (hear: typeof this.hear): void => {
      this.hear = hear;
    };
    const heard = (): typeof this.hear => this.hear;
    const sender = {
      id: 0,
      queuedBytes: 0,
      unackedBytes: 0,
      isUrgent: false,
      send: (outgoing: OutgoingMessage) => this.#send(outgoing),
      beginEpoch: () => {},
    };
    const receiver = {
      get onMessage() {
        return heard();
      },
      set onMessage(hear) {
        hears(hear);
      },
    };
    this.lane = new Lane(sender, receiver, () => {});
  }

  get hear(): ((incoming: IncomingMessage) => void) | undefined {
    return this.#hear;
  }

  set hear(hear: ((incoming: IncomingMessage) => void) | undefined) {
    this.#hear = hear;
    this.#deliver();
  }

  #send({ buffer, start, end, isLast = false, onAcked }: OutgoingMessage): number {
    const sequence = this.#sequence++;
    const release = (): void => {
      onAcked?.();
      this.lane.onDrain?.();
    };
    const payload = buffer.subarray(start, end);
    // Nothing arrives within the call that sends it.
    queueMicrotask(() => this.peer?.take({ sequence, payload, isLast, release }));
    return sequence;
  }

  take(incoming: IncomingMessage): void {
    this.#waiting.push(incoming);
    this.#deliver();
  }

  #deliver(): void {
    while (this.#hear !== undefined && this.#waiting.length > 0) this.#hear(this.#waiting.shift()!);
  }
}

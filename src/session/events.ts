import type { PathReport } from '../path/path.ts';
import { EVENTS_MAX } from './limits.ts';

/** Which path, in an event. */
interface PathPlace {
  readonly id: number;
  readonly local: string;
  readonly remote: string;
}

/** Something that happened to a session. */
export type SessionEvent =
  | (PathPlace & {
      /**
       * A path was opened: the first, or one that joined.
       * Doubted: silent although others are heard; what it carries goes over the others as well.
       * Parked: left out, because it would make the whole slower. Resumed: used again.
       */
      readonly type: 'pathOpened' | 'pathDoubted' | 'pathParked' | 'pathResumed';
    })
  | (PathPlace & {
      /** A path is gone; what it had not delivered goes over the others. */
      readonly type: 'pathLost';
      /** Code and message of what ended it; ERR_PATH_REMOVED, ERR_PATH_CLOSED if on purpose. */
      readonly code: string;
      readonly reason: string;
      /** Frames that were not acked and are sent again. */
      readonly movedFrames: number;
    })
  | {
      /** A path could not be opened; it is tried again. */
      readonly type: 'pathFailed';
      readonly remote: string;
      readonly code: string;
      readonly reason: string;
    }
  | {
      /** No path is left: everything waits for one to come back. */
      readonly type: 'stalled';
      readonly code: string;
      readonly reason: string;
      /** How long it is waited for; then the session ends. */
      readonly timeoutMs: number;
    }
  | {
      /** A path came back; nothing that was acked is sent again. */
      readonly type: 'resumed';
      readonly stalledMs: number;
    }
  | {
      /** Something that was asked for is not as it was meant to be. */
      readonly type: 'note';
      readonly message: string;
    }
  | {
      /** The session is over; no event follows. */
      readonly type: 'closed';
      /** Code and message of what ended it; absent after a clean close. */
      readonly code?: string;
      readonly reason?: string;
    };

/** Makes an event of a path that is there, or was. */
export function pathEvent<T extends string>(
  type: T,
  { id, local, remote }: PathReport,
): PathPlace & { readonly type: T } {
  return { type, id, local, remote };
}

/**
 * Keeps the latest events, for any number of readers.
 *
 * A reader that falls behind by more than `EVENTS_MAX` misses the oldest; nobody waits for it.
 */
export class EventLog {
  readonly #events: SessionEvent[] = [];
  /** How many events were dropped from the front. */
  #dropped = 0;
  #isClosed = false;
  #wake: (() => void)[] = [];

  /** Adds an event and wakes the readers. */
  add(event: SessionEvent): void {
    if (this.#isClosed) return;
    this.#events.push(event);
    if (this.#events.length > EVENTS_MAX) {
      this.#events.shift();
      this.#dropped++;
    }
    this.#isClosed = event.type === 'closed';
    const wake = this.#wake;
    this.#wake = [];
    for (const callback of wake) callback();
  }

  /** Gives the events kept so far, then each as it happens, until the session is over. */
  async *read(): AsyncGenerator<SessionEvent> {
    let next = 0;
    for (;;) {
      next = Math.max(next, this.#dropped);
      const event = this.#events[next - this.#dropped];
      if (event !== undefined) {
        next++;
        yield event;
      } else if (this.#isClosed) {
        return;
      } else {
        await new Promise<void>((resolve) => this.#wake.push(resolve));
      }
    }
  }
}

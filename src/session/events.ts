import type { PathReport } from '../path/path.ts';
import { EVENTS_MAX } from './limits.ts';

/** Something that happened to a session. */
export type SessionEvent =
  | {
      /** A path was opened: the first, or one that joined. */
      readonly type: 'pathOpened';
      readonly id: number;
      readonly local: string;
      readonly remote: string;
    }
  | {
      /** A path is gone; what it had not delivered goes over the others. */
      readonly type: 'pathLost';
      readonly id: number;
      readonly local: string;
      readonly remote: string;
      /** Code and message of what ended it. */
      readonly code: string;
      readonly reason: string;
      /** Frames that were not acked and are sent again. */
      readonly movedFrames: number;
    }
  | {
      /** A further path could not be opened. */
      readonly type: 'pathFailed';
      readonly remote: string;
      readonly code: string;
      readonly reason: string;
    }
  | {
      /** The session is over; no event follows. */
      readonly type: 'closed';
      /** Code and message of what ended it; absent after a clean close. */
      readonly code?: string;
      readonly reason?: string;
    };

/** Makes the event of a path that is there, or was. */
export function pathOpened({ id, local, remote }: PathReport): SessionEvent {
  return { type: 'pathOpened', id, local, remote };
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

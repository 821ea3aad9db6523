import type { PathReport } from '../path/path.ts';
import { type EventLog, pathEvent } from './events.ts';
import { PARKED_AFTER, PARKED_AFTER_MS, PROBE_MS } from './limits.ts';

/** What parking looks at of a path. */
interface Parkable {
  isParked: boolean;
  readonly inFlightCount: number;
  readonly hasRoom: boolean;
  report(): PathReport;
}

interface Standing {
  givenAtMs: number;
  /** Frames that waited for another path since this one was last given one. */
  passedOver: number;
}

/**
 * Tells which paths are left out because they would make the whole slower: frames wait for others
 * although these have room.
 *
 * Such a path is tried from time to time, with a copy of what another path carries: that harms
 * nothing, and shows whether it has become faster.
 */
export class Parking {
  readonly #events: EventLog;
  readonly #standings = new Map<Parkable, Standing>();

  constructor(events: EventLog) {
    this.#events = events;
  }

  /** A path was given a frame that only it carries. */
  noteGiven(path: Parkable, nowMs: number): void {
    const standing = this.#standingOf(path, nowMs);
    standing.givenAtMs = nowMs;
    standing.passedOver = 0;
    if (!path.isParked) return;
    path.isParked = false;
    this.#events.add(pathEvent('pathResumed', path.report()));
  }

  /** A frame waits, whichever paths have room. */
  notePassedOver(paths: readonly Parkable[]): void {
    for (const path of paths) {
      const standing = this.#standings.get(path);
      if (standing !== undefined && path.hasRoom) standing.passedOver++;
    }
  }

  /** Parks paths that are due. @returns Parked paths that may be tried now. */
  update<T extends Parkable>(paths: readonly T[], nowMs: number): T[] {
    const tried: T[] = [];
    for (const path of paths) {
      const standing = this.#standingOf(path, nowMs);
      const unusedMs = nowMs - standing.givenAtMs;
      if (!path.isParked && standing.passedOver >= PARKED_AFTER && unusedMs >= PARKED_AFTER_MS) {
        path.isParked = true;
        this.#events.add(pathEvent('pathParked', path.report()));
      }
      if (path.isParked && unusedMs >= PROBE_MS && path.inFlightCount === 0) {
        standing.givenAtMs = nowMs;
        tried.push(path);
      }
    }
    return tried;
  }

  forget(path: Parkable): void {
    this.#standings.delete(path);
  }

  #standingOf(path: Parkable, nowMs: number): Standing {
    let standing = this.#standings.get(path);
    if (standing === undefined) {
      standing = { givenAtMs: nowMs, passedOver: 0 };
      this.#standings.set(path, standing);
    }
    return standing;
  }
}

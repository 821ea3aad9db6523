import { LATENESS_FRAMES, LATENESS_MS, STALLED_MS } from './limits.ts';

/** What the scheduler looks at of a path. */
export interface Candidate {
  readonly silentMs: number;
  readonly rate: {
    readonly inFlightBytes: number;
    readonly bytesPerSecond: number;
    readonly minRttMs: number | undefined;
  };
  hasRoom(bytes: number): boolean;
}

/** What is to be sent. */
export interface Load {
  /** Bytes of the next frame. */
  readonly frameBytes: number;
  /** Bytes that can be sent after it. */
  readonly backlogBytes: number;
}

/**
 * Chooses the path that takes the next frame: of those with room, the one that will have brought it
 * first.
 *
 * A path that would bring it later than the others could, the whole backlog before it, is not
 * given the frame: it waits until another has room. While there is a backlog the path may be
 * somewhat later, so that a slow path is used as well.
 *
 * @returns The index of the path; -1 if the frame waits.
 *
 * Source: Lim, Nahum, Towsley, Gibbens: ECF, CoNEXT 2017, section 4, simplified.
 */
export function choosePath(paths: readonly Candidate[], load: Load): number {
  let chosen = -1;
  let chosenMs = Number.POSITIVE_INFINITY;
  for (let index = 0; index < paths.length; index++) {
    const path = paths[index]!;
    if (!path.hasRoom(load.frameBytes)) continue;
    const ms = completionMs(path, load.frameBytes);
    if (ms < chosenMs) {
      chosen = index;
      chosenMs = ms;
    }
  }
  if (chosen < 0 || chosenMs <= waitingMs(paths, chosen, load)) return chosen;
  return -1;
}

/** How late the frame may come on the chosen path, so that it is not better to wait for another. */
function waitingMs(paths: readonly Candidate[], chosen: number, load: Load): number {
  const { frameBytes, backlogBytes } = load;
  let soonestMs = Number.POSITIVE_INFINITY;
  for (let index = 0; index < paths.length; index++) {
    const path = paths[index]!;
    const { bytesPerSecond } = path.rate;
    if (index === chosen || bytesPerSecond === 0 || path.silentMs >= STALLED_MS) continue;
    const frameMs = (frameBytes * 1000) / bytesPerSecond;
    const latenessMs = backlogBytes > frameBytes ? lateness(frameMs) : 0;
    soonestMs = Math.min(soonestMs, completionMs(path, frameBytes + backlogBytes) + latenessMs);
  }
  return soonestMs;
}

function lateness(frameMs: number): number {
  return Math.max(LATENESS_MS, LATENESS_FRAMES * frameMs);
}

/** When `bytes` given to a path now would have arrived, milliseconds from now. */
function completionMs(path: Candidate, bytes: number): number {
  const { inFlightBytes, bytesPerSecond, minRttMs = 0 } = path.rate;
  if (bytesPerSecond === 0) return minRttMs / 2;
  return ((inFlightBytes + bytes) * 1000) / bytesPerSecond + minRttMs / 2;
}

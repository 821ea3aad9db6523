import { LATENESS_FRAMES, STALLED_MS, TRIAL_BYTES } from './limits.ts';

/** What the scheduler looks at of a path. */
export interface Candidate {
  readonly silentMs: number;
  /** Whether it is passed over whatever it promises: in doubt, or being removed. */
  readonly isDoubted: boolean;
  readonly isDraining: boolean;
  readonly rate: {
    readonly inFlightBytes: number;
    readonly minRttMs: number | undefined;
  };
  /** 0 as long as nothing is known. */
  expectedBytesPerSecond(nowMs: number): number;
  readonly hasRoom: boolean;
}

/** What is to be sent, and when. */
export interface Load {
  /** Bytes of the next frame. */
  readonly frameBytes: number;
  /** Bytes that can be sent after it. */
  readonly backlogBytes: number;
  /** How much later than the others a path may bring the frame while there is more to send. */
  readonly latenessMs: number;
  readonly nowMs: number;
}

/**
 * Chooses the path that takes the next frame: of those with room, the one that will have brought it
 * first.
 *
 * A path that would bring it later than the others could, the whole backlog before it, is not
 * given the frame: it waits until another has room. While there is a backlog the path may be
 * somewhat later, so that a slow path is used as well. Of several paths, one of which nothing is
 * known gets no more than one large frame, to learn from.
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
    if (!path.hasRoom) continue;
    const ms = completionMs(path, load.frameBytes, load.nowMs);
    const isTried = ms < 0 && path.rate.inFlightBytes >= TRIAL_BYTES;
    if (ms < chosenMs && !(isTried && paths.length > 1)) {
      chosen = index;
      chosenMs = ms;
    }
  }
  if (chosen < 0 || chosenMs <= waitingMs(paths, chosen, load)) return chosen;
  return -1;
}

/** How late the frame may come on the chosen path, so that it is not better to wait for another. */
function waitingMs(paths: readonly Candidate[], chosen: number, load: Load): number {
  const { frameBytes, backlogBytes, nowMs } = load;
  let soonestMs = Number.POSITIVE_INFINITY;
  for (let index = 0; index < paths.length; index++) {
    const path = paths[index]!;
    const isAway = path.silentMs >= STALLED_MS || path.isDoubted || path.isDraining;
    if (index === chosen || isAway) continue;
    const allMs = completionMs(path, frameBytes + backlogBytes, nowMs);
    if (allMs < 0) continue;
    const latenessMs = backlogBytes > 0 ? lateness(path, load) : 0;
    soonestMs = Math.min(soonestMs, allMs + latenessMs);
  }
  return soonestMs;
}

function lateness(path: Candidate, { frameBytes, latenessMs, nowMs }: Load): number {
  const frameMs = (frameBytes * 1000) / path.expectedBytesPerSecond(nowMs);
  return Math.max(latenessMs, LATENESS_FRAMES * frameMs);
}

/** Earlier than every time: a path of which nothing is known is tried. */
const UNKNOWN_MS = -1e9;

/** What a path is taken to deliver of which nothing is known, beside others like it. */
const UNKNOWN_BYTES_PER_MS = 10_000;

/**
 * When `bytes` given to a path now would have arrived, milliseconds from now; negative as long as
 * nothing is known of the path.
 */
export function completionMs(path: Candidate, bytes: number, nowMs: number): number {
  const { inFlightBytes, minRttMs = 0 } = path.rate;
  const bytesPerSecond = path.expectedBytesPerSecond(nowMs);
  const allBytes = inFlightBytes + bytes;
  if (bytesPerSecond === 0) return UNKNOWN_MS + allBytes / UNKNOWN_BYTES_PER_MS + minRttMs / 2;
  return (allBytes * 1000) / bytesPerSecond + minRttMs / 2;
}

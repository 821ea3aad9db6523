import type { Clock } from '../clock.ts';
import { Pacer } from '../path/pacing.ts';
import {
  COPIED_BYTES_MIN,
  COPIED_SHARE,
  COPY_GAIN,
  COPY_LOOK_MAX,
  COPY_QUEUE_MS,
  LATENESS_MS_MAX,
  LATENESS_MS_MIN,
  LATENESS_SHARE,
  TRIAL_BYTES,
} from './limits.ts';
import type { OutboundFrame, OutboundLane } from './outbound.ts';
import type { PathSet, SessionPath } from './path-set.ts';
import { completionMs } from './scheduler.ts';

/*
 * Striping: which frame goes next, and over which path
 *
 *   1. lanes in turn, as far as credit allows; the scheduler chooses the path       #giveNext
 *   2. when nothing is left to send, paths with room take copies                    #copyNext
 *        of what a slower path will bring much later: it holds up the epoch's end
 *        of everything on urgent lanes: the first copy counts
 */

/** What striping needs from its session. */
export interface StriperOwner {
  readonly lanes: readonly OutboundLane[];
  /** A lane has less in its queue. */
  onTaken(lane: OutboundLane): void;
}

/** Gives the frames of all lanes to the paths. */
export class Striper {
  readonly #owner: StriperOwner;
  readonly #paths: PathSet;
  readonly #clock: Clock;
  #pacer: Pacer | undefined;
  #turn = 0;
  #isPumping = false;
  #isStopped = false;
  #givenBytes = 0;
  #copiedBytes = 0;
  #cancelPaced: (() => void) | undefined;

  constructor(owner: StriperOwner, { paths, clock }: { paths: PathSet; clock: Clock }) {
    this.#owner = owner;
    this.#paths = paths;
    this.#clock = clock;
  }

  /** Most bytes of Data frames per second over all paths; absent for no limit. */
  get maxBytesPerSecond(): number | undefined {
    return this.#pacer?.bytesPerSecond;
  }

  set maxBytesPerSecond(bytesPerSecond: number | undefined) {
    this.#pacer =
      bytesPerSecond === undefined ? undefined : new Pacer(bytesPerSecond, this.#clock.now());
  }

  /** Bytes of frames that were sent a second time though nothing was lost. */
  get copiedBytes(): number {
    return this.#copiedBytes;
  }

  /** Gives frames to paths, as far as credit, caps and the paths' room allow. */
  pump(): void {
    if (this.#isPumping || this.#isStopped) return;
    this.#isPumping = true;
    while (this.#giveNext());
    this.#isPumping = false;
  }

  /** Sends copies of what others carry, enough to learn from, over a path that is not used. */
  probe(path: SessionPath): void {
    let bytes = 0;
    for (const other of this.#paths.open) {
      const count = other === path ? 0 : other.inFlightCount;
      for (let index = count - 1; index >= 0 && bytes < TRIAL_BYTES; index--) {
        const frame = other.inFlightAt(index);
        if (frame.stage !== 'carried' || isCarriedBy(frame, path)) continue;
        this.#copy(frame, path);
        bytes += frame.bytes.length;
      }
    }
  }

  stop(): void {
    this.#isStopped = true;
    this.#cancelPaced?.();
  }

  #giveNext(): boolean {
    const lane = this.#nextLane();
    const frame = lane?.next();
    if (lane === undefined || frame === undefined) {
      this.#paths.noteIdle();
      return this.#copyNext();
    }
    if (this.#paceWaitMs > 0) return this.#waitForPace(this.#paceWaitMs);
    const frameBytes = frame.bytes.length;
    const backlogBytes = this.#sendableBytes() - frame.payloadBytes;
    const load = { frameBytes, backlogBytes, latenessMs: this.#latenessMs(lane) };
    const path = this.#paths.choose(load);
    if (path === undefined) return this.#waitForPaths();
    const isThere = isCarriedBy(frame, path);
    lane.take(path.slot);
    this.#turn = this.#owner.lanes.indexOf(lane) + 1;
    if (!isThere) this.#carry(frame, path);
    this.#owner.onTaken(lane);
    return true;
  }

  #carry(frame: OutboundFrame, path: SessionPath): void {
    this.#givenBytes += frame.bytes.length;
    this.#pacer?.pass(frame.bytes.length, this.#clock.now());
    path.carry(frame);
  }

  /** The next lane, in turn, that has a frame to send. */
  #nextLane(): OutboundLane | undefined {
    const { lanes } = this.#owner;
    for (let step = 0; step < lanes.length; step++) {
      const lane = lanes[(this.#turn + step) % lanes.length]!;
      if (lane.next() !== undefined) return lane;
    }
    return undefined;
  }

  #sendableBytes(): number {
    let bytes = 0;
    for (const lane of this.#owner.lanes) bytes += lane.sendableBytes;
    return bytes;
  }

  /** How much later than the others a path may bring a frame: what waits for it has its bound. */
  #latenessMs(lane: OutboundLane): number {
    if (lane.isUrgent) return LATENESS_MS_MIN;
    const nowMs = this.#clock.now();
    let bytesPerSecond = 1;
    for (const path of this.#paths.open) bytesPerSecond += path.expectedBytesPerSecond(nowMs);
    const windowMs = (lane.windowBytes * 1000) / bytesPerSecond;
    return Math.min(Math.max(LATENESS_MS_MIN, windowMs * LATENESS_SHARE), LATENESS_MS_MAX);
  }

  get #paceWaitMs(): number {
    return this.#pacer?.waitMs(this.#clock.now()) ?? 0;
  }

  /** Acks wake us where a path is full; where it is capped, a timer does. */
  #waitForPaths(): false {
    let soonestMs = Number.POSITIVE_INFINITY;
    for (const { paceWaitMs } of this.#paths.open) {
      if (paceWaitMs > 0) soonestMs = Math.min(soonestMs, paceWaitMs);
    }
    return soonestMs === Number.POSITIVE_INFINITY ? false : this.#waitForPace(soonestMs);
  }

  #waitForPace(waitMs: number): false {
    this.#cancelPaced?.();
    this.#cancelPaced = this.#clock.after(Math.ceil(waitMs), () => this.pump());
    return false;
  }

  /** Copies one frame onto a path that has nothing else to do. @returns Whether there was one. */
  #copyNext(): boolean {
    if (this.#paceWaitMs > 0) return false;
    const { open } = this.#paths;
    if (open.length < 2) return false;
    for (const path of open) {
      if (!path.hasRoom) continue;
      const frame = this.#urgentFor(path) ?? this.#tailFor(path);
      if (frame === undefined) continue;
      this.#copy(frame, path);
      return true;
    }
    return false;
  }

  #copy(frame: OutboundFrame, path: SessionPath): void {
    frame.lane.copy(frame, path.slot);
    this.#copiedBytes += frame.bytes.length;
    this.#carry(frame, path);
  }

  /** Something of an urgent lane that only others carry, if the path would bring it at once. */
  #urgentFor(path: SessionPath): OutboundFrame | undefined {
    if (this.#owner.lanes.every((lane) => !lane.isUrgent)) return undefined;
    const rate = path.expectedBytesPerSecond(this.#clock.now());
    const queueMs = path.rate.inFlightBytes === 0 ? 0 : (path.rate.inFlightBytes * 1000) / rate;
    if (queueMs > COPY_QUEUE_MS) return undefined;
    for (const other of this.#paths.open) {
      const count = other === path ? 0 : Math.min(other.inFlightCount, COPY_LOOK_MAX);
      for (let index = 0; index < count; index++) {
        const frame = other.inFlightAt(index);
        if (!frame.lane.isUrgent || frame.stage !== 'carried' || isCarriedBy(frame, path)) continue;
        return frame;
      }
    }
    return undefined;
  }

  /**
   * The end of what another path carries, if this one would bring it in half the time, or nothing
   * is known of the other.
   */
  #tailFor(path: SessionPath): OutboundFrame | undefined {
    if (this.#copiedBytes > COPIED_BYTES_MIN + this.#givenBytes * COPIED_SHARE) return undefined;
    const nowMs = this.#clock.now();
    for (const other of this.#paths.open) {
      if (other === path || other.inFlightCount === 0) continue;
      let laterBytes = 0;
      const last = other.inFlightCount - 1;
      for (let index = last; index >= 0 && index > last - COPY_LOOK_MAX; index--) {
        const frame = other.inFlightAt(index);
        const bytes = frame.bytes.length;
        const thereMs = completionMs(other, -laterBytes, nowMs);
        const hereMs = completionMs(path, bytes, nowMs);
        if (hereMs < 0 || (thereMs >= 0 && hereMs * COPY_GAIN >= thereMs)) break;
        laterBytes += bytes;
        if (frame.stage !== 'carried' || isCarriedBy(frame, path)) continue;
        return frame;
      }
    }
    return undefined;
  }
}

function isCarriedBy(frame: OutboundFrame, path: SessionPath): boolean {
  return (frame.carriers & (1 << path.slot)) !== 0;
}

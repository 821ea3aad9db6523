import type { Clock } from '../clock.ts';
import { type PagelaneError, PathError } from '../errors.ts';
import { PATHS_MAX } from '../frame/limits.ts';
import type { Reason } from '../frame/reason.ts';
import { DRAIN_TIMEOUT_MS, HEARD_MS, TICK_MS } from '../path/limits.ts';
import type { PathLink } from '../path/link.ts';
import { Path, type PathOwner, type PathReport, type PathState } from '../path/path.ts';
import { type EventLog, pathEvent } from './events.ts';
import { GONE_PATHS_MAX, STALLED_MS } from './limits.ts';
import type { OutboundFrame } from './outbound.ts';
import { Parking } from './parking.ts';
import { choosePath, type Load } from './scheduler.ts';

/** A path as a session uses it. */
export type SessionPath = Path<OutboundFrame>;

/** Whom a set of paths works for. */
export interface PathSetOwner
  extends Omit<PathOwner<OutboundFrame>, 'onGone' | 'onGoodbye' | 'onRoom'> {
  /** Paths may have room again: after acks, after a path came or went, and with every tick. */
  onRoom(): void;
  /** A path came; what was told to the peer over others may be told again. */
  onJoined(): void;
  /** A path waits in silence for acks while others are heard: its frames may go again. */
  onDoubted(path: SessionPath): void;
  /** A path is gone; `frames` were not acked, in the order they were sent. */
  onLeft(path: SessionPath, frames: readonly OutboundFrame[], error: PagelaneError): void;
  /** A path has carried so much that its keys should be changed: for a new one in its place. */
  onWorn(path: SessionPath): void;
  /** A path that is not used may be tried, with a copy of something that others carry. */
  onProbeDue(path: SessionPath): void;
  /** A path fell silent: what it was to tell the peer may be lost, and can be told over others. */
  onQuiet(): void;
}

/** How a path is taken into a session. */
export interface AdoptOptions {
  /** Round trip of the handshake, milliseconds. */
  readonly rttMs?: number;
  readonly maxBytesPerSecond?: number | undefined;
}

/** What a set of paths is made of. */
export interface PathSetParts {
  readonly clock: Clock;
  readonly events: EventLog;
  /** Bytes after which a path is worn. */
  readonly rekeyBytes: number;
}

interface Draining {
  readonly path: SessionPath;
  readonly untilMs: number;
  readonly done: () => void;
}

/** The paths of a session: those in use, those that are being closed, those that were. */
export class PathSet {
  readonly #owner: PathSetOwner;
  readonly #clock: Clock;
  readonly #events: EventLog;
  readonly #rekeyBytes: number;
  readonly #pathOwner: PathOwner<OutboundFrame>;
  readonly #parking: Parking;
  readonly #open: SessionPath[] = [];
  readonly #closing = new Set<SessionPath>();
  readonly #worn = new Set<SessionPath>();
  #draining: Draining[] = [];
  readonly #gone: PathReport[] = [];
  #nextId = 0;
  #isClosed = false;
  #cancelTick: () => void;
  #onAllGone: (() => void)[] = [];

  constructor(owner: PathSetOwner, parts: PathSetParts) {
    const { clock, events, rekeyBytes } = parts;
    this.#owner = owner;
    this.#clock = clock;
    this.#events = events;
    this.#rekeyBytes = rekeyBytes;
    this.#parking = new Parking(events);
    this.#pathOwner = {
      allocate: (bytes) => owner.allocate(bytes),
      onData: (header, payload) => owner.onData(header, payload),
      onAcked: (frame, slot) => owner.onAcked(frame, slot),
      onCredit: (lane, totalBytes) => owner.onCredit(lane, totalBytes),
      onClose: (payload) => owner.onClose(payload),
      onOffer: (payload) => owner.onOffer(payload),
      onFault: (error) => owner.onFault(error),
      onRoom: () => owner.onRoom(),
      onGoodbye: (path) => this.#lose(path, goodbyeError(path.report()), 'closed'),
      onGone: (path, error) => this.#onGone(path, error),
    };
    this.#cancelTick = clock.after(TICK_MS, () => this.#tick());
  }

  /** The paths in use. */
  get open(): readonly SessionPath[] {
    return this.#open;
  }

  /** Whether a further path may join. */
  get hasRoom(): boolean {
    return !this.#isClosed && this.#open.length < PATHS_MAX;
  }

  /** Reports of all paths there are, and of the latest of those there were. */
  reports(): PathReport[] {
    return [...this.#gone, ...this.#open.map((path) => path.report())];
  }

  /** Takes over a connection whose handshake is done. @returns The path; absent without room. */
  adopt(link: PathLink, { rttMs, maxBytesPerSecond }: AdoptOptions): SessionPath | undefined {
    if (!this.hasRoom) {
      link.destroy();
      return undefined;
    }
    const slot = this.#freeSlot();
    const path = new Path(link, this.#pathOwner, { id: this.#nextId++, slot, clock: this.#clock });
    if (rttMs !== undefined) {
      path.rate.onRoundTrip(rttMs, this.#clock.now(), { wasAlone: true });
    }
    path.maxBytesPerSecond = maxBytesPerSecond;
    this.#open.push(path);
    this.#events.add(pathEvent('pathOpened', path.report()));
    this.#owner.onJoined();
    this.#owner.onRoom();
    return path;
  }

  /** The path that takes the next frame; absent if the frame waits. */
  choose(load: Omit<Load, 'nowMs'>): SessionPath | undefined {
    const nowMs = this.#clock.now();
    const path = this.#open[choosePath(this.#open, { ...load, nowMs })];
    if (path === undefined) this.#parking.notePassedOver(this.#open);
    else this.#parking.noteGiven(path, nowMs);
    return path;
  }

  /** The path for what is small and urgent: of those that are heard, the nearest. */
  nearest(): SessionPath | undefined {
    let best: SessionPath | undefined;
    for (const path of this.#open) {
      if (best === undefined || distanceOf(path) < distanceOf(best)) best = path;
    }
    return best;
  }

  /** Notes that there is nothing to send for paths that have room. */
  noteIdle(): void {
    for (const path of this.#open) if (path.hasRoom) path.rate.onIdle();
  }

  /**
   * Closes a path once what it carries has arrived, or after `DRAIN_TIMEOUT_MS`; what it could not
   * deliver goes over the others.
   *
   * @returns When it is closed, or was lost.
   * @throws {RangeError} If there is no such path, or no other one.
   */
  async remove(id: number): Promise<void> {
    const path = this.find(id);
    const others = this.#open.filter((other) => other !== path && !other.isDraining);
    if (others.length === 0) throw new RangeError(`Path ${id} is the only one`);
    path.isDraining = true;
    const untilMs = this.#clock.now() + DRAIN_TIMEOUT_MS;
    await new Promise<void>((done) => {
      this.#draining.push({ path, untilMs, done });
      this.#finishDrained();
    });
  }

  /** @throws {RangeError} If there is no such path open. */
  find(id: number): SessionPath {
    const path = this.#open.find((each) => each.id === id);
    if (path === undefined) throw new RangeError(`There is no path ${id} open`);
    return path;
  }

  /** Closes every path, and tells the peer why. */
  close(reason: Reason): void {
    this.#isClosed = true;
    this.#cancelTick();
    for (const path of this.#open.splice(0)) {
      this.#closing.add(path);
      path.close(reason);
      this.#keep(path.report());
    }
    for (const { done } of this.#draining.splice(0)) done();
  }

  /** Resolves when every path that was closed is gone. */
  async allGone(): Promise<void> {
    if (this.#closing.size === 0) return;
    await new Promise<void>((resolve) => this.#onAllGone.push(resolve));
  }

  #freeSlot(): number {
    let slot = 0;
    while (this.#open.some((path) => path.slot === slot)) slot++;
    return slot;
  }

  /** One tick: silence is counted in our own ticks, so a stall of ours is not the peer's. */
  #tick(): void {
    this.#cancelTick = this.#clock.after(TICK_MS, () => this.#tick());
    const nowMs = this.#clock.now();
    for (const path of this.#open) path.tick();
    this.#doubt();
    if (this.#open.some(({ silentMs }) => silentMs === HEARD_MS)) this.#owner.onQuiet();
    for (const path of [...this.#open]) {
      const isOtherHeard = this.#isOtherHeard(path, STALLED_MS);
      if (path.isSilent({ isOtherHeard })) this.#lose(path, silentError(path), 'lost');
    }
    this.#finishDrained();
    for (const path of this.#open) {
      if (path.carriedBytes < this.#rekeyBytes || this.#worn.has(path)) continue;
      this.#worn.add(path);
      this.#owner.onWorn(path);
    }
    for (const path of this.#parking.update(this.#open, nowMs)) this.#owner.onProbeDue(path);
    if (!this.#isClosed) this.#owner.onRoom();
  }

  /** Looks for paths that fell silent while others did not; those are asked, to be sure of it. */
  #doubt(): void {
    for (const path of this.#open) {
      if (!path.isOverdue) continue;
      if (this.#isOtherHeard(path, HEARD_MS)) {
        if (!path.isDoubted) this.#events.add(pathEvent('pathDoubted', path.report()));
        path.isDoubted = true;
        this.#owner.onDoubted(path);
      } else {
        for (const other of this.#open) if (other !== path) other.ping();
      }
    }
  }

  #isOtherHeard(path: SessionPath, withinMs: number): boolean {
    return this.#open.some((other) => other !== path && other.silentMs < withinMs);
  }

  #finishDrained(): void {
    const nowMs = this.#clock.now();
    this.#draining = this.#draining.filter(({ path, untilMs, done }) => {
      const isOpen = path.state === 'open';
      if (isOpen && path.inFlightCount > 0 && nowMs < untilMs) return true;
      if (isOpen && path.inFlightCount === 0) this.#sayGoodbye(path);
      else this.#lose(path, removedError(path.report()), 'closed');
      done();
      return false;
    });
  }

  #sayGoodbye(path: SessionPath): void {
    this.#closing.add(path);
    path.goodbye();
    this.#forget(path, removedError(path.report()), []);
  }

  #onGone(path: SessionPath, error: PagelaneError | undefined): void {
    if (this.#closing.delete(path)) {
      if (this.#closing.size > 0) return;
      for (const resolve of this.#onAllGone.splice(0)) resolve();
    } else {
      this.#lose(path, error ?? goodbyeError(path.report()), 'lost');
    }
  }

  #lose(path: SessionPath, error: PagelaneError, state: Exclude<PathState, 'open'>): void {
    if (!this.#open.includes(path)) return;
    this.#forget(path, error, path.lose(state));
  }

  #forget(path: SessionPath, error: PagelaneError, frames: readonly OutboundFrame[]): void {
    this.#open.splice(this.#open.indexOf(path), 1);
    this.#worn.delete(path);
    this.#parking.forget(path);
    const report = path.report();
    this.#keep(report);
    const { code, message: reason } = error;
    const movedFrames = frames.length;
    this.#events.add({ ...pathEvent('pathLost', report), code, reason, movedFrames });
    this.#owner.onLeft(path, frames, error);
  }

  #keep(report: PathReport): void {
    this.#gone.push(report);
    if (this.#gone.length > GONE_PATHS_MAX) this.#gone.shift();
  }
}

function distanceOf(path: SessionPath): number {
  const isAway = path.silentMs >= HEARD_MS || path.isDoubted || path.isDraining;
  return (path.rate.minRttMs ?? 0) + (isAway ? 1e6 + path.silentMs : 0);
}

function goodbyeError({ local, remote }: PathReport): PathError {
  const message = `Path ${local} to ${remote} was closed by the peer`;
  return new PathError('ERR_PATH_CLOSED', message, remote);
}

function removedError({ local, remote }: PathReport): PathError {
  const message = `Path ${local} to ${remote} was removed`;
  return new PathError('ERR_PATH_REMOVED', message, remote);
}

function silentError(path: SessionPath): PathError {
  const { local, remote } = path.report();
  const message = `Path ${local} to ${remote} was lost: silent for ${path.silentMs} ms`;
  return new PathError('ERR_PATH_LOST', message, remote);
}

import type { Clock } from '../clock.ts';
import { type PagelaneError, PathError } from '../errors.ts';
import { PATHS_MAX } from '../frame/limits.ts';
import type { Reason } from '../frame/reason.ts';
import { HEARTBEAT_MS } from '../path/limits.ts';
import type { PathLink } from '../path/link.ts';
import { Path, type PathOwner, type PathReport } from '../path/path.ts';
import { type EventLog, pathOpened } from './events.ts';
import { GONE_PATHS_MAX, STALLED_MS } from './limits.ts';
import type { OutboundFrame } from './outbound.ts';
import { choosePath, type Load } from './scheduler.ts';

/** A path as a session uses it. */
export type SessionPath = Path<OutboundFrame>;

/** Whom a set of paths works for. */
export interface PathSetOwner
  extends Omit<PathOwner<OutboundFrame>, 'onGone' | 'onGoodbye' | 'onRoom'> {
  /** Paths may have room again: after acks, after a path came or went, and with every beat. */
  onRoom(): void;
  /** A path came; what was told to the peer over others may be told again. */
  onJoined(): void;
  /** A path is lost; `frames` were not acked, in the order they were sent. */
  onLost(frames: readonly OutboundFrame[], error: PagelaneError): void;
}

/** The paths of a session: those in use, those that are being closed, those that were. */
export class PathSet {
  readonly #owner: PathSetOwner;
  readonly #clock: Clock;
  readonly #events: EventLog;
  readonly #pathOwner: PathOwner<OutboundFrame>;
  readonly #open: SessionPath[] = [];
  readonly #closing = new Set<SessionPath>();
  readonly #gone: PathReport[] = [];
  #nextId = 0;
  #isClosed = false;
  #cancelTick: () => void;
  #onAllGone: (() => void)[] = [];

  constructor(owner: PathSetOwner, { clock, events }: { clock: Clock; events: EventLog }) {
    this.#owner = owner;
    this.#clock = clock;
    this.#events = events;
    this.#pathOwner = {
      allocate: (bytes) => owner.allocate(bytes),
      onData: (header, payload) => owner.onData(header, payload),
      onAcked: (frame) => owner.onAcked(frame),
      onCredit: (lane, totalBytes) => owner.onCredit(lane, totalBytes),
      onClose: (payload) => owner.onClose(payload),
      onFault: (error) => owner.onFault(error),
      onRoom: () => owner.onRoom(),
      onGoodbye: (path) => this.#lose(path, goodbyeError(path.report()), 'closed'),
      onGone: (path, error) => this.#onGone(path, error),
    };
    this.#cancelTick = clock.after(HEARTBEAT_MS, () => this.#tick());
  }

  /** How many paths are in use. */
  get count(): number {
    return this.#open.length;
  }

  /** Whether a further path may join. */
  get hasRoom(): boolean {
    return !this.#isClosed && this.#open.length < PATHS_MAX;
  }

  /** Reports of all paths there are, and of the latest of those there were. */
  reports(): PathReport[] {
    return [...this.#gone, ...this.#open.map((path) => path.report())];
  }

  /** Takes over a connection whose handshake is done. */
  adopt(link: PathLink, { rttMs }: { rttMs?: number }): void {
    if (!this.hasRoom) {
      link.destroy();
      return;
    }
    const path = new Path(link, this.#pathOwner, { id: this.#nextId++, clock: this.#clock });
    if (rttMs !== undefined) {
      path.rate.onRoundTrip(rttMs, this.#clock.now(), { wasAlone: true });
    }
    this.#open.push(path);
    this.#events.add(pathOpened(path.report()));
    this.#owner.onJoined();
    this.#owner.onRoom();
  }

  /** The path that takes the next frame; absent if the frame waits. */
  choose(load: Omit<Load, 'nowMs'>): SessionPath | undefined {
    return this.#open[choosePath(this.#open, { ...load, nowMs: this.#clock.now() })];
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
    for (const path of this.#open) if (path.hasRoom(0)) path.rate.onIdle();
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
  }

  /** Resolves when every path that was closed is gone. */
  async allGone(): Promise<void> {
    if (this.#closing.size === 0) return;
    await new Promise<void>((resolve) => this.#onAllGone.push(resolve));
  }

  /** One beat: silence is counted in our own ticks, so a stall of ours is not the peer's. */
  #tick(): void {
    this.#cancelTick = this.#clock.after(HEARTBEAT_MS, () => this.#tick());
    for (const path of this.#open) path.tick();
    for (const path of [...this.#open]) {
      const others = this.#open.filter((other) => other !== path);
      const isOtherAlive = others.some(({ silentMs }) => silentMs < STALLED_MS);
      if (path.isSilent({ isOtherAlive })) this.#lose(path, silentError(path), 'lost');
    }
    if (!this.#isClosed) this.#owner.onRoom();
  }

  #onGone(path: SessionPath, error: PagelaneError | undefined): void {
    if (this.#closing.delete(path)) {
      if (this.#closing.size > 0) return;
      for (const resolve of this.#onAllGone.splice(0)) resolve();
    } else {
      this.#lose(path, error ?? goodbyeError(path.report()), 'lost');
    }
  }

  #lose(path: SessionPath, error: PagelaneError, state: 'lost' | 'closed'): void {
    const index = this.#open.indexOf(path);
    if (index < 0) return;
    this.#open.splice(index, 1);
    const frames = path.lose(state);
    const report = path.report();
    this.#keep(report);
    const { id, local, remote } = report;
    const { code, message: reason } = error;
    const movedFrames = frames.length;
    this.#events.add({ type: 'pathLost', id, local, remote, code, reason, movedFrames });
    this.#owner.onLost(frames, error);
  }

  #keep(report: PathReport): void {
    this.#gone.push(report);
    if (this.#gone.length > GONE_PATHS_MAX) this.#gone.shift();
  }
}

function distanceOf(path: SessionPath): number {
  const isStalled = path.silentMs >= STALLED_MS;
  return (path.rate.minRttMs ?? 0) + (isStalled ? path.silentMs * 1000 : 0);
}

function goodbyeError({ local, remote }: PathReport): PathError {
  const message = `Path ${local} to ${remote} was closed by the peer`;
  return new PathError('ERR_PATH_CLOSED', message, remote);
}

function silentError(path: SessionPath): PathError {
  const { local, remote } = path.report();
  const message = `Path ${local} to ${remote} was lost: silent for ${path.silentMs} ms`;
  return new PathError('ERR_PATH_LOST', message, remote);
}

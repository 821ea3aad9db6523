import { formatHostPort, type PathAddress } from '../address.ts';
import type { Clock } from '../clock.ts';
import { PagelaneError, PathError, ProtocolError, RemoteError } from '../errors.ts';
import { LANES_MAX } from '../frame/limits.ts';
import { decodeOffer, encodeOffer, type Offer } from '../frame/offer.ts';
import { decodeReason, type Reason } from '../frame/reason.ts';
import type { PathLink } from '../path/link.ts';
import type { PathReport } from '../path/path.ts';
import { BufferPool } from '../path/pool.ts';
import { Arrivals } from './arrivals.ts';
import { EventLog, type SessionEvent } from './events.ts';
import { InboundLane } from './inbound.ts';
import { Lane } from './lane.ts';
import { CLOSE_TIMEOUT_MS, WORN_BYTES } from './limits.ts';
import { type OutboundFrame, OutboundLane } from './outbound.ts';
import { type AdoptOptions, PathSet, type PathSetOwner, type SessionPath } from './path-set.ts';
import { Striper } from './striping.ts';

/** Who dialled: the client; and who listened: the server. */
export type Role = 'client' | 'server';

/** What a session is made of, once its handshake is done. */
export interface SessionParts {
  /** 16 bytes, the same at both ends. */
  readonly id: Uint8Array;
  readonly role: Role;
  /** Payload bytes that we accept ahead per lane, and that the peer accepts. */
  readonly windowBytes: number;
  readonly peerWindowBytes: number;
  /** How long the session waits for a path when it has none; milliseconds. */
  readonly resumeTimeoutMs: number;
  /** Bytes after which a path should get a new connection. @default 64 GiB */
  readonly rekeyBytes?: number | undefined;
  readonly clock: Clock;
  readonly events?: EventLog;
  /** Who opens paths; only clients have one. */
  readonly opener?: PathOpener;
  /** Where the peer can reach us beside the address it knows; only servers tell. */
  readonly offer?: Offer;
}

/** Opens the paths of a session, and opens them again. */
export interface PathOpener {
  /** Opens a further path. */
  add(address: PathAddress): Promise<void>;
  /** A path is gone: without a word, or on purpose. */
  onPathGone(id: number, { isLost }: { isLost: boolean }): void;
  /** A path should get a new connection in its place. */
  onPathWorn(id: number): void;
  /** The peer tells where it can be reached. */
  onOffer(offer: Offer): void;
}

interface LaneState {
  readonly lane: Lane;
  readonly outbound: OutboundLane;
  readonly inbound: InboundLane;
  /** Something was acked, or taken from the queue, since `onDrain` was last called. */
  isDrainDue: boolean;
}

const CLEAN: Reason = { code: '', message: '' };

/**
 * All paths and lanes between two processes.
 *
 * Every frame goes over whichever path will bring it first; frames of a path that is lost go over
 * the others. Without any path the session waits for one to come back, for a bounded time.
 */
export class Session {
  /** Name of the session, the same at both ends: 32 hexadecimal digits. */
  readonly id: string;
  readonly role: Role;
  /** Settles when the session is over: with what ended it, or undefined after a clean close. */
  readonly ended: Promise<PagelaneError | undefined>;
  readonly #parts: SessionParts;
  readonly #events: EventLog;
  readonly #pool = new BufferPool();
  readonly #lanes: LaneState[] = [];
  readonly #outbound: OutboundLane[] = [];
  readonly #arrived = new Arrivals<Lane>();
  readonly #paths: PathSet;
  readonly #striper: Striper;
  #stall: { readonly sinceMs: number; readonly cancel: () => void } | undefined;
  #hasOffer = false;
  #isOver = false;
  #error: PagelaneError | undefined;
  #settle!: (error: PagelaneError | undefined) => void;
  #onSettled: (() => void)[] = [];

  /** For handshakes and tests; use `connectSession` or `listenForSessions`. */
  constructor(parts: SessionParts) {
    this.#parts = parts;
    this.id = Array.from(parts.id, (byte) => byte.toString(16).padStart(2, '0')).join('');
    this.role = parts.role;
    this.#events = parts.events ?? new EventLog();
    this.ended = new Promise((resolve) => {
      this.#settle = resolve;
    });
    const { clock, rekeyBytes = WORN_BYTES } = parts;
    const common = { clock, events: this.#events, rekeyBytes };
    this.#paths = new PathSet(this.#makeOwner(), common);
    this.#striper = new Striper(
      { lanes: this.#outbound, onTaken: (lane) => this.#drainDue(lane) },
      { paths: this.#paths, clock },
    );
  }

  /** Whether a further path may join. */
  get hasRoomForPath(): boolean {
    return this.#paths.hasRoom;
  }

  /** Whether the session has no path and waits for one. */
  get isStalled(): boolean {
    return this.#stall !== undefined;
  }

  /**
   * Takes over a connection whose handshake is done.
   *
   * @returns The path's id; absent if it was dropped because there are enough.
   */
  adopt(link: PathLink, options: AdoptOptions = {}): number | undefined {
    return this.#paths.adopt(link, options)?.id;
  }

  /**
   * Opens a lane.
   *
   * @throws {RangeError} If this side has no lane left.
   * @throws What ended the session, if it is over.
   */
  openLane(): Lane {
    this.#check();
    const ids = Array.from({ length: LANES_MAX / 2 }, (_, index) => 2 * index + this.#parity);
    const id = ids.find((candidate) => this.#lanes.every(({ lane }) => lane.id !== candidate));
    if (id === undefined) throw new RangeError(`A session has ${LANES_MAX / 2} lanes a side`);
    return this.#addLane(id).lane;
  }

  /**
   * Waits for a lane that the peer opened; lanes come in the order of their first frames.
   *
   * @throws `signal.reason` If it is aborted.
   * @throws {PagelaneError} What ended the session, or ERR_SESSION_CLOSED after a clean close.
   */
  acceptLane(options: { signal?: AbortSignal } = {}): Promise<Lane> {
    return this.#arrived.take(options);
  }

  /**
   * Opens a further path; clients only.
   *
   * @throws {TypeError} If this is the server.
   * @throws {PathError} ERR_PATH_… If it cannot be opened.
   * @throws {RemoteError} If the peer refused it, with its code.
   */
  async addPath(address: PathAddress): Promise<void> {
    this.#check();
    if (this.#parts.opener === undefined) {
      const to = formatHostPort(address.host, address.port);
      throw new TypeError(`Cannot add path to ${to}: only the side that dialled can`);
    }
    await this.#parts.opener.add(address);
  }

  /**
   * Removes a path: it takes nothing new, and is closed when what it carries has arrived. It is not
   * opened again.
   *
   * @returns When it is closed.
   * @throws {RangeError} If there is no such path open, or no other one.
   */
  async removePath(id: number): Promise<void> {
    this.#check();
    await this.#paths.remove(id);
  }

  /** Most bytes per second that are sent over all paths together; absent for no limit. */
  get maxBytesPerSecond(): number | undefined {
    return this.#striper.maxBytesPerSecond;
  }

  set maxBytesPerSecond(bytesPerSecond: number | undefined) {
    this.#striper.maxBytesPerSecond = checkRate(bytesPerSecond);
    this.#striper.pump();
  }

  /**
   * Limits what is sent over one path.
   *
   * @throws {RangeError} If there is no such path open, or the limit is not above 0.
   */
  setPathMax(id: number, maxBytesPerSecond: number | undefined): void {
    this.#paths.find(id).maxBytesPerSecond = checkRate(maxBytesPerSecond);
    this.#striper.pump();
  }

  /** Every path there is, and the latest of those there were. */
  pathReports(): PathReport[] {
    return this.#paths.reports();
  }

  /**
   * What happens to the session: what is kept of the past, then each event as it happens. Ends with
   * 'closed'. A reader that is very late misses the oldest events.
   */
  events(): AsyncIterable<SessionEvent> {
    return this.#events.read();
  }

  /**
   * Ends the session cleanly: waits until the peer has all that was sent, tells it, and closes the
   * connections. Never rejects; `ended` says whether it went well.
   */
  async close(): Promise<void> {
    if (!this.#isOver && !this.#canClose) await this.#waitForAcks();
    this.#finish(undefined, CLEAN);
    await this.#paths.allGone();
  }

  /** Ends the session at once and tells the peer why. Does nothing if it is over. */
  fail(error: PagelaneError): void {
    this.#finish(error, { code: error.code, message: error.message });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  get #parity(): number {
    return this.role === 'client' ? 0 : 1;
  }

  get #isSettled(): boolean {
    return this.#lanes.every(({ outbound }) => outbound.isSettled);
  }

  /** Whether the peer has all that was sent, and there is a path to tell it that this was all. */
  get #canClose(): boolean {
    return this.#isSettled && !this.isStalled;
  }

  #check(): void {
    if (!this.#isOver) return;
    throw this.#error ?? closedError();
  }

  #addLane(id: number): LaneState {
    const { windowBytes, peerWindowBytes } = this.#parts;
    const outbound = new OutboundLane(id, peerWindowBytes);
    const inbound = new InboundLane(id, {
      windowBytes,
      pool: this.#pool,
      grant: (totalBytes) => this.#paths.nearest()?.sendCredit(id, totalBytes),
      fail: (error) => this.fail(error),
    });
    const lane = new Lane(outbound, inbound, () => this.#striper.pump());
    const state = { lane, outbound, inbound, isDrainDue: false };
    this.#lanes.push(state);
    this.#outbound.push(outbound);
    return state;
  }

  #laneOf(id: number): LaneState {
    const state = this.#lanes.find(({ lane }) => lane.id === id);
    if (state !== undefined) return state;
    const message = `Cannot take frame: lane ${id} was not opened`;
    throw new ProtocolError('ERR_FRAME_LANE', message, { lane: id });
  }

  /** The lane of a Data frame; the peer opens its lanes by sending on them. */
  #laneForData(id: number): LaneState {
    const isOurs = id % 2 === this.#parity;
    if (isOurs || this.#lanes.some(({ lane }) => lane.id === id)) return this.#laneOf(id);
    const state = this.#addLane(id);
    this.#arrived.add(state.lane);
    return state;
  }

  #makeOwner(): PathSetOwner {
    return {
      allocate: (bytes) => this.#pool.acquire(bytes),
      onData: (header, payload) => this.#laneForData(header.lane).inbound.onData(header, payload),
      onAcked: (frame, slot) => {
        frame.lane.onAcked(frame, slot);
        this.#drainDue(frame.lane);
      },
      onCredit: (lane, totalBytes) => this.#laneOf(lane).outbound.onCredit(totalBytes),
      onClose: (payload) => this.#onClose(decodeReason(payload)),
      onOffer: (payload) => this.#onOffer(payload),
      onRoom: () => this.#afterEvents(),
      onJoined: () => this.#onJoined(),
      onDoubted: (path) => {
        for (let index = 0; index < path.inFlightCount; index++) {
          const frame = path.inFlightAt(index);
          frame.lane.doubt(frame);
        }
      },
      onLeft: (path, frames, error) => this.#onLeft(path, frames, error),
      onWorn: (path) => this.#parts.opener?.onPathWorn(path.id),
      onProbeDue: (path) => this.#striper.probe(path),
      onQuiet: () => this.#repeatCredit(),
      onFault: (error) => this.fail(error),
    };
  }

  #onLeft(path: SessionPath, frames: readonly OutboundFrame[], error: PagelaneError): void {
    for (const frame of frames) {
      frame.lane.return(frame, path.slot);
      this.#drainDue(frame.lane);
    }
    if (this.#paths.open.length === 0) this.#onLastPathLost(error);
    if (this.#isOver) return;
    this.#parts.opener?.onPathGone(path.id, { isLost: path.state === 'lost' });
    this.#repeatCredit();
    this.#afterEvents();
  }

  #onJoined(): void {
    const { offer, clock } = this.#parts;
    const path = this.#paths.open.at(-1)!;
    if (offer !== undefined && !this.#hasOffer) path.sendOffer(encodeOffer(offer));
    this.#hasOffer ||= offer !== undefined;
    if (this.#stall !== undefined) {
      this.#stall.cancel();
      const stalledMs = Math.round(clock.now() - this.#stall.sinceMs);
      this.#stall = undefined;
      this.#events.add({ type: 'resumed', stalledMs });
    }
    this.#repeatCredit();
  }

  #onOffer(payload: Uint8Array): void {
    const offer = decodeOffer(payload);
    if (this.#hasOffer || this.#parts.opener === undefined) return;
    this.#hasOffer = true;
    this.#parts.opener.onOffer(offer);
  }

  #drainDue(outbound: OutboundLane): void {
    for (const state of this.#lanes) if (state.outbound === outbound) state.isDrainDue = true;
  }

  /** Sends what can be sent, and tells lanes that got room. */
  #afterEvents(): void {
    this.#striper.pump();
    for (const state of this.#lanes) {
      if (!state.isDrainDue || this.#isOver) continue;
      state.isDrainDue = false;
      state.lane.onDrain?.();
    }
    if (this.#onSettled.length > 0 && this.#canClose) this.#wakeSettled();
  }

  #wakeSettled(): void {
    const waiting = this.#onSettled;
    this.#onSettled = [];
    for (const resolve of waiting) resolve();
  }

  /** Waits until all is acked, and there is a path to say so. */
  async #waitForAcks(): Promise<void> {
    const cancel = this.#parts.clock.after(CLOSE_TIMEOUT_MS, () => {
      let bytes = 0;
      for (const { outbound } of this.#lanes) bytes += outbound.queuedBytes + outbound.unackedBytes;
      const message = `Cannot close: ${bytes} bytes had no ack after ${CLOSE_TIMEOUT_MS} ms`;
      if (this.#isSettled) this.#wakeSettled();
      else this.fail(new PagelaneError('ERR_CLOSE_TIMEOUT', message));
    });
    await new Promise<void>((resolve) => this.#onSettled.push(resolve));
    cancel();
  }

  /** Credit may have been lost with a path; a total can be told again. */
  #repeatCredit(): void {
    for (const { lane, inbound } of this.#lanes) {
      const { grantedBytes } = inbound;
      if (grantedBytes === undefined) continue;
      for (const path of this.#paths.open) path.sendCredit(lane.id, grantedBytes);
    }
  }

  /** No path is left: all waits for one to come back, but not for ever. */
  #onLastPathLost(cause: PagelaneError): void {
    const { resumeTimeoutMs: timeoutMs, clock } = this.#parts;
    if (this.#isOver) return;
    if (timeoutMs === 0) {
      this.giveUp(cause);
      return;
    }
    const { code, message: reason } = cause;
    const cancel = clock.after(timeoutMs, () => this.giveUp(cause, timeoutMs), {
      keepsAlive: true,
    });
    this.#stall = { sinceMs: clock.now(), cancel };
    this.#events.add({ type: 'stalled', code, reason, timeoutMs });
  }

  /** Ends a session that has no path, because there will be none. */
  giveUp(cause: PagelaneError, waitedMs = 0): void {
    const remote = this.#paths.reports().at(-1)?.remote ?? '';
    const waited = waitedMs > 0 ? ` and none came back within ${waitedMs} ms` : '';
    const message = `No path is left${waited}: ${cause.message}`;
    this.#finish(new PathError('ERR_PATHS_EXHAUSTED', message, remote, cause), CLEAN);
  }

  #onClose({ code, message }: Reason): void {
    const peer = this.role === 'client' ? 'destination' : 'source';
    this.#finish(code === '' ? undefined : new RemoteError(code, message, peer), CLEAN);
  }

  /** Ends the session; the peer is told `reason` on every path that is left. */
  #finish(error: PagelaneError | undefined, reason: Reason): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#error = error;
    this.#stall?.cancel();
    this.#stall = undefined;
    this.#striper.stop();
    this.#paths.close(reason);
    for (const { outbound, inbound } of this.#lanes) {
      outbound.clear();
      // After a clean close, what has arrived may still be taken.
      if (error !== undefined) inbound.clear();
    }
    if (error !== undefined) this.#arrived.drain();
    this.#pool.clear();
    this.#arrived.end(error ?? closedError());
    const why = error === undefined ? {} : { code: error.code, reason: error.message };
    this.#events.add({ type: 'closed', ...why });
    this.#wakeSettled();
    this.#settle(error);
  }
}

function checkRate(bytesPerSecond: number | undefined): number | undefined {
  if (bytesPerSecond === undefined || bytesPerSecond > 0) return bytesPerSecond;
  throw new RangeError(`A limit is more than 0 bytes per second, not ${bytesPerSecond}`);
}

function closedError(): PagelaneError {
  return new PagelaneError('ERR_SESSION_CLOSED', 'The session is closed');
}

import { formatHostPort, type PathAddress } from '../address.ts';
import type { Clock } from '../clock.ts';
import { PagelaneError, PathError, ProtocolError, RemoteError } from '../errors.ts';
import { LANES_MAX } from '../frame/limits.ts';
import { decodeReason, type Reason } from '../frame/reason.ts';
import type { PathLink } from '../path/link.ts';
import type { PathReport } from '../path/path.ts';
import { BufferPool } from '../path/pool.ts';
import { Arrivals } from './arrivals.ts';
import { EventLog, type SessionEvent } from './events.ts';
import { InboundLane } from './inbound.ts';
import { Lane } from './lane.ts';
import { CLOSE_TIMEOUT_MS } from './limits.ts';
import { OutboundLane } from './outbound.ts';
import { PathSet, type PathSetOwner } from './path-set.ts';

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
  readonly clock: Clock;
  readonly events?: EventLog;
  /** Opens a path that joins the session; only clients can. */
  readonly join?: (address: PathAddress) => Promise<void>;
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
 * the others. The session lives as long as one path does.
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
  readonly #arrived = new Arrivals<Lane>();
  readonly #paths: PathSet;
  #turn = 0;
  #isPumping = false;
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
    const { clock } = parts;
    this.#paths = new PathSet(this.#makeOwner(), { clock, events: this.#events });
  }

  /** Whether a further path may join. */
  get hasRoomForPath(): boolean {
    return this.#paths.hasRoom;
  }

  /**
   * Takes over a connection whose handshake is done.
   *
   * @param rttMs Round trip of the handshake, milliseconds.
   */
  adopt(link: PathLink, options: { rttMs?: number } = {}): void {
    this.#paths.adopt(link, options);
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
    if (this.#parts.join === undefined) {
      const to = formatHostPort(address.host, address.port);
      throw new TypeError(`Cannot add path to ${to}: only the side that dialled can`);
    }
    await this.#parts.join(address);
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
    if (!this.#isOver && !this.#isSettled) await this.#waitForAcks();
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
    const lane = new Lane(outbound, inbound, () => this.#pump());
    const state = { lane, outbound, inbound, isDrainDue: false };
    this.#lanes.push(state);
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
      onAcked: (frame) => {
        frame.lane.onAcked(frame);
        this.#drainDue(frame.lane);
      },
      onCredit: (lane, totalBytes) => this.#laneOf(lane).outbound.onCredit(totalBytes),
      onClose: (payload) => this.#onClose(decodeReason(payload)),
      onRoom: () => this.#afterEvents(),
      onJoined: () => this.#repeatCredit(),
      onLost: (frames, error) => {
        for (const frame of frames) {
          frame.lane.return(frame);
          this.#drainDue(frame.lane);
        }
        if (this.#paths.count === 0) this.#onLastPathLost(error);
        this.#repeatCredit();
        this.#afterEvents();
      },
      onFault: (error) => this.fail(error),
    };
  }

  #drainDue(outbound: OutboundLane): void {
    for (const state of this.#lanes) if (state.outbound === outbound) state.isDrainDue = true;
  }

  /** Gives frames to paths, as far as credit and the paths' room allow. */
  #pump(): void {
    if (this.#isPumping || this.#isOver) return;
    this.#isPumping = true;
    for (;;) {
      const state = this.#nextLane();
      const frame = state?.outbound.next();
      if (state === undefined || frame === undefined) {
        this.#paths.noteIdle();
        break;
      }
      const frameBytes = frame.bytes.length;
      const backlogBytes = this.#sendableBytes() - frame.payloadBytes;
      const path = this.#paths.choose({ frameBytes, backlogBytes });
      if (path === undefined) break;
      state.outbound.take();
      state.isDrainDue = true;
      this.#turn++;
      path.carry(frame);
    }
    this.#isPumping = false;
  }

  /** The next lane, in turn, that has a frame to send. */
  #nextLane(): LaneState | undefined {
    const count = this.#lanes.length;
    for (let step = 0; step < count; step++) {
      const state = this.#lanes[(this.#turn + step) % count]!;
      if (state.outbound.next() !== undefined) return state;
    }
    return undefined;
  }

  #sendableBytes(): number {
    let bytes = 0;
    for (const { outbound } of this.#lanes) bytes += outbound.sendableBytes;
    return bytes;
  }

  /** Sends what can be sent, and tells lanes that got room. */
  #afterEvents(): void {
    this.#pump();
    for (const state of this.#lanes) {
      if (!state.isDrainDue || this.#isOver) continue;
      state.isDrainDue = false;
      state.lane.onDrain?.();
    }
    if (this.#onSettled.length > 0 && this.#isSettled) this.#wakeSettled();
  }

  #wakeSettled(): void {
    const waiting = this.#onSettled;
    this.#onSettled = [];
    for (const resolve of waiting) resolve();
  }

  async #waitForAcks(): Promise<void> {
    const cancel = this.#parts.clock.after(CLOSE_TIMEOUT_MS, () => {
      let bytes = 0;
      for (const { outbound } of this.#lanes) bytes += outbound.queuedBytes + outbound.unackedBytes;
      const message = `Cannot close: ${bytes} bytes had no ack after ${CLOSE_TIMEOUT_MS} ms`;
      this.fail(new PagelaneError('ERR_CLOSE_TIMEOUT', message));
    });
    await new Promise<void>((resolve) => this.#onSettled.push(resolve));
    cancel();
  }

  /** Credit may have been lost with a path; a total can be told again. */
  #repeatCredit(): void {
    for (const { lane, inbound } of this.#lanes) {
      const { grantedBytes } = inbound;
      if (grantedBytes !== undefined) this.#paths.nearest()?.sendCredit(lane.id, grantedBytes);
    }
  }

  /** Decides what it means that no path is left: the session is over. */
  #onLastPathLost(cause: PagelaneError): void {
    const remote = this.#paths.reports().at(-1)?.remote ?? '';
    const message = `No path is left: ${cause.message}`;
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

function closedError(): PagelaneError {
  return new PagelaneError('ERR_SESSION_CLOSED', 'The session is closed');
}

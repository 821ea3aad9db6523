import type { Clock } from '../clock.ts';
import { PagelaneError, ProtocolError } from '../errors.ts';
import { encodeFrame } from '../frame/encode.ts';
import { type FrameHeader, FrameType } from '../frame/header.ts';
import { encodeReason, type Reason } from '../frame/reason.ts';
import { ControlNotes } from './control.ts';
import { Fifo } from './fifo.ts';
import {
  ACK_BYTES,
  ANSWERED_BYTES_MIN,
  CONTROL_PENDING_BYTES_MAX,
  DATA_PENDING_BYTES_MAX,
  DOUBT_MS_MIN,
  DOUBT_ROUND_TRIPS,
  HEARTBEAT_TICKS,
  SILENCE_ALONE_MS_MIN,
  SILENCE_MS_MAX,
  SILENCE_MS_MIN,
  SILENCE_ROUND_TRIPS,
  TICK_MS,
} from './limits.ts';
import type { LinkHandlers, PathLink } from './link.ts';
import { Pacer } from './pacing.ts';
import { RateEstimator, type SendMark } from './rate.ts';

/** A Data frame as a path sees it: its bytes, header first. */
export interface CarriedFrame {
  readonly bytes: Uint8Array;
}

/** Whom a path works for. */
export interface PathOwner<F extends CarriedFrame> {
  allocate(bytes: number): Uint8Array;
  /** A Data frame has arrived. */
  onData(header: Readonly<FrameHeader>, payload: Uint8Array): void;
  /** The peer has received a frame that the path at `slot` carried. */
  onAcked(frame: F, slot: number): void;
  /** The peer accepts `totalBytes` on a lane. */
  onCredit(lane: number, totalBytes: number): void;
  /** The peer ended the session. */
  onClose(payload: Uint8Array): void;
  /** The peer tells where else it can be reached. */
  onOffer(payload: Uint8Array): void;
  /** The peer closed this path on purpose. */
  onGoodbye(path: Path<F>): void;
  /** The path may have room again. */
  onRoom(): void;
  /** The path's link is gone, after an error or after `close`. */
  onGone(path: Path<F>, error: PagelaneError | undefined): void;
  /** The peer, or who consumes its messages, found something wrong. */
  onFault(error: PagelaneError): void;
}

/** What a path is: in use; gone without a word; closed on purpose. */
export type PathState = 'open' | 'lost' | 'closed';

/** A path's figures, for people and for metrics. */
export interface PathReport {
  readonly id: number;
  readonly local: string;
  readonly remote: string;
  readonly state: PathState;
  /** Whether it is not used because it would make the whole slower. */
  readonly isParked: boolean;
  /** Bytes given to the socket, and received from it, headers included. */
  readonly sentBytes: number;
  readonly receivedBytes: number;
  /** Smoothed round trip, 0 as long as it is not known. */
  readonly rttMs: number;
  /** Estimated delivery rate, 0 as long as it is not known. */
  readonly bytesPerSecond: number;
  /** Its cap, if it has one. */
  readonly maxBytesPerSecond: number | undefined;
  readonly unackedBytes: number;
}

/** What a path is made of beside its link and its owner. */
export interface PathParts {
  readonly id: number;
  readonly slot: number;
  readonly clock: Clock;
}

interface InFlight<F> {
  readonly frame: F;
  readonly mark: SendMark;
}

/**
 * One connection of a session: keeps what is in flight, acks what arrives, measures, and notices
 * silence.
 */
export class Path<F extends CarriedFrame> implements LinkHandlers {
  readonly id: number;
  /** Number of the path among those that are open, from 0; used again when it is gone. */
  readonly slot: number;
  readonly rate: RateEstimator = new RateEstimator();
  /** It waits for acks in silence while others are heard: it is not given anything. */
  isDoubted = false;
  /** It would make the whole slower, so it is not given anything for now. */
  isParked = false;
  /** It is being removed: it is not given anything, and goes when all is acked. */
  isDraining = false;
  readonly #link: PathLink;
  readonly #owner: PathOwner<F>;
  readonly #clock: Clock;
  readonly #control = new ControlNotes();
  #pacer: Pacer | undefined;
  #state: PathState = 'open';
  readonly #inFlight = new Fifo<InFlight<F>>();
  #ackedFrames = 0;
  #sentBytes = 0;
  #controlPendingBytes = 0;
  #receivedFrames = 0;
  #unackedReceivedBytes = 0;
  #silentTicks = 0;
  #muteTicks = 0;
  #waitingTicks = 0;
  #receivedBytesAtTick = 0;
  #sentBytesAtTick = 0;

  constructor(link: PathLink, owner: PathOwner<F>, parts: PathParts) {
    this.id = parts.id;
    this.slot = parts.slot;
    this.#link = link;
    this.#owner = owner;
    this.#clock = parts.clock;
    this.#receivedBytesAtTick = link.receivedBytes;
    link.stage = 'session';
    link.handlers = this;
    this.#control.ping();
    link.wake();
  }

  get state(): PathState {
    return this.#state;
  }

  /** Time without a byte from the peer, as our own timer counts it; milliseconds. */
  get silentMs(): number {
    return this.#silentTicks * TICK_MS;
  }

  /** Bytes that were sent and received, headers included. */
  get carriedBytes(): number {
    return this.#sentBytes + this.#link.receivedBytes;
  }

  /** Frames in flight. */
  get inFlightCount(): number {
    return this.#inFlight.length;
  }

  /** The frame in flight at `index`, in the order they were sent. */
  inFlightAt(index: number): F {
    return this.#inFlight.at(index)!.frame;
  }

  /** Most bytes of Data frames per second that the path is given; absent for no limit. */
  get maxBytesPerSecond(): number | undefined {
    return this.#pacer?.bytesPerSecond;
  }

  set maxBytesPerSecond(bytesPerSecond: number | undefined) {
    this.#pacer =
      bytesPerSecond === undefined ? undefined : new Pacer(bytesPerSecond, this.#clock.now());
  }

  report(): PathReport {
    return {
      id: this.id,
      local: this.#link.local,
      remote: this.#link.remote,
      state: this.#state,
      isParked: this.isParked,
      sentBytes: this.#sentBytes,
      receivedBytes: this.#link.receivedBytes,
      rttMs: this.rate.smoothedRttMs ?? 0,
      bytesPerSecond: this.rate.bytesPerSecond,
      maxBytesPerSecond: this.maxBytesPerSecond,
      unackedBytes: this.rate.inFlightBytes,
    };
  }

  /** Bytes per second that can be expected of the path now; 0 as long as nothing is known. */
  expectedBytesPerSecond(nowMs: number): number {
    const expected = this.rate.expectedBytesPerSecond(nowMs);
    return Math.min(expected, this.maxBytesPerSecond ?? Number.POSITIVE_INFINITY);
  }

  /** Whether a frame can be given to the path now. */
  get hasRoom(): boolean {
    return this.paceWaitMs === 0 && this.#isReady;
  }

  /** How long nothing but the path's cap keeps it from taking a frame; milliseconds. */
  get paceWaitMs(): number {
    return this.#pacer?.waitMs(this.#clock.now()) ?? 0;
  }

  get #isReady(): boolean {
    if (this.#state !== 'open' || this.isDoubted || this.isDraining) return false;
    if (this.#link.pendingBytes > DATA_PENDING_BYTES_MAX) return false;
    const { inFlightBytes } = this.rate;
    return inFlightBytes === 0 || inFlightBytes < this.rate.limitBytes(this.#clock.now());
  }

  /** Sends a frame, and keeps it until it is acked or taken back. */
  carry(frame: F): void {
    const { bytes } = frame;
    const nowMs = this.#clock.now();
    this.#inFlight.push({ frame, mark: this.rate.onSent(bytes.length, nowMs) });
    this.#pacer?.pass(bytes.length, nowMs);
    this.#sentBytes += bytes.length;
    this.#link.send(bytes);
  }

  /** Tells the peer, soon, how much it may send on a lane. */
  sendCredit(lane: number, totalBytes: number): void {
    this.#control.credit(lane, totalBytes);
    this.#link.wake();
  }

  /** Tells the peer where else we can be reached. */
  sendOffer(payload: Uint8Array): void {
    this.#send(encodeFrame(FrameType.Offer, { payload }));
  }

  /** Asks the peer for an answer, soon. */
  ping(): void {
    this.#control.ping();
    this.#link.wake();
  }

  /** Counts a tick, and sends a Ping if a direction was silent. */
  tick(): void {
    const { receivedBytes } = this.#link;
    const heardBytes = receivedBytes - this.#receivedBytesAtTick;
    const isMute = this.#sentBytes === this.#sentBytesAtTick;
    this.#silentTicks = heardBytes === 0 ? this.#silentTicks + 1 : 0;
    this.#muteTicks = isMute ? this.#muteTicks + 1 : 0;
    const isWaiting = heardBytes === 0 && this.#inFlight.length > 0;
    this.#waitingTicks = isWaiting ? this.#waitingTicks + 1 : 0;
    if (heardBytes > 0) this.isDoubted = false;
    const ticks = Math.max(this.#silentTicks, this.#muteTicks);
    if (ticks > 0 && ticks % HEARTBEAT_TICKS === 0) this.#control.ping();
    // Who sends a long frame must not take the path for dead before its ack.
    if (isMute && heardBytes >= ANSWERED_BYTES_MIN) this.#control.ack(this.#receivedFrames);
    this.#flushControl();
    this.#receivedBytesAtTick = receivedBytes;
    this.#sentBytesAtTick = this.#sentBytes;
  }

  /** Whether the path has waited for an ack, in silence, for longer than it should take. */
  get isOverdue(): boolean {
    const roundTripsMs = DOUBT_ROUND_TRIPS * (this.rate.smoothedRttMs ?? 0);
    const limitMs = Math.min(Math.max(DOUBT_MS_MIN, roundTripsMs), SILENCE_MS_MAX);
    return this.#waitingTicks * TICK_MS >= limitMs;
  }

  /** Whether the path was silent for too long. */
  isSilent({ isOtherHeard }: { isOtherHeard: boolean }): boolean {
    const leastMs = isOtherHeard ? SILENCE_MS_MIN : SILENCE_ALONE_MS_MIN;
    const roundTripsMs = SILENCE_ROUND_TRIPS * (this.rate.smoothedRttMs ?? 0);
    return this.silentMs >= Math.min(Math.max(leastMs, roundTripsMs), SILENCE_MS_MAX);
  }

  /** Gives the path up. @returns The frames that were not acked, in the order they were sent. */
  lose(state: 'lost' | 'closed' = 'lost'): F[] {
    this.#state = state;
    this.#link.destroy();
    return this.#inFlight.drain().map(({ frame }) => frame);
  }

  /** Tells the peer that the session is over and ends the connection; `onGone` follows. */
  close(reason: Reason): void {
    this.#end(encodeFrame(FrameType.Close, { payload: encodeReason(reason) }));
  }

  /** Tells the peer that the path is closed, with nothing in flight; `onGone` follows. */
  goodbye(): void {
    this.#end(encodeFrame(FrameType.Goodbye));
  }

  #end(lastFrame: Uint8Array): void {
    if (this.#state !== 'open') return;
    this.#flushControl();
    this.#state = 'closed';
    this.#link.send(lastFrame);
    this.#link.end();
  }

  allocate(bytes: number): Uint8Array {
    return this.#owner.allocate(bytes);
  }

  onFrame(header: Readonly<FrameHeader>, payload: Uint8Array): void {
    if (this.#state !== 'open') return;
    try {
      this.#take(header, payload);
    } catch (error) {
      if (!(error instanceof PagelaneError)) throw error;
      this.onFault(error);
    }
  }

  onTurn(): void {
    this.#flushControl();
    this.#owner.onRoom();
  }

  onWritable(): void {
    this.#controlPendingBytes = 0;
    this.#flushControl();
    this.#owner.onRoom();
  }

  onFault(error: PagelaneError): void {
    if (this.#state === 'open') this.#owner.onFault(error);
  }

  onClosed(error: PagelaneError | undefined): void {
    this.#owner.onGone(this, error);
  }

  #take(header: Readonly<FrameHeader>, payload: Uint8Array): void {
    switch (header.type) {
      case FrameType.Data:
        this.#receivedFrames++;
        this.#control.ack(this.#receivedFrames);
        this.#unackedReceivedBytes += payload.length;
        this.#owner.onData(header, payload);
        if (this.#unackedReceivedBytes >= ACK_BYTES) this.#flushControl();
        break;
      case FrameType.Ack:
        this.#onAck(header.sequence);
        break;
      case FrameType.Credit:
        this.#owner.onCredit(header.lane, header.sequence);
        break;
      case FrameType.Ping:
        this.#control.pong(header.sequence);
        break;
      case FrameType.Pong:
        this.#onPong(header.sequence);
        break;
      case FrameType.Goodbye:
        this.#owner.onGoodbye(this);
        break;
      case FrameType.Close:
        this.#owner.onClose(payload);
        break;
      case FrameType.Offer:
        this.#owner.onOffer(payload);
        break;
    }
  }

  #onAck(total: number): void {
    const count = total - this.#ackedFrames;
    if (count < 0 || count > this.#inFlight.length) {
      throw new ProtocolError(
        'ERR_FRAME_SEQUENCE',
        `Cannot take ack of ${total} frames: ${this.#ackedFrames} were acked before, ` +
          `${this.#ackedFrames + this.#inFlight.length} were sent`,
      );
    }
    if (count === 0) return;
    this.#ackedFrames = total;
    const nowMs = this.#clock.now();
    const acked: F[] = [];
    for (let left = count; left > 0; left--) {
      const { frame, mark } = this.#inFlight.shift()!;
      this.rate.onDelivered(mark, nowMs);
      if (left === 1) this.rate.onAcked(mark, nowMs);
      acked.push(frame);
    }
    for (const frame of acked) this.#owner.onAcked(frame, this.slot);
  }

  /** The token is the time of sending in microseconds, so several Pings may be under way. */
  #onPong(token: number): void {
    const nowMs = this.#clock.now();
    const sampleMs = nowMs - token / 1000;
    if (sampleMs < 0 || sampleMs > SILENCE_MS_MAX) return;
    this.rate.onRoundTrip(sampleMs, nowMs, { wasAlone: this.rate.inFlightBytes === 0 });
  }

  /** Writes all control frames that are due, as one write. */
  #flushControl(): void {
    if (this.#state !== 'open') return;
    if (this.#link.pendingBytes === 0) this.#controlPendingBytes = 0;
    if (this.#controlPendingBytes >= CONTROL_PENDING_BYTES_MAX) return;
    const bytes = this.#control.take(this.#clock.now());
    if (bytes === undefined) return;
    this.#unackedReceivedBytes = 0;
    this.#controlPendingBytes += bytes.length;
    this.#send(bytes);
  }

  #send(bytes: Uint8Array): void {
    this.#sentBytes += bytes.length;
    this.#link.send(bytes);
  }
}

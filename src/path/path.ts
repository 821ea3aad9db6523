import type { Clock } from '../clock.ts';
import { PagelaneError, ProtocolError } from '../errors.ts';
import { encodeFrame } from '../frame/encode.ts';
import { encodeHeader, type FrameHeader, FrameType } from '../frame/header.ts';
import { HEADER_BYTES, LANES_MAX } from '../frame/limits.ts';
import { encodeReason, type Reason } from '../frame/reason.ts';
import { Fifo } from './fifo.ts';
import {
  ACK_BYTES,
  CONTROL_PENDING_BYTES_MAX,
  DATA_PENDING_BYTES_MAX,
  HEARTBEAT_MS,
  SILENCE_MS_MAX,
  SILENCE_MS_MIN,
  SILENCE_ROUND_TRIPS,
} from './limits.ts';
import type { LinkHandlers, PathLink } from './link.ts';
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
  /** The peer has received a frame that this path carried. */
  onAcked(frame: F): void;
  /** The peer accepts `totalBytes` on a lane. */
  onCredit(lane: number, totalBytes: number): void;
  /** The peer ended the session. */
  onClose(payload: Uint8Array): void;
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
  /** Bytes given to the socket, and received from it, headers included. */
  readonly sentBytes: number;
  readonly receivedBytes: number;
  /** Smoothed round trip, 0 as long as it is not known. */
  readonly rttMs: number;
  /** Estimated delivery rate, 0 as long as it is not known. */
  readonly bytesPerSecond: number;
  readonly unackedBytes: number;
}

interface InFlight<F> {
  readonly frame: F;
  readonly mark: SendMark;
}

const NO_CREDIT = -1;

/**
 * One connection of a session: keeps what is in flight, acks what arrives, measures, and notices
 * silence.
 *
 * Control frames are not queued but noted, as the state that is to be told; so they are merged,
 * and a peer that does not read cannot make us hold them.
 */
export class Path<F extends CarriedFrame> implements LinkHandlers {
  readonly id: number;
  readonly rate: RateEstimator = new RateEstimator();
  readonly #link: PathLink;
  readonly #owner: PathOwner<F>;
  readonly #clock: Clock;
  #state: PathState = 'open';
  readonly #inFlight = new Fifo<InFlight<F>>();
  #ackedFrames = 0;
  #sentBytes = 0;
  #controlPendingBytes = 0;
  #receivedFrames = 0;
  #unackedReceivedBytes = 0;
  #isAckDue = false;
  #isPingDue = false;
  #pongToken: number | undefined;
  readonly #credits: Float64Array = new Float64Array(LANES_MAX).fill(NO_CREDIT);
  #isCreditDue = false;
  #silentTicks = 0;
  #receivedBytesAtTick = 0;
  #sentBytesAtTick = 0;

  constructor(link: PathLink, owner: PathOwner<F>, { id, clock }: { id: number; clock: Clock }) {
    this.id = id;
    this.#link = link;
    this.#owner = owner;
    this.#clock = clock;
    this.#receivedBytesAtTick = link.receivedBytes;
    link.stage = 'session';
    link.handlers = this;
    this.#isPingDue = true;
    link.wake();
  }

  get state(): PathState {
    return this.#state;
  }

  /** Time without a byte from the peer, as our own timer counts it; milliseconds. */
  get silentMs(): number {
    return this.#silentTicks * HEARTBEAT_MS;
  }

  report(): PathReport {
    return {
      id: this.id,
      local: this.#link.local,
      remote: this.#link.remote,
      state: this.#state,
      sentBytes: this.#sentBytes,
      receivedBytes: this.#link.receivedBytes,
      rttMs: this.rate.smoothedRttMs ?? 0,
      bytesPerSecond: this.rate.bytesPerSecond,
      unackedBytes: this.rate.inFlightBytes,
    };
  }

  /** Whether a frame of `bytes` bytes can be given to the path now. */
  hasRoom(bytes: number): boolean {
    if (this.#state !== 'open' || this.#link.pendingBytes > DATA_PENDING_BYTES_MAX) return false;
    const { inFlightBytes } = this.rate;
    if (inFlightBytes === 0) return true;
    return inFlightBytes + bytes <= this.rate.limitBytes(bytes, this.#clock.now());
  }

  /** Sends a frame, and keeps it until it is acked or taken back. */
  carry(frame: F): void {
    const { bytes } = frame;
    this.#inFlight.push({ frame, mark: this.rate.onSent(bytes.length, this.#clock.now()) });
    this.#sentBytes += bytes.length;
    this.#link.send(bytes);
  }

  /** Tells the peer, soon, how much it may send on a lane. */
  sendCredit(lane: number, totalBytes: number): void {
    this.#credits[lane] = totalBytes;
    this.#isCreditDue = true;
    this.#link.wake();
  }

  /** Counts a tick of the heartbeat, and sends a Ping if a direction was silent. */
  tick(): void {
    const { receivedBytes } = this.#link;
    const wasSilent = receivedBytes === this.#receivedBytesAtTick;
    this.#silentTicks = wasSilent ? this.#silentTicks + 1 : 0;
    if (wasSilent || this.#sentBytes === this.#sentBytesAtTick) this.#isPingDue = true;
    this.#flushControl();
    this.#receivedBytesAtTick = receivedBytes;
    this.#sentBytesAtTick = this.#sentBytes;
  }

  /** Whether the path was silent for too long. */
  isSilent({ isOtherAlive }: { isOtherAlive: boolean }): boolean {
    const roundTripsMs = SILENCE_ROUND_TRIPS * (this.rate.smoothedRttMs ?? 0);
    const limitMs = Math.min(Math.max(SILENCE_MS_MIN, roundTripsMs), SILENCE_MS_MAX);
    return this.silentMs >= (isOtherAlive ? limitMs : SILENCE_MS_MAX);
  }

  /** Gives the path up. @returns The frames that were not acked, in the order they were sent. */
  lose(state: 'lost' | 'closed' = 'lost'): F[] {
    this.#state = state;
    this.#link.destroy();
    return this.#inFlight.drain().map(({ frame }) => frame);
  }

  /** Tells the peer that the session is over and ends the connection; `onGone` follows. */
  close(reason: Reason): void {
    if (this.#state !== 'open') return;
    this.#flushControl();
    this.#state = 'closed';
    this.#link.send(encodeFrame(FrameType.Close, { payload: encodeReason(reason) }));
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
        this.#isAckDue = true;
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
        this.#pongToken = header.sequence;
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
    for (const frame of acked) this.#owner.onAcked(frame);
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
    const frames: FrameHeader[] = [];
    if (this.#isAckDue) frames.push(control(FrameType.Ack, this.#receivedFrames));
    if (this.#pongToken !== undefined) frames.push(control(FrameType.Pong, this.#pongToken));
    if (this.#isPingDue) {
      frames.push(control(FrameType.Ping, Math.floor(this.#clock.now() * 1000)));
    }
    if (this.#isCreditDue) this.#takeCredits(frames);
    if (frames.length === 0) return;
    this.#isAckDue = false;
    this.#unackedReceivedBytes = 0;
    this.#pongToken = undefined;
    this.#isPingDue = false;
    const bytes = new Uint8Array(frames.length * HEADER_BYTES);
    for (const [index, frame] of frames.entries()) encodeHeader(bytes, index * HEADER_BYTES, frame);
    this.#sentBytes += bytes.length;
    this.#controlPendingBytes += bytes.length;
    this.#link.send(bytes);
  }

  #takeCredits(frames: FrameHeader[]): void {
    for (const [lane, totalBytes] of this.#credits.entries()) {
      if (totalBytes === NO_CREDIT) continue;
      frames.push({ ...control(FrameType.Credit, totalBytes), lane });
      this.#credits[lane] = NO_CREDIT;
    }
    this.#isCreditDue = false;
  }
}

function control(type: FrameType, sequence: number): FrameHeader {
  return { type, flags: 0, lane: 0, length: 0, sequence, epoch: 0 };
}

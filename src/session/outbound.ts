import { ProtocolError } from '../errors.ts';
import { encodeHeader, FLAG_FIN, FrameType } from '../frame/header.ts';
import { FRAME_COST_MIN, HEADER_BYTES, PAYLOAD_BYTES_MAX } from '../frame/limits.ts';
import { SequenceSet } from '../frame/sequence-set.ts';
import { Fifo } from '../path/fifo.ts';
import type { CarriedFrame } from '../path/path.ts';
import type { LaneSender, OutgoingMessage } from './lane.ts';

/*
 * Outbound flow of a lane
 *
 *   1. send    number the message and write its header in place
 *   2. next    the frame that may go now: what has to go again first, then what credit allows
 *   3. take    the frame is given to a path                        (striping.ts asks the scheduler)
 *      copy    a second path carries it as well
 *   4. acked   forget it, once no path reads its bytes any more; or
 *      doubt   its path has fallen silent: back to 2, though the path may still deliver it; or
 *      return  its path was lost: back to 2, unless another path carries it
 *
 * The methods below come in this order.
 */

/** Where a frame is. */
type Stage = 'queued' | 'carried' | 'acked';

/** A numbered frame of a lane, from `send` until no path holds it. */
export interface OutboundFrame extends CarriedFrame {
  readonly lane: OutboundLane;
  readonly sequence: number;
  readonly payloadBytes: number;
  readonly onAcked: (() => void) | undefined;
  stage: Stage;
  /** The paths that hold it: bit n for the path at slot n. */
  carriers: number;
}

/** The sending direction of a lane: numbers, epochs, credit, and what is not acked. */
export class OutboundLane implements LaneSender {
  readonly id: number;
  isUrgent = false;
  readonly #windowBytes: number;
  #nextSequence = 0;
  #epoch = 0;
  #isEpochDue = true;
  #isFinished = false;
  readonly #fresh = new Fifo<OutboundFrame>();
  /** Fresh frames that go before the others, which are of the same epoch. */
  readonly #ahead = new Fifo<OutboundFrame>();
  /** Frames that have to go again, ascending by sequence. */
  #returned: OutboundFrame[] = [];
  #returnedBytes = 0;
  #creditBytes: number;
  #spentBytes = 0;
  readonly #acked = new SequenceSet();
  #queuedBytes = 0;
  #unackedBytes = 0;

  /** @param windowBytes What the peer accepts ahead: the credit to begin with. */
  constructor(id: number, windowBytes: number) {
    this.id = id;
    this.#windowBytes = windowBytes;
    this.#creditBytes = windowBytes;
  }

  /** What the peer accepts ahead. */
  get windowBytes(): number {
    return this.#windowBytes;
  }

  /** Payload bytes accepted and not on a path. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** Payload bytes on paths, not acked. */
  get unackedBytes(): number {
    return this.#unackedBytes;
  }

  /** Bytes that the peer lets us send at once. */
  get creditBytes(): number {
    return this.#creditBytes - this.#spentBytes;
  }

  /** Payload bytes that may go now: what has to go again, and of the others what has credit. */
  get sendableBytes(): number {
    const freshBytes = this.#queuedBytes - this.#returnedBytes;
    return this.#returnedBytes + Math.max(0, Math.min(freshBytes, this.creditBytes));
  }

  /** Whether everything that was sent is acked. */
  get isSettled(): boolean {
    return this.#queuedBytes === 0 && this.#acked.base === this.#nextSequence;
  }

  /** The next unordered message starts a new epoch. */
  beginEpoch(): void {
    this.#isEpochDue = true;
  }

  /**
   * Accepts a message. Its bytes belong to the lane until `onAcked`.
   *
   * @returns Its sequence.
   * @throws {RangeError} If it is too long, or has no room for the header.
   * @throws {TypeError} If the lane's last message was sent.
   */
  send(message: OutgoingMessage): number {
    const payloadBytes = this.#check(message);
    const { buffer, start, end, isAhead = false, isLast = false, onAcked } = message;
    const sequence = this.#nextSequence++;
    const isAlone = message.isOrdered || isLast;
    if (isAlone || this.#isEpochDue) this.#epoch = sequence;
    this.#isEpochDue = isAlone;
    this.#isFinished = isLast;
    encodeHeader(buffer, start - HEADER_BYTES, {
      type: FrameType.Data,
      flags: isLast ? FLAG_FIN : 0,
      lane: this.id,
      length: payloadBytes,
      sequence,
      epoch: this.#epoch,
    });
    const bytes = buffer.subarray(start - HEADER_BYTES, end);
    const place = { stage: 'queued', carriers: 0 } as const;
    // The peer could not consume what overtakes another epoch, and credit might never come.
    const overtakes = isAhead && (this.#fresh.peek()?.sequence ?? 0) >= this.#epoch;
    const queue = overtakes ? this.#ahead : this.#fresh;
    queue.push({ lane: this, sequence, bytes, payloadBytes, onAcked, ...place });
    this.#queuedBytes += payloadBytes;
    return sequence;
  }

  /** The frame that may go now, which stays; absent if there is none or no credit for it. */
  next(): OutboundFrame | undefined {
    if (this.#returned.length > 0) return this.#returned[0];
    const frame = this.#freshFrames().peek();
    if (frame === undefined || frameCost(frame.payloadBytes) > this.creditBytes) return undefined;
    return this.#acked.fits(frame.sequence) ? frame : undefined;
  }

  /** Takes the frame that `next` gave: the path at `slot` carries it now. */
  take(slot: number): void {
    let frame = this.#returned.shift();
    if (frame === undefined) {
      frame = this.#freshFrames().shift()!;
      this.#spentBytes += frameCost(frame.payloadBytes);
    } else {
      this.#returnedBytes -= frame.payloadBytes;
    }
    this.#queuedBytes -= frame.payloadBytes;
    this.#unackedBytes += frame.payloadBytes;
    frame.stage = 'carried';
    frame.carriers |= 1 << slot;
  }

  /** The path at `slot` carries a frame as well that others carry. */
  copy(frame: OutboundFrame, slot: number): void {
    frame.carriers |= 1 << slot;
  }

  /** Notes that the peer has a frame, by the word of the path at `slot`. */
  onAcked(frame: OutboundFrame, slot: number): void {
    if (frame.stage === 'queued') this.#unreturn(frame);
    if (frame.stage === 'carried') {
      this.#unackedBytes -= frame.payloadBytes;
      this.#acked.add(frame.sequence);
      frame.stage = 'acked';
    }
    this.#letGo(frame, slot);
  }

  /** Lets a frame go again although its path, which has fallen silent, may still deliver it. */
  doubt(frame: OutboundFrame): void {
    const isOnlyThere = (frame.carriers & (frame.carriers - 1)) === 0;
    if (frame.stage === 'carried' && isOnlyThere) this.#requeue(frame);
  }

  /** Takes back a frame of the path at `slot`, which is lost. */
  return(frame: OutboundFrame, slot: number): void {
    this.#letGo(frame, slot);
    if (frame.stage === 'carried' && frame.carriers === 0) this.#requeue(frame);
  }

  /**
   * Takes the peer's running total. An older total is harmless: credit frames overtake each other.
   *
   * @throws {ProtocolError} ERR_WINDOW_EXCEEDED If it is more than the window allows.
   */
  onCredit(totalBytes: number): void {
    if (totalBytes > this.#spentBytes + this.#windowBytes) {
      throw new ProtocolError(
        'ERR_WINDOW_EXCEEDED',
        `Cannot take credit of ${totalBytes} bytes: ${this.#spentBytes} were sent, and the ` +
          `window is ${this.#windowBytes}`,
        { lane: this.id },
      );
    }
    this.#creditBytes = Math.max(this.#creditBytes, totalBytes);
  }

  /** Drops everything: the session is over. */
  clear(): void {
    this.#fresh.drain();
    this.#ahead.drain();
    this.#returned = [];
    this.#returnedBytes = 0;
    this.#queuedBytes = 0;
    this.#unackedBytes = 0;
  }

  /** What goes next of those that never went: one that is too far ahead waits for the others. */
  #freshFrames(): Fifo<OutboundFrame> {
    const ahead = this.#ahead.peek();
    return ahead !== undefined && this.#acked.fits(ahead.sequence) ? this.#ahead : this.#fresh;
  }

  /** A path reads the frame's bytes no longer; when none does, who sent it may use them again. */
  #letGo(frame: OutboundFrame, slot: number): void {
    frame.carriers &= ~(1 << slot);
    if (frame.stage === 'acked' && frame.carriers === 0) frame.onAcked?.();
  }

  #requeue(frame: OutboundFrame): void {
    frame.stage = 'queued';
    this.#unackedBytes -= frame.payloadBytes;
    this.#queuedBytes += frame.payloadBytes;
    this.#returnedBytes += frame.payloadBytes;
    const at = this.#returned.findIndex(({ sequence }) => sequence > frame.sequence);
    this.#returned.splice(at < 0 ? this.#returned.length : at, 0, frame);
  }

  /** A frame that was to go again arrived after all. */
  #unreturn(frame: OutboundFrame): void {
    this.#returned.splice(this.#returned.indexOf(frame), 1);
    this.#returnedBytes -= frame.payloadBytes;
    this.#queuedBytes -= frame.payloadBytes;
    this.#unackedBytes += frame.payloadBytes;
    frame.stage = 'carried';
  }

  #check({ buffer, start, end }: OutgoingMessage): number {
    if (this.#isFinished) throw new TypeError(`Lane ${this.id} has sent its last message`);
    if (start < HEADER_BYTES || end < start || end > buffer.length) {
      throw new RangeError(
        `A message needs ${HEADER_BYTES} bytes before it: ${start}..${end} of ${buffer.length}`,
      );
    }
    const payloadBytes = end - start;
    const bytesMax = Math.min(PAYLOAD_BYTES_MAX, this.#windowBytes);
    if (payloadBytes > bytesMax) {
      throw new RangeError(`A message has at most ${bytesMax} bytes, not ${payloadBytes}`);
    }
    return payloadBytes;
  }
}

/** Credit that a frame takes: many short ones must not cost the receiver more than it counts. */
export function frameCost(payloadBytes: number): number {
  return Math.max(payloadBytes, FRAME_COST_MIN);
}

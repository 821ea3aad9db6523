import { PagelaneError, ProtocolError } from '../errors.ts';
import { FLAG_FIN, type FrameHeader } from '../frame/header.ts';
import { Fifo } from '../path/fifo.ts';
import type { BufferPool } from '../path/pool.ts';
import { EpochOrder } from './epoch.ts';
import type { IncomingMessage, LaneReceiver } from './lane.ts';
import { GRANT_PARTS } from './limits.ts';
import { frameCost } from './outbound.ts';

/** What the receiving direction of a lane needs from its session. */
export interface InboundContext {
  readonly windowBytes: number;
  readonly pool: BufferPool;
  /** Tells the peer that it may send `totalBytes` on the lane. */
  grant(totalBytes: number): void;
  /** Who takes the messages found something wrong with one. */
  fail(error: PagelaneError): void;
}

/**
 * The receiving direction of a lane: drops duplicates, keeps the order of epochs, grants credit.
 */
export class InboundLane implements LaneReceiver {
  readonly id: number;
  readonly #context: InboundContext;
  readonly #order = new EpochOrder<Message>();
  readonly #ready = new Fifo<Message>();
  #onMessage: ((message: IncomingMessage) => void) | undefined;
  #isFlushDue = false;
  #isOver = false;
  #receivedBytes = 0;
  #consumedBytes = 0;
  #grantedBytes: number;
  #highestSequence = -1;
  #lastSequence: number | undefined;

  constructor(id: number, context: InboundContext) {
    this.id = id;
    this.#context = context;
    this.#grantedBytes = context.windowBytes;
  }

  /** What the peer may send in total, as it was last told; absent if it was never told. */
  get grantedBytes(): number | undefined {
    return this.#grantedBytes === this.#context.windowBytes ? undefined : this.#grantedBytes;
  }

  get onMessage(): ((message: IncomingMessage) => void) | undefined {
    return this.#onMessage;
  }

  set onMessage(onMessage: ((message: IncomingMessage) => void) | undefined) {
    this.#onMessage = onMessage;
    this.#flushSoon();
  }

  /**
   * Takes a Data frame.
   *
   * @throws {ProtocolError} ERR_WINDOW_EXCEEDED, ERR_FRAME_SEQUENCE or ERR_FRAME_EPOCH If the peer
   * may not have sent it.
   */
  onData(header: Readonly<FrameHeader>, payload: Uint8Array): void {
    const { sequence, epoch } = header;
    if (this.#isOver || this.#order.has(sequence)) {
      this.#context.pool.release(payload);
      return;
    }
    const isLast = (header.flags & FLAG_FIN) !== 0;
    this.#checkLast(header, isLast);
    const receivedBytes = this.#receivedBytes + frameCost(payload.length);
    if (receivedBytes > this.#grantedBytes) {
      throw new ProtocolError(
        'ERR_WINDOW_EXCEEDED',
        `Cannot take sequence ${sequence} of lane ${this.id}: ${receivedBytes} bytes were sent, ` +
          `${this.#grantedBytes} were granted`,
        { lane: this.id, sequence },
      );
    }
    this.#receivedBytes = receivedBytes;
    const message = new Message({ sequence, payload, isLast }, this.#consumed);
    this.#order.add(message, { sequence, epoch }, this.#deliver);
  }

  /** Drops what waits: the session is over. */
  clear(): void {
    this.#isOver = true;
    this.#ready.drain();
  }

  #checkLast({ sequence, epoch }: Readonly<FrameHeader>, isLast: boolean): void {
    const last = this.#lastSequence;
    const isAfterLast = last !== undefined && sequence > last;
    if (isAfterLast || (isLast && (last !== undefined || sequence < this.#highestSequence))) {
      throw new ProtocolError(
        'ERR_FRAME_SEQUENCE',
        `Cannot take sequence ${sequence} of lane ${this.id}: it contradicts the lane's end`,
        { lane: this.id, sequence },
      );
    }
    if (isLast && epoch !== sequence) {
      throw new ProtocolError(
        'ERR_FRAME_EPOCH',
        `Cannot take sequence ${sequence} of lane ${this.id}: the last frame is an epoch of its own`,
        { lane: this.id, sequence },
      );
    }
    this.#highestSequence = Math.max(this.#highestSequence, sequence);
    if (isLast) this.#lastSequence = sequence;
  }

  readonly #deliver = (message: Message): void => {
    if (this.#isOver) return;
    if (this.#onMessage === undefined || this.#ready.length > 0) this.#ready.push(message);
    else this.#hand(message, this.#onMessage);
  };

  /** What was held is handed over in a step of its own, not from within the assignment. */
  #flushSoon(): void {
    if (this.#isFlushDue || this.#ready.length === 0) return;
    this.#isFlushDue = true;
    queueMicrotask(() => {
      this.#isFlushDue = false;
      while (this.#onMessage !== undefined && this.#ready.length > 0) {
        this.#hand(this.#ready.shift()!, this.#onMessage);
      }
    });
  }

  #hand(message: Message, onMessage: (message: IncomingMessage) => void): void {
    try {
      onMessage(message);
    } catch (error) {
      if (!(error instanceof PagelaneError)) throw error;
      this.#context.fail(error);
    }
  }

  readonly #consumed = (payload: Uint8Array): void => {
    this.#context.pool.release(payload);
    this.#consumedBytes += frameCost(payload.length);
    if (this.#isOver) return;
    const { windowBytes } = this.#context;
    const totalBytes = this.#consumedBytes + windowBytes;
    const isAll = this.#consumedBytes === this.#receivedBytes;
    if (totalBytes - this.#grantedBytes < (isAll ? 1 : windowBytes / GRANT_PARTS)) return;
    this.#grantedBytes = totalBytes;
    this.#context.grant(totalBytes);
  };
}

class Message implements IncomingMessage {
  readonly sequence: number;
  readonly isLast: boolean;
  #payload: Uint8Array | undefined;
  readonly #consumed: (payload: Uint8Array) => void;

  constructor(
    { sequence, payload, isLast }: { sequence: number; payload: Uint8Array; isLast: boolean },
    consumed: (payload: Uint8Array) => void,
  ) {
    this.sequence = sequence;
    this.isLast = isLast;
    this.#payload = payload;
    this.#consumed = consumed;
  }

  get payload(): Uint8Array {
    if (this.#payload === undefined) throw new TypeError('The message was released');
    return this.#payload;
  }

  release(): void {
    const payload = this.#payload;
    if (payload === undefined) return;
    this.#payload = undefined;
    this.#consumed(payload);
  }
}

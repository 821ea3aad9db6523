/** A message to send. */
export interface OutgoingMessage {
  /** Has `HEADER_BYTES` free before `start`: the frame's header is written there. */
  readonly buffer: Uint8Array;
  readonly start: number;
  readonly end: number;
  /** Whether it must come after all before it, and before all after it: an epoch of its own. */
  readonly isOrdered: boolean;
  /** Whether it goes before what is queued, if that is of its epoch. Not of an ordered one. */
  readonly isAhead?: boolean;
  /** Whether it is the last of its lane in this direction; it is ordered then. */
  readonly isLast?: boolean;
  /**
   * The peer has it, and no path reads the buffer any more: it may be used again. Not called if the
   * session ends before.
   */
  readonly onAcked?: () => void;
}

/** A message that has arrived, at its place in the order of epochs. */
export interface IncomingMessage {
  readonly sequence: number;
  /** The message; must not be used after `release`. */
  readonly payload: Uint8Array;
  /** Whether it is the last of its lane in this direction. */
  readonly isLast: boolean;
  /** Gives the buffer back and lets the peer send as much again. Further calls do nothing. */
  release(): void;
}

/** The sending direction of a lane. */
export interface LaneSender {
  readonly id: number;
  readonly queuedBytes: number;
  readonly unackedBytes: number;
  isUrgent: boolean;
  send(message: OutgoingMessage): number;
  beginEpoch(): void;
}

/** The receiving direction of a lane. */
export interface LaneReceiver {
  onMessage: ((message: IncomingMessage) => void) | undefined;
}

/**
 * A numbered sequence of messages both ways, carried over any paths of its session.
 *
 * Messages of one epoch arrive in any order, epochs one after the other; each message arrives once.
 */
export class Lane {
  readonly id: number;
  /**
   * Called when acks, or changes of paths, made room: there is less in `queuedBytes` or
   * `unackedBytes` than before. Never called from within `send`.
   */
  onDrain: (() => void) | undefined;
  readonly #outbound: LaneSender;
  readonly #inbound: LaneReceiver;
  readonly #pump: () => void;

  /** @param pump Called when there may be something to send. */
  constructor(outbound: LaneSender, inbound: LaneReceiver, pump: () => void) {
    this.id = outbound.id;
    this.#outbound = outbound;
    this.#inbound = inbound;
    this.#pump = pump;
  }

  /** Payload bytes accepted, not yet given to a path. */
  get queuedBytes(): number {
    return this.#outbound.queuedBytes;
  }

  /** Payload bytes given to paths, not acked. */
  get unackedBytes(): number {
    return this.#outbound.unackedBytes;
  }

  /**
   * Whether what is sent goes over every path that has nothing else to do, and the first copy
   * counts: for what the guest stands still for.
   */
  get isUrgent(): boolean {
    return this.#outbound.isUrgent;
  }

  set isUrgent(isUrgent: boolean) {
    this.#outbound.isUrgent = isUrgent;
  }

  /**
   * Called with each message that arrives, in an order that honours epochs. Messages are held until
   * it is set, and while it is not. A `PagelaneError` that it throws ends the session, and the peer
   * is told.
   */
  get onMessage(): ((message: IncomingMessage) => void) | undefined {
    return this.#inbound.onMessage;
  }

  set onMessage(onMessage: ((message: IncomingMessage) => void) | undefined) {
    this.#inbound.onMessage = onMessage;
  }

  /**
   * Accepts a message and sends it as soon as credit and paths allow. What is queued is the
   * caller's to bound: see `queuedBytes` and `onDrain`. The bytes must not change until `onAcked`.
   * When the session is over a message goes nowhere; `Session.ended` says why.
   *
   * @returns Its sequence.
   * @throws {RangeError} If it is longer than a frame or the peer's window, or has no room for the
   * header.
   * @throws {TypeError} If the lane's last message was sent before.
   */
  send(message: OutgoingMessage): number {
    const sequence = this.#outbound.send(message);
    this.#pump();
    return sequence;
  }

  /** Lets the next unordered message start a new epoch: it arrives after all before it. */
  beginEpoch(): void {
    this.#outbound.beginEpoch();
  }
}

import { HEADER_BYTES } from '../frame/limits.ts';
import type { LaneSender } from '../session/lane.ts';
import * as message from '../stream/message.ts';

/** A message, or its place as long as it is not ready. */
interface Outgoing {
  readonly isOrdered: boolean;
  readonly startsEpoch: boolean;
  readonly isEnd: boolean;
  /** It may be the last that is needed to start the guest: it goes when all before it is there. */
  isHeld: boolean;
  message: message.EncodedMessage | undefined;
  onAcked: (() => void) | undefined;
  /** It went before those in front of it; its place keeps the end from doing so. */
  isGone: boolean;
}

/** Messages on their way to the lane, in the stream's order: batches become ready in another. */
export class Outbox {
  readonly #lane: LaneSender;
  readonly #digest = new message.Digest();
  readonly #waiting: Outgoing[] = [];
  #startsEpoch = false;
  #isClosed = false;

  constructor(lane: LaneSender) {
    this.#lane = lane;
  }

  /** Messages that wait for their turn, or are not ready. */
  get count(): number {
    return this.#waiting.length;
  }

  /** Whether a message would go to a path at once. */
  get isEmpty(): boolean {
    return this.#waiting.length === 0 && this.#lane.queuedBytes === 0;
  }

  /** Whether the destination lacks, for certain, what it needs to start the guest. */
  get holds(): boolean {
    return this.#waiting.some(({ isHeld }) => isHeld);
  }

  /** Digest of the stream as far as it was given to the lane. */
  get digest(): bigint {
    return this.#digest.value;
  }

  /** What is put next may hold pages that came before. */
  beginEpoch(): void {
    this.#startsEpoch = true;
  }

  /** Queues a message. */
  put(
    encoded: message.EncodedMessage,
    { isHeld = false, isOrdered = true }: { isHeld?: boolean; isOrdered?: boolean } = {},
  ): void {
    const last = this.#waiting.at(-1);
    if (last !== undefined) last.isHeld = false;
    this.#push({ isOrdered, isHeld, message: encoded });
    this.send();
  }

  /**
   * Keeps a place for a batch; what is returned takes it when it is encoded.
   *
   * @param options.isAhead Whether it then goes before batches that came earlier, as those of a
   *   post-copy may. @default false
   */
  reserve({
    isAhead = false,
  }: {
    isAhead?: boolean;
  } = {}): (batch: message.EncodedMessage, onAcked?: () => void) => void {
    const entry = this.#push({ isOrdered: false });
    return (batch, onAcked) => {
      entry.message = batch;
      entry.onAcked = onAcked;
      if (isAhead) this.#sendAhead(entry, batch);
      this.send();
    };
  }

  #sendAhead(entry: Outgoing, batch: message.EncodedMessage): void {
    if (this.#isClosed) return;
    for (const each of this.#waiting) {
      if (each.isOrdered || each.startsEpoch) return;
      if (each === entry) break;
    }
    entry.isGone = true;
    this.#send(entry, batch, { isAhead: true });
  }

  /** Queues the last message. */
  putEnd(): void {
    this.#push({ isEnd: true });
    this.send();
  }

  /** Gives the lane what is ready. */
  send(): void {
    while (!this.#isClosed) {
      const next = this.#waiting[0];
      if (next === undefined) return;
      if (next.isHeld && this.#lane.queuedBytes + this.#lane.unackedBytes > 0) return;
      if (!next.isEnd && next.message === undefined) return;
      this.#waiting.shift();
      if (next.isGone) continue;
      if (next.message !== undefined) this.#send(next, next.message);
      else {
        const end = message.encodeEnd(this.#digest.value, HEADER_BYTES);
        this.#lane.send({ ...end, isOrdered: true, isLast: true });
      }
    }
  }

  /** Nothing more goes from here. */
  close(): void {
    this.#isClosed = true;
  }

  #push(fields: Partial<Outgoing>): Outgoing {
    const startsEpoch = this.#startsEpoch;
    this.#startsEpoch = false;
    const common = { isOrdered: true, startsEpoch, isEnd: false, isHeld: false };
    const rest = { message: undefined, onAcked: undefined, isGone: false };
    const entry = { ...common, ...rest, ...fields };
    this.#waiting.push(entry);
    return entry;
  }

  #send(
    { isOrdered, startsEpoch, onAcked }: Outgoing,
    { buffer, start, end }: message.EncodedMessage,
    { isAhead = false }: { isAhead?: boolean } = {},
  ): void {
    if (startsEpoch) this.#lane.beginEpoch();
    const common = { buffer, start, end, isOrdered, isAhead };
    const sequence = this.#lane.send({ ...common, ...(onAcked && { onAcked }) });
    if (message.Digest.counts(buffer[start])) this.#digest.add(buffer, start, sequence);
  }
}

import { ProtocolError } from '../errors.ts';
import { SEQUENCE_WINDOW } from '../frame/limits.ts';
import { SequenceSet } from '../frame/sequence-set.ts';

/** Items of one epoch that cannot be delivered yet. */
interface Held<T> {
  readonly epoch: number;
  readonly items: T[];
  highest: number;
}

/**
 * Decides what may be delivered now.
 *
 * An item may be delivered as soon as every sequence below its epoch was. Inside an epoch any order
 * will do: items come out as they came in.
 *
 * Source: docs/protocol.md, section 5.
 */
export class EpochOrder<T> {
  readonly #seen = new SequenceSet();
  /** Ascending by epoch. */
  readonly #held: Held<T>[] = [];
  /** The latest epoch of which something was delivered, and the highest sequence delivered. */
  #epoch = 0;
  #highest = -1;

  /** Every sequence below was delivered. */
  get base(): number {
    return this.#seen.base;
  }

  /** Epochs that wait for others. */
  get heldEpochs(): number {
    return this.#held.length;
  }

  /** Whether a sequence is here already, delivered or held. */
  has(sequence: number): boolean {
    return this.#seen.has(sequence);
  }

  /**
   * Takes an item that `has` not, and delivers it and what waited for it, or holds it.
   *
   * @throws {ProtocolError} ERR_WINDOW_EXCEEDED If it is too far ahead.
   * @throws {ProtocolError} ERR_FRAME_EPOCH If its epoch contradicts that of another item.
   */
  add(
    item: T,
    { sequence, epoch }: { sequence: number; epoch: number },
    deliver: (item: T) => void,
  ): void {
    if (!this.#seen.fits(sequence)) {
      throw new ProtocolError(
        'ERR_WINDOW_EXCEEDED',
        `Cannot take sequence ${sequence}: ${this.base} is missing, and the window is ` +
          `${SEQUENCE_WINDOW} frames`,
        { sequence },
      );
    }
    const at = this.#place(epoch);
    this.#checkEpoch(at, sequence, epoch);
    if (epoch <= this.base) {
      this.#noteDelivered(epoch, sequence);
      this.#seen.add(sequence);
      deliver(item);
      this.#release(deliver);
    } else {
      this.#hold(at, item, { sequence, epoch });
      this.#seen.add(sequence);
    }
  }

  /** Index of the first held epoch that is not below `epoch`. */
  #place(epoch: number): number {
    let low = 0;
    let high = this.#held.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#held[middle]!.epoch < epoch) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Epochs never fall along the lane: no item may be on the wrong side of an epoch's begin. */
  #checkEpoch(at: number, sequence: number, epoch: number): void {
    const same = this.#held[at]?.epoch === epoch;
    const next = this.#held[same ? at + 1 : at];
    const before = this.#held[at - 1];
    const highestBefore = Math.max(before?.highest ?? -1, epoch > this.#epoch ? this.#highest : -1);
    const isWrong =
      epoch < this.#epoch ||
      highestBefore >= epoch ||
      (next !== undefined && sequence >= next.epoch);
    if (isWrong) {
      throw new ProtocolError(
        'ERR_FRAME_EPOCH',
        `Cannot take sequence ${sequence} of epoch ${epoch}: it contradicts the epochs around it`,
        { sequence },
      );
    }
  }

  #hold(at: number, item: T, place: { sequence: number; epoch: number }): void {
    const { sequence, epoch } = place;
    const there = this.#held[at];
    if (there?.epoch === epoch) {
      there.items.push(item);
      there.highest = Math.max(there.highest, sequence);
    } else {
      this.#held.splice(at, 0, { epoch, items: [item], highest: sequence });
    }
  }

  #noteDelivered(epoch: number, sequence: number): void {
    this.#epoch = Math.max(this.#epoch, epoch);
    this.#highest = Math.max(this.#highest, sequence);
  }

  #release(deliver: (item: T) => void): void {
    for (let first = this.#held[0]; first !== undefined; first = this.#held[0]) {
      if (first.epoch > this.base) return;
      this.#held.shift();
      this.#noteDelivered(first.epoch, first.highest);
      for (const item of first.items) deliver(item);
    }
  }
}

import {
  IN_FLIGHT_BYTES_FIRST,
  IN_FLIGHT_BYTES_MAX,
  IN_FLIGHT_BYTES_MIN,
  IN_FLIGHT_GAIN,
  IN_FLIGHT_GAIN_FIRST,
  IN_FLIGHT_SLACK_BYTES_MAX,
  IN_FLIGHT_SLACK_MS,
  RATE_SLOT_MS,
  RATE_SLOTS,
  ROUND_TRIP_AGE_MS_MAX,
  ROUND_TRIP_LIKE,
  SATURATED_GROWTH,
  SATURATED_ROUNDS,
  UNSATURATED_FACTOR,
  UNUSED_DOUBLING_MS,
} from './limits.ts';

/** What is remembered of a frame when it is sent, to learn from its ack. */
export interface SendMark {
  readonly bytes: number;
  readonly sentAtMs: number;
  /** Whether nothing else was in flight. */
  readonly wasAlone: boolean;
  /** The state of delivery at the time of sending. */
  readonly deliveredBytes: number;
  readonly deliveredAtMs: number;
  readonly firstSentAtMs: number;
}

/**
 * Round trip and delivery rate of a path, learnt from acks.
 *
 * A rate sample is what was delivered between the sending of a frame and its ack, over the longer
 * of the times that sending and acking it took. Samples taken while the sender had nothing to send
 * say only that the path is at least so fast. The estimate is the maximum over the last second in
 * which there were samples.
 *
 * Source: draft-cheng-iccrg-delivery-rate-estimation-02, sections 2 and 3.
 */
export class RateEstimator {
  #deliveredBytes = 0;
  #deliveredAtMs = 0;
  #firstSentAtMs = 0;
  #inFlightBytes = 0;
  /** Frames sent before so much is delivered were sent by an idle sender. */
  #idleUntilBytes = 0;
  /** The greatest sample of each span, and of all of them. */
  readonly #slots: number[] = [];
  #bytesPerSecond = 0;
  #slotAtMs = Number.NEGATIVE_INFINITY;
  /** A round trip has passed when a frame is acked that was sent after so much was delivered. */
  #roundEndBytes = 0;
  /** Rate when it last grew much, and round trips since. */
  #grownRate = 0;
  #flatRounds = 0;
  #smoothedRttMs: number | undefined;
  #minRttMs: number | undefined;
  #minRttAtMs = 0;

  /** Bytes sent and not acked. */
  get inFlightBytes(): number {
    return this.#inFlightBytes;
  }

  /** Bytes per second that the path delivers; 0 as long as nothing is known. */
  get bytesPerSecond(): number {
    return this.#bytesPerSecond;
  }

  /**
   * Tells what a path can be expected to deliver if it is used now; bytes per second.
   *
   * More than was measured as long as it grows, and the longer ago it was used: a path that is
   * passed over for being slow is tried again, less and less often the slower it is.
   */
  expectedBytesPerSecond(nowMs: number): number {
    const unusedMs = this.#inFlightBytes > 0 ? 0 : Math.max(0, nowMs - this.#deliveredAtMs);
    const factor = this.isSaturated ? 1 : UNSATURATED_FACTOR;
    return this.bytesPerSecond * factor * 2 ** (unusedMs / UNUSED_DOUBLING_MS);
  }

  /** Whether the path, and not the sender, is the limit: its rate has stopped growing. */
  get isSaturated(): boolean {
    return this.#flatRounds >= SATURATED_ROUNDS;
  }

  /** Smoothed round trip, queues included; milliseconds. */
  get smoothedRttMs(): number | undefined {
    return this.#smoothedRttMs;
  }

  /** Shortest round trip, the path without queues; milliseconds. */
  get minRttMs(): number | undefined {
    return this.#minRttMs;
  }

  /** Notes that a frame of `bytes` bytes is sent now. */
  onSent(bytes: number, nowMs: number): SendMark {
    const wasAlone = this.#inFlightBytes === 0;
    if (wasAlone) {
      this.#firstSentAtMs = nowMs;
      this.#deliveredAtMs = nowMs;
    }
    this.#inFlightBytes += bytes;
    return {
      bytes,
      sentAtMs: nowMs,
      wasAlone,
      deliveredBytes: this.#deliveredBytes,
      deliveredAtMs: this.#deliveredAtMs,
      firstSentAtMs: this.#firstSentAtMs,
    };
  }

  /** Notes that the frame of `mark` has arrived. Frames arrive in the order they were sent. */
  onDelivered(mark: SendMark, nowMs: number): void {
    this.#inFlightBytes -= mark.bytes;
    this.#deliveredBytes += mark.bytes;
    this.#deliveredAtMs = nowMs;
    this.#firstSentAtMs = mark.sentAtMs;
  }

  /** Learns from the last frame that an ack covers, after `onDelivered`. */
  onAcked(mark: SendMark, nowMs: number): void {
    this.onRoundTrip(nowMs - mark.sentAtMs, nowMs, { wasAlone: mark.wasAlone });
    const sendingMs = mark.sentAtMs - mark.firstSentAtMs;
    const ackingMs = nowMs - mark.deliveredAtMs;
    const spanMs = Math.max(sendingMs, ackingMs);
    if (spanMs <= 0 || spanMs < (this.#minRttMs ?? 0) / 2) return;
    const deliveredBytes = this.#deliveredBytes - mark.deliveredBytes;
    const rate = (deliveredBytes * 1000) / spanMs;
    const wasIdle = mark.wasAlone || mark.deliveredBytes < this.#idleUntilBytes;
    // A few bytes alone say little of a path; but that it is faster than known, they do say.
    const isGain = this.bytesPerSecond > 0 && rate > this.bytesPerSecond;
    if (wasIdle && deliveredBytes < IN_FLIGHT_BYTES_MIN && !isGain) return;
    if (!wasIdle || rate > this.bytesPerSecond) this.#keep(rate, nowMs);
    if (mark.deliveredBytes >= this.#roundEndBytes) this.#noteRound();
  }

  /** Every round trip shows whether the rate still grows. */
  #noteRound(): void {
    this.#roundEndBytes = this.#deliveredBytes;
    const rate = this.bytesPerSecond;
    if (rate >= this.#grownRate * SATURATED_GROWTH) {
      this.#grownRate = rate;
      this.#flatRounds = 0;
    } else {
      this.#flatRounds++;
    }
  }

  /** Notes that the path has room and there is nothing to send. */
  onIdle(): void {
    this.#idleUntilBytes = this.#deliveredBytes + this.#inFlightBytes + 1;
  }

  /**
   * Takes a sample of the round trip.
   *
   * smoothed = 7/8 smoothed + 1/8 sample; the first sample is taken as it is.
   *
   * @param sampleMs Milliseconds from sending to answer, >= 0.
   *
   * Source: RFC 9002, section 5.3.
   */
  onRoundTrip(sampleMs: number, nowMs: number, { wasAlone }: { wasAlone: boolean }): void {
    const smoothed = this.#smoothedRttMs;
    this.#smoothedRttMs = smoothed === undefined ? sampleMs : (7 * smoothed + sampleMs) / 8;
    const isOld = wasAlone && this.#isRoundTripOld(nowMs);
    if (this.#minRttMs === undefined || sampleMs <= this.#minRttMs || isOld) {
      this.#minRttMs = sampleMs;
      this.#minRttAtMs = nowMs;
    } else if (sampleMs <= this.#minRttMs * ROUND_TRIP_LIKE) {
      this.#minRttAtMs = nowMs;
    }
  }

  /**
   * Tells how many bytes should be in flight, so that the path is never idle and its queues stay
   * short: rate x (shortest round trip + slack), and somewhat more to find out if more fits; much
   * more as long as the rate grows. Nothing while the shortest round trip is measured again.
   *
   * The last frame may reach beyond it: else a path that needs three could be stuck with two.
   *
   * Source: draft-ietf-ccwg-bbr, sections 4.3.1 (startup) and 4.6.
   */
  limitBytes(nowMs: number): number {
    if (this.#inFlightBytes > 0 && this.#isRoundTripOld(nowMs)) return 0;
    const perMs = this.bytesPerSecond / 1000;
    const slack = perMs * IN_FLIGHT_GAIN * IN_FLIGHT_SLACK_MS;
    const gain = this.isSaturated ? IN_FLIGHT_GAIN : IN_FLIGHT_GAIN_FIRST;
    const roundTrip = perMs * gain * (this.#minRttMs ?? 0);
    const wanted = roundTrip + Math.min(slack, IN_FLIGHT_SLACK_BYTES_MAX);
    const least = this.bytesPerSecond > 0 ? IN_FLIGHT_BYTES_MIN : IN_FLIGHT_BYTES_FIRST;
    return Math.min(Math.max(wanted, least), IN_FLIGHT_BYTES_MAX);
  }

  #isRoundTripOld(nowMs: number): boolean {
    return this.#minRttMs !== undefined && nowMs - this.#minRttAtMs > ROUND_TRIP_AGE_MS_MAX;
  }

  #keep(rate: number, nowMs: number): void {
    const slots = this.#slots;
    if (slots.length === 0 || nowMs - this.#slotAtMs >= RATE_SLOT_MS) {
      slots.push(rate);
      if (slots.length > RATE_SLOTS) slots.shift();
      this.#slotAtMs = nowMs;
    } else if (rate > slots[slots.length - 1]!) {
      slots[slots.length - 1] = rate;
    }
    this.#bytesPerSecond = 0;
    for (const most of slots) this.#bytesPerSecond = Math.max(this.#bytesPerSecond, most);
  }
}

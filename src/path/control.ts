import { encodeHeader, type FrameHeader, FrameType } from '../frame/header.ts';
import { HEADER_BYTES, LANES_MAX } from '../frame/limits.ts';

const NO_CREDIT = -1;

/**
 * What a path has to tell the peer beside Data: acks, credit, Ping and Pong.
 *
 * Not queued but noted, as the state that is to be told; so it merges, and a peer that does not
 * read cannot make us hold more.
 */
export class ControlNotes {
  #ackedFrames: number | undefined;
  #pongToken: number | undefined;
  #isPingDue = false;
  readonly #credits: Float64Array = new Float64Array(LANES_MAX).fill(NO_CREDIT);
  #isCreditDue = false;

  /** So many Data frames have arrived on this path. */
  ack(frames: number): void {
    this.#ackedFrames = frames;
  }

  /** The peer asks for an answer. */
  pong(token: number): void {
    this.#pongToken = token;
  }

  /** An answer of the peer is wanted. */
  ping(): void {
    this.#isPingDue = true;
  }

  /** The peer may send `totalBytes` on a lane. */
  credit(lane: number, totalBytes: number): void {
    this.#credits[lane] = totalBytes;
    this.#isCreditDue = true;
  }

  /** All that is due, as frames one after the other, and forgets it; absent if nothing is. */
  take(nowMs: number): Uint8Array | undefined {
    const frames: FrameHeader[] = [];
    if (this.#ackedFrames !== undefined) frames.push(control(FrameType.Ack, this.#ackedFrames));
    if (this.#pongToken !== undefined) frames.push(control(FrameType.Pong, this.#pongToken));
    if (this.#isPingDue) frames.push(control(FrameType.Ping, Math.floor(nowMs * 1000)));
    if (this.#isCreditDue) this.#takeCredits(frames);
    if (frames.length === 0) return undefined;
    this.#ackedFrames = undefined;
    this.#pongToken = undefined;
    this.#isPingDue = false;
    const bytes = new Uint8Array(frames.length * HEADER_BYTES);
    for (const [index, frame] of frames.entries()) encodeHeader(bytes, index * HEADER_BYTES, frame);
    return bytes;
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

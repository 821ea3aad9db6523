import { decodeHeader, emptyHeader, type FrameHeader, type Stage } from './header.ts';
import { HEADER_BYTES } from './limits.ts';

/** What a decoder needs from its owner. */
export interface FrameSink {
  /** Gives the buffer that a payload of exactly `bytes` bytes, > 0, is gathered in. */
  allocate(bytes: number): Uint8Array;
  /**
   * Takes a frame. `header` is used again for the next one; the payload now belongs to the sink.
   */
  onFrame(header: Readonly<FrameHeader>, payload: Uint8Array): void;
}

const NO_PAYLOAD = new Uint8Array(0);

/**
 * Cuts a byte stream into frames, whatever the chunk boundaries.
 *
 * Holds at most one header and one payload. A decoder that has thrown must not be used again.
 */
export class FrameDecoder {
  /** Which frames are allowed; change it from within `onFrame`. */
  stage: Stage = 'handshake';
  readonly #sink: FrameSink;
  readonly #header: FrameHeader = emptyHeader();
  readonly #held: Uint8Array = new Uint8Array(HEADER_BYTES);
  #heldBytes = 0;
  #payload: Uint8Array | undefined;
  #payloadBytes = 0;
  #lastPayloadBytes = 0;
  #isStopped = false;

  constructor(sink: FrameSink) {
    this.#sink = sink;
  }

  /**
   * Takes a chunk, and hands over every frame that it completes. Keeps nothing of `chunk`.
   *
   * @throws {ProtocolError} If a header is wrong, or if `onFrame` throws.
   */
  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length && !this.#isStopped) {
      at = this.#payload === undefined ? this.#takeHeader(chunk, at) : this.#fill(chunk, at);
    }
  }

  /** The part of the current payload that is still missing: bytes may be read right into it. */
  get missing(): Uint8Array | undefined {
    return this.#payload?.subarray(this.#payloadBytes);
  }

  /** Bytes of the current payload that are still missing. */
  get missingBytes(): number {
    return this.#payload === undefined ? 0 : this.#payload.length - this.#payloadBytes;
  }

  /** Length of the current payload; between frames, that of the last one. */
  get payloadBytes(): number {
    return this.#lastPayloadBytes;
  }

  /** Tells that `bytes` bytes were read into `missing`. */
  filled(bytes: number): void {
    this.#payloadBytes += bytes;
    if (this.#payload !== undefined && this.#payloadBytes === this.#payload.length) this.#emit();
  }

  /** Bytes of a header that is not complete; what a peer sent that does not speak frames. */
  get heldHeader(): Uint8Array {
    return this.#held.slice(0, this.#heldBytes);
  }

  /** Whether the stream may end here: no frame is half received. */
  get isAtBoundary(): boolean {
    return this.#heldBytes === 0 && this.#payload === undefined;
  }

  /** Drops everything that comes from now on. */
  stop(): void {
    this.#isStopped = true;
  }

  #takeHeader(chunk: Uint8Array, at: number): number {
    if (this.#heldBytes === 0 && chunk.length - at >= HEADER_BYTES) {
      this.#begin(chunk, at);
      return at + HEADER_BYTES;
    }
    const end = Math.min(chunk.length, at + HEADER_BYTES - this.#heldBytes);
    this.#held.set(chunk.subarray(at, end), this.#heldBytes);
    this.#heldBytes += end - at;
    if (this.#heldBytes === HEADER_BYTES) {
      this.#begin(this.#held, 0);
      this.#heldBytes = 0;
    }
    return end;
  }

  #begin(bytes: Uint8Array, at: number): void {
    decodeHeader(bytes, at, { into: this.#header, stage: this.stage });
    this.#heldBytes = 0;
    this.#lastPayloadBytes = this.#header.length;
    if (this.#header.length === 0) {
      this.#sink.onFrame(this.#header, NO_PAYLOAD);
    } else {
      this.#payload = this.#sink.allocate(this.#header.length);
      this.#payloadBytes = 0;
    }
  }

  #fill(chunk: Uint8Array, at: number): number {
    const end = Math.min(chunk.length, at + this.missingBytes);
    const part = at === 0 && end === chunk.length ? chunk : chunk.subarray(at, end);
    this.#payload!.set(part, this.#payloadBytes);
    this.filled(end - at);
    return end;
  }

  #emit(): void {
    const payload = this.#payload!;
    this.#payload = undefined;
    this.#sink.onFrame(this.#header, payload);
  }
}

import { PagelaneError } from '../../src/errors.ts';
import { FrameDecoder } from '../../src/frame/decode.ts';
import { type FrameHeader, nameOf, type Stage } from '../../src/frame/header.ts';
import type { LinkHandlers, PathLink } from '../../src/path/link.ts';

/** A frame as it was seen, its header copied. */
export interface SeenFrame {
  readonly header: FrameHeader;
  readonly payload: Uint8Array;
}

/** A link without a network: the test gives it bytes, and reads the frames that were sent. */
export class ByteLink implements PathLink {
  readonly local = 'here:1';
  readonly remote = 'there:2';
  readonly pendingBytes = 0;
  receivedBytes = 0;
  handlers!: LinkHandlers;
  state: 'open' | 'ended' | 'destroyed' = 'open';
  /** Every frame that was sent. */
  readonly sent: SeenFrame[] = [];
  readonly #decoder: FrameDecoder;

  constructor() {
    this.#decoder = new FrameDecoder({
      allocate: (bytes) => this.handlers.allocate(bytes),
      onFrame: (header, payload) => this.handlers.onFrame(header, payload),
    });
  }

  get stage(): Stage {
    return this.#decoder.stage;
  }

  set stage(stage: Stage) {
    this.#decoder.stage = stage;
  }

  /** Lets bytes arrive, and ends the turn. */
  give(chunk: Uint8Array): void {
    this.receivedBytes += chunk.length;
    try {
      this.#decoder.push(chunk);
    } catch (error) {
      if (!(error instanceof PagelaneError)) throw error;
      this.#decoder.stop();
      this.handlers.onFault(error);
    }
    if (this.state === 'open') this.handlers.onTurn();
  }

  /** Names of the frames that were sent. */
  sentNames(): string[] {
    return this.sent.map(({ header }) => nameOf(header.type));
  }

  send(bytes: Uint8Array): void {
    if (this.state !== 'open') return;
    const decoder = new FrameDecoder({
      allocate: (length) => new Uint8Array(length),
      onFrame: (header, payload) => this.sent.push({ header: { ...header }, payload }),
    });
    // Both stages have their first byte in ranges of their own.
    decoder.stage = bytes[0]! < 0x10 ? 'handshake' : 'session';
    decoder.push(bytes);
  }

  wake(): void {}

  end(): void {
    if (this.state === 'open') this.state = 'ended';
    this.#decoder.stop();
  }

  destroy(): void {
    this.state = 'destroyed';
    this.#decoder.stop();
  }
}

import type { PagelaneError } from '../errors.ts';
import type { FrameSink } from '../frame/decode.ts';
import type { Stage } from '../frame/header.ts';

/** Who is told what happens on a link. Every call comes from the event loop, never from `send`. */
export interface LinkHandlers extends FrameSink {
  /** The frames that came together were handed over, or `wake` was called. */
  onTurn(): void;
  /** Everything that was sent has left this process. */
  onWritable(): void;
  /** What arrived is wrong. The link drops all that comes, but can still send and be ended. */
  onFault(error: PagelaneError): void;
  /**
   * The link is gone; called once, and nothing is called after it.
   *
   * @param error Why; absent if it was ended or destroyed from here.
   */
  onClosed(error: PagelaneError | undefined): void;
}

/** A connection that carries whole frames, in order: a socket, or a simulated one. */
export interface PathLink {
  /** Addresses of the two ends, for people. */
  readonly local: string;
  readonly remote: string;
  /** Bytes that were sent and still wait in this process. */
  readonly pendingBytes: number;
  /** Bytes that have arrived, whole frames or not. */
  readonly receivedBytes: number;
  /** Which frames are accepted from the peer. */
  stage: Stage;
  /** Who is told; may be replaced at any time. */
  handlers: LinkHandlers;
  /** Sends a whole frame, or several. The bytes must not change before they have left. */
  send(bytes: Uint8Array): void;
  /** Asks for a call of `onTurn`, soon. */
  wake(): void;
  /** Sends what waits, then ends; drops what still arrives. Closes within a bounded time. */
  end(): void;
  /** Closes at once. */
  destroy(): void;
}

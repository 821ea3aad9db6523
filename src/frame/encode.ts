import { encodeHeader, type FrameType } from './header.ts';
import { HEADER_BYTES } from './limits.ts';

/** What a small frame has beside its type; absent numbers are 0. */
export interface SmallFrame {
  readonly lane?: number;
  readonly sequence?: number;
  readonly payload?: Uint8Array;
}

/**
 * Makes a frame with its header and a copy of its payload, for everything that is not Data.
 *
 * A Data frame is encoded in place, by `encodeHeader`, into the buffer that holds its payload.
 */
export function encodeFrame(type: FrameType, frame: SmallFrame = {}): Uint8Array {
  const length = frame.payload?.length ?? 0;
  const bytes = new Uint8Array(HEADER_BYTES + length);
  encodeHeader(bytes, 0, {
    type,
    flags: 0,
    lane: frame.lane ?? 0,
    length,
    sequence: frame.sequence ?? 0,
    epoch: 0,
  });
  if (frame.payload !== undefined) bytes.set(frame.payload, HEADER_BYTES);
  return bytes;
}

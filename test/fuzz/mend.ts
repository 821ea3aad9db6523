import { writeU32 } from '../../src/frame/bytes.ts';
import { crc32c } from '../../src/frame/crc.ts';
import { HEADER_BYTES } from '../../src/frame/limits.ts';

const CHECK_AT = 28;
const LENGTH_AT = 4;

/** Gives every header the check it should have, following the lengths that the headers tell. */
export function mendChecks(frames: Uint8Array): Uint8Array {
  const mended = frames.slice();
  const view = new DataView(mended.buffer);
  for (let at = 0; at + HEADER_BYTES <= mended.length; ) {
    writeU32(mended, at + CHECK_AT, crc32c(mended, at, at + CHECK_AT));
    at += HEADER_BYTES + view.getUint32(at + LENGTH_AT, true);
  }
  return mended;
}

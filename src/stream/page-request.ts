import { StreamError } from '../errors.ts';
import { viewOf } from './bytes.ts';
import { ReturnType } from './return-path.ts';

/** What a destination QEMU asks for: so many bytes of a RAM block. */
export interface PageRequest {
  readonly block: string;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/* Fixed by QEMU: migration/migration.c, enum mig_rp_message_type */
const HEAD_BYTES = 4;
const RANGE_BYTES = 12;

/**
 * Reads requests for pages off a return path. A request may leave out its block: then it is that of
 * the one before.
 */
export class PageRequestReader {
  #block: string | undefined;

  /**
   * @param message A whole message of type RequestById or Request.
   * @throws {StreamError} ERR_STREAM_REQUEST If it is malformed, or the first names no block.
   */
  read(message: Uint8Array): PageRequest {
    const view = viewOf(message);
    const namesBlock = view.getUint16(0) === ReturnType.RequestById;
    const nameAt = HEAD_BYTES + RANGE_BYTES + 1;
    const nameBytes = namesBlock ? (message[nameAt - 1] ?? -1) : 0;
    const bytes = namesBlock ? nameAt + nameBytes : HEAD_BYTES + RANGE_BYTES;
    if (nameBytes < 0 || message.length !== bytes) throw wrong('its length');
    if (namesBlock) {
      this.#block = Buffer.from(message.subarray(nameAt)).toString('latin1');
    }
    if (this.#block === undefined) throw wrong('no block');
    return {
      block: this.#block,
      offsetBytes: Number(view.getBigUint64(HEAD_BYTES)),
      lengthBytes: view.getUint32(HEAD_BYTES + 8),
    };
  }
}

/** A request that names its block, whatever came before. */
export function encodePageRequest(request: PageRequest): Uint8Array {
  const name = Buffer.from(request.block, 'latin1');
  const bytes = new Uint8Array(HEAD_BYTES + RANGE_BYTES + 1 + name.length);
  const view = viewOf(bytes);
  view.setUint16(0, ReturnType.RequestById);
  view.setUint16(2, bytes.length - HEAD_BYTES);
  view.setBigUint64(HEAD_BYTES, BigInt(request.offsetBytes));
  view.setUint32(HEAD_BYTES + 8, request.lengthBytes);
  view.setUint8(HEAD_BYTES + RANGE_BYTES, name.length);
  bytes.set(name, HEAD_BYTES + RANGE_BYTES + 1);
  return bytes;
}

function wrong(what: string): StreamError {
  return new StreamError('ERR_STREAM_REQUEST', `Cannot read request for a page: ${what}`, 0);
}

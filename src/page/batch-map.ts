import { ProtocolError } from '../errors.ts';
import { Sealed } from '../native.ts';
import { type PageRun, pushRun } from './bitmap.ts';

/*
 * The map of a page batch, which is never compressed: an entry for each run of pages of one kind.
 * What the addon makes and checks; here is what needs to be known of a batch of our own.
 */

/* Fixed by the protocol: docs/protocol.md, section 7 */
export const BATCH_HEADER_BYTES = 40;
export const MAP_ENTRY_BYTES = 16;
const MAP_BYTES_AT = 8;
/** Kinds below it say what is no page. */
const PAGE_KIND_MIN = 0x10;

/** Pages of one block. */
export interface BatchPages {
  readonly block: number;
  readonly runs: readonly PageRun[];
}

/** The pages of a batch in its slot. @throws {ProtocolError} As `pagesOf`. */
export function pagesOfSealed(slot: Uint8Array, sealed: Int32Array): BatchPages {
  return pagesOf(slot.subarray(sealed[Sealed.start]!, sealed[Sealed.end]!));
}

/**
 * Block and pages of a batch that this process has sealed, or decoded.
 *
 * @throws {ProtocolError} ERR_BATCH_MAP If there is none, or they are of several blocks.
 */
export function pagesOf(batch: Uint8Array): BatchPages {
  const view = new DataView(batch.buffer, batch.byteOffset, batch.byteLength);
  const mapEnd = BATCH_HEADER_BYTES + view.getUint32(MAP_BYTES_AT, true);
  const runs: PageRun[] = [];
  let block = -1;
  for (let at = BATCH_HEADER_BYTES; at < mapEnd; at += MAP_ENTRY_BYTES) {
    if (view.getUint8(at) < PAGE_KIND_MIN) continue;
    const own = view.getUint16(at + 2, true);
    if (block >= 0 && own !== block) {
      throw new ProtocolError('ERR_BATCH_MAP', `Pages are of blocks ${block} and ${own}`);
    }
    block = own;
    const first = Number(view.getBigUint64(at + 8, true));
    pushRun(runs, { first, count: view.getUint16(at + 4, true) });
  }
  if (block < 0) throw new ProtocolError('ERR_BATCH_MAP', 'There is no page in it');
  return { block, runs };
}

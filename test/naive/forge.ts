import { BATCH_HEADER_BYTES, CHECKSUM_AT, type NaiveStore, sealNaively } from './batch.ts';

/*
 * Batches written by hand, without a codec: right unless they are told to be wrong.
 */

export interface ForgedEntry {
  readonly kind: number;
  readonly flags?: number;
  readonly block?: number;
  readonly count?: number;
  readonly length?: number;
  readonly firstPage?: number | bigint;
  /** Slot that the pages are like, and the slot they are kept from, as far as the kind has them. */
  readonly slots?: readonly number[];
  readonly contents?: Uint8Array;
}

export interface ForgedBatch {
  readonly pageBits: number;
  readonly number?: number;
  readonly base?: number;
  readonly isInside?: boolean;
  /** What the checksum is made with; without one, or where the rest is wrong, it is 0. */
  readonly store?: NaiveStore;
  readonly entries: readonly ForgedEntry[];
}

/** Writes a batch with the checksum that fits. */
export function forgeBatch(forged: ForgedBatch): Uint8Array<ArrayBuffer> {
  const { pageBits, number = 0, base = 0, isInside = true, entries } = forged;
  const slots = entries.flatMap((entry) => entry.slots ?? []);
  const contents = Buffer.concat(entries.map((entry) => entry.contents ?? new Uint8Array(0)));
  const literalsAt = BATCH_HEADER_BYTES + 16 * entries.length;
  const contentsAt = literalsAt + 4 * slots.length;
  const batch = new Uint8Array(new ArrayBuffer(contentsAt + contents.length));
  const view = new DataView(batch.buffer);
  view.setUint8(0, 4);
  view.setUint8(2, isInside ? 1 : 0);
  view.setUint8(3, pageBits);
  view.setUint32(8, 16 * entries.length, true);
  view.setUint32(12, batch.length - literalsAt, true);
  view.setUint32(16, batch.length - literalsAt, true);
  const pages = entries.filter(({ kind }) => kind >= 0x10);
  view.setUint32(
    20,
    pages.reduce((sum, { count = 1 }) => sum + count, 0),
    true,
  );
  view.setUint32(24, number, true);
  view.setUint32(28, base, true);
  for (const [index, entry] of entries.entries()) {
    writeEntry(view, BATCH_HEADER_BYTES + 16 * index, entry);
  }
  for (const [index, slot] of slots.entries()) view.setUint32(literalsAt + 4 * index, slot, true);
  batch.set(contents, contentsAt);
  seal(batch, forged);
  return batch;
}

function writeEntry(view: DataView, at: number, entry: ForgedEntry): void {
  const { kind, flags = 0, block = 0, length = 0, firstPage = 0 } = entry;
  view.setUint8(at, kind);
  view.setUint8(at + 1, flags);
  view.setUint16(at + 2, block, true);
  view.setUint16(at + 4, entry.count ?? (kind >= 0x10 ? 1 : 0), true);
  view.setUint16(at + 6, length, true);
  view.setBigUint64(at + 8, BigInt(firstPage), true);
}

function seal(batch: Uint8Array, { pageBits, store }: ForgedBatch): void {
  try {
    sealNaively(batch, { pageBytes: 1 << pageBits, ...(store && { store }) });
  } catch {
    new DataView(batch.buffer).setBigUint64(CHECKSUM_AT, 0n, true);
  }
}

/** A batch that shows what is in `count` slots: as the first pages of block 0. */
export function forgeProbe(
  pageBits: number,
  { store, count, number = 0 }: { store: NaiveStore; count: number; number?: number },
): Uint8Array<ArrayBuffer> {
  const entries = [{ kind: 0x16, count, slots: [0] }];
  return forgeBatch({ pageBits, store, number, entries });
}

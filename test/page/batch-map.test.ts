import { expect, test } from 'vitest';
import { BATCH_HEADER_BYTES, MAP_ENTRY_BYTES, pagesOf } from '../../src/page/batch-map.ts';

interface Entry {
  readonly kind: number;
  readonly block: number;
  readonly first: number;
  readonly count: number;
}

function batchOf(entries: readonly Entry[]): Uint8Array {
  const mapBytes = entries.length * MAP_ENTRY_BYTES;
  // What lies behind the map is none of its business.
  const batch = new Uint8Array(BATCH_HEADER_BYTES + mapBytes + 100).fill(255);
  const view = new DataView(batch.buffer);
  view.setUint32(8, mapBytes, true);
  for (const [index, { kind, block, first, count }] of entries.entries()) {
    const at = BATCH_HEADER_BYTES + index * MAP_ENTRY_BYTES;
    view.setUint8(at, kind);
    view.setUint16(at + 2, block, true);
    view.setUint16(at + 4, count, true);
    view.setBigUint64(at + 8, BigInt(first), true);
  }
  return batch;
}

test('the pages of a batch are those of its map, neighbours together', () => {
  const batch = batchOf([
    { kind: 1, block: 7, first: 99, count: 1 },
    { kind: 0x10, block: 2, first: 3, count: 2 },
    { kind: 0x12, block: 2, first: 5, count: 1 },
    { kind: 0x10, block: 2, first: 2 ** 40, count: 4 },
  ]);
  const runs = [
    { first: 3, count: 3 },
    { first: 2 ** 40, count: 4 },
  ];
  expect(pagesOf(batch)).toEqual({ block: 2, runs });
});

test('a batch with pages of two blocks is refused', () => {
  const [one, other] = [0, 1].map((block) => ({ kind: 0x10, block, first: 0, count: 1 }));
  const code = 'ERR_BATCH_MAP';
  expect(() => pagesOf(batchOf([one!, other!]))).toThrow(expect.objectContaining({ code }));
});

test('a batch without a page is refused', () => {
  const code = 'ERR_BATCH_MAP';
  for (const entries of [[], [{ kind: 1, block: 0, first: 0, count: 1 }]]) {
    expect(() => pagesOf(batchOf(entries))).toThrow(expect.objectContaining({ code }));
  }
});

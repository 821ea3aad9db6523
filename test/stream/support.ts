import { DECODED_ROOM_BYTES, Decoded, native, Sealed, SLOT_ROOM_BYTES } from '../../src/native.ts';
import type { RamLayout } from '../../src/page/block.ts';
import { BatchDecoder } from '../../src/page/decode.ts';
import { BatchEncoder, LITERAL_BYTES_MAX } from '../../src/page/encode.ts';
import { StreamReader } from '../../src/stream/reader.ts';
import type { BytesPlace } from '../../src/stream/sink.ts';
import { StreamWriter } from '../../src/stream/writer.ts';

/** What the reader found, with its epoch. */
export type Found =
  | { kind: 'bytes'; data: Uint8Array; place: BytesPlace; epoch: number }
  | { kind: 'pages'; slot: Uint8Array; sealed: Int32Array; epoch: number };

/** Reads a whole stream in the given chunks. isBusy: whether there is no slot just now. */
export function readAll(
  chunks: Iterable<Uint8Array>,
  {
    flushEachChunk = false,
    literalBytes = LITERAL_BYTES_MAX,
    mayHold = false,
    isBusy = (): boolean => false,
  } = {},
): { found: Found[]; layout: RamLayout | undefined; reader: StreamReader } {
  const found: Found[] = [];
  let layout: RamLayout | undefined;
  let epoch = 0;
  const reader = new StreamReader({
    takeSlot: () =>
      isBusy() ? undefined : new Uint8Array(new ArrayBuffer(SLOT_ROOM_BYTES + literalBytes)),
    layout: (seen) => {
      layout = seen;
    },
    bytes: (data, place) => {
      found.push({ kind: 'bytes', data: data.slice(), place, epoch: ++epoch });
      epoch++;
    },
    pages: (slot, sealed) => found.push({ kind: 'pages', slot, sealed: sealed.slice(), epoch }),
    epoch: () => {
      epoch++;
    },
  });
  for (const chunk of chunks) {
    reader.mayHold = mayHold;
    for (let at = 0; at < chunk.length; ) at = reader.push(chunk, at);
    if (flushEachChunk) reader.flush();
  }
  reader.flush();
  return { found, layout, reader };
}

/** Cuts bytes at the positions that `random` says. */
export function* cutAnywhere(
  bytes: Uint8Array,
  random: () => number,
  chunkBytesMax: number,
): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; ) {
    const end = Math.min(bytes.length, at + 1 + Math.floor(random() * chunkBytesMax));
    yield bytes.slice(at, end);
    at = end;
  }
}

/** How what was found is carried. */
export interface Carriage {
  /** @default "lz4" */
  readonly codec?: 'none' | 'lz4' | 'zstd';
  /** Pages that both ends keep. @default 0 */
  readonly storeSlots?: number;
}

/** Encodes, decodes and writes what was found, in the order given by `order` (indexes into it). */
export async function writeAll(
  found: readonly Found[],
  layout: RamLayout | undefined,
  order: readonly number[],
  { codec = 'lz4', storeSlots = 0 }: Carriage = {},
): Promise<Uint8Array> {
  const writer = new StreamWriter();
  const encoder = new BatchEncoder({ codec, threads: 1, now: () => performance.now() });
  const decoder = layout === undefined ? undefined : new BatchDecoder(layout, storeSlots);
  if (layout !== undefined) {
    writer.setLayout(layout);
    encoder.openStore(layout, storeSlots);
  }
  const parts: Uint8Array[] = [];
  for (const index of order) {
    const item = found[index]!;
    if (item.kind === 'bytes') {
      parts.push(writer.beforeBytes(item.place), item.data);
      continue;
    }
    const batch = await encoder.encode(copyOf(item.slot, item.sealed), item.sealed, 0);
    const payload = new Uint8Array(batch.buffer.slice(batch.start, batch.end));
    const { output, decoded } = await decoder!.decode(payload, index);
    parts.push(writer.batch(output, decoded, index).slice());
    decoder!.give(output);
    encoder.acked(batch);
  }
  return new Uint8Array(Buffer.concat(parts));
}

/** A slot with the same batch: encoding one changes it. */
function copyOf(slot: Uint8Array, sealed: Int32Array): Uint8Array {
  const copy = new Uint8Array(new ArrayBuffer(slot.length));
  const start = sealed[Sealed.start]!;
  copy.set(slot.subarray(start, sealed[Sealed.end]!), start);
  return copy;
}

/** Indexes in an order that keeps epochs apart but shuffles inside them. */
export function shuffledInEpochs(found: readonly Found[], random: () => number): number[] {
  const indexes = found.map((_, index) => index);
  const keys = found.map(() => random());
  return indexes.sort((a, b) => found[a]!.epoch - found[b]!.epoch || keys[a]! - keys[b]!);
}

export { DECODED_ROOM_BYTES, Decoded, native, Sealed };

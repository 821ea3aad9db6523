import {
  type BlockTable,
  type Codec,
  CutStop,
  Decoded,
  Encoded,
  native,
  Order,
  type PageStore,
  type RamCutter,
  Sealed,
  SLOT_ROOM_BYTES,
  type StoreIndex,
} from '../../src/native.ts';
import type { NaiveTarget } from '../naive/batch.ts';
import { integerBelow } from '../support/prng.ts';

/** A sealed batch, in a slot of its own. */
export interface CutBatch {
  readonly slot: Uint8Array<ArrayBuffer>;
  readonly sealed: Int32Array;
  readonly epoch: number;
}

export const TARGET: NaiveTarget = {
  pageBits: 12,
  hasFooter: true,
  sectionId: 2,
  blocks: [
    { name: 'pc.ram', usedBytes: 700 * 4096 },
    { name: 'pc.bios', usedBytes: 3 * 4096 + 1 },
    { name: '/rom@etc/acpi/tables', usedBytes: 131072 },
    { name: 'x'.repeat(255), usedBytes: 4096 },
  ],
};

export const SMALL: NaiveTarget = {
  pageBits: 10,
  hasFooter: true,
  sectionId: 0x01020304,
  blocks: [
    { name: 'a', usedBytes: 40 * 1024 },
    { name: 'pc.bios', usedBytes: 2 * 1024 },
  ],
};

export function columns(target: NaiveTarget): [string[], Float64Array] {
  const names = target.blocks.map((block) => block.name);
  return [names, Float64Array.from(target.blocks, (block) => block.usedBytes)];
}

export function openCutter(target: NaiveTarget): RamCutter {
  const cutter = new native.RamCutter(target.pageBits);
  cutter.setBlocks(...columns(target));
  return cutter;
}

/** The destination's side of a stream, with a store if one is given. */
export function openTable(target: NaiveTarget, store?: PageStore): BlockTable {
  const table = new native.BlockTable(target.pageBits, target.hasFooter, target.sectionId);
  table.setBlocks(...columns(target));
  if (store !== undefined) table.setStore(store);
  return table;
}

/** Reads a stream of PART sections as the reader does: marks, bodies, footers. */
export class CutDriver {
  readonly batches: CutBatch[] = [];
  readonly cutter: RamCutter;
  readonly #target: NaiveTarget;
  readonly #literalBytes: number;
  #slot: Uint8Array<ArrayBuffer> | undefined;
  #epoch = 0;
  #isInBody = false;
  /** Bytes of a section's header or footer that are still to come. */
  #skip: number;

  constructor(target: NaiveTarget, literalBytes = 1 << 20) {
    this.#target = target;
    this.#literalBytes = literalBytes;
    this.#skip = 5;
    this.cutter = openCutter(target);
  }

  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) at = this.#isInBody ? this.#cut(chunk, at) : this.#cross(chunk, at);
  }

  seal(): void {
    if (this.#slot === undefined || this.cutter.batchEntries() === 0) return;
    const sealed = new Int32Array(Sealed.count);
    this.cutter.seal(sealed);
    this.batches.push({ slot: this.#slot, sealed, epoch: this.#epoch });
    this.#slot = undefined;
  }

  #open(): void {
    if (this.#slot !== undefined) return;
    this.#slot = new Uint8Array(new ArrayBuffer(SLOT_ROOM_BYTES + this.#literalBytes));
    this.cutter.begin(this.#slot);
  }

  #mark(mark: () => boolean): void {
    this.#open();
    if (mark()) return;
    this.seal();
    this.#open();
    mark();
  }

  /** Bytes between bodies: a footer, the header of the next section. */
  #cross(chunk: Uint8Array, at: number): number {
    const taken = Math.min(this.#skip, chunk.length - at);
    this.#skip -= taken;
    if (this.#skip === 0) {
      this.#mark(() => this.cutter.markSectionBegin());
      this.#isInBody = true;
    }
    return at + taken;
  }

  #cut(chunk: Uint8Array, at: number): number {
    this.#open();
    const result = this.cutter.cut(chunk, at, chunk.length);
    switch (result % 8) {
      case CutStop.BatchFull:
        this.seal();
        break;
      case CutStop.PageAgain:
        this.seal();
        this.cutter.beginEpoch();
        this.#epoch++;
        break;
      case CutStop.SectionEnd:
        this.#mark(() => this.cutter.markSectionEnd());
        this.#isInBody = false;
        this.#skip = this.#target.hasFooter ? 10 : 5;
        break;
      case CutStop.Unknown:
      case CutStop.BadPage:
        throw new Error(`cut stopped: ${result % 8}`);
    }
    return at + Math.floor(result / 8);
  }
}

/** Cuts bytes at random places, each piece in a buffer of exactly its size. */
export function* chunksOf(
  bytes: Uint8Array,
  random: () => number,
  chunkBytesMax: number,
): Generator<Uint8Array<ArrayBuffer>> {
  for (let at = 0; at < bytes.length; ) {
    const end = Math.min(bytes.length, at + 1 + integerBelow(random, chunkBytesMax));
    const chunk = new Uint8Array(new ArrayBuffer(end - at));
    chunk.set(bytes.subarray(at, end));
    yield chunk;
    at = end;
  }
}

/** What `orderOf` and `encode` may be told beside codec and level. */
export interface EncodePlace {
  readonly number?: number;
  readonly base?: number;
  /** Sum of `OrderFlag`. */
  readonly flags?: number;
  readonly store?: StoreIndex;
}

/** The order for `encodeBatch`. */
export function orderOf(
  codec: Codec,
  level: number,
  { number = 0, base = 0, flags = 0 }: EncodePlace = {},
): Int32Array {
  const order = new Int32Array(Order.count);
  order[Order.codec] = codec;
  order[Order.level] = level;
  order[Order.number] = number;
  order[Order.base] = base;
  order[Order.flags] = flags;
  return order;
}

export interface Wire {
  /** The batch, in a buffer of exactly its size. */
  readonly batch: Uint8Array<ArrayBuffer>;
  readonly encoded: Int32Array;
}

/** Encodes a sealed batch, whose slot stays as it is. */
export async function encodeWire(
  { slot, sealed }: Pick<CutBatch, 'slot' | 'sealed'>,
  order: Int32Array,
  store?: StoreIndex,
): Promise<Wire> {
  const encoded = new Int32Array(Encoded.count);
  const [start, end] = [sealed[Sealed.start]!, sealed[Sealed.end]!];
  const work = new Uint8Array(new ArrayBuffer(slot.length));
  work.set(slot.subarray(start, end), start);
  const out = new Uint8Array(new ArrayBuffer(order[Order.codec] === 0 ? 0 : slot.length));
  await native.encodeBatch(work, start, end, order, store, out, encoded);
  const from = encoded[Encoded.inOut] === 1 ? out : work;
  const bytes = from.subarray(encoded[Encoded.start]!, encoded[Encoded.end]!);
  const batch = new Uint8Array(new ArrayBuffer(bytes.length));
  batch.set(bytes);
  return { batch, encoded };
}

/** Encodes a sealed batch, and returns it in a buffer of exactly its size. */
export async function encode(
  sealed: Pick<CutBatch, 'slot' | 'sealed'>,
  codec: Codec,
  level: number,
  place: EncodePlace = {},
): Promise<Uint8Array<ArrayBuffer>> {
  return (await encodeWire(sealed, orderOf(codec, level, place), place.store)).batch;
}

export interface DecodedRecords {
  readonly records: Uint8Array;
  readonly decoded: Int32Array;
}

/** Decodes a batch into a buffer of exactly the size it asks for. */
export async function decode(table: BlockTable, batch: Uint8Array): Promise<DecodedRecords> {
  const decoded = new Int32Array(Decoded.count);
  native.inspectBatch(table, batch, decoded);
  const inspected = decoded.slice();
  const output = new Uint8Array(new ArrayBuffer(decoded[Decoded.outputBytes]!));
  decoded.fill(-7);
  await native.decodeBatch(table, batch, output, decoded);
  if (!decoded.every((value, index) => value === inspected[index])) {
    throw new Error(`inspected ${inspected}, decoded ${decoded}`);
  }
  return { records: output.subarray(decoded[Decoded.start]!, decoded[Decoded.end]!), decoded };
}

/** Encodes and decodes all batches and joins what comes out. */
export async function carry(
  driver: CutDriver,
  target: NaiveTarget,
  codec: Codec,
  level: number,
): Promise<Uint8Array> {
  driver.seal();
  const table = openTable(target);
  const parts = await Promise.all(
    driver.batches.map(async (batch) => {
      return (await decode(table, await encode(batch, codec, level))).records;
    }),
  );
  return new Uint8Array(Buffer.concat(parts));
}

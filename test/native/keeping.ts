import { expect } from 'vitest';
import {
  type BlockTable,
  Codec,
  Encoded,
  native,
  OrderFlag,
  type PageStore,
  type StoreIndex,
} from '../../src/native.ts';
import { type NaiveBatch, type NaiveTarget, parseBatch } from '../naive/batch.ts';
import { RamWriter } from '../naive/ram-stream.ts';
import { CutDriver, columns, decode, encodeWire, openTable, orderOf } from './cutting.ts';

/** A page of block 0 and its bytes. */
export type PageWrite = readonly [page: number, bytes: Uint8Array];

/** How a batch is to be encoded. */
export interface SendOptions {
  readonly base: number;
  /** @default One more than that of the last batch */
  readonly number?: number;
  /** @default Codec.None */
  readonly codec?: Codec;
  readonly level?: number;
  /** @default OrderFlag.Keeps */
  readonly flags?: number;
}

/** An encoded batch, and the records that must come out of it. */
export interface SentBatch {
  readonly number: number;
  readonly batch: Uint8Array<ArrayBuffer>;
  readonly encoded: Int32Array;
  readonly parsed: NaiveBatch;
  readonly stream: Uint8Array;
}

/** A guest of one block. */
export function guestOf(pageBits: number, pages: number): NaiveTarget {
  const blocks = [{ name: 'pc.ram', usedBytes: pages << pageBits }];
  return { pageBits, hasFooter: true, sectionId: 2, blocks };
}

/** A whole RAM section with these pages. */
export function sectionOf(target: NaiveTarget, pages: readonly PageWrite[]): Uint8Array {
  const writer = new RamWriter(target).begin();
  for (const [page, bytes] of pages) {
    const isZero = bytes.every((byte) => byte === 0);
    writer.record({ kind: isZero ? 'zero' : 'raw', block: 0, page, bytes });
  }
  return writer.end().stream();
}

/** Cuts a section into the one batch that it is. */
export function cutSection(target: NaiveTarget, stream: Uint8Array): CutDriver['batches'][0] {
  const driver = new CutDriver(target);
  driver.push(stream);
  driver.seal();
  expect(driver.batches.length).toBe(1);
  return driver.batches[0]!;
}

/** Both ends of a store, and what passes between them. */
export class KeepingEnds {
  readonly target: NaiveTarget;
  readonly index: StoreIndex;
  readonly store: PageStore;
  readonly table: BlockTable;
  #nextNumber = 0;

  constructor(target: NaiveTarget, slots: number) {
    this.target = target;
    this.index = new native.StoreIndex(...columns(target), target.pageBits, slots);
    this.store = new native.PageStore(target.pageBits, slots);
    this.table = openTable(target, this.store);
  }

  /** Encodes the next batch. */
  async send(pages: readonly PageWrite[], options: SendOptions): Promise<SentBatch> {
    const { base, codec = Codec.None, flags = OrderFlag.Keeps } = options;
    const level = options.level ?? (codec === Codec.None ? 0 : 1);
    const number = options.number ?? this.#nextNumber;
    this.#nextNumber = Math.max(this.#nextNumber, number + 1);
    const stream = sectionOf(this.target, pages);
    const order = orderOf(codec, level, { number, base, flags });
    const sealed = cutSection(this.target, stream);
    const { batch, encoded } = await encodeWire(sealed, order, this.index);
    return { number, batch, encoded, parsed: parseBatch(batch), stream };
  }

  /** Decodes a batch; what comes out must be what went in. */
  async deliver({ batch, stream }: SentBatch): Promise<void> {
    const { records } = await decode(this.table, batch);
    expect(Buffer.compare(records, stream)).toBe(0);
  }

  async sendAndDeliver(pages: readonly PageWrite[], options: SendOptions): Promise<SentBatch> {
    const sent = await this.send(pages, options);
    await this.deliver(sent);
    return sent;
  }
}

/** Kinds of a batch's page and prefix entries, in hexadecimal; those that keep with a plus. */
export function kindsOf({ parsed }: SentBatch): string[] {
  return parsed.entries
    .filter(({ kind }) => kind > 2)
    .map(({ kind, flags }) => kind.toString(16) + ((flags & 2) !== 0 ? '+' : ''));
}

/** The references of a batch without a codec. */
export function referencesOf({ parsed }: SentBatch): number[] {
  const count = parsed.entries.reduce((sum, { kind, flags }) => {
    return sum + (kind >= 0x16 ? 1 : 0) + (kind >= 0x10 && (flags & 2) !== 0 ? 1 : 0);
  }, 0);
  const view = new DataView(parsed.wire.buffer, parsed.wire.byteOffset);
  return Array.from({ length: count }, (_, index) => view.getUint32(4 * index, true));
}

/** How many pages of a batch are the same as, or differ from, what the store has. */
export function countsOf({ encoded }: SentBatch): { same: number; delta: number; again: number } {
  return {
    same: encoded[Encoded.samePages]!,
    delta: encoded[Encoded.deltaPages]!,
    again: encoded[Encoded.againPages]!,
  };
}

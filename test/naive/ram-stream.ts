import { exactRandomBytes, integerBelow } from '../support/prng.ts';
import { be64, blockId, type NaiveTarget, sectionMark } from './batch.ts';

/*
 * RAM sections as QEMU's source writes them, with more variety than any one QEMU shows.
 */

export type RecordKind = 'zero' | 'raw' | 'blank' | 'xbzrle' | 'compress';

export interface RamRecord {
  readonly kind: RecordKind;
  readonly block: number;
  readonly page: number;
  /** Names the block although the last record was of the same. */
  readonly names?: boolean;
  /** Page bytes, or what follows the length of a foreign record. */
  readonly bytes?: Uint8Array;
}

const FLAGS: Record<RecordKind, bigint> = {
  zero: 0x2n,
  raw: 0x8n,
  blank: 0x8n,
  xbzrle: 0x40n,
  compress: 0x100n,
};

/** Writes records, and remembers the last block as QEMU's source does. */
export class RamWriter {
  readonly #target: NaiveTarget;
  readonly #parts: Uint8Array[] = [];
  #lastBlock = -1;

  constructor(target: NaiveTarget) {
    this.#target = target;
  }

  begin(): this {
    return this.#put(sectionMark(0x02, this.#target));
  }

  end(): this {
    this.#put(be64(0x10n));
    return this.#target.hasFooter ? this.#put(sectionMark(0x7e, this.#target)) : this;
  }

  record({ kind, block, page, names = false, bytes }: RamRecord): this {
    const { pageBits, blocks } = this.#target;
    const isNamed = names || block !== this.#lastBlock;
    this.#lastBlock = block;
    this.#put(be64((BigInt(page) << BigInt(pageBits)) | FLAGS[kind] | (isNamed ? 0n : 0x20n)));
    if (isNamed) this.#put(blockId(blocks[block]!.name));
    if (kind === 'zero') return this.#put(Uint8Array.of(0));
    if (kind === 'blank') return this.#put(new Uint8Array(1 << pageBits));
    if (kind === 'xbzrle') this.#put(Uint8Array.of(1, bytes!.length >> 8, bytes!.length & 255));
    if (kind === 'compress') {
      this.#put(Uint8Array.of(0, bytes!.length >> 16, bytes!.length >> 8, bytes!.length & 255));
    }
    return this.#put(bytes!);
  }

  /** The stream so far, in a buffer of exactly its size. */
  stream(): Uint8Array<ArrayBuffer> {
    const joined = Buffer.concat(this.#parts);
    const exact = new Uint8Array(new ArrayBuffer(joined.length));
    exact.set(joined);
    return exact;
  }

  #put(bytes: Uint8Array): this {
    this.#parts.push(bytes);
    return this;
  }
}

export interface StreamShape {
  readonly sections: number;
  readonly recordsMax: number;
  /** Chance that a record is for the page behind the last one's. */
  readonly runChance?: number;
}

/** Sections with records of every kind, in runs and alone. */
export function randomRamStream(
  random: () => number,
  target: NaiveTarget,
  { sections, recordsMax, runChance = 0.7 }: StreamShape,
): Uint8Array<ArrayBuffer> {
  const writer = new RamWriter(target);
  let [block, page, kind]: [number, number, RecordKind] = [0, 0, 'raw'];
  for (let section = 0; section < sections; section++) {
    writer.begin();
    for (let left = integerBelow(random, recordsMax + 1); left > 0; left--) {
      const pages = pagesOf(target, block);
      if (random() < runChance && page + 1 < pages) {
        page++;
      } else {
        block = integerBelow(random, target.blocks.length);
        page = integerBelow(random, pagesOf(target, block));
        kind = randomKind(random);
      }
      const bytes = randomBody(random, kind, 1 << target.pageBits);
      writer.record({ kind, block, page, names: random() < 0.05, bytes });
    }
    writer.end();
  }
  return writer.stream();
}

export function pagesOf({ pageBits, blocks }: NaiveTarget, block: number): number {
  return Math.ceil(blocks[block]!.usedBytes / (1 << pageBits));
}

function randomKind(random: () => number): RecordKind {
  const dice = random();
  if (dice < 0.35) return 'raw';
  if (dice < 0.6) return 'zero';
  if (dice < 0.75) return 'blank';
  return dice < 0.9 ? 'xbzrle' : 'compress';
}

function randomBody(random: () => number, kind: RecordKind, pageBytes: number): Uint8Array {
  const edge = random() < 0.1;
  switch (kind) {
    case 'raw':
      return rawPage(random, pageBytes);
    case 'xbzrle':
      return exactRandomBytes(random, edge ? pageBytes : integerBelow(random, 90));
    case 'compress':
      return exactRandomBytes(random, edge ? pageBytes + 13 : integerBelow(random, 300));
    default:
      return new Uint8Array(0);
  }
}

/** Not all zero; sometimes by one byte only, where a scan could miss it. */
function rawPage(random: () => number, pageBytes: number): Uint8Array {
  if (random() < 0.5) {
    const page = exactRandomBytes(random, pageBytes);
    page[0]! |= 1;
    return page;
  }
  const page = new Uint8Array(pageBytes);
  page[integerBelow(random, pageBytes)] = 1 + integerBelow(random, 255);
  return page;
}

import { native } from '../../src/native.ts';
import { applyNaiveDelta } from './delta.ts';
import { naiveLz4 } from './lz4.ts';

/*
 * The batch format as docs/protocol.md, section 7, tells it: slow, obvious, trusts its input.
 */

export interface NaiveBlock {
  readonly name: string;
  readonly usedBytes: number;
}

/** The destination's side of a stream. */
export interface NaiveTarget {
  readonly pageBits: number;
  readonly hasFooter: boolean;
  readonly sectionId: number;
  readonly blocks: readonly NaiveBlock[];
}

export interface NaiveEntry {
  readonly kind: number;
  readonly flags: number;
  readonly block: number;
  readonly count: number;
  readonly length: number;
  readonly firstPage: number;
}

export interface NaiveBatch {
  readonly codec: number;
  readonly opensInside: boolean;
  readonly lastBlock: number;
  readonly pageCount: number;
  readonly number: number;
  readonly base: number;
  readonly checksum: bigint;
  readonly entries: readonly NaiveEntry[];
  readonly map: Uint8Array;
  readonly wire: Uint8Array;
  readonly literalBytes: number;
}

/** Pages by slot; one that is not there is zero. */
export type NaiveStore = Map<number, Uint8Array>;

/** An entry with what follows the header of each of its records, and the slot it is kept from. */
export interface NaiveContent {
  readonly entry: NaiveEntry;
  readonly bodies: readonly Uint8Array[];
  readonly like: number;
  readonly keep: number;
}

export const BATCH_HEADER_BYTES = 40;
export const CHECKSUM_AT = 32;
export const NUMBER_AT = 24;
export const BASE_AT = 28;

const Kind = {
  SectionBegin: 0x01,
  SectionEnd: 0x02,
  Zero: 0x10,
  Raw: 0x11,
  Blank: 0x12,
  Xbzrle: 0x13,
  Compress: 0x14,
  Fill: 0x15,
  Same: 0x16,
  Delta: 0x17,
} as const;
const NAMES_BLOCK = 1;
const KEEPS = 2;

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** Reads header and map. */
export function parseBatch(batch: Uint8Array): NaiveBatch {
  const view = viewOf(batch);
  const mapEnd = BATCH_HEADER_BYTES + view.getUint32(8, true);
  const entries: NaiveEntry[] = [];
  for (let at = BATCH_HEADER_BYTES; at < mapEnd; at += 16) {
    entries.push({
      kind: view.getUint8(at),
      flags: view.getUint8(at + 1),
      block: view.getUint16(at + 2, true),
      count: view.getUint16(at + 4, true),
      length: view.getUint16(at + 6, true),
      firstPage: Number(view.getBigUint64(at + 8, true)),
    });
  }
  return {
    codec: view.getUint8(1),
    opensInside: (view.getUint8(2) & 1) !== 0,
    lastBlock: (view.getUint8(2) & 8) !== 0 ? view.getUint16(4, true) : -1,
    pageCount: view.getUint32(20, true),
    number: view.getUint32(NUMBER_AT, true),
    base: view.getUint32(BASE_AT, true),
    checksum: view.getBigUint64(CHECKSUM_AT, true),
    entries,
    map: batch.subarray(BATCH_HEADER_BYTES, mapEnd),
    wire: batch.subarray(mapEnd),
    literalBytes: view.getUint32(12, true),
  };
}

/** References and contents of a batch without a codec or with LZ4. */
export function naiveLiterals(parsed: NaiveBatch): Uint8Array {
  if (parsed.codec === 0) return parsed.wire;
  if (parsed.codec === 1) return naiveLz4(parsed.wire, parsed.literalBytes);
  throw new Error(`No naive decoder for codec ${parsed.codec}`);
}

function refersTo({ kind }: NaiveEntry): boolean {
  return kind === Kind.Same || kind === Kind.Delta;
}

function keeps({ kind, flags }: NaiveEntry): boolean {
  return kind >= Kind.Zero && (flags & KEEPS) !== 0;
}

/** The references of a batch, as bytes: what its literals begin with. */
export function naiveReferences(parsed: NaiveBatch, literals: Uint8Array): Uint8Array {
  const pages = parsed.entries.filter(({ kind }) => kind >= Kind.Zero);
  const count = pages.filter(refersTo).length + pages.filter(keeps).length;
  return literals.subarray(0, 4 * count);
}

/**
 * What the entries of a map stand for.
 *
 * @throws {Error} If literals are missing or left over.
 */
export function naiveContents(
  parsed: NaiveBatch,
  literals: Uint8Array,
  { pageBytes, store }: { pageBytes: number; store: NaiveStore },
): NaiveContent[] {
  let at = 0;
  const take = (count: number): Uint8Array => {
    at += count;
    if (at > literals.length) throw new Error('literals are missing');
    return literals.subarray(at - count, at);
  };
  const references = parsed.entries.map((entry) => ({
    entry,
    like: refersTo(entry) ? viewOf(take(4)).getUint32(0, true) : -1,
    keep: keeps(entry) ? viewOf(take(4)).getUint32(0, true) : -1,
  }));
  const contents = references.map((each) => {
    const { entry } = each;
    const isRun = entry.kind >= Kind.Zero;
    const word = entry.kind === Kind.Fill ? take(8) : new Uint8Array(0);
    const bodies = Array.from({ length: isRun ? entry.count : 0 }, (_, index) => {
      const slot = each.like + index;
      const like = store.get(slot) ?? new Uint8Array(pageBytes);
      return bodyOf(entry, { pageBytes, word, like, take });
    });
    return { ...each, bodies };
  });
  if (at !== literals.length) throw new Error('literals left over');
  return contents;
}

interface BodySources {
  readonly pageBytes: number;
  readonly word: Uint8Array;
  readonly like: Uint8Array;
  readonly take: (count: number) => Uint8Array;
}

function bodyOf(entry: NaiveEntry, { pageBytes, word, like, take }: BodySources): Uint8Array {
  switch (entry.kind) {
    case Kind.Zero:
      return Uint8Array.of(0);
    case Kind.Raw:
      return take(pageBytes);
    case Kind.Blank:
      return new Uint8Array(pageBytes);
    case Kind.Fill:
      return Uint8Array.from({ length: pageBytes }, (_, index) => word[index % 8]!);
    case Kind.Same:
      return like;
    case Kind.Delta:
      return applyNaiveDelta(like, take(entry.length));
    default:
      return take(entry.length);
  }
}

/**
 * The checksum that a batch with these contents must have: of header, map, references, and of every
 * body that the map alone does not tell.
 */
export function naiveChecksum(
  batch: Uint8Array,
  references: Uint8Array,
  contents: readonly NaiveContent[],
): bigint {
  const head = batch.slice(0, 32);
  head[1] = 0;
  head.fill(0, 16, 20);
  let sum = native.hash64(head, 0n);
  sum = native.hash64(parseBatch(batch).map, sum);
  sum = native.hash64(references, sum);
  const hash = new Uint8Array(8);
  for (const { entry, bodies } of contents) {
    if (entry.kind === Kind.Zero || entry.kind === Kind.Blank) continue;
    for (const body of bodies) {
      new DataView(hash.buffer).setBigUint64(0, native.hash64(body, 0n), true);
      sum = native.hash64(hash, sum);
    }
  }
  return sum;
}

/** Gives a batch without a codec, or with LZ4, the checksum that it must have. */
export function sealNaively(
  batch: Uint8Array,
  { pageBytes, store = new Map() }: { pageBytes: number; store?: NaiveStore },
): void {
  const parsed = parseBatch(batch);
  const literals = naiveLiterals(parsed);
  const contents = naiveContents(parsed, literals, { pageBytes, store });
  const checksum = naiveChecksum(batch, naiveReferences(parsed, literals), contents);
  viewOf(batch).setBigUint64(CHECKSUM_AT, checksum, true);
}

/** Writes the batch as QEMU's records, and keeps in `store` what it says. */
export function naiveDecode(
  target: NaiveTarget,
  batch: Uint8Array,
  store: NaiveStore = new Map(),
): Uint8Array {
  const parsed = parseBatch(batch);
  const literals = naiveLiterals(parsed);
  const contents = naiveContents(parsed, literals, { pageBytes: 1 << target.pageBits, store });
  const references = naiveReferences(parsed, literals);
  if (naiveChecksum(batch, references, contents) !== parsed.checksum) {
    throw new Error('wrong checksum');
  }
  const parts: Uint8Array[] = [];
  let previousBlock = parsed.lastBlock;
  for (const { entry, bodies } of contents) {
    if (entry.kind === Kind.SectionBegin) parts.push(sectionMark(0x02, target));
    if (entry.kind === Kind.SectionEnd) {
      parts.push(be64(0x10n));
      if (target.hasFooter) parts.push(sectionMark(0x7e, target));
    }
    for (const [index, body] of bodies.entries()) {
      const isSaid = (entry.flags & NAMES_BLOCK) !== 0 && index === 0;
      const names = entry.block !== previousBlock || isSaid;
      const page = BigInt(entry.firstPage + index) << BigInt(target.pageBits);
      parts.push(be64(page | flagOf(entry.kind) | (names ? 0n : 0x20n)));
      if (names) parts.push(blockId(target.blocks[entry.block]!.name));
      parts.push(body);
      previousBlock = entry.block;
    }
  }
  const records = new Uint8Array(Buffer.concat(parts));
  for (const { keep, bodies } of contents) {
    if (keep < 0) continue;
    for (const [index, body] of bodies.entries()) store.set(keep + index, body.slice());
  }
  return records;
}

function flagOf(kind: number): bigint {
  if (kind === Kind.Zero) return 0x2n;
  if (kind === Kind.Xbzrle) return 0x40n;
  return kind === Kind.Compress ? 0x100n : 0x8n;
}

/** A block id as QEMU writes it: one byte of length, then the name. */
export function blockId(name: string): Uint8Array {
  const text = new TextEncoder().encode(name);
  return Uint8Array.of(text.length, ...text);
}

export function be64(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value);
  return bytes;
}

/** `u8 type, be32 section id`. */
export function sectionMark(type: number, { sectionId }: { sectionId: number }): Uint8Array {
  const bytes = Uint8Array.of(type, 0, 0, 0, 0);
  new DataView(bytes.buffer).setUint32(1, sectionId);
  return bytes;
}

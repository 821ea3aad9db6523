import { native } from '../../src/native.ts';
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
  readonly checksum: bigint;
  readonly entries: readonly NaiveEntry[];
  readonly map: Uint8Array;
  readonly wire: Uint8Array;
  readonly literalBytes: number;
}

/** Reads header and map. */
export function parseBatch(batch: Uint8Array): NaiveBatch {
  const view = new DataView(batch.buffer, batch.byteOffset, batch.length);
  const mapBytes = view.getUint32(8, true);
  const entries: NaiveEntry[] = [];
  for (let at = 32; at < 32 + mapBytes; at += 16) {
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
    checksum: view.getBigUint64(24, true),
    entries,
    map: batch.subarray(32, 32 + mapBytes),
    wire: batch.subarray(32 + mapBytes),
    literalBytes: view.getUint32(12, true),
  };
}

/** The checksum that a batch with these literals must have. */
export function naiveChecksum(batch: Uint8Array, literals: Uint8Array): bigint {
  const head = batch.slice(0, 24);
  head[1] = 0;
  head.fill(0, 16, 20);
  const seed = native.hash64(head, native.hash64(literals, 0n));
  return native.hash64(parseBatch(batch).map, seed);
}

/** Literals of a batch without a codec or with LZ4. */
export function naiveLiterals(parsed: NaiveBatch): Uint8Array {
  if (parsed.codec === 0) return parsed.wire;
  if (parsed.codec === 1) return naiveLz4(parsed.wire, parsed.literalBytes);
  throw new Error(`No naive decoder for codec ${parsed.codec}`);
}

/** Writes the batch as QEMU's records. */
export function naiveDecode(target: NaiveTarget, batch: Uint8Array): Uint8Array {
  const parsed = parseBatch(batch);
  const literals = naiveLiterals(parsed);
  if (naiveChecksum(batch, literals) !== parsed.checksum) throw new Error('wrong checksum');
  const parts: Uint8Array[] = [];
  let previousBlock = parsed.lastBlock;
  let used = 0;
  const take = (count: number): Uint8Array => {
    used += count;
    return literals.subarray(used - count, used);
  };
  for (const entry of parsed.entries) {
    if (entry.kind === 0x01) parts.push(sectionMark(0x02, target));
    if (entry.kind === 0x02) {
      parts.push(be64(0x10n));
      if (target.hasFooter) parts.push(sectionMark(0x7e, target));
    }
    for (let index = 0; entry.kind >= 0x10 && index < entry.count; index++) {
      const names = entry.block !== previousBlock || (entry.flags === 1 && index === 0);
      const page = BigInt(entry.firstPage + index) << BigInt(target.pageBits);
      parts.push(be64(page | flagOf(entry.kind) | (names ? 0n : 0x20n)));
      if (names) parts.push(blockId(target.blocks[entry.block]!.name));
      parts.push(bodyOf(entry, 1 << target.pageBits, take));
      previousBlock = entry.block;
    }
  }
  if (used !== literals.length) throw new Error('literals left over');
  return new Uint8Array(Buffer.concat(parts));
}

function bodyOf(
  entry: NaiveEntry,
  pageBytes: number,
  take: (count: number) => Uint8Array,
): Uint8Array {
  switch (entry.kind) {
    case 0x10:
      return Uint8Array.of(0);
    case 0x11:
      return take(pageBytes);
    case 0x12:
      return new Uint8Array(pageBytes);
    default:
      return take(entry.length);
  }
}

function flagOf(kind: number): bigint {
  const flags: Record<number, bigint> = { 16: 2n, 17: 8n, 18: 8n, 19: 0x40n, 20: 0x100n };
  return flags[kind]!;
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

import { StagingError } from '../errors.ts';
import {
  BLOCK_BYTES_MAX,
  BLOCK_NAME_BYTES_MAX,
  BLOCKS_MAX,
  PAGE_BITS_MAX,
  PAGE_BITS_MIN,
  type RamBlock,
  type RamLayout,
} from '../page/block.ts';
import { getFromAny, type Position, putEverywhere, type StagedWhere } from './everywhere.ts';
import { ExtentKind, manifestKey } from './extent.ts';
import { LAYOUT_BYTES_MAX, MANIFEST_PARTS_MAX, STREAM_PARTS_MAX } from './limits.ts';
import type { ManifestEntry } from './manifest.ts';
import { decodeEntries, EntryWriter } from './manifest-codec.ts';

/*
 * A manifest that lies at the intermediaries itself, for a guest that has no destination yet
 *
 *   part 0     RAM blocks, and how many parts follow
 *   part 1…    entries
 *
 * Each part is sealed, and lies at every intermediary: any of them may vanish. A part of another
 * attempt, or at another place, does not open; that none is left out, part 0 tells.
 */

/** A guest's pages, as they are staged. */
export interface StoredManifest {
  readonly layout: RamLayout;
  readonly entries: readonly ManifestEntry[];
  /** What its stream has beside pages; nothing if it is not QEMU's. */
  readonly stream: StoredStream;
}

/** Parts of a stream: those that belong before all pages, and those behind. */
export interface StoredStream {
  readonly partsBefore: number;
  readonly partsAfter: number;
}

const NO_STREAM: StoredStream = { partsBefore: 0, partsAfter: 0 };

/**
 * Puts a manifest at every intermediary. Once for an attempt: a second would be sealed in the same
 * places.
 *
 * @returns Its keys, to be renewed or removed like any other.
 * @throws {StagingError} ERR_STAGING_… If none of them takes it.
 * @throws {RangeError} If the guest has more blocks, or entries, than a manifest may have.
 */
export async function storeManifest(
  {
    layout,
    entries,
    stream = NO_STREAM,
  }: {
    readonly layout: RamLayout;
    readonly entries: Iterable<ManifestEntry>;
    readonly stream?: StoredStream;
  },
  where: StagedWhere,
): Promise<string[]> {
  const parts = partsOf(entries);
  if (parts.length >= MANIFEST_PARTS_MAX) {
    throw new RangeError(`Cannot store manifest: it has more than ${MANIFEST_PARTS_MAX} parts`);
  }
  const keys: string[] = [];
  for (const [part, plain] of [encodeLayout(layout, parts.length, stream), ...parts].entries()) {
    const position = positionOf(part, where);
    await putEverywhere(position, plain, where);
    keys.push(position.key);
  }
  return keys;
}

/**
 * Gets a manifest from whichever intermediary has it, part by part.
 *
 * @throws {StagingError} ERR_MANIFEST_MISSING If a part of it is nowhere as it was put there.
 * @throws {StagingError} ERR_MANIFEST_FORMAT If it is none.
 */
export async function loadManifest(where: StagedWhere): Promise<StoredManifest> {
  const { layout, parts, stream } = decodeLayout(await loadPart(0, where));
  const entries: ManifestEntry[] = [];
  for (let part = 1; part <= parts; part++) {
    for (const entry of decodeEntries(await loadPart(part, where))) entries.push(entry);
  }
  return { layout, entries, stream };
}

function loadPart(part: number, where: StagedWhere): Promise<Uint8Array> {
  return getFromAny(positionOf(part, where), 'manifest', where);
}

function positionOf(part: number, { seal }: StagedWhere): Position {
  return { kind: ExtentKind.Manifest, number: part, key: manifestKey(seal.scope, part) };
}

function partsOf(entries: Iterable<ManifestEntry>): Uint8Array[] {
  const parts: Uint8Array[] = [];
  const writer = new EntryWriter();
  for (const entry of entries) {
    if (writer.add(entry)) continue;
    parts.push(writer.take());
    writer.add(entry);
  }
  if (!writer.isEmpty) parts.push(writer.take());
  return parts;
}

/** JSON: there is one of it, and it is sealed. */
function encodeLayout(
  { pageBits, hasFooter, sectionId, blocks }: RamLayout,
  parts: number,
  stream: StoredStream,
): Uint8Array {
  const listed = blocks.map(({ name, usedBytes }) => [name, usedBytes]);
  const fields = { parts, pageBits, hasFooter, sectionId, blocks: listed, ...stream };
  const plain = new TextEncoder().encode(JSON.stringify(fields));
  if (plain.length > LAYOUT_BYTES_MAX) {
    throw new RangeError(`Cannot store manifest: its blocks take more than ${LAYOUT_BYTES_MAX}`);
  }
  return plain;
}

function decodeLayout(plain: Uint8Array): {
  layout: RamLayout;
  parts: number;
  stream: StoredStream;
} {
  let read: unknown;
  try {
    read = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(plain));
  } catch (cause) {
    throw wrong('it is no JSON', cause);
  }
  const fields = (read ?? {}) as Record<string, unknown>;
  const { parts, pageBits, hasFooter, sectionId, blocks, partsBefore, partsAfter } = fields;
  if (!isWithin(parts, 0, MANIFEST_PARTS_MAX)) throw wrong('the number of its parts');
  if (!isWithin(pageBits, PAGE_BITS_MIN, PAGE_BITS_MAX)) throw wrong('the size of its pages');
  if (!Array.isArray(blocks) || blocks.length > BLOCKS_MAX) throw wrong('its blocks');
  if (!isWithin(sectionId, 0, 2 ** 32 - 1)) throw wrong('the section of its pages');
  if (!isWithin(partsBefore, 0, STREAM_PARTS_MAX)) throw wrong('the parts of its stream');
  if (!isWithin(partsAfter, 0, STREAM_PARTS_MAX)) throw wrong('the parts of its stream');
  const layout = { pageBits, hasFooter: hasFooter === true, sectionId };
  return {
    layout: { ...layout, blocks: blocks.map((each) => blockOf(each, pageBits)) },
    parts,
    stream: { partsBefore, partsAfter },
  };
}

function blockOf(block: unknown, pageBits: number): RamBlock {
  const [name, usedBytes] = Array.isArray(block) ? (block as unknown[]) : [];
  const isName =
    typeof name === 'string' && name !== '' && Buffer.byteLength(name) <= BLOCK_NAME_BYTES_MAX;
  if (!isName || !isWithin(usedBytes, 1, BLOCK_BYTES_MAX) || usedBytes % 2 ** pageBits !== 0) {
    throw wrong('one of its blocks');
  }
  return { name, usedBytes };
}

function isWithin(value: unknown, least: number, most: number): value is number {
  return Number.isInteger(value) && (value as number) >= least && (value as number) <= most;
}

function wrong(why: string, cause?: unknown): StagingError {
  return new StagingError('ERR_MANIFEST_FORMAT', `Cannot read manifest: ${why}`, { cause });
}

import { StagingError } from '../errors.ts';
import type { PageRun } from '../page/bitmap.ts';
import {
  ENTRIES_BYTES_MAX,
  EXTENT_RUNS_MAX,
  EXTENT_SPAN_PAGES_MAX,
  EXTENTS_MAX,
} from './limits.ts';
import type { ExtentEntry, ManifestEntry } from './manifest.ts';

/*
 * Entries of the manifest as bytes: docs/protocol.md, section "Manifest"
 *
 * Numbers are unsigned, seven bits to a byte, lowest first, the eighth says that more follow.
 *
 *   extent   1 number intermediary bytes block stripe+1 runs (gap count)…
 *   parity   2 stripe intermediary+1 members (number)…
 *   void     3 extents (number)…
 */

/* Fixed by the protocol */
const Tag = { Extent: 1, Parity: 2, Void: 3 } as const;

/** Bytes of the longest number there may be: below 2^53. */
const NUMBER_BYTES_MAX = 8;

/** Most extents that one entry names. */
export const NAMED_EXTENTS_MAX = 4096;

/** Puts entries together, up to ENTRIES_BYTES_MAX; one alone always has room. */
export class EntryWriter {
  readonly #bytes: number[] = [];

  get isEmpty(): boolean {
    return this.#bytes.length === 0;
  }

  /** Adds an entry; false if it has no room beside those that are there. */
  add(entry: ManifestEntry): boolean {
    const before = this.#bytes.length;
    writeEntry(this.#bytes, entry);
    if (this.#bytes.length <= ENTRIES_BYTES_MAX) return true;
    this.#bytes.length = before;
    return false;
  }

  /** The entries so far; the writer is empty then. */
  take(): Uint8Array {
    const bytes = Uint8Array.from(this.#bytes);
    this.#bytes.length = 0;
    return bytes;
  }
}

/** An entry as bytes. */
export function encodeEntry(entry: ManifestEntry): Uint8Array {
  const bytes: number[] = [];
  writeEntry(bytes, entry);
  return Uint8Array.from(bytes);
}

function writeEntry(bytes: number[], entry: ManifestEntry): void {
  if (entry.kind === 'extent') {
    const { number, intermediary, bytes: length, block, stripe, runs } = entry;
    const fields = [Tag.Extent, number, intermediary, length, block];
    writeNumbers(bytes, [...fields, stripe === undefined ? 0 : stripe + 1, runs.length]);
    let at = 0;
    for (const { first, count } of runs) {
      writeNumbers(bytes, [first - at, count]);
      at = first + count;
    }
  } else if (entry.kind === 'parity') {
    const { stripe, intermediary, members } = entry;
    const place = intermediary === undefined ? 0 : intermediary + 1;
    writeNumbers(bytes, [Tag.Parity, stripe, place, members.length, ...members]);
  } else {
    writeNumbers(bytes, [Tag.Void, entry.extents.length, ...entry.extents]);
  }
}

function writeNumbers(bytes: number[], numbers: readonly number[]): void {
  for (let value of numbers) {
    while (value >= 0x80) {
      bytes.push((value % 0x80) | 0x80);
      value = Math.floor(value / 0x80);
    }
    bytes.push(value);
  }
}

/**
 * Reads entries. Whether pages and extents exist is for the manifest to say.
 *
 * @throws {StagingError} ERR_MANIFEST_FORMAT If they are no entries, or too long.
 */
export function decodeEntries(bytes: Uint8Array): ManifestEntry[] {
  if (bytes.length > ENTRIES_BYTES_MAX) throw wrong(`${bytes.length} bytes are too many`);
  const reader = new NumberReader(bytes);
  const entries: ManifestEntry[] = [];
  while (!reader.isAtEnd) entries.push(readEntry(reader));
  return entries;
}

function readEntry(reader: NumberReader): ManifestEntry {
  const tag = reader.next();
  if (tag === Tag.Extent) return readExtent(reader);
  if (tag === Tag.Parity) {
    const stripe = reader.next(EXTENTS_MAX);
    const place = reader.next();
    const intermediary = place === 0 ? undefined : place - 1;
    return { kind: 'parity', stripe, intermediary, members: readExtents(reader) };
  }
  if (tag === Tag.Void) return { kind: 'void', extents: readExtents(reader) };
  throw wrong(`an entry has kind ${tag}`);
}

function readExtent(reader: NumberReader): ExtentEntry {
  const number = reader.next(EXTENTS_MAX);
  const intermediary = reader.next();
  const bytes = reader.next();
  const block = reader.next();
  const stripe = reader.next(EXTENTS_MAX + 1);
  const runCount = reader.next(EXTENT_RUNS_MAX + 1);
  const runs: PageRun[] = [];
  let at = 0;
  for (let run = 0; run < runCount; run++) {
    const first = at + reader.next();
    const count = reader.next(EXTENT_SPAN_PAGES_MAX + 1);
    runs.push({ first, count });
    at = first + count;
  }
  const place = { number, intermediary, bytes, block, runs };
  return { kind: 'extent', ...place, stripe: stripe === 0 ? undefined : stripe - 1 };
}

function readExtents(reader: NumberReader): number[] {
  const count = reader.next(NAMED_EXTENTS_MAX + 1);
  const extents: number[] = [];
  for (let at = 0; at < count; at++) extents.push(reader.next(EXTENTS_MAX));
  return extents;
}

class NumberReader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.length;
  }

  /** The next number. @param end It must be below. */
  next(end: number = Number.MAX_SAFE_INTEGER): number {
    let value = 0;
    let unit = 1;
    for (let length = 1; ; length++) {
      const byte = this.#bytes[this.#at++];
      if (byte === undefined || length > NUMBER_BYTES_MAX) throw wrong('a number does not end');
      value += (byte & 0x7f) * unit;
      unit *= 0x80;
      if (byte < 0x80) break;
    }
    if (value >= end) throw wrong(`${value} must be below ${end}`);
    return value;
  }
}

function wrong(why: string): StagingError {
  return new StagingError('ERR_MANIFEST_FORMAT', `Cannot read manifest: ${why}`);
}

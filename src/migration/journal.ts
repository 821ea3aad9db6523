import { createHash, randomBytes } from 'node:crypto';
import { readBounded, writeDurably } from '../durable-file.ts';
import { codeOf, messageOf, PagelaneError } from '../errors.ts';
import type { JournalEntry } from './commit.ts';

/* Chosen by us */

/** Bytes of the longest journal. */
const JOURNAL_BYTES_MAX: number = 64 * 1024;

/** Characters of the longest name of a virtual machine. */
const NAME_CHARACTERS_MAX = 256;

/** Keeps how far the hand-over of one guest has come on this host, across crashes. */
export interface Journal {
  /**
   * @returns What was written last; undefined if nothing ever was.
   * @throws {PagelaneError} ERR_JOURNAL If that cannot be told.
   */
  read(): Promise<JournalEntry | undefined>;
  /**
   * Replaces what is there. It is safe from a crash on return; after a throw the journal holds the
   * old entry or the new one.
   *
   * @throws {PagelaneError} ERR_JOURNAL If that cannot be done.
   */
  write(entry: JournalEntry): Promise<void>;
}

/** A random name for a migration. */
export function newMigrationId(): string {
  return randomBytes(16).toString('hex');
}

/**
 * A journal in a file: one for each guest on a host, for migrations in both directions. It is
 * written under another name, synced, and renamed, so that it is always whole.
 *
 * Two processes must not write the same journal at a time.
 */
export class FileJournal implements Journal {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  async read(): Promise<JournalEntry | undefined> {
    let text: string;
    try {
      text = await readBounded(this.path, JOURNAL_BYTES_MAX);
    } catch (cause) {
      if (codeOf(cause) === 'ENOENT') return undefined;
      throw this.#error(`Cannot read journal "${this.path}": ${messageOf(cause)}`, cause);
    }
    return this.#parse(text);
  }

  async write(entry: JournalEntry): Promise<void> {
    const text = formatEntry(entry);
    try {
      if (Buffer.byteLength(text) > JOURNAL_BYTES_MAX) {
        throw new Error(`its context must leave it below ${JOURNAL_BYTES_MAX} bytes`);
      }
      await writeDurably(this.path, text);
    } catch (cause) {
      throw this.#error(`Cannot write journal "${this.path}": ${messageOf(cause)}`, cause);
    }
  }

  #parse(text: string): JournalEntry {
    try {
      return parseEntry(text);
    } catch (cause) {
      throw this.#error(
        `Cannot use journal "${this.path}": ${messageOf(cause)}; start no copy by it, ` +
          "look at the other side's journal instead",
        cause,
      );
    }
  }

  #error(message: string, cause: unknown): PagelaneError {
    return new PagelaneError('ERR_JOURNAL', message, { cause });
  }
}

/** The entry as a line of JSON, and a line with the sum of the first. */
function formatEntry(entry: JournalEntry): string {
  const line = JSON.stringify(entry);
  return `${line}\n${sumOfLine(line)}\n`;
}

function sumOfLine(line: string): string {
  return createHash('sha256').update(line).digest('hex');
}

const STATES: Readonly<Record<JournalEntry['side'], readonly string[]>> = {
  source: ['copying', 'committed', 'released', 'aborted'],
  destination: ['reserved', 'ready', 'activating', 'active', 'aborted'],
};

/** @throws {Error} If it is not what `formatEntry` writes. */
function parseEntry(text: string): JournalEntry {
  const lines = text.split('\n');
  const line = lines[0] ?? '';
  check(lines.length === 3 && lines[2] === '' && lines[1] === sumOfLine(line), 'it is damaged');
  const value = JSON.parse(line) as unknown;
  check(isObject(value), 'it holds no object');
  const { v, side, state, migration, attempt, name, isSettled, context } = value;
  check(v === 1, `its version is ${String(v)}, not 1`);
  check(side === 'source' || side === 'destination', '"side" is none');
  check(typeof state === 'string' && STATES[side].includes(state), '"state" is none');
  check(typeof migration === 'string' && /^[0-9a-f]{32}$/.test(migration), '"migration" is none');
  check(isAttempt(attempt), '"attempt" is out of range');
  check(typeof name === 'string' && name.length <= NAME_CHARACTERS_MAX, '"name" is wrong');
  check(typeof isSettled === 'boolean', '"isSettled" is wrong');
  check(isObject(context), '"context" is no object');
  const fields = { v, side, state, migration, attempt, name, isSettled, context };
  return fields as unknown as JournalEntry;
}

function isAttempt(value: unknown): boolean {
  return typeof value === 'number' && Number.isInteger(value) && value >= 1 && value < 2 ** 32;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function check(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(what);
}

/** A journal that a crash takes with it: for a guest that nothing else can start. */
export class VolatileJournal implements Journal {
  #entry: JournalEntry | undefined;

  async read(): Promise<JournalEntry | undefined> {
    return this.#entry;
  }

  async write(entry: JournalEntry): Promise<void> {
    this.#entry = entry;
  }
}

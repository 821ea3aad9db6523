import { StagingError } from '../errors.ts';
import { getFromAny, type Position, putEverywhere, type StagedWhere } from './everywhere.ts';
import { ExtentKind, streamKey } from './extent.ts';
import { EXTENT_PLAIN_BYTES_MAX, STREAM_PARTS_MAX } from './limits.ts';

/*
 * What belongs to a guest beside its pages, as its stream had it: sealed parts, numbered from 0,
 * each at every intermediary
 */

/** Puts bytes at every intermediary, in parts. */
export class StoredStreamWriter {
  readonly #where: StagedWhere;
  readonly #part = new Uint8Array(EXTENT_PLAIN_BYTES_MAX);
  #length = 0;
  #parts = 0;

  constructor(where: StagedWhere) {
    this.#where = where;
  }

  /** Parts so far. */
  get parts(): number {
    return this.#parts;
  }

  /**
   * Adds bytes, and waits until what is full is put.
   *
   * @throws {StagingError} ERR_STAGING_… If no intermediary takes it, or there is too much.
   */
  async add(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      const count = Math.min(bytes.length - at, this.#part.length - this.#length);
      this.#part.set(bytes.subarray(at, at + count), this.#length);
      this.#length += count;
      at += count;
      if (this.#length === this.#part.length) await this.flush();
    }
  }

  /** Puts what is begun: the next bytes begin another part. */
  async flush(): Promise<void> {
    if (this.#length === 0) return;
    if (this.#parts >= STREAM_PARTS_MAX) {
      const text = `Cannot stage: the stream beside the pages has more than ${STREAM_PARTS_MAX} parts`;
      throw new StagingError('ERR_STAGING_EXHAUSTED', text);
    }
    const plain = this.#part.subarray(0, this.#length);
    this.#length = 0;
    await putEverywhere(positionOf(this.#parts++, this.#where), plain, this.#where);
  }
}

/**
 * Gets a part from whichever intermediary has it.
 *
 * @throws {StagingError} ERR_MANIFEST_MISSING If it is nowhere as it was put there.
 */
export function loadStreamPart(part: number, where: StagedWhere): Promise<Uint8Array> {
  return getFromAny(positionOf(part, where), 'stream', where);
}

function positionOf(part: number, { seal }: StagedWhere): Position {
  return { kind: ExtentKind.Stream, number: part, key: streamKey(seal.scope, part) };
}

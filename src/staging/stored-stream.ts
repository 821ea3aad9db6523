import { codeOf, StagingError } from '../errors.ts';
import { ExtentKind, type ExtentSeal, streamKey } from './extent.ts';
import type { Intermediary } from './intermediary.ts';
import { EXTENT_PLAIN_BYTES_MAX, STREAM_PARTS_MAX } from './limits.ts';
import { putEverywhere } from './stored-manifest.ts';

/*
 * What belongs to a guest beside its pages, as its stream had it: sealed parts, numbered from 0,
 * each at every intermediary, so that any of them may vanish
 */

interface Where {
  readonly seal: ExtentSeal;
  readonly intermediaries: readonly Intermediary[];
}

/** Puts bytes at every intermediary, in parts. */
export class StreamWriterAtIntermediaries {
  readonly #where: Where;
  readonly #part = new Uint8Array(EXTENT_PLAIN_BYTES_MAX);
  #length = 0;
  #parts = 0;

  constructor(where: Where) {
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
    const { seal, intermediaries } = this.#where;
    const part = this.#parts++;
    const value = seal.seal(ExtentKind.Stream, part, this.#part.subarray(0, this.#length));
    this.#length = 0;
    const key = streamKey(seal.scope, part);
    await putEverywhere(intermediaries, key, value);
  }
}

/**
 * Gets a part from whichever intermediary has it.
 *
 * @throws {StagingError} ERR_MANIFEST_MISSING If it is nowhere as it was put there.
 */
export async function loadStreamPart(
  part: number,
  { seal, intermediaries }: Where,
): Promise<Uint8Array> {
  const codes: string[] = [];
  for (const intermediary of intermediaries) {
    try {
      const value = await intermediary.get(streamKey(seal.scope, part), { isUrgent: true });
      if (value !== undefined) return seal.open(ExtentKind.Stream, part, value);
    } catch (cause) {
      codes.push(codeOf(cause));
    }
  }
  const why = codes.join(', ') || 'nobody has it';
  const text = `Cannot load stream: part ${part} is at no intermediary as it was put there (${why})`;
  throw new StagingError('ERR_MANIFEST_MISSING', text);
}

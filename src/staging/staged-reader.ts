import type { Clock } from '../clock.ts';
import { codeOf, StagingError } from '../errors.ts';
import type { Intermediary } from './intermediary.ts';
import { RETURN_LOOK_MS } from './limits.ts';

/** How a value is read. */
export interface ReadWay {
  /** How long it is at most. */
  readonly bytes?: number;
  /** Whether it goes ahead of everything else. */
  readonly isUrgent: boolean;
}

/**
 * Reads values from intermediaries. One that does not answer is doubted, and not asked any more,
 * until it answers again: whoever waited for it once waits for it no second time.
 */
export class StagedReader {
  readonly #intermediaries: readonly (Intermediary | undefined)[];
  readonly #patienceMs: number;
  readonly #clock: Clock;
  readonly #doubted = new Map<number, Promise<boolean>>();
  #isClosed = false;

  constructor(
    intermediaries: readonly (Intermediary | undefined)[],
    { patienceMs, clock }: { readonly patienceMs: number; readonly clock: Clock },
  ) {
    this.#intermediaries = intermediaries;
    this.#patienceMs = patienceMs;
    this.#clock = clock;
  }

  /**
   * Reads a value.
   *
   * @throws {StagingError} ERR_EXTENT_MISSING If the intermediary does not have it,
   *   ERR_EXTENT_LENGTH If it is too long, ERR_STAGING_… If it does not answer as it should.
   */
  async read(index: number, key: string, way: ReadWay): Promise<Uint8Array> {
    const intermediary = this.#intermediaries[index];
    if (intermediary === undefined || this.#doubted.has(index)) {
      const name = intermediary?.name ?? `number ${index}`;
      throw new StagingError('ERR_STAGING_LOST', `Cannot use intermediary ${name}: out of reach`);
    }
    let value: Uint8Array | undefined;
    try {
      value = await intermediary.get(key, way);
    } catch (cause) {
      const isOther = codeOf(cause).startsWith('ERR_EXTENT_') || isAboutValue(cause);
      if (!isOther && !this.#doubted.has(index)) {
        this.#doubted.set(index, this.#await(intermediary, index));
      }
      throw cause;
    }
    if (value !== undefined) return value;
    const text = `Cannot gather ${key}: ${intermediary.name} does not have it any more`;
    throw new StagingError('ERR_EXTENT_MISSING', text, { intermediary: intermediary.name });
  }

  isDoubted(index: number): boolean {
    return this.#doubted.has(index);
  }

  /** Waits until an intermediary that is doubted answers again; false if it does not in time. */
  async answers(index: number): Promise<boolean> {
    return (await this.#doubted.get(index)) ?? this.#intermediaries[index] !== undefined;
  }

  /** Waits for nobody any more. */
  close(): void {
    this.#isClosed = true;
  }

  async #await(intermediary: Intermediary, index: number): Promise<boolean> {
    const endMs = this.#clock.now() + this.#patienceMs;
    while (!this.#isClosed && this.#clock.now() < endMs) {
      await new Promise<void>((done) => {
        this.#clock.after(RETURN_LOOK_MS, done, { keepsAlive: true });
      });
      try {
        await intermediary.facts();
        this.#doubted.delete(index);
        return true;
      } catch (cause) {
        if (codeOf(cause) === 'ERR_STAGING_AUTH') break;
      }
    }
    return false;
  }
}

/** Whether Redis answered, but refused: the key is no string, for example. */
function isAboutValue(cause: unknown): boolean {
  return codeOf(cause) === 'ERR_STAGING_REPLY';
}

import { createCipheriv, createDecipheriv } from 'node:crypto';
import { StagingError } from '../errors.ts';
import {
  ATTEMPT_BYTES,
  BATCH_LENGTH_BYTES,
  EXTENT_BYTES_MAX,
  EXTENT_KEY_BYTES,
  EXTENT_PLAIN_BYTES_MAX,
  EXTENTS_MAX,
  SEAL_BYTES,
} from './limits.ts';

/*
 * From batches to what an intermediary holds, and back
 *
 *   1. join     whole batches, each behind its length        ExtentBuilder
 *   2. seal     AES-256-GCM: contents, then the seal         ExtentSeal.seal
 *   3. open     the same, and nothing but what was sealed    ExtentSeal.open
 *   4. cut      into batches again                           batchesOf
 */

/** What a sealed value is. Values are in the seal: never renumber. */
export const ExtentKind = {
  /** Batches of guest pages. */
  Pages: 1,
  /** Part of a manifest. */
  Manifest: 2,
  /** Part of what the guest's stream has beside pages. */
  Stream: 3,
} as const;
export type ExtentKind = (typeof ExtentKind)[keyof typeof ExtentKind];

/** Whose extents, and of which attempt to move it. */
export interface StagingScope {
  /** 1 to 64 of `A-Z a-z 0-9 _ -`. Redis and its files see it: best not the guest's own name. */
  readonly vm: string;
  /** 32 hexadecimal digits, new for every attempt. */
  readonly attempt: string;
}

/** The sealing of one attempt's extents. Its key must never be used for another attempt. */
export class ExtentSeal {
  readonly scope: StagingScope;
  readonly #key: Uint8Array;
  readonly #bound: Uint8Array;

  /**
   * @param key 32 random bytes of this attempt, which no intermediary ever sees.
   * @throws {RangeError} If the key has another length, or the scope's names are no such names.
   */
  constructor(key: Uint8Array, scope: StagingScope) {
    if (key.length !== EXTENT_KEY_BYTES) {
      throw new RangeError(
        `Cannot seal extents: the key must have ${EXTENT_KEY_BYTES} bytes: has ${key.length}`,
      );
    }
    checkScope(scope);
    this.scope = scope;
    this.#key = key.slice();
    this.#bound = new TextEncoder().encode(`pagelane extent 1\0${scope.vm}\0${scope.attempt}\0`);
  }

  /**
   * Seals what lies at one position. A position must be sealed once only: its number makes the
   * nonce.
   *
   * @param number Position among the values of its kind, from 0.
   * @returns Contents and seal: SEAL_BYTES more than `plain`.
   * @throws {RangeError} If there is nothing to seal, or too much.
   */
  seal(kind: ExtentKind, number: number, plain: Uint8Array): Uint8Array {
    if (plain.length === 0 || plain.length > EXTENT_PLAIN_BYTES_MAX) {
      throw new RangeError(
        `Cannot seal extent: contents must be 1 to ${EXTENT_PLAIN_BYTES_MAX} bytes: ` +
          `length is ${plain.length}`,
      );
    }
    const position = positionOf(kind, number);
    const cipher = createCipheriv('aes-256-gcm', this.#key, position);
    cipher.setAAD(this.#bound);
    return Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
  }

  /**
   * Opens what an intermediary gave for a position.
   *
   * @throws {StagingError} ERR_EXTENT_LENGTH If it cannot be an extent.
   * @throws {StagingError} ERR_EXTENT_SEAL If it is not what was sealed for this guest, attempt and
   *   position.
   */
  open(kind: ExtentKind, number: number, value: Uint8Array): Uint8Array {
    if (value.length <= SEAL_BYTES || value.length > EXTENT_BYTES_MAX) {
      throw new StagingError(
        'ERR_EXTENT_LENGTH',
        `Cannot open extent ${number}: it must have ${SEAL_BYTES + 1} to ${EXTENT_BYTES_MAX} ` +
          `bytes: has ${value.length}`,
      );
    }
    const end = value.length - SEAL_BYTES;
    const options = { authTagLength: SEAL_BYTES };
    const position = positionOf(kind, number);
    const decipher = createDecipheriv('aes-256-gcm', this.#key, position, options);
    decipher.setAAD(this.#bound);
    decipher.setAuthTag(value.subarray(end));
    const plain = decipher.update(value.subarray(0, end));
    try {
      decipher.final();
    } catch (cause) {
      throw new StagingError(
        'ERR_EXTENT_SEAL',
        `Cannot open extent ${number}: it is not what was sealed for this guest, attempt and place`,
        { cause },
      );
    }
    return plain;
  }
}

/**
 * Checks the names that keys are made of.
 *
 * @throws {RangeError} If they are none.
 */
export function checkScope({ vm, attempt }: StagingScope): void {
  if (!/^[\w-]{1,64}$/.test(vm)) {
    throw new RangeError(`Cannot stage "${vm}": a name has 1 to 64 letters, digits, "_" or "-"`);
  }
  if (!/^[0-9a-f]+$/.test(attempt) || attempt.length !== 2 * ATTEMPT_BYTES) {
    throw new RangeError(
      `Cannot stage attempt "${attempt}": expected ${2 * ATTEMPT_BYTES} hexadecimal digits`,
    );
  }
}

/** Prefix of all keys of an attempt. */
export function keyPrefix({ vm, attempt }: StagingScope): string {
  return `pl:${vm}:${attempt}:`;
}

/** Key of an extent of pages. */
export function extentKey(scope: StagingScope, number: number): string {
  return `${keyPrefix(scope)}e${number}`;
}

/** Key of a stripe's parity. */
export function parityKey(scope: StagingScope, stripe: number): string {
  return `${keyPrefix(scope)}p${stripe}`;
}

/** Key of a part of the manifest. */
export function manifestKey(scope: StagingScope, part: number): string {
  return `${keyPrefix(scope)}m${part}`;
}

/** Key of a part of the stream. */
export function streamKey(scope: StagingScope, part: number): string {
  return `${keyPrefix(scope)}s${part}`;
}

/** The nonce: no two values of an attempt have the same kind and number. */
function positionOf(kind: ExtentKind, number: number): Uint8Array {
  if (!Number.isInteger(number) || number < 0 || number >= EXTENTS_MAX) {
    throw new RangeError(`Cannot seal extent: number must be below ${EXTENTS_MAX}: is ${number}`);
  }
  const position = new Uint8Array(12);
  const view = new DataView(position.buffer);
  view.setUint32(0, kind, true);
  view.setUint32(4, number, true);
  return position;
}

/** Joins batches to an extent's contents. */
export class ExtentBuilder {
  readonly #bytes = new Uint8Array(EXTENT_PLAIN_BYTES_MAX);
  readonly #view = new DataView(this.#bytes.buffer);
  #length = 0;

  get isEmpty(): boolean {
    return this.#length === 0;
  }

  /** Whether a batch of `bytes` bytes has room. */
  fits(bytes: number): boolean {
    return this.#length + BATCH_LENGTH_BYTES + bytes <= EXTENT_PLAIN_BYTES_MAX;
  }

  /**
   * Copies a batch that fits.
   *
   * @throws {RangeError} If it does not, or is empty.
   */
  add(batch: Uint8Array): void {
    if (batch.length === 0 || !this.fits(batch.length)) {
      throw new RangeError(`Cannot add batch to extent: no room for its ${batch.length} bytes`);
    }
    this.#view.setUint16(this.#length, batch.length, true);
    this.#bytes.set(batch, this.#length + BATCH_LENGTH_BYTES);
    this.#length += BATCH_LENGTH_BYTES + batch.length;
  }

  /** The contents, right until the next `add`; the builder is empty then. */
  take(): Uint8Array {
    const contents = this.#bytes.subarray(0, this.#length);
    this.#length = 0;
    return contents;
  }
}

/**
 * The batches of an extent's contents, as parts of them.
 *
 * @throws {StagingError} ERR_EXTENT_FORMAT If they are not whole batches.
 */
export function batchesOf(plain: Uint8Array): Uint8Array[] {
  const view = new DataView(plain.buffer, plain.byteOffset, plain.byteLength);
  const batches: Uint8Array[] = [];
  let at = 0;
  while (at < plain.length) {
    const begin = at + BATCH_LENGTH_BYTES;
    const bytes = begin <= plain.length ? view.getUint16(at, true) : 0;
    at = begin + bytes;
    if (bytes === 0 || at > plain.length) {
      throw new StagingError(
        'ERR_EXTENT_FORMAT',
        `Cannot read extent: a batch of ${bytes} bytes does not end within ${plain.length} bytes`,
      );
    }
    batches.push(plain.subarray(begin, at));
  }
  return batches;
}

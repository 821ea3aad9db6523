import { codeOf, StagingError } from '../errors.ts';
import type { ExtentKind, ExtentSeal } from './extent.ts';
import type { Intermediary } from './intermediary.ts';

/*
 * Sealed values that lie at every intermediary, so that any of them may vanish
 */

/** Where the values of one attempt are, and what seals them. */
export interface StagedWhere {
  readonly seal: ExtentSeal;
  readonly intermediaries: readonly Intermediary[];
}

/** A position among the values of its kind, and its key. */
export interface Position {
  readonly kind: ExtentKind;
  readonly number: number;
  readonly key: string;
}

/**
 * Seals a value and puts it at every intermediary that takes it. A position must be sealed once
 * only.
 *
 * @throws {StagingError} ERR_STAGING_… If none takes it.
 */
export async function putEverywhere(
  { kind, number, key }: Position,
  plain: Uint8Array,
  { seal, intermediaries }: StagedWhere,
): Promise<void> {
  const value = seal.seal(kind, number, plain);
  const puts = await Promise.allSettled(intermediaries.map((each) => each.put(key, value)));
  const failed = puts.filter((put) => put.status === 'rejected');
  if (failed.length === puts.length) throw failed[0]!.reason;
}

/**
 * Gets a value from whichever intermediary has it as it was put there.
 *
 * @param what It is, for the error.
 * @throws {StagingError} ERR_MANIFEST_MISSING If none has.
 */
export async function getFromAny(
  { kind, number, key }: Position,
  what: string,
  { seal, intermediaries }: StagedWhere,
): Promise<Uint8Array> {
  const failures: unknown[] = [];
  for (const intermediary of intermediaries) {
    try {
      const value = await intermediary.get(key, { isUrgent: true });
      if (value !== undefined) return seal.open(kind, number, value);
    } catch (cause) {
      failures.push(cause);
    }
  }
  const why = failures.map(codeOf).join(', ') || 'nobody has it';
  const text = `Cannot load ${what}: part ${number} is at no intermediary as it was put there (${why})`;
  throw new StagingError('ERR_MANIFEST_MISSING', text, { cause: failures[0] });
}

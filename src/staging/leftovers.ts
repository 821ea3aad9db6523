import type { Intermediary } from './intermediary.ts';

/** What lies at intermediaries of one attempt. */
export interface StagedAttempt {
  /** 32 hexadecimal digits. */
  readonly name: string;
  /** At all intermediaries together. */
  readonly keys: number;
}

const KEY = /^pl:[\w-]{1,64}:([0-9a-f]{32}):/;

/** All attempts that have keys at one of the intermediaries, whoever made them. */
export async function stagedAttempts(
  intermediaries: readonly Intermediary[],
): Promise<StagedAttempt[]> {
  const counts = new Map<string, number>();
  for (const intermediary of intermediaries) {
    for await (const keys of intermediary.list('pl:')) {
      for (const key of keys) {
        const name = KEY.exec(key)?.[1];
        if (name !== undefined) counts.set(name, (counts.get(name) ?? 0) + 1);
      }
    }
  }
  return [...counts].map(([name, keys]) => ({ name, keys }));
}

/**
 * Removes all keys of one attempt: its guest can never be gathered again.
 *
 * @returns How many there were.
 */
export async function removeStaged(
  intermediaries: readonly Intermediary[],
  name: string,
): Promise<number> {
  let removed = 0;
  for (const intermediary of intermediaries) {
    for await (const keys of intermediary.list('pl:')) {
      removed += await intermediary.remove(keys.filter((key) => KEY.exec(key)?.[1] === name));
    }
  }
  return removed;
}

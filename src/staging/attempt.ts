/** What came of one way to get an extent. */
export interface Attempt {
  readonly plain?: Uint8Array;
  /** Whether it was there, or should have been, and is wrong. */
  readonly isBad: boolean;
  readonly cause?: unknown;
  /** An answer that was not waited for, and may still come. */
  readonly late?: Promise<Attempt>;
}

/** The first attempt that gives an extent; else the first of all, when none does. */
export async function firstPlain(attempts: readonly Promise<Attempt>[]): Promise<Attempt> {
  const plains = attempts.map(async (attempt) => {
    const found = await attempt;
    if (found.plain === undefined) throw found.cause;
    return found;
  });
  try {
    return await Promise.any(plains);
  } catch {
    return (await Promise.all(attempts))[0]!;
  }
}

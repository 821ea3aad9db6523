import { getSystemErrorName } from 'node:util';
import { DirtyLogError, MemoryError, type PagelaneError } from '../errors.ts';

/** Classes of what the addon throws, by the beginning of its code. */
const CLASSES: Readonly<
  Record<string, new (code: string, message: string, options: ErrorOptions) => PagelaneError>
> = { ERR_MEMORY_: MemoryError, ERR_DIRTY_LOG_: DirtyLogError };

/** What the addon threw, as the error of ours that its code says, with the system's reason. */
export function asTyped(cause: unknown): unknown {
  if (!(cause instanceof Error) || !('code' in cause)) return cause;
  const code = String(cause.code);
  const found = Object.entries(CLASSES).find(([prefix]) => code.startsWith(prefix));
  if (found === undefined || cause instanceof found[1]) return cause;
  const reason = 'errno' in cause ? ` (${getSystemErrorName(-Number(cause.errno))})` : '';
  return new found[1](code, `${cause.message}${reason}`, { cause });
}

/** What `work` returns; what the addon throws is typed. */
export function typed<Result>(work: () => Result): Result {
  try {
    return work();
  } catch (cause) {
    throw asTyped(cause);
  }
}

import { messageOf, StagingError } from '../errors.ts';

/** What the first word of a refusal of Redis's means here. */
const CODES: ReadonlyArray<readonly [RegExp, string]> = [
  [/^(WRONGPASS|NOAUTH|NOPERM|ERR AUTH|ERR invalid password)/, 'ERR_STAGING_AUTH'],
  [/^READONLY/, 'ERR_STAGING_READ_ONLY'],
  [/^OOM/, 'ERR_STAGING_FULL'],
  [/^(LOADING|MISCONF|NOREPLICAS|MASTERDOWN|CLUSTERDOWN|BUSY|TRYAGAIN)/, 'ERR_STAGING_BUSY'],
  [/timed out|ETIMEDOUT/, 'ERR_STAGING_TIMEOUT'],
  [/Connection is closed|Stream isn't writeable|retries per request/, 'ERR_STAGING_LOST'],
  [/\b(ECONNREFUSED|ECONNRESET|EPIPE|ENOENT|EACCES|ENOTFOUND|EHOSTUNREACH)\b/, 'ERR_STAGING_LOST'],
];

/** What ioredis or Redis says, as an error with a code. */
export function stagingErrorOf(cause: unknown, intermediary: string): StagingError {
  if (cause instanceof StagingError) return cause;
  const message = messageOf(cause);
  const code = CODES.find(([pattern]) => pattern.test(message))?.[1] ?? 'ERR_STAGING_REPLY';
  return new StagingError(code, `Cannot use intermediary ${intermediary}: ${message}`, {
    intermediary,
    cause,
  });
}

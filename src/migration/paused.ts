import { messageOf, PagelaneError } from '../errors.ts';

/** The guest runs at the destination, and waits there for what has not come. */
export function pausedError(cause: unknown): PagelaneError {
  const text = `Post-copy is paused: ${typeof cause === 'string' ? cause : messageOf(cause)}`;
  const options = typeof cause === 'string' ? {} : { cause };
  return new PagelaneError('ERR_POSTCOPY_PAUSED', text, options);
}

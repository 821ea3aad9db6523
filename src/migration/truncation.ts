import { asPagelaneError, PagelaneError } from '../errors.ts';
import type { StreamReader } from '../stream/reader.ts';
import type { ReturnPathWatcher } from '../stream/return-path.ts';
import type { TailWatcher } from '../stream/tail.ts';
import { pausedError } from './paused.ts';

const CLOSED = 'Source QEMU closed the channel';

/** Why a stream cannot be whole, now that QEMU has closed it; undefined if it may be. */
export function findTruncation({
  reader,
  returnPath,
  tail,
  isPostcopy,
}: {
  readonly reader: StreamReader;
  readonly returnPath: ReturnPathWatcher;
  readonly tail: TailWatcher;
  readonly isPostcopy: boolean;
}): PagelaneError | undefined {
  const { shutStatus, isLost } = returnPath;
  if (isPostcopy && shutStatus !== 0) {
    // What cannot be followed is left to the destination: it will say.
    return isLost ? undefined : pausedError(`${CLOSED} before the destination confirmed`);
  }
  try {
    reader.end();
  } catch (error) {
    return asPagelaneError(error);
  }
  if (shutStatus === 0) return undefined;
  if (reader.hasReturnPath) {
    const isOpen = shutStatus === undefined;
    const after = `after the destination failed (${shutStatus})`;
    return truncatedError(isOpen ? 'before the destination confirmed' : after);
  }
  if (tail.endsWhole()) return undefined;
  return truncatedError(
    'in the middle of its device state (a stream without description needs return-path on)',
  );
}

function truncatedError(when: string): PagelaneError {
  return new PagelaneError('ERR_STREAM_TRUNCATED', `${CLOSED} ${when}`);
}

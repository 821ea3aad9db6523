import { StreamError } from '../errors.ts';
import { STREAM_VERSION } from './format.ts';

/* Why bytes are no migration stream, or none that can be carried. */

export function notAStream(bytes: Uint8Array): StreamError {
  const seen = Buffer.from(bytes.subarray(0, 4)).toString('hex');
  return new StreamError(
    'ERR_STREAM_MAGIC',
    `Not a QEMU migration stream: it begins with ${seen}, expected 5145564d ("QEVM"); ` +
      'multifd and TLS must be off on this channel',
    0,
  );
}

export function otherVersion(version: number): StreamError {
  return new StreamError(
    'ERR_STREAM_VERSION',
    `Cannot read migration stream: its version is ${version}, expected ${STREAM_VERSION}`,
    4,
  );
}

/** The pages of such a stream are on channels that are not carried: nothing would be whole. */
export function pagesElsewhere(offsetBytes: number): StreamError {
  return new StreamError(
    'ERR_STREAM_MULTIFD',
    'Cannot carry migration stream: multifd is on, and sends pages over channels of its own',
    offsetBytes,
  );
}

export function badPage(offsetBytes: number): StreamError {
  return new StreamError(
    'ERR_STREAM_PAGE',
    'Cannot read RAM record: it names a block or page that the stream did not announce',
    offsetBytes,
  );
}

export function noFooter(offsetBytes: number): StreamError {
  return new StreamError(
    'ERR_STREAM_FOOTER',
    'Cannot read RAM section: its footer is missing',
    offsetBytes,
  );
}

export function truncated(state: string, offsetBytes: number): StreamError {
  return new StreamError(
    'ERR_STREAM_TRUNCATED',
    `Migration stream ended early, in its ${state}, after ${offsetBytes} bytes`,
    offsetBytes,
  );
}

/** What comes on the second channel of postcopy-preempt. */
export function noPreempt(why: string, offsetBytes: number): StreamError {
  const text = `Cannot read preempt channel: ${why}`;
  return new StreamError('ERR_STREAM_POSTCOPY', text, offsetBytes);
}

/** Only of a reader that reads post-copy. */
export function noPostcopy(why: string, offsetBytes: number): StreamError {
  return new StreamError('ERR_STREAM_POSTCOPY', `Cannot read post-copy: ${why}`, offsetBytes);
}

import type { Clock } from '../clock.ts';
import { systemClock } from '../clock.ts';
import { WINDOW_BYTES_MAX, WINDOW_BYTES_MIN } from '../frame/limits.ts';
import { HANDSHAKE_TIMEOUT_MS } from '../path/limits.ts';
import { checkSecurity, type Security } from '../path/secure.ts';
import { RESUME_TIMEOUT_MS, WINDOW_BYTES } from './limits.ts';

/** What both ends of a session may choose. */
export interface SessionOptions {
  /** How paths are protected; both ends must agree. */
  readonly security: Security;
  /** Payload bytes that we accept ahead, per lane. @default 64 MiB */
  readonly windowBytes?: number;
  /**
   * How long a session that has lost its last path waits for one to come back, milliseconds; 0 ends
   * it at once. @default 60000
   */
  readonly resumeTimeoutMs?: number;
  /** Aborts the opening: of a session, or of the listener's port. */
  readonly signal?: AbortSignal;
  /** @default the machine's monotonic clock */
  readonly clock?: Clock;
  /** How long a path may take from the first packet to its welcome, milliseconds. @default 10000 */
  readonly handshakeTimeoutMs?: number;
}

/** The same with nothing left out. */
export interface CheckedOptions {
  readonly security: Security;
  readonly windowBytes: number;
  readonly resumeTimeoutMs: number;
  readonly clock: Clock;
  readonly handshakeTimeoutMs: number;
}

/**
 * Fills in what was left out.
 *
 * @throws {RangeError} If the window, the time-out or the key is not allowed.
 */
export function checkOptions(options: SessionOptions): CheckedOptions {
  const { windowBytes = WINDOW_BYTES, handshakeTimeoutMs = HANDSHAKE_TIMEOUT_MS } = options;
  const isWindow = Number.isInteger(windowBytes);
  if (!isWindow || windowBytes < WINDOW_BYTES_MIN || windowBytes > WINDOW_BYTES_MAX) {
    throw new RangeError(
      `A window has ${WINDOW_BYTES_MIN} to ${WINDOW_BYTES_MAX} bytes, not ${windowBytes}`,
    );
  }
  if (!(handshakeTimeoutMs > 0)) {
    throw new RangeError(`A handshake takes more than ${handshakeTimeoutMs} ms`);
  }
  const { resumeTimeoutMs = RESUME_TIMEOUT_MS } = options;
  if (!(resumeTimeoutMs >= 0)) {
    throw new RangeError(`A session cannot wait ${resumeTimeoutMs} ms for a path`);
  }
  checkSecurity(options.security);
  const { security, clock = systemClock } = options;
  return { security, windowBytes, resumeTimeoutMs, clock, handshakeTimeoutMs };
}

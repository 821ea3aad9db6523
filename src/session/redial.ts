import { REDIAL_MS_MAX, REDIAL_MS_MIN } from './limits.ts';

/**
 * Tells how long to wait before a path is dialled again.
 *
 * Doubles with every failure up to `REDIAL_MS_MAX`; half of it is left to chance, so that many
 * sessions that lost the same link do not come back at the same instant.
 *
 * @param failures Attempts that failed in a row, or paths that were lost at once.
 * @param random In [0, 1).
 * @returns Milliseconds.
 */
export function redialDelayMs(failures: number, random: number): number {
  const longestMs = Math.min(REDIAL_MS_MIN * 2 ** Math.min(failures, 30), REDIAL_MS_MAX);
  return longestMs * (0.5 + random / 2);
}

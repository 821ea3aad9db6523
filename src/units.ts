/** Bytes of one kibibyte. */
export const KiB: number = 1024;

/** Bytes of one mebibyte. */
export const MiB: number = 1024 * KiB;

/** Bytes of one gibibyte. */
export const GiB: number = 1024 * MiB;

const BINARY_NAMES = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;

/**
 * Writes a byte count for people, in binary units with at most one decimal: `6.1 GiB`.
 *
 * @param bytes Bytes, >= 0.
 */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < BINARY_NAMES.length - 1) {
    value /= 1024;
    unit++;
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1;
  return `${value.toFixed(digits)} ${BINARY_NAMES[unit]!}`;
}

/**
 * Writes a duration for people: `340 ms`, `4.2 s`, `3 min 5 s`.
 *
 * @param durationMs Milliseconds, >= 0.
 */
export function formatDuration(durationMs: number): string {
  if (durationMs < 1000) return `${Math.round(durationMs)} ms`;
  const seconds = durationMs / 1000;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

const DURATION_UNITS_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  min: 60_000,
  h: 3_600_000,
};

/**
 * Reads a duration as it is written on a command line: `300ms`, `5s`, `2m`, `1h`.
 *
 * @returns Milliseconds.
 * @throws {SyntaxError} If the text is not a number with one of these units.
 */
export function parseDuration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|min|h)$/.exec(text);
  if (match === null) {
    throw new SyntaxError(`Cannot read duration "${text}": expected for example 300ms, 5s, 2m`);
  }
  return Number(match[1]) * DURATION_UNITS_MS[match[2]!]!;
}

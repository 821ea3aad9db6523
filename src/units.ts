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

const SIZE_UNITS_BYTES: Readonly<Record<string, number>> = {
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB,
  MiB,
  GiB,
  TiB: 1024 * GiB,
};

/**
 * Reads a number of bytes as it is written on a command line: `512MiB`, `2GiB`, `4GB`.
 *
 * @returns Whole bytes, >= 1.
 * @throws {SyntaxError} If the text is not a number with one of these units, is less than a byte,
 *   or more than a number counts.
 */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(KB|MB|GB|TB|KiB|MiB|GiB|TiB)$/.exec(text);
  const bytes = match && Math.round(Number(match[1]) * SIZE_UNITS_BYTES[match[2]!]!);
  if (bytes === null || bytes < 1 || !Number.isSafeInteger(bytes)) {
    throw new SyntaxError(`Cannot read size "${text}": expected for example 512MiB, 2GiB, 4GB`);
  }
  return bytes;
}

const RATE_UNITS_BYTES: Readonly<Record<string, number>> = {
  kbit: 1e3 / 8,
  mbit: 1e6 / 8,
  gbit: 1e9 / 8,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  KiB,
  MiB,
  GiB,
};

/**
 * Reads a rate as it is written on a command line: `200mbit`, `1gbit` in bits a second; `125MB`,
 * `100MiB` in bytes a second.
 *
 * @returns Whole bytes per second, >= 1.
 * @throws {SyntaxError} If the text is not a number with one of these units, is less than a byte a
 *   second, or more than a number counts.
 */
export function parseRate(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(kbit|mbit|gbit|KB|MB|GB|KiB|MiB|GiB)$/.exec(text);
  if (match === null) {
    throw new SyntaxError(`Cannot read rate "${text}": expected for example 200mbit, 1gbit, 125MB`);
  }
  const bytesPerSecond = Math.round(Number(match[1]) * RATE_UNITS_BYTES[match[2]!]!);
  if (bytesPerSecond < 1 || !Number.isSafeInteger(bytesPerSecond)) {
    throw new SyntaxError(
      `Cannot read rate "${text}": expected 1 to ${Number.MAX_SAFE_INTEGER} bytes per second`,
    );
  }
  return bytesPerSecond;
}

const BIT_NAMES = ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s', 'Tbit/s'] as const;

/**
 * Writes a rate for people, in bits a second with at most one decimal: `200 Mbit/s`, `1.5 Gbit/s`.
 *
 * @param bytesPerSecond Bytes per second, >= 0.
 */
export function formatRate(bytesPerSecond: number): string {
  let value = 8 * bytesPerSecond;
  let unit = 0;
  while (value >= 1000 && unit < BIT_NAMES.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${Number(value.toFixed(value < 100 ? 1 : 0))} ${BIT_NAMES[unit]!}`;
}

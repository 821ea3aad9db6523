import { formatBytes, formatRate } from '../index.ts';

/* Chosen by us */

/** Narrower than this, there are figures and no bars. */
const BAR_COLUMNS_MIN = 4;
/** Longer bars say no more. */
const BAR_COLUMNS_MAX = 40;

/** Rounds that are shown, if nothing else is said. */
const ROUNDS_SHOWN = 20;

/** Eighths of a column, from one to all. */
const EIGHTHS = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'] as const;

/** A round, as it is drawn. */
export interface RoundBar {
  /** From 1. */
  readonly round: number;
  readonly bytesPerSecond: number;
  /** What was left when it had ended. */
  readonly remainingBytes: number;
}

export interface ChartOptions {
  /** Columns of the terminal; no line is longer, but for figures that do not fit. */
  readonly columns: number;
  /** Draws with characters that every terminal has. @default false */
  readonly isAscii?: boolean;
  /** Most rounds that are drawn, at least 2: of more, the first and the last. @default 20 */
  readonly roundsMax?: number;
}

/**
 * Draws rounds, a line each: how fast it was, and what it left. Bars are as long as their figure is
 * large, beside the largest; whatever is more than nothing can be seen.
 *
 * @returns Lines, each with its end; nothing if there is no round.
 */
export function drawRounds(rounds: readonly RoundBar[], options: ChartOptions): string {
  const { columns, isAscii = false, roundsMax = ROUNDS_SHOWN } = options;
  if (rounds.length === 0) return '';
  const { head, tail } = ends(rounds, Math.max(2, roundsMax));
  const shown = [...head, ...tail];
  const column = (title: string, cells: readonly string[]): string[] => {
    const width = Math.max(...[title, ...cells].map((cell) => cell.length));
    return [title, ...cells].map((cell) => cell.padStart(width));
  };
  const numbers = column(
    'round',
    shown.map(({ round }) => String(round)),
  );
  const rates = column(
    'rate',
    shown.map(({ bytesPerSecond }) => formatRate(bytesPerSecond)),
  );
  const lefts = column(
    'left',
    shown.map(({ remainingBytes }) => formatBytes(remainingBytes)),
  );
  const textColumns = numbers[0]!.length + rates[0]!.length + lefts[0]!.length + 6;
  const barColumns = Math.min(BAR_COLUMNS_MAX, Math.floor((columns - textColumns) / 2));
  const bars = (values: readonly number[]): string[] => {
    if (barColumns < BAR_COLUMNS_MIN) return ['', ...values.map(() => '')];
    const largest = Math.max(...values);
    const drawn = values.map((value) => drawBar(value / largest, barColumns, isAscii));
    return ['', ...drawn].map((bar) => ` ${bar.padEnd(barColumns)}`);
  };
  const rateBars = bars(shown.map(({ bytesPerSecond }) => bytesPerSecond));
  const leftBars = bars(shown.map(({ remainingBytes }) => remainingBytes));
  const lines = numbers.map((number, row) =>
    `${number}  ${rates[row]}${rateBars[row]}  ${lefts[row]}${leftBars[row]}`.trimEnd(),
  );
  const missing = rounds.length - shown.length;
  if (missing > 0) {
    lines.splice(1 + head.length, 0, `${isAscii ? '...' : '…'} ${missing} more`);
  }
  return lines.map((line) => `${line}\n`).join('');
}

/** All rounds, or as many of the first and of the last as fit. */
function ends(
  rounds: readonly RoundBar[],
  roundsMax: number,
): { head: readonly RoundBar[]; tail: readonly RoundBar[] } {
  if (rounds.length <= roundsMax) return { head: rounds, tail: [] };
  const headCount = Math.ceil(roundsMax / 2);
  return { head: rounds.slice(0, headCount), tail: rounds.slice(headCount - roundsMax) };
}

/** @param part 0 to 1; anything that is no number is drawn as nothing. */
function drawBar(part: number, columns: number, isAscii: boolean): string {
  if (!(part > 0)) return '';
  if (isAscii) return '#'.repeat(Math.max(1, Math.round(part * columns)));
  const eighths = Math.max(1, Math.round(part * columns * 8));
  const rest = eighths % 8;
  return '█'.repeat(Math.floor(eighths / 8)) + (rest === 0 ? '' : EIGHTHS[rest - 1]!);
}

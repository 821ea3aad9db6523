import { readFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { ForeignLoad } from './support/foreign-load.ts';

/** Minimum, median and maximum of a set of figures. */
export interface Spread {
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

/** A question, and what answers it. */
export interface Trial {
  readonly name: string;
  /** What is asked, in one sentence. */
  readonly question: string;
  /** Runs it and returns its lines. */
  run(options: TrialOptions): Promise<readonly string[]>;
}

export interface TrialOptions {
  /** Small sizes and few pairs: shows that the trial works, not how fast it is. */
  readonly isSmoke: boolean;
  /** Pairs of measurements. */
  readonly pairs: number;
  /** Only the parts of the trial whose name has these words, joined by dashes. */
  readonly only?: string | undefined;
  /** What `avail-switchover-bandwidth` is multiplied by, where it is set. */
  readonly switchoverFactor: number;
}

/** Figures of one measured run, by name: `totalMs`, `wireMB`… */
export type Figures = Readonly<Record<string, number>>;

/** Ours and a peer's, in turn. */
export interface Comparison {
  readonly ours: readonly Figures[];
  readonly peers: readonly Figures[];
}

/** Several transports' figures, in the order of their turns. */
export type Turns<Name extends string> = Readonly<Record<Name, readonly Figures[]>>;

export interface TurnOptions {
  /** Begins with turns that do not count. @default true */
  readonly warmUp?: boolean;
  /** Hears of every run. */
  readonly say?: (text: string) => void;
}

/* Chosen by us */

/** Processors that other work may take beside turns that count. */
const FOREIGN_LOAD_MAX = 0.3;

/**
 * Measures ours and the peer's in turn, ABAB…, with `warmUp` after a pair that does not count.
 */
export async function alternate(
  pairs: number,
  ours: () => Promise<Figures>,
  peer: () => Promise<Figures>,
  options: TurnOptions = {},
): Promise<Comparison> {
  const turns = await takeTurns(pairs, { ours, peer }, options);
  return { ours: turns.ours, peers: turns.peer };
}

/**
 * Measures all contestants in turn, ABCABC…
 *
 * Turns beside which other processes took much of the machine are dropped and taken again, but no
 * more of them than `pairs`: then those count too.
 */
export async function takeTurns<Name extends string>(
  pairs: number,
  contestants: Readonly<Record<Name, () => Promise<Figures>>>,
  { warmUp = true, say = console.error }: TurnOptions = {},
): Promise<Turns<Name>> {
  const names = Object.keys(contestants) as Name[];
  const empty: [Name, Figures[]][] = names.map((name) => [name, []]);
  const turns = Object.fromEntries(empty) as Record<Name, Figures[]>;
  const loads: number[] = [];
  let dropsLeft = pairs > 1 ? pairs : 0;
  for (let pair = warmUp ? -1 : 0; pair < pairs; pair++) {
    const load = new ForeignLoad();
    const turn: [Name, Figures][] = [];
    for (const name of names) turn.push([name, await contestants[name]()]);
    const processors = load.processors();
    const isDropped = pair >= 0 && processors > FOREIGN_LOAD_MAX && dropsLeft > 0;
    const texts = turn.map(([name, figures]) => `${name} ${formatFigures(figures)}`);
    const note = isDropped ? ', dropped' : '';
    say(
      `  pair ${pair + 1}/${pairs}: ${texts.join(' | ')} (others ${processors.toFixed(2)}${note})`,
    );
    if (pair < 0) continue;
    if (isDropped) {
      dropsLeft--;
      pair--;
      continue;
    }
    loads.push(processors);
    for (const [name, figures] of turn) turns[name].push(figures);
  }
  say(`  other processes took ${formatSpread(spread(loads))} processors beside what counts`);
  return turns;
}

/** Whether a part of a trial was asked for, by some of the words of its name; all are, by none. */
export function isChosen(part: string, { only }: Pick<TrialOptions, 'only'>): boolean {
  const words = part.split('-');
  return only === undefined || only.split('-').every((word) => words.includes(word));
}

/** Spread of ours ÷ peer's, pair by pair. */
export function ratios({ ours, peers }: Comparison, figure: string): Spread {
  return spread(ours.map((our, index) => our[figure]! / peers[index]![figure]!));
}

/** Spread of one figure. */
export function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median =
    sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
  return { min: sorted[0]!, median, max: sorted.at(-1)! };
}

/** `0.97 (0.94–1.03)`. */
export function formatSpread({ min, median, max }: Spread, digits = 2): string {
  return `${median.toFixed(digits)} (${min.toFixed(digits)}–${max.toFixed(digits)})`;
}

/** Lines that state a comparison: the ratio of each figure and both medians. */
export function stateComparison(
  title: string,
  comparison: Comparison,
  figures: readonly string[],
): string[] {
  return [
    title,
    ...figures.map((figure) => {
      const ours = spread(comparison.ours.map((each) => each[figure]!));
      const peers = spread(comparison.peers.map((each) => each[figure]!));
      const ratio = formatSpread(ratios(comparison, figure));
      return (
        `  ${figure.padEnd(12)} ours ÷ peer ${ratio}   ` +
        `ours ${formatSpread(ours, digitsOf(ours))}   peer ${formatSpread(peers, digitsOf(peers))}`
      );
    }),
  ];
}

/** Digits with which figures of that size are stated. */
export function digitsOf({ median }: Spread): number {
  return median >= 100 ? 0 : 2;
}

function formatFigures(figures: Figures): string {
  return Object.entries(figures)
    .map(([name, value]) => `${name} ${value.toFixed(value >= 100 ? 0 : 2)}`)
    .join(', ');
}

/** The machine and its state, in one line. */
export function describeMachine(): string {
  const model = cpus()[0]?.model ?? 'unknown processor';
  const load = readFileSync('/proc/loadavg', 'utf8').split(' ')[0];
  return `${cpus().length} × ${model}, Linux ${release()}, Node ${process.version}, load ${load}`;
}

import { readFileSync } from 'node:fs';
import { cpus, release } from 'node:os';

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
}

/** Figures of one measured run, by name: `totalMs`, `wireMB`… */
export type Figures = Readonly<Record<string, number>>;

/** Ours and a peer's, in turn. */
export interface Comparison {
  readonly ours: readonly Figures[];
  readonly peers: readonly Figures[];
}

/**
 * Measures ours and the peer's in turn, ABAB…, with `warmUp` after a pair that does not count.
 *
 * @param say Hears of every run.
 */
export async function alternate(
  pairs: number,
  ours: () => Promise<Figures>,
  peer: () => Promise<Figures>,
  { warmUp = true, say = console.error }: { warmUp?: boolean; say?: (text: string) => void } = {},
): Promise<Comparison> {
  const all: { ours: Figures[]; peers: Figures[] } = { ours: [], peers: [] };
  for (let pair = warmUp ? -1 : 0; pair < pairs; pair++) {
    const our = await ours();
    const their = await peer();
    say(`  pair ${pair + 1}/${pairs}: ours ${formatFigures(our)} | peer ${formatFigures(their)}`);
    if (pair < 0) continue;
    all.ours.push(our);
    all.peers.push(their);
  }
  return all;
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

function digitsOf({ median }: Spread): number {
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

export class Convergence {
  readonly o: { downtimeMs: number; pageBytes: number; memoryBytes: number; maxRounds?: number };
  rounds = 0;
  constructor(o: {
    downtimeMs: number;
    pageBytes: number;
    memoryBytes: number;
    maxRounds?: number;
  }) {
    this.o = o;
  }
  get outlook(): string {
    return '';
  }
  endRound(f: {
    sentPages: number;
    wireBytes: number;
    durationMs: number;
    dirtyPages: number;
  }): { action: 'continue'; throttlePercent: number } | { action: 'switch' } | { action: 'stop' } {
    this.rounds++;
    if ((f.dirtyPages * f.durationMs) / f.sentPages < this.o.downtimeMs)
      return { action: 'switch' };
    if (this.rounds > (this.o.maxRounds ?? 30)) return { action: 'stop' };
    return { action: 'continue', throttlePercent: 0 };
  }
}

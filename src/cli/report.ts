import {
  codeOf,
  formatBytes,
  formatDuration,
  type MigrationResult,
  type MigrationStream,
  messageOf,
  type Phase,
  type Progress,
  type SessionEvent,
  type Side,
  sumOf,
} from '../index.ts';
import { adviceOn } from './advice.ts';
import { isInterrupt } from './interrupt.ts';

/*
 * What a person or a program sees: stdout is data, stderr is narration.
 */

/* Chosen by us */
const TERMINAL_INTERVAL_MS = 250;
const PLAIN_INTERVAL_MS = 5000;
const INTERVAL_MS_MIN = 20;

/** How a command talks. */
export interface ReporterOptions {
  readonly output: 'text' | 'json' | 'ndjson';
  readonly isQuiet: boolean;
  /** Time between progress reports. @default 250 ms on a terminal, 5 s elsewhere */
  readonly intervalMs: number | undefined;
  readonly stdout: NodeJS.WritableStream;
  readonly stderr: NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number };
}

/** Writes progress, events, warnings and the result. */
export class Reporter {
  readonly #options: ReporterOptions;
  #timer: NodeJS.Timeout | undefined;
  #last: Progress | undefined;
  #lastAtMs = 0;
  #hasLiveLine = false;

  constructor(options: ReporterOptions) {
    this.#options = options;
    // A reader that goes away must not take the migration with it.
    for (const stream of new Set([options.stdout, options.stderr])) stream.on('error', () => {});
  }

  /** A line of narration. */
  say(text: string): void {
    if (!this.#options.isQuiet) this.#line(`pagelane: ${text}`);
  }

  /** A line that is also written when quiet. */
  warn(text: string): void {
    this.#line(`pagelane: warning: ${text}`);
    this.#event({ type: 'warning', message: text });
  }

  /** What went wrong: code, side, phase, where the guest is. */
  fail(text: string): void {
    this.#line(`pagelane: ${text}`);
  }

  /** Follows a migration until `stop`. */
  follow(migration: MigrationStream): void {
    const isLive = this.#options.stderr.isTTY === true && !this.#options.isQuiet;
    const usual = isLive ? TERMINAL_INTERVAL_MS : PLAIN_INTERVAL_MS;
    const intervalMs = Math.max(INTERVAL_MS_MIN, this.#options.intervalMs ?? usual);
    this.#last = migration.progress();
    this.#lastAtMs = performance.now();
    this.#timer = setInterval(() => this.#tick(migration, isLive), intervalMs);
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#clearLiveLine();
  }

  /** Writes what happens to paths until the session ends. */
  async followEvents(events: AsyncIterable<SessionEvent>): Promise<void> {
    for await (const event of events) {
      const text = formatEvent(event);
      if (text !== undefined) this.#line(`pagelane: ${text}`);
      this.#event({ ...event });
    }
  }

  /** Writes the result. */
  result(result: MigrationResult): void {
    this.stop();
    for (const text of result.fallbacks) this.#line(`pagelane: note: ${text}`);
    this.#record(result);
    if (this.#options.output === 'text' && !this.#options.isQuiet) this.#line(formatResult(result));
    if (result.error !== undefined) this.#line(formatFailure(result));
  }

  /**
   * Tells what went wrong before there was a migration: the guest is where it was.
   *
   * @returns The exit code.
   */
  early(side: Side, error: unknown): number {
    this.stop();
    const result = earlyResult(side, error);
    this.#record(result);
    this.#line(formatFailure(result));
    return isInterrupt(error) ? 130 : 1;
  }

  #record(result: MigrationResult): void {
    const { output, stdout } = this.#options;
    if (output === 'ndjson') stdout.write(`${JSON.stringify(result)}\n`);
    else if (output === 'json') stdout.write(`${JSON.stringify(result, undefined, 2)}\n`);
  }

  #tick(migration: MigrationStream, isLive: boolean): void {
    const progress = migration.progress();
    const nowMs = performance.now();
    const text = formatProgress(progress, this.#last ?? progress, (nowMs - this.#lastAtMs) / 1000);
    this.#last = progress;
    this.#lastAtMs = nowMs;
    this.#event({ type: 'progress', ...progress });
    if (this.#options.isQuiet) return;
    if (!isLive) {
      this.#line(`pagelane: ${text}`);
      return;
    }
    const width = Math.max(20, (this.#options.stderr.columns ?? 80) - 1);
    this.#options.stderr.write(`\r${text.slice(0, width).padEnd(width)}`);
    this.#hasLiveLine = true;
  }

  #event(event: Record<string, unknown>): void {
    if (this.#options.output !== 'ndjson') return;
    const line = { v: 1, ts: new Date().toISOString(), ...event };
    this.#options.stdout.write(`${JSON.stringify(line)}\n`);
  }

  #line(text: string): void {
    this.#clearLiveLine();
    this.#options.stderr.write(`${text}\n`);
  }

  #clearLiveLine(): void {
    if (!this.#hasLiveLine) return;
    this.#hasLiveLine = false;
    const width = Math.max(20, (this.#options.stderr.columns ?? 80) - 1);
    this.#options.stderr.write(`\r${' '.repeat(width)}\r`);
  }
}

/** What people are told of an event; undefined if they need not know. */
export function formatEvent(event: SessionEvent): string | undefined {
  switch (event.type) {
    case 'pathLost':
    case 'pathFailed':
      return `path ${event.remote}: ${event.reason}`;
    case 'pathParked':
      return `path ${event.remote}: parked, it would make the whole slower; tried again at times`;
    case 'pathResumed':
      return `path ${event.remote}: used again`;
    case 'stalled':
      return (
        `no path is left: everything waits, and the migration goes on when a path ` +
        `comes back within ${formatDuration(event.timeoutMs)}`
      );
    case 'resumed':
      return `a path came back after ${formatDuration(event.stalledMs)}: the migration goes on`;
    case 'note':
      return `warning: ${event.message}`;
    default:
      return undefined;
  }
}

/**
 * One line of progress: `round 3  6.1/8.0 GiB  2.9 GiB/s (wire 1.1)  zero 41 %  zstd 2.6×  paths
 * 2/2  ETA 4 s`.
 *
 * @param before Progress `seconds` ago, for the rates.
 */
export function formatProgress(progress: Progress, before: Progress, seconds: number): string {
  const pageRate = rate(progress.pageBytes - before.pageBytes, seconds);
  const wireRate = rate(progress.wireBytes - before.wireBytes, seconds);
  const parts = [
    formatPosition(progress),
    `${formatBytes(pageRate)}/s (wire ${formatBytes(wireRate)}/s)`,
    formatZero(progress),
    formatCodec(progress),
    `paths ${progress.pathsOpen}/${progress.pathsAll}`,
    formatEta(progress, pageRate),
  ];
  return parts.filter((part) => part !== '').join('  ');
}

function rate(bytes: number, seconds: number): number {
  return seconds > 0 ? Math.max(0, bytes) / seconds : 0;
}

function formatPosition({ phase, round, roundBytes, memoryBytes }: Progress): string {
  if (phase !== 'precopy') return phase;
  if (round > 1) return `round ${round}  ${formatBytes(roundBytes)}`;
  const [all, unit] = formatBytes(memoryBytes).split(' ') as [string, string];
  const exponent = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'].indexOf(unit);
  const done = Math.min(roundBytes, memoryBytes) / 1024 ** exponent;
  return `round 1  ${done.toFixed(all.includes('.') ? 1 : 0)}/${all} ${unit}`;
}

function formatZero({ pages }: Progress): string {
  const all = sumOf(pages);
  return all === 0 ? '' : `zero ${Math.round((100 * pages.zero) / all)} %`;
}

function formatCodec({ codec, codecs }: Progress): string {
  let pageBytes = 0;
  let wireBytes = 0;
  for (const bytes of Object.values(codecs)) {
    pageBytes += bytes.pageBytes;
    wireBytes += bytes.wireBytes;
  }
  if (codec === '' || wireBytes === 0) return '';
  return `${codec} ${(pageBytes / wireBytes).toFixed(1)}×`;
}

function formatEta(progress: Progress, pageRate: number): string {
  if (progress.waitsFor !== undefined && pageRate === 0) return `waits for ${progress.waitsFor}`;
  if (progress.phase !== 'precopy' || progress.round !== 1 || pageRate === 0) return '';
  const leftBytes = Math.max(0, progress.memoryBytes - progress.roundBytes);
  return `ETA ${formatDuration((1000 * leftBytes) / pageRate)}`;
}

/** The result in a few lines. */
export function formatResult(result: MigrationResult): string {
  const { pages } = result;
  const all = sumOf(pages);
  const zero = all === 0 ? 0 : Math.round((100 * pages.zero) / all);
  const lost = result.paths.filter((path) => path.isLost).length;
  const lines = [
    `${result.outcome}: guest at ${result.guest === 'unknown' ? 'UNKNOWN place' : `the ${result.guest}`}` +
      ` after ${formatDuration(result.durationMs)}, ${formatBytes(result.memoryBytes)} of memory, ` +
      `${formatBytes(result.wireBytes)} on the wire over ${result.paths.length} paths` +
      (lost > 0 ? ` (${lost} lost)` : ''),
    `  pages: ${all} (zero ${zero} %)  rounds ${result.rounds}  cpu ${result.cpuSeconds.toFixed(2)} s` +
      `  digest ${formatDigestState(result)}`,
    ...formatStore(result),
    ...formatVerified(result),
  ];
  return lines.join('\n');
}

function formatStore({ pages, store }: MigrationResult): string[] {
  if (pages.same + pages.delta === 0) return [];
  return [
    `  store: ${pages.same} pages the destination had, ${pages.delta} sent as what changed: ` +
      `${formatBytes(store.savedBytes)} not sent, with at most ${formatBytes(store.bytes)} kept`,
  ];
}

function formatVerified({ verified }: MigrationResult): string[] {
  if (verified === undefined) return [];
  const { pages, differing, unverified } = verified;
  const how = differing === 0 ? 'all as decoded' : `${differing} DIFFERENT`;
  return [`  memory: ${pages} pages verified, ${how}; ${unverified} not verified`];
}

function formatDigestState({ digest }: MigrationResult): string {
  if (digest.equal === undefined) return 'not compared';
  return digest.equal ? `equal (${digest.sent})` : 'DIFFERENT';
}

function formatFailure(result: MigrationResult): string {
  const { code, message, phase } = result.error!;
  const advice = adviceOn(code);
  return (
    `pagelane: ${code} (${result.side}, ${phase}): ${message}\n  guest: ${placeOf(result)}` +
    (advice === undefined ? '' : `\n  to do: ${advice}`)
  );
}

function placeOf({ guest, outcome }: MigrationResult): string {
  if (guest === 'source') {
    const why = outcome === 'cancelled' ? 'the migration was cancelled' : 'try again when mended';
    return `at the source, where it runs on; ${why}`;
  }
  if (guest === 'destination') return 'at the destination';
  return 'UNKNOWN: start neither copy; ask both QEMUs (query-status) which one runs';
}

function earlyResult(side: Side, error: unknown): MigrationResult {
  const code = isInterrupt(error) ? 'ERR_CANCELLED' : codeOf(error);
  const message = isInterrupt(error) ? 'Interrupted before a migration ran' : messageOf(error);
  return {
    v: 1,
    type: 'result',
    side,
    session: '',
    name: '',
    outcome: isInterrupt(error) ? 'cancelled' : 'failed',
    guest: 'source',
    durationMs: 0,
    downtimeMs: { switchover: undefined },
    memoryBytes: 0,
    streamBytes: 0,
    wireBytes: 0,
    pages: { zero: 0, fill: 0, raw: 0, same: 0, delta: 0, foreign: 0 },
    codecs: {},
    store: { bytes: 0, savedBytes: 0 },
    resent: { pages: 0, wireBytes: 0 },
    paths: [],
    rounds: 0,
    cpuSeconds: 0,
    digest: { sent: undefined, applied: undefined, equal: undefined },
    effective: {},
    fallbacks: [],
    error: { code, message, phase: 'setup' },
  };
}

/** Writes to stdout what was asked for, whether or not somebody still reads. */
export function print(text: string): void {
  process.stdout.off('error', ignoreError).on('error', ignoreError);
  process.stdout.write(text);
}

function ignoreError(): void {}

/** Exit code that says where the guest is. */
export function exitCodeOf(result: MigrationResult): number {
  if (result.outcome === 'completed') return 0;
  if (result.error?.code === 'ERR_POSTCOPY_PAUSED') return 7;
  if (result.guest !== 'source') return 6;
  return result.outcome === 'cancelled' ? 5 : 1;
}

/** Exit code of a process that is ended on the spot in `phase`: what it cannot wait to find out. */
export function forcedExitCode(phase: Phase | undefined): number {
  if (phase === undefined || phase === 'setup') return 130;
  if (phase === 'done') return 0;
  return phase === 'precopy' ? 5 : 6;
}

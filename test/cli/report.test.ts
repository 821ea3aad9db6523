import { PassThrough, Writable } from 'node:stream';
import { describe, expect, test } from 'vitest';
import {
  exitCodeOf,
  forcedExitCode,
  formatProgress,
  formatResult,
  print,
  Reporter,
  type ReporterOptions,
} from '../../src/cli/report.ts';
import { type MigrationResult, PagelaneError, type Progress } from '../../src/index.ts';

const MiB = 1024 * 1024;

const NO_PAGES = { zero: 0, fill: 0, raw: 0, same: 0, delta: 0, foreign: 0 };

const PROGRESS: Progress = {
  phase: 'precopy',
  elapsedMs: 1000,
  round: 1,
  memoryBytes: 2048 * MiB,
  roundBytes: 512 * MiB,
  pageBytes: 512 * MiB,
  streamBytes: 500 * MiB,
  wireBytes: 100 * MiB,
  pages: { ...NO_PAGES, zero: 41, raw: 59 },
  codecs: { zstd: { pageBytes: 270, wireBytes: 100 } },
  codec: 'zstd',
  pathsOpen: 1,
  pathsAll: 2,
  waitsFor: undefined,
};

const RESULT: MigrationResult = {
  v: 1,
  type: 'result',
  side: 'source',
  session: '00',
  name: '',
  outcome: 'completed',
  guest: 'destination',
  durationMs: 4200,
  downtimeMs: { switchover: 12 },
  memoryBytes: 2048 * MiB,
  streamBytes: 1,
  wireBytes: 512 * MiB,
  pages: { ...NO_PAGES, zero: 1, raw: 3 },
  codecs: {},
  store: { bytes: 0, savedBytes: 0 },
  resent: { pages: 0, wireBytes: 0 },
  paths: [
    { local: 'a', remote: 'b', wireBytes: 1, rttMs: 1, isLost: false },
    { local: 'a', remote: 'c', wireBytes: 1, rttMs: undefined, isLost: true },
  ],
  rounds: 3,
  cpuSeconds: 1.234,
  digest: { sent: '0a', applied: '0a', equal: true },
  effective: {},
  fallbacks: [],
};

const failed = (guest: MigrationResult['guest'], code = 'ERR_STREAM_MAGIC'): MigrationResult => ({
  ...RESULT,
  outcome: 'failed',
  guest,
  error: { code, message: 'why', phase: 'precopy' },
});

/** A reporter and what it wrote. */
function makeReporter(options: Partial<ReporterOptions> = {}) {
  const written = { stdout: '', stderr: '' };
  const collect = (name: 'stdout' | 'stderr') =>
    new Writable({
      write(chunk, _encoding, done) {
        written[name] += String(chunk);
        done();
      },
    });
  const reporter = new Reporter({
    output: 'text',
    isQuiet: false,
    intervalMs: undefined,
    stdout: collect('stdout'),
    stderr: collect('stderr'),
    ...options,
  });
  return { reporter, written };
}

describe('formatProgress()', () => {
  const line = (now: Partial<Progress>, before: Partial<Progress> = {}): string =>
    formatProgress({ ...PROGRESS, ...now }, { ...PROGRESS, ...before }, 2);

  test('says position, rates, shares, paths and when it ends', () => {
    const before = { pageBytes: 256 * MiB, wireBytes: 50 * MiB };
    expect(line({}, before)).toBe(
      'round 1  0.5/2.0 GiB  128 MiB/s (wire 25.0 MiB/s)  zero 41 %  zstd 2.7×  paths 1/2  ETA 12 s',
    );
  });

  test('later rounds and phases have no end to tell', () => {
    expect(line({ round: 3, roundBytes: 6 * MiB })).toMatch(/^round 3 {2}6\.0 MiB .* paths 1\/2$/);
    expect(line({ phase: 'switchover' })).toMatch(/^switchover .* paths 1\/2$/);
  });

  test('says what it waits for while nothing moves', () => {
    expect(line({ waitsFor: 'QEMU to begin' })).toMatch(/waits for QEMU to begin$/);
  });

  test('has no share of what did not happen', () => {
    const nothing = { pages: NO_PAGES, codecs: {}, memoryBytes: 0 };
    const text = line({ ...nothing, phase: 'setup' });
    expect(text).not.toMatch(/zero|×|NaN|Infinity/);
    expect(formatProgress(PROGRESS, PROGRESS, 0)).not.toMatch(/NaN|Infinity/);
  });
});

describe('formatResult()', () => {
  test('says outcome, place, sizes, lost paths and digest', () => {
    expect(formatResult(RESULT).split('\n')).toEqual([
      'completed: guest at the destination after 4.2 s, 2.0 GiB of memory, 512 MiB on the wire ' +
        'over 2 paths (1 lost)',
      '  pages: 4 (zero 25 %)  rounds 3  cpu 1.23 s  digest equal (0a)',
    ]);
  });

  test('says what was not sent because the destination had it', () => {
    const pages = { ...NO_PAGES, zero: 1, raw: 1, same: 5, delta: 3 };
    const store = { bytes: 512 * MiB, savedBytes: 24 * MiB };
    expect(
      formatResult({ ...RESULT, pages, store })
        .split('\n')
        .slice(1),
    ).toEqual([
      '  pages: 10 (zero 10 %)  rounds 3  cpu 1.23 s  digest equal (0a)',
      '  store: 5 pages the destination had, 3 sent as what changed: 24.0 MiB not sent, ' +
        'with at most 512 MiB kept',
    ]);
  });

  test('says what was verified', () => {
    const verified = { pages: 900, differing: 0, unverified: 7 };
    const last = (result: MigrationResult) => formatResult(result).split('\n').at(-1);
    expect(last({ ...RESULT, verified })).toBe(
      '  memory: 900 pages verified, all as decoded; 7 not verified',
    );
    expect(last({ ...RESULT, verified: { ...verified, differing: 2 } })).toContain('2 DIFFERENT');
  });

  test('says where digests differ, or were not compared, and that the place is unknown', () => {
    const digest = { sent: 'a', applied: 'b', equal: false };
    expect(formatResult({ ...RESULT, digest })).toContain('digest DIFFERENT');
    const none = { sent: 'a', applied: undefined, equal: undefined };
    expect(formatResult({ ...RESULT, digest: none })).toContain('digest not compared');
    expect(formatResult(failed('unknown'))).toMatch(/^failed: guest at UNKNOWN place/);
  });
});

describe('exit codes', () => {
  test.each([
    [RESULT, 0],
    [failed('source'), 1],
    [{ ...failed('source'), outcome: 'cancelled' } as const, 5],
    [failed('unknown'), 6],
    [failed('destination'), 6],
    [failed('destination', 'ERR_POSTCOPY_PAUSED'), 7],
  ])('exitCodeOf() case %#', (result, code) => {
    expect(exitCodeOf(result)).toBe(code);
  });

  test('forcedExitCode() does not claim what it cannot know', () => {
    const phases = [undefined, 'setup', 'precopy', 'switchover', 'postcopy', 'done'] as const;
    expect(phases.map(forcedExitCode)).toEqual([130, 130, 5, 6, 6, 0]);
  });
});

describe('Reporter', () => {
  test('a failure says code, side, phase, place and what to do', () => {
    const { reporter, written } = makeReporter();
    reporter.result(failed('source'));
    expect(written.stdout).toBe('');
    expect(written.stderr).toContain(
      'pagelane: ERR_STREAM_MAGIC (source, precopy): why\n' +
        '  guest: at the source, where it runs on; try again when mended\n' +
        '  to do: no migration stream: turn off multifd and TLS on this channel\n',
    );
  });

  test.each([
    ['destination', '  guest: at the destination\n'],
    ['unknown', '  guest: UNKNOWN: start neither copy; ask both QEMUs (query-status)'],
  ] as const)('a guest at %s is said so', (guest, text) => {
    const { reporter, written } = makeReporter({ isQuiet: true });
    reporter.result(failed(guest));
    expect(written.stderr).toContain(text);
  });

  test('quiet leaves warnings and failures', () => {
    const { reporter, written } = makeReporter({ isQuiet: true });
    reporter.say('hello');
    reporter.result(RESULT);
    expect(written.stderr).toBe('');
    reporter.warn('careful');
    expect(written.stderr).toBe('pagelane: warning: careful\n');
  });

  test('early() tells a failure before there was a migration', () => {
    const { reporter, written } = makeReporter({ output: 'ndjson' });
    expect(reporter.early('destination', new PagelaneError('ERR_KEY_FILE', 'no key'))).toBe(1);
    const record = JSON.parse(written.stdout);
    expect(record).toMatchObject({ v: 1, type: 'result', side: 'destination', guest: 'source' });
    expect(record.error).toEqual({ code: 'ERR_KEY_FILE', message: 'no key', phase: 'setup' });
    expect(reporter.early('source', new DOMException('interrupted', 'AbortError'))).toBe(130);
    expect(reporter.early('source', 'strange')).toBe(1);
    expect(written.stderr).toContain('pagelane: ERR_INTERNAL (source, setup): strange\n');
  });

  test('events are lines of JSON with version and time, in ndjson only', async () => {
    const event = {
      type: 'pathLost',
      id: 1,
      local: 'a',
      remote: 'b',
      code: 'ERR_X',
      reason: 'gone',
      movedFrames: 2,
    } as const;
    async function* events() {
      yield event;
    }
    const ndjson = makeReporter({ output: 'ndjson' });
    await ndjson.reporter.followEvents(events());
    expect(JSON.parse(ndjson.written.stdout)).toMatchObject({
      v: 1,
      ts: expect.any(String),
      ...event,
    });
    const json = makeReporter({ output: 'json' });
    await json.reporter.followEvents(events());
    expect(json.written.stdout).toBe('');
    expect(json.written.stderr).toBe('pagelane: path b: gone\n');
  });

  test('on a terminal there is one live line, which is cleared before another', async () => {
    const terminal = Object.assign(new PassThrough(), { isTTY: true, columns: 40 });
    const { reporter } = makeReporter({ stderr: terminal, intervalMs: 20 });
    const migration = { progress: () => PROGRESS } as unknown as Parameters<Reporter['follow']>[0];
    reporter.follow(migration);
    const [first] = await new Promise<[Buffer]>((resolve) =>
      terminal.once('data', (chunk) => resolve([chunk])),
    );
    expect(first.toString()).toMatch(/^\rround 1 .{31}$/);
    const rest: string[] = [];
    terminal.on('data', (chunk) => rest.push(String(chunk)));
    reporter.stop();
    reporter.say('next');
    await new Promise((resolve) => setImmediate(resolve));
    const all = rest.join('');
    expect(all.endsWith(`\r${' '.repeat(39)}\rpagelane: next\n`)).toBe(true);
  });

  test('a stream that breaks is no error of the migration', () => {
    const stdout = new PassThrough();
    const { reporter } = makeReporter({ output: 'ndjson', stdout });
    expect(() => stdout.emit('error', new Error('EPIPE'))).not.toThrow();
    reporter.result(RESULT);
  });
});

test('print() listens once, however often it prints', () => {
  print('');
  const before = process.stdout.listenerCount('error');
  for (let time = 0; time < 20; time++) print('');
  expect(process.stdout.listenerCount('error')).toBe(before);
});

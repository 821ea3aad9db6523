import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  COMMON_FLAGS,
  type Flags,
  formatControlHelp,
  formatHelp,
  readArguments,
  readCodec,
  readCommon,
  readMaxBandwidth,
  readSecurity,
  readVerify,
  UsageError,
  type Values,
} from '../../src/cli/options.ts';
import { formatCpuSet } from '../../src/index.ts';
import { native } from '../../src/native.ts';

/** One that this process may use. */
const PROCESSOR = native.usableProcessors()[0]!;

const FLAGS: Flags = {
  ...COMMON_FLAGS,
  path: { type: 'string', multiple: true, help: 'one path' },
  codec: { type: 'string', help: 'codec' },
};

function read(args: readonly string[], environment: NodeJS.ProcessEnv = {}): Values {
  return readArguments(args, FLAGS, environment).values;
}

describe('readArguments()', () => {
  test('reads flags of each kind, and what is none', () => {
    const args = ['--key', 'k', '--quiet', '--path', 'a:1', 'extra', '--path=b:2'];
    const { values, positionals } = readArguments(args, FLAGS, {});
    expect(values.text('key')).toBe('k');
    expect(values.is('quiet')).toBe(true);
    expect(values.texts('path')).toEqual(['a:1', 'b:2']);
    expect(positionals).toEqual(['extra']);
    expect([values.text('wait'), values.texts('none'), values.is('insecure')]).toEqual([
      undefined,
      [],
      false,
    ]);
  });

  test('every flag has an environment variable, and a flag wins over it', () => {
    const environment = {
      PAGELANE_TLS_DIR: '/certificates',
      PAGELANE_QUIET: '1',
      PAGELANE_PATH: 'a:1 b:2',
      PAGELANE_KEY: '',
    };
    const values = read([], environment);
    expect(values.text('tls-dir')).toBe('/certificates');
    expect(values.is('quiet')).toBe(true);
    expect(values.texts('path')).toEqual(['a:1', 'b:2']);
    expect(values.text('key')).toBeUndefined();
    expect(read(['--tls-dir', '/other'], environment).text('tls-dir')).toBe('/other');
    expect(read(['--path', 'c:3'], environment).texts('path')).toEqual(['c:3']);
  });

  test.each(['0', 'false', ''])('a switch that is "%s" in the environment is off', (text) => {
    expect(read([], { PAGELANE_QUIET: text }).is('quiet')).toBe(false);
  });

  test('a list in the environment may have blanks around it', () => {
    const values = read([], { PAGELANE_PATH: ' a:1\tb:2 ' });
    expect(values.texts('path')).toEqual(['a:1', 'b:2']);
  });

  test.each([['--nonsense'], ['--key'], ['--quiet=1']])('refuses %s', (word) => {
    expect(() => read([word])).toThrow(UsageError);
  });
});

describe('readCommon()', () => {
  const common = (...args: string[]) => readCommon(read(['--insecure', ...args]));

  test('has the defaults of docs/cli.md', () => {
    expect(common()).toEqual({
      qemu: { kind: 'stdio' },
      threads: undefined,
      cpuSet: undefined,
      priority: undefined,
      storeBytes: undefined,
      windowBytes: undefined,
      maxBytesPerSecond: undefined,
      waitMs: 600_000,
      resumeTimeoutMs: undefined,
      output: 'text',
      isQuiet: false,
      intervalMs: undefined,
    });
  });

  test('reads every value in its unit', () => {
    const args = ['--qemu', 'tcp:h:1', '--threads', '3', '--window', '2', '--wait', '1.5s'];
    args.push('--max-bandwidth', '200mbit', '--resume-timeout', '2m', '--priority=-5');
    args.push('--cpu-set', `${PROCESSOR},${PROCESSOR}`);
    args.push('--store', '3GiB');
    expect(common(...args, '--output', 'json', '--quiet', '--interval', '2m')).toEqual({
      qemu: { kind: 'tcp', host: 'h', port: 1 },
      threads: 3,
      cpuSet: [PROCESSOR],
      priority: -5,
      storeBytes: 3 * 1024 ** 3,
      windowBytes: 2 * 1024 * 1024,
      maxBytesPerSecond: 25_000_000,
      waitMs: 1500,
      resumeTimeoutMs: 120_000,
      output: 'json',
      isQuiet: true,
      intervalMs: 120_000,
    });
  });

  test.each([
    ['0', 0],
    ['0s', 0],
    ['1500ms', 1500],
  ])('--resume-timeout %s', (text, resumeTimeoutMs) => {
    expect(common('--resume-timeout', text)).toMatchObject({ resumeTimeoutMs });
  });

  test.each([
    ['off', 0],
    ['0', 0],
    ['512MiB', 2 ** 29],
    ['1.5GB', 1_500_000_000],
  ])('--store %s', (text, storeBytes) => {
    expect(common('--store', text)).toMatchObject({ storeBytes });
  });

  test('times are whole milliseconds, and none is longer than a timer takes', () => {
    const units = fc.constantFrom('ms', 's', 'm', 'min', 'h');
    const amount = fc.double({ min: 0, max: 1e7, noNaN: true });
    fc.assert(
      fc.property(amount, units, (count, unit) => {
        const text = `${count.toFixed(4)}${unit}`;
        let waitMs: number;
        try {
          ({ waitMs } = common('--wait', text));
        } catch (error) {
          expect(error).toBeInstanceOf(UsageError);
          expect((error as Error).message).toBe(`--wait: "${text}" is more than 24 days`);
          return;
        }
        expect(Number.isInteger(waitMs)).toBe(true);
        expect(waitMs).toBeLessThan(2 ** 31);
      }),
    );
  });

  test.each([
    ['threads', '257'],
    ['threads', '2.5'],
    ['threads', 'two'],
    ['threads', ''],
    ['priority', '20'],
    ['priority', '-21'],
    ['priority', ''],
    ['priority', '1e1'],
    ['cpu-set', ''],
    ['cpu-set', '3-1'],
    ['cpu-set', '8191'],
    ['store', ''],
    ['store', '2'],
    ['store', '0MiB'],
    ['store', 'OFF'],
    ['store', '-1GiB'],
    ['window', '0'],
    ['window', '1025'],
    ['wait', '-1s'],
    ['wait', '0'],
    ['resume-timeout', '-1s'],
    ['resume-timeout', '1000h'],
    ['max-bandwidth', '0mbit'],
    ['max-bandwidth', 'fast'],
    ['output', 'JSON'],
    ['qemu', 'unix:'],
  ])('refuses --%s %s, and names it', (name, text) => {
    expect(() => common(`--${name}=${text}`)).toThrow(UsageError);
    expect(() => common(`--${name}=${text}`)).toThrow(`--${name}: `);
  });

  test('a processor that this process may not use is refused with those it may', () => {
    const allowed = formatCpuSet(native.usableProcessors());
    const text = `--cpu-set: Cannot use processors 8190-8191: this process may use ${allowed}`;
    expect(() => common('--cpu-set', `${PROCESSOR},8190-8191`)).toThrow(new UsageError(text));
  });

  test('wants exactly one choice of security', () => {
    const says = 'give one of --key FILE';
    expect(() => readCommon(read([]))).toThrow(says);
    expect(() => readCommon(read(['--key', 'k', '--tls-dir', 'd']))).toThrow(says);
    expect(() => readCommon(read(['--insecure'], { PAGELANE_KEY: 'k' }))).toThrow(says);
  });
});

test('readSecurity() gives the choice, and reads the key only then', () => {
  expect(readSecurity(read(['--insecure']))).toEqual({ kind: 'none' });
  expect(readSecurity(read(['--tls-dir', 'd']))).toEqual({ kind: 'certificates', directory: 'd' });
  const values = read(['--key', '/none']);
  expect(readCommon(values).output).toBe('text');
  expect(() => readSecurity(values)).toThrow(/Cannot use key file "\/none"/);
});

test('readCodec() knows the four names', () => {
  for (const name of ['auto', 'none', 'lz4', 'zstd']) {
    expect(readCodec(read(['--codec', name]))).toBe(name);
  }
  expect(readCodec(read([]))).toBe('auto');
  expect(() => readCodec(read(['--codec', 'LZ4']))).toThrow(UsageError);
});

test('readMaxBandwidth() gives bytes per second, or none', () => {
  const limits = ['1gbit', 'off'].map((text) => readMaxBandwidth(read(['--max-bandwidth', text])));
  expect([...limits, readMaxBandwidth(read([]))]).toEqual([125_000_000, undefined, undefined]);
});

test.each([{ format: formatHelp }, { format: formatControlHelp }])(
  '$format.name() tells every flag, on lines a terminal shows',
  ({ format }) => {
    const help = format('pagelane x', ['pagelane x --y'], FLAGS);
    for (const [name, { help: text }] of Object.entries(FLAGS)) {
      expect(help).toContain(`--${name}`);
      expect(help).toContain(text);
    }
    for (const line of help.split('\n')) expect(line.length).toBeLessThanOrEqual(110);
  },
);

describe('readVerify()', () => {
  const flags: Flags = {
    verify: { type: 'string', help: 'what' },
    memory: { type: 'string', multiple: true, help: 'where' },
  };
  const verify = (...args: string[]) => readVerify(readArguments(args, flags, {}).values);

  test('names blocks and files, which may have any other character', () => {
    expect(verify()).toEqual([]);
    expect(verify('--verify', 'off')).toEqual([]);
    expect(verify('--verify', 'full', '--memory', 'memory=/a=b', '--memory', 'd0=c d')).toEqual([
      { block: 'memory', path: '/a=b' },
      { block: 'd0', path: 'c d' },
    ]);
  });

  test.each([
    [['--verify', 'all'], '--verify: "all" is none of full, off'],
    [['--verify', 'full'], '--verify full needs --memory BLOCK=FILE'],
    [['--memory', 'a=b'], '--memory needs --verify full'],
    [['--verify', 'full', '--memory', '=b'], '--memory: "=b" is not BLOCK=FILE'],
    [['--verify', 'full', '--memory', 'a='], '--memory: "a=" is not BLOCK=FILE'],
    [
      ['--verify', 'full', '--memory', 'a=b', '--memory', 'a=c'],
      '--memory: block "a" is named twice',
    ],
  ])('refuses %j', (args, message) => {
    expect(() => verify(...args)).toThrow(new UsageError(message));
  });
});

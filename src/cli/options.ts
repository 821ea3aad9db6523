import { parseArgs } from 'node:util';
import {
  type CodecName,
  checkCpuSet,
  type MappedMemory,
  parseCpuSet,
  parseDuration,
  parseQemuAddress,
  parseRate,
  parseSize,
  type QemuAddress,
  readKeyFile,
  type Security,
} from '../index.ts';

/* Chosen by us */
const WAIT_MS = 10 * 60_000;

/** Node's timers take no more: a longer one would end at once. */
const TIME_MS_MAX: number = 2 ** 31 - 1;

/** A mistake on the command line: exit code 2. */
export class UsageError extends Error {}

/** One flag of a command. Each has an environment variable: `--tls-dir` is PAGELANE_TLS_DIR. */
export interface Flag {
  readonly type: 'string' | 'boolean';
  readonly multiple?: boolean;
  /** Name of the value in the help text. */
  readonly value?: string;
  readonly help: string;
}

export type Flags = Readonly<Record<string, Flag>>;

/** Values of flags, by name; absent ones are undefined. */
export class Values {
  readonly #values: Readonly<Record<string, string | boolean | readonly string[] | undefined>>;

  constructor(values: Readonly<Record<string, string | boolean | readonly string[] | undefined>>) {
    this.#values = values;
  }

  text(name: string): string | undefined {
    const value = this.#values[name];
    return typeof value === 'string' ? value : undefined;
  }

  texts(name: string): readonly string[] {
    const value = this.#values[name];
    if (Array.isArray(value)) return value as readonly string[];
    return typeof value === 'string' ? [value] : [];
  }

  is(name: string): boolean {
    return this.#values[name] === true;
  }
}

/** Flags that both ends of a migration have. */
export const COMMON_FLAGS: Flags = {
  qemu: {
    type: 'string',
    value: '-|unix:PATH|tcp:HOST:PORT',
    help: "QEMU's migration channel; - (default) is stdin and stdout",
  },
  key: { type: 'string', value: 'FILE', help: 'shared key, made by "pagelane keygen FILE"' },
  'tls-dir': {
    type: 'string',
    value: 'DIR',
    help: 'certificates instead of a key: ca-cert.pem, server-*.pem, client-*.pem',
  },
  insecure: { type: 'boolean', help: 'no encryption, no authentication' },
  threads: {
    type: 'string',
    value: 'N',
    help: 'threads for page contents; default: one for each processor of --cpu-set',
  },
  'cpu-set': {
    type: 'string',
    value: 'LIST',
    help: 'processors these threads run on: 0-3,8; default: all this process may use',
  },
  priority: {
    type: 'string',
    value: 'N',
    help: 'their nice value, 19 to -20; below 0 as --priority=-5; default: as this process',
  },
  store: {
    type: 'string',
    value: 'SIZE|off',
    help: 'page contents kept, so as not to send them twice; default 1/4 of free',
  },
  window: { type: 'string', value: 'MIB', help: 'MiB this end accepts ahead; default 64' },
  'max-bandwidth': {
    type: 'string',
    value: 'RATE|off',
    help: 'most that is sent on all paths together: 200mbit, 125MB; default off',
  },
  wait: {
    type: 'string',
    value: 'TIME',
    help: 'longest wait for the other side to come; default 10m',
  },
  'resume-timeout': {
    type: 'string',
    value: 'TIME',
    help: 'longest wait for a path to come back when all are lost; 0: none; default 60s',
  },
  interval: {
    type: 'string',
    value: 'TIME',
    help: 'time between progress reports; default 250ms on a terminal, 5s elsewhere',
  },
  output: { type: 'string', value: 'text|json|ndjson', help: 'form of the result on stdout' },
  quiet: { type: 'boolean', help: 'no progress, only warnings and errors' },
  help: { type: 'boolean', help: 'this text' },
};

/**
 * Reads a command's arguments; flags win over environment variables.
 *
 * @throws {UsageError} If a flag is unknown or has no value.
 */
export function readArguments(
  args: readonly string[],
  flags: Flags,
  environment: NodeJS.ProcessEnv,
): { values: Values; positionals: readonly string[] } {
  let parsed: { values: object; positionals: string[] };
  try {
    const options = Object.fromEntries(
      Object.entries(flags).map(([name, { type, multiple }]) => [
        name,
        { type, ...(multiple && { multiple }) },
      ]),
    );
    parsed = parseArgs({ args: [...args], options, allowPositionals: true, strict: true });
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    throw new UsageError(text.replaceAll('\n', ' ').replace(/\.$/, ''));
  }
  const values: Record<string, string | boolean | readonly string[] | undefined> = {
    ...fromEnvironment(flags, environment),
    ...parsed.values,
  };
  return { values: new Values(values), positionals: parsed.positionals };
}

function fromEnvironment(
  flags: Flags,
  environment: NodeJS.ProcessEnv,
): Record<string, string | boolean | readonly string[]> {
  const values: Record<string, string | boolean | readonly string[]> = {};
  for (const [name, flag] of Object.entries(flags)) {
    const text = environment[`PAGELANE_${name.toUpperCase().replaceAll('-', '_')}`];
    if (text === undefined || text === '') continue;
    if (flag.type === 'boolean') values[name] = text !== '0' && text !== 'false';
    else values[name] = flag.multiple ? text.trim().split(/\s+/) : text;
  }
  return values;
}

/** Runs a reader of one flag's text and turns its complaint into a usage error. */
export function readFlag<T>(name: string, text: string, read: (text: string) => T): T {
  try {
    return read(text);
  } catch (error) {
    throw new UsageError(`--${name}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** What COMMON_FLAGS say, but for the key: see `readSecurity`. */
export interface CommonOptions {
  readonly qemu: QemuAddress;
  readonly threads: number | undefined;
  /** Processors for the threads, if they are limited; this process may use all of them. */
  readonly cpuSet: readonly number[] | undefined;
  /** Nice value of the threads, if asked for. */
  readonly priority: number | undefined;
  /** Most bytes of pages that are kept, if that was said. */
  readonly storeBytes: number | undefined;
  readonly windowBytes: number | undefined;
  /** Most bytes a second on all paths together, if limited. */
  readonly maxBytesPerSecond: number | undefined;
  readonly waitMs: number;
  readonly resumeTimeoutMs: number | undefined;
  readonly output: 'text' | 'json' | 'ndjson';
  readonly isQuiet: boolean;
  /** Time between progress reports, if asked for. */
  readonly intervalMs: number | undefined;
}

/**
 * @throws {UsageError} If a value is wrong, or no choice of security is made.
 */
export function readCommon(values: Values): CommonOptions {
  const output = values.text('output') ?? 'text';
  if (output !== 'text' && output !== 'json' && output !== 'ndjson') {
    throw new UsageError(`--output: "${output}" is none of text, json, ndjson`);
  }
  if (securityFlags(values).length !== 1) {
    throw new UsageError(
      'give one of --key FILE (make one with "pagelane keygen FILE"), --tls-dir DIR, --insecure',
    );
  }
  const windowMib = readCount(values, 'window', 1, 1024);
  return {
    qemu: readFlag('qemu', values.text('qemu') ?? '-', parseQemuAddress),
    threads: readCount(values, 'threads', 1, 256),
    cpuSet: readCpuSet(values),
    priority: readCount(values, 'priority', -20, 19),
    storeBytes: readStore(values),
    windowBytes: windowMib === undefined ? undefined : windowMib * 1024 * 1024,
    maxBytesPerSecond: readMaxBandwidth(values),
    waitMs: readTime(values, 'wait') ?? WAIT_MS,
    resumeTimeoutMs: readResumeTimeout(values),
    output,
    isQuiet: values.is('quiet'),
    intervalMs: readTime(values, 'interval'),
  };
}

/** The ways of protection that were asked for. */
function securityFlags(values: Values): string[] {
  return ['key', 'tls-dir', 'insecure'].filter(
    (name) => values.is(name) || values.text(name) !== undefined,
  );
}

/**
 * Reads the key, if one is named.
 *
 * @throws {PagelaneError} ERR_KEY_FILE If it cannot be read.
 */
export function readSecurity(values: Values): Security {
  const key = values.text('key');
  const directory = values.text('tls-dir');
  if (key !== undefined) return { kind: 'key', key: readKeyFile(key) };
  if (directory !== undefined) return { kind: 'certificates', directory };
  return { kind: 'none' };
}

/** Reads `--max-bandwidth`: bytes per second; undefined for none. */
export function readMaxBandwidth(values: Values): number | undefined {
  const text = values.text('max-bandwidth');
  if (text === undefined || text === 'off') return undefined;
  return readFlag('max-bandwidth', text, parseRate);
}

/** Reads `--cpu-set`. */
function readCpuSet(values: Values): readonly number[] | undefined {
  const text = values.text('cpu-set');
  if (text === undefined) return undefined;
  return readFlag('cpu-set', text, (list) => {
    const cpuSet = parseCpuSet(list);
    checkCpuSet(cpuSet);
    return cpuSet;
  });
}

/** Reads `--store`: bytes; undefined if it was not given. */
export function readStore(values: Values): number | undefined {
  const text = values.text('store');
  if (text === undefined) return undefined;
  return text === 'off' || text === '0' ? 0 : readFlag('store', text, parseSize);
}

/** Reads `--resume-timeout`, where no time needs no unit. */
function readResumeTimeout(values: Values): number | undefined {
  return values.text('resume-timeout') === '0' ? 0 : readTime(values, 'resume-timeout');
}

/** Milliseconds, whole ones, as many as a timer takes. */
function readTime(values: Values, name: string): number | undefined {
  const text = values.text(name);
  if (text === undefined) return undefined;
  const timeMs = Math.round(readFlag(name, text, parseDuration));
  if (timeMs > TIME_MS_MAX) throw new UsageError(`--${name}: "${text}" is more than 24 days`);
  return timeMs;
}

/** Reads a whole number from `min` to `max`; undefined if it was not given. */
export function readCount(
  values: Values,
  name: string,
  min: number,
  max: number,
): number | undefined {
  const text = values.text(name);
  if (text === undefined) return undefined;
  const count = /^-?\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!(count >= min && count <= max)) {
    throw new UsageError(`--${name}: "${text}" is not a number from ${min} to ${max}`);
  }
  return count;
}

/** Reads `--verify` and `--memory`: the memory to be verified. */
export function readVerify(values: Values): readonly MappedMemory[] {
  const verify = values.text('verify') ?? 'off';
  const memory = values.texts('memory').map((text) => readFlag('memory', text, parseMemory));
  if (verify !== 'full' && verify !== 'off') {
    throw new UsageError(`--verify: "${verify}" is none of full, off`);
  }
  if (verify === 'off' && memory.length > 0) throw new UsageError('--memory needs --verify full');
  if (verify === 'full' && memory.length === 0) {
    throw new UsageError('--verify full needs --memory BLOCK=FILE');
  }
  const blocks = memory.map(({ block }) => block);
  const twice = blocks.find((block, index) => blocks.indexOf(block) !== index);
  if (twice !== undefined) throw new UsageError(`--memory: block "${twice}" is named twice`);
  return memory;
}

function parseMemory(text: string): MappedMemory {
  const at = text.indexOf('=');
  if (at < 1 || at === text.length - 1) throw new Error(`"${text}" is not BLOCK=FILE`);
  return { block: text.slice(0, at), path: text.slice(at + 1) };
}

/** Reads `--codec`. */
export function readCodec(values: Values): CodecName {
  const text = values.text('codec') ?? 'auto';
  if (text === 'auto' || text === 'none' || text === 'lz4' || text === 'zstd') return text;
  throw new UsageError(`--codec: "${text}" is none of auto, none, lz4, zstd`);
}

/** Help text of a command that migrates. */
export function formatHelp(usage: string, examples: readonly string[], flags: Flags): string {
  return [
    ...formatUsage(usage, examples),
    'Options (each has an environment variable, as PAGELANE_KEY for --key):',
    ...formatFlags(flags),
    '',
    'Exit codes: 0 done · 1 failed, guest at the source · 2 usage · 5 cancelled, guest at the source ·',
    '  6 start neither copy before you know where the guest is · 7 post-copy paused · 130 interrupted',
    '',
  ].join('\n');
}

/** Help text of a command that looks at migrations, or changes them. */
export function formatControlHelp(
  usage: string,
  examples: readonly string[],
  flags: Flags,
  exitCodes = '0 done · 1 not done · 2 usage',
): string {
  const session =
    'SESSION is the id that "pagelane ls" shows, at least 4 digits of it, or the name of the machine.';
  return [
    ...formatUsage(usage, examples),
    'Options:',
    ...formatFlags(flags),
    '',
    ...(usage.includes('SESSION') ? [session] : []),
    `Exit codes: ${exitCodes}`,
    '',
  ].join('\n');
}

function formatUsage(usage: string, examples: readonly string[]): string[] {
  return [`Usage: ${usage}`, '', 'Examples:', ...examples.map((line) => `  ${line}`), ''];
}

function formatFlags(flags: Flags): string[] {
  return Object.entries(flags).map(([name, flag]) => {
    const left = `  --${name}${flag.value === undefined ? '' : ` ${flag.value}`}`;
    return left.length < 30
      ? `${left.padEnd(30)} ${flag.help}`
      : `${left}\n${' '.repeat(31)}${flag.help}`;
  });
}

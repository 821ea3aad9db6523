import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

/* Chosen by us */
const POLL_MS = 20;
const KILL_TIMEOUT_MS = 5_000;

/** How to start a process. */
export interface ProcessOptions {
  /** Network namespace to run it in; this process's own if absent. */
  readonly namespace?: string;
  /** Variables added to this process's environment. */
  readonly env?: Readonly<Record<string, string>>;
  readonly directory?: string;
  /** Whether it is told things on its standard input, by `write`. @default false */
  readonly hasInput?: boolean;
}

/** A child process that ends with this one, however this one ends. */
export interface RunningProcess extends AsyncDisposable {
  readonly pid: number;
  /** What it has written so far. */
  stdout(): string;
  stderr(): string;
  /** Tells it something, if it has an input. */
  write(text: string): void;
  isRunning(): boolean;
  /** Its exit status, or the name of the signal that ended it. */
  exit(timeoutMs: number): Promise<number | string>;
  /** Ends it by its process id and returns when it is gone. */
  stop(signal?: NodeJS.Signals): Promise<void>;
  signal(signal: NodeJS.Signals): void;
}

/** What a finished process left. */
export interface ProcessResult {
  readonly stdout: string;
  readonly stderr: string;
}

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/**
 * Words that run `command` in `namespace` and let it die with its parent.
 *
 * setpriv and ip replace themselves, so the process id is that of `command`.
 */
export function commandLine(
  command: readonly string[],
  namespace?: string,
): readonly [string, ...string[]] {
  const inside = namespace === undefined ? [] : ['ip', 'netns', 'exec', namespace];
  return ['setpriv', '--pdeathsig', 'KILL', '--', ...inside, ...command];
}

/** Starts `command`, its name first. Its output is kept. */
export function startProcess(
  command: readonly string[],
  { namespace, env, directory, hasInput = false }: ProcessOptions = {},
): RunningProcess {
  const [program, ...words] = commandLine(command, namespace);
  const stdio: StdioOptions = [hasInput ? 'pipe' : 'ignore', 'pipe', 'pipe'];
  const child = spawn(program, words, {
    stdio,
    env: { ...process.env, ...env },
    ...(directory !== undefined && { cwd: directory }),
  });
  running.add(child);
  const output = { stdout: '', stderr: '' };
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    output.stdout += text;
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    output.stderr += text;
  });
  child.stdin?.on('error', () => {}); // it has ended: its status tells
  child.on('error', (cause) => {
    output.stderr += `${cause.message}\n`;
  });
  let isClosed = false;
  const closed = once(child, 'close').then(() => {
    isClosed = true;
    running.delete(child);
  });
  closed.catch(() => {}); // spawn failed: told through stderr and the exit status
  const isOver = () => isClosed || child.exitCode !== null || child.signalCode !== null;
  const exit = async (timeoutMs: number) => {
    await within(closed, timeoutMs, `${command[0]} (pid ${child.pid}) to exit`);
    return child.exitCode ?? child.signalCode ?? -1;
  };
  const stop = async (signal: NodeJS.Signals = 'SIGKILL') => {
    if (!isOver()) child.kill(signal);
    await exit(KILL_TIMEOUT_MS);
  };
  return {
    pid: child.pid ?? -1,
    stdout: () => output.stdout,
    stderr: () => output.stderr,
    write: (text) => void child.stdin?.write(text),
    isRunning: () => !isOver(),
    exit,
    stop,
    signal: (signal) => {
      child.kill(signal);
    },
    [Symbol.asyncDispose]: () => stop(),
  };
}

/**
 * Runs `command` to its end.
 *
 * @throws {Error} If it fails, with what it wrote; or if `timeoutMs` pass, and it is ended.
 */
export async function run(
  command: readonly string[],
  { timeoutMs = 10_000, ...options }: ProcessOptions & { readonly timeoutMs?: number } = {},
): Promise<ProcessResult> {
  await using child = startProcess(command, options);
  const status = await child.exit(timeoutMs);
  if (status !== 0) {
    throw new Error(`${command.join(' ')}: exit status ${status}: ${child.stderr().trim()}`);
  }
  return { stdout: child.stdout(), stderr: child.stderr() };
}

/**
 * Awaits `promise` for at most `timeoutMs`.
 *
 * @param what The thing waited for, as a phrase: it is named when the time is over.
 */
export async function within<T>(promise: Promise<T>, timeoutMs: number, what: string): Promise<T> {
  const timer = new AbortController();
  const expired = sleep(timeoutMs, undefined, { signal: timer.signal }).then(() => {
    throw new Error(`Waited ${timeoutMs} ms for ${what}`);
  });
  expired.catch(() => {}); // aborted when the promise was faster
  try {
    return await Promise.race([promise, expired]);
  } finally {
    timer.abort();
  }
}

/**
 * Polls `probe` until it returns something else than undefined or false.
 *
 * @param what The thing waited for, as a phrase: it is named when the time is over.
 */
export async function waitUntil<T>(
  what: string,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  { timeoutMs }: { readonly timeoutMs: number },
): Promise<T> {
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    const found = await probe();
    if (found !== undefined && found !== false) return found;
    if (performance.now() > deadlineMs) throw new Error(`Waited ${timeoutMs} ms for ${what}`);
    await sleep(POLL_MS);
  }
}

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createKeyFile, type MigrationResult } from '../../src/index.ts';
import {
  type ProcessOptions,
  type RunningProcess,
  startProcess,
  waitUntil,
} from './lab/processes.ts';
import { PAGELANE } from './pagelane.ts';

/* Chosen by us */

/** No command of a test takes so long, however busy the machine is. */
export const BOUND_MS = 30_000;

/** A process that has ended. */
export interface Ended {
  readonly code: number | string;
  readonly stdout: string;
  readonly stderr: string;
}

/** A folder with a key, and `pagelane` commands that use it; all of it is gone in the end. */
export class Commands implements AsyncDisposable {
  readonly folder: string;
  readonly #processes: RunningProcess[] = [];

  constructor() {
    this.folder = mkdtempSync(join(tmpdir(), 'pagelane-test-'));
    createKeyFile(this.path('key'));
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** Where `send` awaits QEMU. */
  get out(): string {
    return this.path('out');
  }

  /** Where `receive` finds QEMU. */
  get in(): string {
    return this.path('in');
  }

  /** Words that name the key. */
  get keyWords(): readonly string[] {
    return ['--key', this.path('key')];
  }

  start(words: readonly string[], options: ProcessOptions = {}): RunningProcess {
    const process = startProcess([...PAGELANE, ...words], options);
    this.#processes.push(process);
    return process;
  }

  /** Runs a command to its end. */
  async run(words: readonly string[], options: ProcessOptions = {}): Promise<Ended> {
    return await ended(this.start(words, options));
  }

  /** Starts `pagelane receive` on loopback. */
  async receive(
    words: readonly string[] = [],
    security: readonly string[] = this.keyWords,
  ): Promise<{ receiver: RunningProcess; port: number }> {
    const common = ['--listen', '127.0.0.1:0', '--qemu', `unix:${this.in}`];
    const receiver = this.start(['receive', ...common, ...security, ...words]);
    const line = await waitForLine(receiver, /listening on .*:(\d+)/);
    return { receiver, port: Number(line[1]) };
  }

  /** Words of `pagelane send` to a receiver on loopback. */
  sendWords(
    port: number,
    words: readonly string[] = [],
    security: readonly string[] = this.keyWords,
  ): string[] {
    return [
      'send',
      '--to',
      `127.0.0.1:${port}`,
      '--qemu',
      `unix:${this.out}`,
      ...security,
      ...words,
    ];
  }

  /** Starts `pagelane send` and waits until QEMU may come. */
  async send(port: number, words: readonly string[] = []): Promise<RunningProcess> {
    const sender = this.start(this.sendWords(port, words));
    await waitForLine(sender, /ready; in QEMU/);
    return sender;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const process of this.#processes) await process.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Waits for the end of a process. */
export async function ended(process: RunningProcess): Promise<Ended> {
  const code = await process.exit(BOUND_MS);
  return { code, stdout: process.stdout(), stderr: process.stderr() };
}

/** Waits for a line of narration. */
export async function waitForLine(
  process: RunningProcess,
  pattern: RegExp,
): Promise<RegExpExecArray> {
  return await waitUntil(
    `${pattern} from pagelane`,
    () => {
      const match = pattern.exec(process.stderr());
      if (match !== null) return match;
      if (!process.isRunning()) throw new Error(`pagelane ended: ${process.stderr()}`);
      return undefined;
    },
    { timeoutMs: BOUND_MS },
  );
}

/** The failure that a command told on stderr. */
export interface Failure {
  readonly code: string;
  readonly side: string;
  readonly phase: string;
  readonly message: string;
  readonly guest: string;
  readonly advice: string | undefined;
}

/** Reads the failure from what a command told, as a person would look for it. */
export function failureOf(stderr: string): Failure {
  const head = /^pagelane: (ERR_\w+) \((source|destination), (\w+)\): (.*)\n/;
  const tail = / {2}guest: (.*)\n(?: {2}to do: (.*)\n)?/;
  const pattern = new RegExp(head.source + tail.source, 'm');
  const match = pattern.exec(stderr);
  if (match === null) throw new Error(`There is no failure in: ${stderr}`);
  const [, code, side, phase, message, guest, advice] = match;
  return { code: code!, side: side!, phase: phase!, message: message!, guest: guest!, advice };
}

/** Lines of JSON. Throws if one is none. */
export function jsonLines(text: string): Record<string, unknown>[] {
  const lines = text.split('\n').filter((line) => line !== '');
  return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
}

/** The result record among the lines that a command wrote with `--output ndjson`. */
export function resultOf(stdout: string): MigrationResult {
  const line = jsonLines(stdout).at(-1);
  if (line?.['type'] !== 'result') throw new Error(`The last line is no result: ${stdout}`);
  return line as unknown as MigrationResult;
}

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { MigrationResult } from '../../src/index.ts';
import type { Guest } from './lab/guest.ts';
import {
  beginTo,
  configure,
  finish,
  listenAt,
  type MigrationReport,
  type MigrationSettings,
  type Pair,
} from './lab/migrate.ts';
import type { LabNetwork } from './lab/netns.ts';
import { type RunningProcess, run, startProcess, waitUntil, within } from './lab/processes.ts';

/* Chosen by us */
const PORT = 7700;
const READY_TIMEOUT_MS = 20_000;
const EXIT_TIMEOUT_MS = 30_000;
const MIGRATION_TIMEOUT_MS = 180_000;

/** How pagelane is put between two QEMUs. */
export interface PagelaneOptions {
  /** Namespaces and paths; loopback, from addresses of its own for each path, if absent. */
  readonly network?: LabNetwork;
  /** Paths used, the network's first ones; on loopback, addresses. @default all, or 1 */
  readonly pathCount?: number;
  /** Words for `send` that say which paths it uses, in place of all of them. */
  readonly pathWords?: readonly string[];
  /** @default key */
  readonly security?: 'key' | 'insecure';
  readonly codec?: 'auto' | 'none' | 'lz4' | 'zstd';
  /** How QEMU reaches pagelane. @default unix */
  readonly qemu?: 'unix' | 'exec';
  /** Further words for both commands, and for one of them. */
  readonly words?: readonly string[];
  readonly sendWords?: readonly string[];
  readonly receiveWords?: readonly string[];
}

/** A migration through two pagelane processes. */
export class PagelaneMigration implements AsyncDisposable {
  readonly folder: string;
  readonly #options: PagelaneOptions;
  readonly #processes: RunningProcess[] = [];

  constructor(options: PagelaneOptions = {}) {
    this.#options = options;
    this.folder = mkdtempSync(join(tmpdir(), 'pagelane-run-'));
  }

  /** Whether both processes are there; only with `unix`. */
  get isStarted(): boolean {
    return this.#processes.length === 2;
  }

  /** The process at the source; only with `unix`. */
  get sender(): RunningProcess {
    return this.#processes[1]!;
  }

  /** The process at the destination; only with `unix`. */
  get receiver(): RunningProcess {
    return this.#processes[0]!;
  }

  /**
   * Starts both commands and makes the destination QEMU wait; returns where the source must migrate
   * to.
   */
  async prepare({ destination }: { readonly destination: Guest }): Promise<string> {
    await this.#makeKey();
    return this.#options.qemu === 'exec'
      ? await this.#prepareExec(destination)
      : await this.#prepareUnix(destination);
  }

  /** Configures both QEMUs, and migrates by post-copy from the first page on. */
  async beginPostcopy(pair: Pair, settings: MigrationSettings = {}): Promise<void> {
    const capabilities = { 'postcopy-ram': true, ...settings.capabilities };
    await configure(pair, { ...settings, capabilities });
    await beginTo(pair.source, { uri: await this.prepare(pair) });
    await settings.beforeStart?.();
    await pair.source.qmp.execute('migrate-start-postcopy');
  }

  /** Configures both QEMUs, migrates, and waits for both to complete. */
  async migrate(pair: Pair, settings: MigrationSettings = {}): Promise<MigrationReport> {
    await configure(pair, settings);
    const uri = await this.prepare(pair);
    await settings.beforeStart?.();
    const begunMs = Date.now();
    await beginTo(pair.source, { uri });
    try {
      return await finish(pair, { begunMs, timeoutMs: MIGRATION_TIMEOUT_MS });
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      throw new Error(`${text}\n${this.narration()}`, { cause: error });
    }
  }

  /** What both commands wrote to stderr. */
  narration(): string {
    const { sender, receiver } = this.#logs();
    return `--- send ---\n${sender}\n--- receive ---\n${receiver}`;
  }

  /** The result record of an end that may have ended by now. */
  result(end: 'sender' | 'receiver'): MigrationResult | undefined {
    return lastResult(this.#data()[end]);
  }

  /** Result records of both ends, once both commands have ended by themselves. */
  async results(): Promise<{
    source: MigrationResult;
    destination: MigrationResult;
    exitCodes: readonly (number | string)[];
  }> {
    const exitCodes: (number | string)[] = [];
    for (const process of this.#processes) exitCodes.push(await process.exit(EXIT_TIMEOUT_MS));
    const find = async (end: 'sender' | 'receiver'): Promise<MigrationResult> =>
      await waitUntil(`the result of ${end}`, () => lastResult(this.#data()[end]), {
        timeoutMs: EXIT_TIMEOUT_MS,
      });
    return { source: await find('sender'), destination: await find('receiver'), exitCodes };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const process of this.#processes) await process.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }

  async #makeKey(): Promise<void> {
    if (this.#options.security === 'insecure') return;
    await run([...PAGELANE, 'keygen', join(this.folder, 'key')]);
  }

  async #prepareUnix(destination: Guest): Promise<string> {
    const { network } = this.#options;
    const incoming = `unix:${join(this.folder, 'in')}`;
    const outgoing = `unix:${join(this.folder, 'out')}`;
    await listenAt(destination, { uri: incoming });
    const receive = [...PAGELANE, ...this.#receiveWords(), '--qemu', incoming];
    const receiver = startProcess(receive, namespaceOf(network?.destination));
    this.#processes.push(receiver);
    const port = await this.#portOf(receiver.stderr);
    const send = [...PAGELANE, ...this.#sendWords(port), '--qemu', outgoing];
    const sender = startProcess(send, namespaceOf(network?.source));
    this.#processes.push(sender);
    await waitUntil('pagelane send to be ready', () => ready(sender), {
      timeoutMs: READY_TIMEOUT_MS,
    });
    return outgoing;
  }

  async #prepareExec(destination: Guest): Promise<string> {
    const { network } = this.#options;
    const inside = (name: string | undefined): string =>
      name === undefined ? '' : `ip netns exec ${name} `;
    const receive = [...PAGELANE, ...this.#receiveWords()].join(' ');
    const log = join(this.folder, 'receive.log');
    const uri = `exec:exec ${inside(network?.destination)}${receive} 2>${log}`;
    await listenAt(destination, { uri });
    const port = await this.#portOf(() => readLog(log));
    const send = [...PAGELANE, ...this.#sendWords(port)].join(' ');
    return `exec:exec ${inside(network?.source)}${send} 2>${join(this.folder, 'send.log')}`;
  }

  async #portOf(narration: () => string): Promise<number> {
    const found = await waitUntil(
      'pagelane receive to listen',
      () => /listening on .*:(\d+)/.exec(narration()) ?? undefined,
      { timeoutMs: READY_TIMEOUT_MS },
    );
    return Number(found[1]);
  }

  #commonWords(): readonly string[] {
    const { security, words = [] } = this.#options;
    const secrecy = security === 'insecure' ? ['--insecure'] : ['--key', join(this.folder, 'key')];
    return [...secrecy, '--output', 'ndjson', ...words];
  }

  #receiveWords(): readonly string[] {
    const place = this.#options.network === undefined ? '127.0.0.1:0' : `0.0.0.0:${PORT}`;
    const { receiveWords = [] } = this.#options;
    return ['receive', '--listen', place, ...receiveWords, ...this.#commonWords()];
  }

  #sendWords(port: number): readonly string[] {
    const { network, codec, pathCount, pathWords, sendWords = [] } = this.#options;
    const words: string[] = ['send', ...(pathWords ?? [])];
    if (pathWords !== undefined) {
      // They say it all.
    } else if (network === undefined) {
      for (let index = 0; index < (pathCount ?? 1); index++)
        words.push('--path', `127.0.0.1:${port}`);
    } else {
      for (const path of network.paths.slice(0, pathCount ?? network.paths.length)) {
        words.push('--path', `${path.sourceAddress}@${path.destinationAddress}:${port}`);
      }
    }
    if (codec !== undefined) words.push('--codec', codec);
    return [...words, ...sendWords, ...this.#commonWords()];
  }

  #logs(): { sender: string; receiver: string } {
    if (this.#options.qemu === 'exec') return this.#data();
    return { sender: this.sender?.stderr() ?? '', receiver: this.receiver?.stderr() ?? '' };
  }

  #data(): { sender: string; receiver: string } {
    if (this.#options.qemu !== 'exec') {
      return { sender: this.sender.stdout(), receiver: this.receiver.stdout() };
    }
    return {
      sender: readLog(join(this.folder, 'send.log')),
      receiver: readLog(join(this.folder, 'receive.log')),
    };
  }
}

/** The command under test, as a user has it after the build. */
const PAGELANE: readonly string[] = [
  process.execPath,
  join(packageFolder(), 'dist', 'cli', 'main.js'),
];

function packageFolder(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (readLog(join(folder, 'binding.gyp')) === '') folder = dirname(folder);
  return folder;
}

function namespaceOf(namespace: string | undefined): { namespace?: string } {
  return namespace === undefined ? {} : { namespace };
}

function ready(process: RunningProcess): boolean {
  if (!process.isRunning()) throw new Error(`pagelane send ended early: ${process.stderr()}`);
  return process.stderr().includes('ready; in QEMU');
}

function lastResult(text: string): MigrationResult | undefined {
  const line = text.split('\n').findLast((each) => each.includes('"type":"result"'));
  return line === undefined ? undefined : (JSON.parse(line) as MigrationResult);
}

function readLog(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

export { PAGELANE, within };

import { createCipheriv } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { MigrationResult } from '../../src/index.ts';
import type { QemuBinary } from './lab/binaries.ts';
import { type Guest, startGuest } from './lab/guest.ts';
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
import { type RedisServer, startServers } from './redis.ts';

/* Chosen by us */
const PORT = 7700;
const READY_TIMEOUT_MS = 20_000;
const EXIT_TIMEOUT_MS = 30_000;
const MIGRATION_TIMEOUT_MS = 180_000;
const FILLED_MIB = 128;
export const FILLED_AT: number = 16 * 1024 * 1024;

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
  /** Whether both QEMUs go on with a post-copy that is paused. @default false */
  readonly isRecovery?: boolean;
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

  /** Lets both QEMUs go on with a post-copy that is paused; with `isRecovery`. */
  async recover(pair: Pair): Promise<void> {
    const uri = await this.prepare(pair);
    await pair.source.qmp.execute('migrate', { uri, resume: true });
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
    const { network, isRecovery } = this.#options;
    const incoming = `unix:${join(this.folder, 'in')}`;
    const outgoing = `unix:${join(this.folder, 'out')}`;
    if (isRecovery) await destination.qmp.execute('migrate-recover', { uri: incoming });
    else await listenAt(destination, { uri: incoming });
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

/** How a pair of guests that never run is started. */
export interface FilledPairOptions {
  readonly qemu?: QemuBinary;
  /** What is in their memory from FILLED_AT on, at the source. */
  readonly content: Uint8Array;
  readonly memoryMiB?: number;
}

/** Pages, a seed's own: random bytes, text, and a few bytes among zeros, in turn. */
export function filledContent(seed: number, mebibytes = 48): Uint8Array {
  const key = Buffer.alloc(16);
  key.writeUInt32LE(seed);
  const cipher = createCipheriv('aes-128-ctr', key, Buffer.alloc(16));
  const bytes = cipher.update(new Uint8Array(mebibytes * 1024 * 1024));
  for (let at = 0; at < bytes.length; at += 2 * 4096) {
    const page = bytes.subarray(at, at + 4096);
    if ((at / 4096) % 4 === 0) page.fill(`page ${at} of ${seed}, again and again; `);
    else page.fill(0, 64);
  }
  return bytes;
}

/** Two guests that never run, and so need no time to boot, and the files that are their memory. */
export interface FilledPair extends Pair, AsyncDisposable {
  readonly sourceMemory: string;
  readonly destinationMemory: string;
}

/** A guest that stands still, with `content` in its memory, and a QEMU that waits for it. */
export async function startFilledPair(options: FilledPairOptions): Promise<FilledPair> {
  const { qemu, content, memoryMiB = FILLED_MIB } = options;
  const folder = mkdtempSync(join('/dev/shm', 'pagelane-filled-'));
  const files = ['content', 'source', 'destination'].map((name) => join(folder, name));
  const [contentFile, sourceMemory, destinationMemory] = files as [string, string, string];
  writeFileSync(contentFile, content);
  const place = `addr=0x${FILLED_AT.toString(16)},force-raw=on`;
  const common = { memoryMiB, ...(qemu !== undefined && { qemu }) };
  const guests: Guest[] = [];
  const end = async (): Promise<void> => {
    for (const guest of guests) await guest.stop();
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const loader = ['-S', '-device', `loader,file=${contentFile},${place}`];
    const first = { ...common, memoryFile: sourceMemory, extraWords: loader };
    guests.push(await startGuest(first));
    const second = { ...common, memoryFile: destinationMemory, extraWords: ['-S'] };
    guests.push(await startGuest({ ...second, isIncoming: true }));
  } catch (error) {
    await end();
    throw error;
  }
  const [source, destination] = guests as [Guest, Guest];
  return { source, destination, sourceMemory, destinationMemory, [Symbol.asyncDispose]: end };
}

/** How a guest that stands still is moved by way of intermediaries. */
export interface StagedRunOptions extends FilledPairOptions, Omit<PagelaneOptions, 'qemu'> {
  readonly serverCount: number;
  readonly hasParity?: boolean;
}

/** A guest that stands still, on its way by way of intermediaries. */
export interface StagedRun extends AsyncDisposable {
  readonly pair: FilledPair;
  readonly servers: readonly RedisServer[];
  readonly migration: PagelaneMigration;
}

/** Starts all that a migration by way of intermediaries takes; it is not begun. */
export async function startStagedRun(options: StagedRunOptions): Promise<StagedRun> {
  const { qemu, content, memoryMiB, serverCount, hasParity, sendWords = [], ...rest } = options;
  const servers = await startServers(serverCount);
  const closeServers = async (): Promise<void> => {
    for (const server of servers) await server[Symbol.asyncDispose]();
  };
  let pair: FilledPair;
  try {
    const memory = { content, ...(memoryMiB !== undefined && { memoryMiB }) };
    pair = await startFilledPair({ ...memory, ...(qemu !== undefined && { qemu }) });
  } catch (error) {
    await closeServers();
    throw error;
  }
  const stage = ['--stage', servers.map(({ address }) => address.text).join(',')];
  const words = [...stage, ...(hasParity === true ? ['--parity', '1'] : []), ...sendWords];
  const migration = new PagelaneMigration({ ...rest, sendWords: words });
  const end = async (): Promise<void> => {
    await migration[Symbol.asyncDispose]();
    await pair[Symbol.asyncDispose]();
    await closeServers();
  };
  return { pair, servers, migration, [Symbol.asyncDispose]: end };
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

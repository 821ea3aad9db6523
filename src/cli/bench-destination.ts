import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import {
  createKeyFile,
  digestMemory,
  IncomingGuest,
  type ListenOptions,
  listen,
  readKeyFile,
  type Security,
  type ThreadOptions,
} from '../index.ts';
import { print } from './report.ts';
import { openSyntheticMemory } from './synthetic-guest.ts';

/*
 * The destination of `pagelane bench`: in a process of its own, or on another host
 *
 *   beDestination      is it: a line of JSON when it listens, another when it has ended
 *   BenchDestination   starts that and reads its lines
 */

/* Chosen by us */

/** How long the other process may take to listen, and to say how it ended. */
const CHILD_TIMEOUT_MS = 60_000;

/** The destination's side, for one migration. */
export async function beDestination(options: ListenOptions & ThreadOptions): Promise<number> {
  await using listener = await listen(options);
  say({ type: 'listening', port: listener.port });
  await using session = await listener.accept();
  const incoming = await session.acceptGuest();
  if (!(incoming instanceof IncomingGuest)) throw new Error('The source has no guest to send');
  const [block] = incoming.layout.blocks;
  const memory = openSyntheticMemory(block?.usedBytes ?? 0);
  try {
    const result = await incoming.receive({ memory, start: () => {} });
    const digest = (await digestMemory(memory)).toString(16).padStart(16, '0');
    say({ type: 'bench', result, memory: digest });
    return result.outcome === 'completed' ? 0 : 1;
  } finally {
    memory.dispose();
  }
}

function say(record: Readonly<Record<string, unknown>>): void {
  print(`${JSON.stringify(record)}\n`);
}

/** The destination in a process of its own. */
export class BenchDestination implements AsyncDisposable {
  readonly port: number;
  readonly security: Security;
  readonly #process: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  private constructor(
    child: ChildProcess,
    lines: AsyncIterator<string>,
    { port, security }: { port: number; security: Security },
  ) {
    this.#process = child;
    this.#lines = lines;
    this.port = port;
    this.security = security;
  }

  /** @param folder Where its key is made. */
  static async start({
    folder,
    isInsecure,
    threads,
  }: {
    readonly folder: string;
    readonly isInsecure: boolean;
    readonly threads: number | undefined;
  }): Promise<BenchDestination> {
    const file = join(folder, 'key');
    if (!isInsecure) createKeyFile(file);
    const protection = isInsecure ? ['--insecure'] : ['--key', file];
    const count = threads === undefined ? [] : ['--threads', String(threads)];
    const args = [process.argv[1]!, 'bench', '--listen', '127.0.0.1:0', ...protection, ...count];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const { port } = (await nextRecord(lines, 'listen')) as unknown as { port: number };
    const security = isInsecure
      ? ({ kind: 'none' } as const)
      : { kind: 'key' as const, key: readKeyFile(file) };
    return new BenchDestination(child, lines, { port, security });
  }

  /** The digest of its memory, when it has ended. */
  async memory(): Promise<string> {
    return String((await nextRecord(this.#lines, 'say how it ended'))['memory']);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const ended = new Promise((resolve) => this.#process.once('exit', resolve));
    this.#process.kill('SIGKILL');
    await ended;
  }
}

async function nextRecord(
  lines: AsyncIterator<string>,
  what: string,
): Promise<Readonly<Record<string, unknown>>> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`Waited ${CHILD_TIMEOUT_MS} ms for the destination to ${what}`)),
      CHILD_TIMEOUT_MS,
    );
  });
  try {
    const { value, done } = await Promise.race([lines.next(), late]);
    if (done === true) throw new Error(`The destination ended before it could ${what}`);
    return JSON.parse(value) as Readonly<Record<string, unknown>>;
  } finally {
    clearTimeout(timer);
  }
}

import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { type IntermediaryAddress, parseIntermediary } from '../../src/staging/address.ts';
import { type RunningProcess, startProcess, waitUntil } from './lab/processes.ts';

/* Chosen by us */
const START_TIMEOUT_MS = 10_000;

export interface RedisServerOptions {
  readonly password?: string;
  /** Network namespace to run it in; this process's own if absent. */
  readonly namespace?: string;
}

/** A real Redis with a folder of its own; it is ended and the folder removed in the end. */
export class RedisServer implements AsyncDisposable {
  readonly folder: string;
  readonly address: IntermediaryAddress;
  readonly admin: Redis;
  readonly #words: readonly string[];
  readonly #namespace: string | undefined;
  #process: RunningProcess;

  private constructor(folder: string, words: readonly string[], options: RedisServerOptions) {
    const { password, namespace } = options;
    this.folder = folder;
    this.#words = words;
    this.#namespace = namespace;
    this.address = parseIntermediary(`redis+unix:${join(folder, 'socket')}`);
    this.#process = this.#spawn();
    this.admin = new Redis({
      path: join(folder, 'socket'),
      ...(password !== undefined && { password }),
      lazyConnect: true,
      retryStrategy: () => 50,
    });
    this.admin.on('error', () => {}); // it is not there yet, or not any more
  }

  /** Starts one with more `words` of configuration. */
  static async start(
    words: readonly string[] = [],
    options: RedisServerOptions = {},
  ): Promise<RedisServer> {
    const { password } = options;
    const folder = mkdtempSync(join(tmpdir(), 'pagelane-redis-'));
    const secret = password === undefined ? [] : ['--requirepass', password];
    const server = new RedisServer(folder, [...words, ...secret], options);
    await server.#reach();
    return server;
  }

  /** Ends it at once, as a loss of power would. */
  async kill(): Promise<void> {
    await this.#process.stop();
  }

  signal(signal: NodeJS.Signals): void {
    this.#process.signal(signal);
  }

  /** Starts it anew after `kill`. */
  async restart(): Promise<void> {
    this.#process = this.#spawn();
    await this.#reach();
  }

  /** Everything that it has written to its folder. */
  files(): Buffer {
    const files = readdirSync(this.folder, { recursive: true, withFileTypes: true });
    const regular = files.filter((file) => file.isFile());
    return Buffer.concat(regular.map((file) => readFileSync(join(file.parentPath, file.name))));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.admin.disconnect();
    await this.#process.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }

  #spawn(): RunningProcess {
    const quiet = ['--port', '0', '--save', '', '--appendonly', 'no', '--loglevel', 'warning'];
    const where = ['--dir', this.folder, '--unixsocket', join(this.folder, 'socket')];
    const command = ['redis-server', ...quiet, ...where, ...this.#words];
    const namespace = this.#namespace;
    return startProcess(command, namespace === undefined ? {} : { namespace });
  }

  async #reach(): Promise<void> {
    await waitUntil(
      'redis-server to answer',
      async () => {
        if (!this.#process.isRunning()) {
          throw new Error(`redis-server ended: ${this.#process.stdout()}${this.#process.stderr()}`);
        }
        try {
          return (await this.admin.ping()) === 'PONG' || undefined;
        } catch {
          return undefined;
        }
      },
      { timeoutMs: START_TIMEOUT_MS },
    );
  }
}

/** A TCP port of loopback that nobody uses now; low enough for what Redis adds to it. */
export async function freePort(): Promise<number> {
  for (;;) {
    const server = createServer();
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const { port } = server.address() as { port: number };
    await new Promise((done) => server.close(done));
    if (port < 55_000) return port;
  }
}

/** Starts several. */
export async function startServers(count: number): Promise<RedisServer[]> {
  return await Promise.all(Array.from({ length: count }, () => RedisServer.start()));
}

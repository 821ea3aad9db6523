import { chmodSync, renameSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { formatHostPort, type PathAddress } from '../address.ts';
import { type Clock, systemClock } from '../clock.ts';
import { codeOf, messageOf, PagelaneError } from '../errors.ts';
import type { PathReport } from '../path/path.ts';
import { dialControl } from './dial.ts';
import { controlDirectories, controlSocketPath, makeControlDirectory } from './directory.ts';
import {
  CHANGE_TIMEOUT_MS,
  CONNECTIONS_MAX,
  LINE_TIMEOUT_MS,
  REQUEST_BYTES_MAX,
} from './limits.ts';
import { readLine } from './line.ts';
import { encodeError, encodeReport, type SessionReport, type SessionState } from './report.ts';
import { type ControlRequest, parseRequest } from './request.ts';

/*
 * Lets the owner of a process look at its session and change it while it runs:
 *
 *   1. a socket in a directory that only the owner may enter
 *   2. a connection carries one request and its answer, each a line of JSON
 *
 * Nothing that comes from the socket is believed, and nothing that goes wrong here reaches the
 * migration.
 */

const OWNER_MODE = 0o600;

/** What a session lets its owner do while it runs. */
export interface ControlledSession {
  /** 32 hexadecimal digits, the same at both ends. */
  readonly id: string;
  /** Every path there is, and the latest of those there were. */
  pathReports(): PathReport[];
  /** Resolves when the path is open. */
  addPath(address: PathAddress): Promise<void>;
  /** Resolves when what the path carried has arrived, and it is closed. */
  removePath(id: number): Promise<void>;
  /** Limits what this end sends on all paths together; undefined ends the limit. */
  setMaxBandwidth(bytesPerSecond: number | undefined): void;
  /** Limits what this end sends on one path; undefined ends the limit. */
  setPathMaxBandwidth(id: number, bytesPerSecond: number | undefined): void;
}

/** What a control socket is made of. */
export interface ControlOptions {
  readonly session: ControlledSession;
  /** What the session does now. */
  readonly state: () => SessionState;
  /**
   * Limits what goes to intermediaries, or comes from them; undefined ends the limit.
   *
   * @throws {PagelaneError} ERR_CONTROL_STAGE If nothing is staged, or there is no such one.
   * @default there is no staging
   */
  readonly setStageBandwidth?: (
    bytesPerSecond: number | undefined,
    intermediary: number | undefined,
  ) => void;
  /** Where the directory of the socket is named. @default the environment of the process */
  readonly environment?: NodeJS.ProcessEnv;
  /** @default the machine's monotonic clock */
  readonly clock?: Clock;
}

/** Listens for requests to look at a session, and to change it. */
export class ControlServer implements AsyncDisposable {
  /** Where it listens. */
  readonly path: string;
  readonly #options: ControlOptions;
  readonly #clock: Clock;
  readonly #server: Server;
  readonly #connections = new Set<Connection>();

  private constructor(server: Server, path: string, options: ControlOptions) {
    this.path = path;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#server = server;
    server.on('connection', (socket: Socket) => this.#accept(socket));
    // There are no descriptors left, for example: whoever connects has to try again.
    server.on('error', () => {});
  }

  /**
   * Begins to listen. It does not keep the process alive.
   *
   * @throws {PagelaneError} ERR_CONTROL_DIR If others may enter the directory of the socket, or it
   *   cannot be made.
   * @throws {PagelaneError} ERR_CONTROL_LISTEN If the socket cannot be made in it, or this end of
   *   the session has one.
   */
  static async listen(options: ControlOptions): Promise<ControlServer> {
    const [directory] = controlDirectories(options.environment ?? process.env);
    makeControlDirectory(directory!);
    const path = controlSocketPath(directory!, options.session.id, options.state().side);
    await requireDeserted(path);
    return new ControlServer(await listenAt(path), path, options);
  }

  /** Ends it: requests that are not done yet are told so, and the socket is removed. */
  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    rmSync(this.path, { force: true });
    const over = new PagelaneError('ERR_CONTROL_CLOSED', 'The migration is over');
    for (const connection of this.#connections) connection.answer(encodeError(over));
    await closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #accept(socket: Socket): void {
    const connection = new Connection(socket, this.#clock);
    if (this.#connections.size >= CONNECTIONS_MAX) {
      const message = `${CONNECTIONS_MAX} requests are under way, and no more are taken`;
      connection.answer(encodeError(new PagelaneError('ERR_CONTROL_BUSY', message)));
      return;
    }
    this.#connections.add(connection);
    socket.once('close', () => this.#connections.delete(connection));
    this.#serve(connection);
  }

  async #serve(connection: Connection): Promise<void> {
    try {
      await this.#do(parseRequest(await connection.readRequest()));
      connection.answer(encodeReport(this.#report()));
    } catch (error) {
      connection.answer(encodeError(asAnswer(error)));
    }
  }

  async #do(request: ControlRequest): Promise<void> {
    const { session } = this.#options;
    switch (request.verb) {
      case 'report':
        break;
      case 'addPath':
        await this.#addPath(request.address);
        break;
      case 'removePath': {
        const { path } = request;
        this.#requireOpen(path);
        const what = `path ${path} to deliver what is in flight; it is closed after that`;
        await this.#within(session.removePath(path), what);
        break;
      }
      case 'setMaxBandwidth': {
        const { path, bytesPerSecond } = request;
        if (path !== undefined) this.#requireOpen(path);
        if (path === undefined) session.setMaxBandwidth(bytesPerSecond);
        else session.setPathMaxBandwidth(path, bytesPerSecond);
        break;
      }
      case 'setStageBandwidth':
        this.#limitStage(request.bytesPerSecond, request.intermediary);
        break;
    }
  }

  #limitStage(bytesPerSecond: number | undefined, intermediary: number | undefined): void {
    const { setStageBandwidth } = this.#options;
    if (setStageBandwidth === undefined) {
      throw new PagelaneError('ERR_CONTROL_STAGE', 'Cannot limit staging: there is none here');
    }
    setStageBandwidth(bytesPerSecond, intermediary);
  }

  #addPath(address: PathAddress): Promise<void> {
    const { session, state } = this.#options;
    const to = formatHostPort(address.host, address.port);
    if (state().side === 'source') return this.#within(session.addPath(address), `path to ${to}`);
    const message = `Cannot add path to ${to}: only the source opens paths`;
    throw new PagelaneError('ERR_CONTROL_SIDE', message);
  }

  #requireOpen(id: number): void {
    const open = this.#options.session.pathReports().filter(({ state }) => state === 'open');
    if (open.some((path) => path.id === id)) return;
    const ids = open.map((path) => path.id).join(', ');
    const message = `No path ${id} is open; those that are: ${ids === '' ? 'none' : ids}`;
    throw new PagelaneError('ERR_CONTROL_PATH', message);
  }

  #report(): SessionReport {
    const { session, state } = this.#options;
    return { id: session.id, ...state(), paths: session.pathReports() };
  }

  /** Waits for what takes a while, but not for ever: others want to connect as well. */
  #within(work: Promise<void>, what: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const cancelTimer = this.#clock.after(CHANGE_TIMEOUT_MS, () => {
        const message = `Waited ${CHANGE_TIMEOUT_MS} ms for ${what}`;
        reject(new PagelaneError('ERR_CONTROL_TIMEOUT', message));
      });
      work.then(resolve, reject).finally(cancelTimer);
    });
  }
}

/** One connection: takes a request and gives one answer. */
class Connection {
  readonly #socket: Socket;
  readonly #clock: Clock;
  #isAnswered = false;

  constructor(socket: Socket, clock: Clock) {
    this.#socket = socket;
    this.#clock = clock;
    // A peer that goes away has its request done all the same.
    socket.on('error', () => {});
  }

  readRequest(): Promise<string> {
    return readLine(this.#socket, {
      what: 'a request',
      bytesMax: REQUEST_BYTES_MAX,
      timeoutMs: LINE_TIMEOUT_MS,
      code: 'ERR_CONTROL_REQUEST',
      clock: this.#clock,
    });
  }

  /** Writes the answer and closes; does nothing if there was one. */
  answer(line: string): void {
    if (this.#isAnswered) return;
    this.#isAnswered = true;
    const socket = this.#socket;
    const cancelTimer = this.#clock.after(LINE_TIMEOUT_MS, () => socket.destroy());
    socket.once('close', cancelTimer);
    socket.end(line, () => socket.destroy());
  }
}

/** What is told of an error. A path that is not there, or is needed, is a RangeError. */
function asAnswer(error: unknown): PagelaneError {
  const code = error instanceof RangeError ? 'ERR_CONTROL_PATH' : codeOf(error);
  return new PagelaneError(code.startsWith('ERR_') ? code : 'ERR_INTERNAL', messageOf(error));
}

/** Makes sure that nobody listens; a socket of a process that is gone is removed. */
async function requireDeserted(path: string): Promise<void> {
  const socket = await dialControl(path);
  if (socket === undefined) return;
  socket.destroy();
  throw new PagelaneError('ERR_CONTROL_LISTEN', `Somebody listens at ${path} already`);
}

/** Listens at a path that nobody else may use, and that exists only while it is listened on. */
async function listenAt(path: string): Promise<Server> {
  const server = createServer({ allowHalfOpen: true });
  const early = path.replace(/\.sock$/, '.new');
  try {
    rmSync(early, { force: true });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(early, resolve);
    });
    chmodSync(early, OWNER_MODE);
    // Who finds the socket by its name finds somebody who listens, and rights as they must be.
    renameSync(early, path);
    server.unref();
    return server;
  } catch (error) {
    server.close();
    const message = `Cannot listen at ${path}: ${messageOf(error)}`;
    throw new PagelaneError('ERR_CONTROL_LISTEN', message, { cause: error });
  }
}

import { randomBytes } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { formatHostPort, type PathAddress } from '../address.ts';
import { PagelaneError, PathError, ProtocolError, RemoteError } from '../errors.ts';
import { PATHS_MAX, SESSION_ID_BYTES } from '../frame/limits.ts';
import { type DialledLink, dial } from '../path/dial.ts';
import { EventLog } from './events.ts';
import { runClientHandshake, type Welcomed } from './handshake.ts';
import { type CheckedOptions, checkOptions, type SessionOptions } from './options.ts';
import { Session } from './session.ts';

/*
 * Opening a session
 *
 *   1. dial    every path, at the same time
 *   2. open    the first connection that is up opens the session; if it fails, the next one does
 *   3. join    every other connection joins it
 *
 * The promise resolves after 2. A path that fails later is an event.
 */

/** What the side that dials chooses. */
export interface ConnectOptions extends SessionOptions {
  /** 1 to 16 paths. */
  readonly paths: readonly PathAddress[];
  /** Whether the session is only wanted with every path. @default false */
  readonly requireAllPaths?: boolean;
}

/**
 * Opens a session.
 *
 * Resolves with the first path that is welcomed; the others join as they can, and one that fails is
 * an event. `signal` stops paths from being opened; it does not end a session that is open.
 *
 * @throws {PathError} ERR_PATH_REFUSED, ERR_PATH_TIMEOUT, ERR_PATH_UNREACHABLE, ERR_PATH_NAME,
 * ERR_PATH_SECURITY … If no path could be opened: the most telling error of all of them.
 * @throws {RemoteError} If the listener refused, with its code.
 * @throws {ProtocolError} If something else than pagelane answers.
 * @throws {RangeError} If an option has a value that is not allowed.
 * @throws `signal.reason` If it is aborted.
 */
export async function connectSession(options: ConnectOptions): Promise<Session> {
  const checked = checkOptions(options);
  const { paths, signal, requireAllPaths = false } = options;
  if (paths.length < 1 || paths.length > PATHS_MAX) {
    throw new RangeError(`A session has 1 to ${PATHS_MAX} paths, not ${paths.length}`);
  }
  signal?.throwIfAborted();
  const connector = new Connector(checked, signal);
  const openings = paths.map((address) => connector.open(address));
  if (requireAllPaths) {
    try {
      await Promise.all(openings);
    } catch (error) {
      connector.abandon(error);
      await Promise.allSettled(openings);
      throw error;
    }
    return connector.session!;
  }
  const results = Promise.allSettled(openings);
  await Promise.race([connector.opened, results]);
  if (connector.session !== undefined) return connector.session;
  signal?.throwIfAborted();
  const errors = (await results).flatMap((one) => (one.status === 'rejected' ? [one.reason] : []));
  throw mostTelling(errors);
}

/** Opens paths of one session, the first of which opens the session. */
class Connector {
  session: Session | undefined;
  /** Resolves when there is a session. */
  readonly opened: Promise<void>;
  readonly #options: CheckedOptions;
  readonly #events = new EventLog();
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  #secret: Uint8Array | undefined;
  #id: Uint8Array = newId();
  /** Settles when the connection that tries to open the session has done so, or failed. */
  #attempt: Promise<void> | undefined;
  #pathCount = 0;
  #onOpened!: () => void;

  constructor(options: CheckedOptions, signal: AbortSignal | undefined) {
    this.#options = options;
    this.#signal = AbortSignal.any([this.#stop.signal, ...(signal === undefined ? [] : [signal])]);
    // Every path that is being opened listens: more than Node takes for a leak.
    for (const listened of [this.#signal, this.#stop.signal]) setMaxListeners(0, listened);
    this.opened = new Promise((resolve) => {
      this.#onOpened = resolve;
    });
  }

  /** Opens a path, in the background if need be: its failure is an event as well. */
  async open(address: PathAddress): Promise<void> {
    this.#pathCount++;
    try {
      const dialled = await this.#dial(address, this.#signal);
      while (this.session === undefined && this.#attempt !== undefined) await this.#attempt;
      if (this.session === undefined) await this.#attemptNew(dialled);
      else await this.#join(dialled, this.#signal);
    } catch (error) {
      this.#noteFailure(address, error);
      throw error;
    }
  }

  /** Gives up what is being opened, and the session if there is one. */
  abandon(error: unknown): void {
    this.#stop.abort(error);
    const why = error instanceof PagelaneError ? error : abortedError(error);
    this.session?.fail(why);
  }

  #dial(address: PathAddress, signal: AbortSignal): Promise<DialledLink> {
    const { security, clock, handshakeTimeoutMs: timeoutMs } = this.#options;
    return dial(address, { security, clock, timeoutMs, signal });
  }

  /** Opens the session over this connection; others wait meanwhile. */
  async #attemptNew(dialled: DialledLink): Promise<void> {
    let done!: () => void;
    this.#attempt = new Promise((resolve) => {
      done = resolve;
    });
    // A server may know the id of an attempt that failed on the way back.
    this.#id = newId();
    try {
      await this.#greet(dialled, this.#signal, (welcomed) => this.#begin(dialled, welcomed));
    } finally {
      this.#attempt = undefined;
      done();
    }
  }

  #begin({ link }: DialledLink, welcomed: Welcomed): void {
    const { windowBytes, clock } = this.#options;
    const session = new Session({
      id: this.#id,
      role: 'client',
      windowBytes,
      peerWindowBytes: welcomed.peerWindowBytes,
      clock,
      events: this.#events,
      join: (address) => this.#openLater(address),
    });
    this.#secret = welcomed.secret;
    this.session = session;
    session.ended.then((error) => this.#stop.abort(error ?? abortedError('the session is closed')));
    session.adopt(link, welcomed);
    this.#onOpened();
  }

  async #openLater(address: PathAddress): Promise<void> {
    const { signal } = this.#stop;
    await this.#join(await this.#dial(address, signal), signal);
  }

  #join(dialled: DialledLink, signal: AbortSignal): Promise<void> {
    return this.#greet(dialled, signal, (welcomed) => this.session!.adopt(dialled.link, welcomed));
  }

  #greet(
    { link, exporter }: DialledLink,
    signal: AbortSignal,
    onWelcome: (welcomed: Welcomed) => void,
  ): Promise<void> {
    const { security, windowBytes, clock, handshakeTimeoutMs } = this.#options;
    const isOneOfMany = this.session === undefined && this.#pathCount > 1;
    const parts = {
      link,
      exporter,
      id: this.#id,
      windowBytes,
      isSecure: security.kind !== 'none',
      clock,
      // While one path opens the session, the others' time at the server runs.
      timeoutMs: isOneOfMany ? handshakeTimeoutMs / 2 : handshakeTimeoutMs,
      signal,
      ...(this.#secret === undefined ? {} : { secret: this.#secret }),
    };
    return runClientHandshake(parts, onWelcome);
  }

  #noteFailure({ host, port }: PathAddress, error: unknown): void {
    if (this.#signal.aborted) return;
    const { code, message } = error instanceof PagelaneError ? error : abortedError(error);
    const remote = formatHostPort(host, port);
    this.#events.add({ type: 'pathFailed', remote, code, reason: message });
  }
}

function newId(): Uint8Array {
  return new Uint8Array(randomBytes(SESSION_ID_BYTES));
}

function abortedError(reason: unknown): PagelaneError {
  const text = reason instanceof Error ? reason.message : String(reason);
  return new PagelaneError('ERR_ABORTED', `Paths are no longer opened: ${text}`);
}

/** Codes of paths that could not be opened, the most telling first. */
const TELLING: readonly string[] = [
  'ERR_PATH_SECURITY',
  'ERR_PATH_REFUSED',
  'ERR_PATH_NAME',
  'ERR_PATH_UNREACHABLE',
  'ERR_PATH_FAILED',
  'ERR_PATH_LOST',
  'ERR_PATH_TIMEOUT',
];

/** The error that says most about why no path could be opened. */
export function mostTelling(errors: readonly unknown[]): unknown {
  const rank = (error: unknown): number => {
    if (error instanceof RemoteError) return -2;
    if (error instanceof ProtocolError) return -1;
    if (!(error instanceof PathError)) return -3;
    const index = TELLING.indexOf(error.code);
    return index < 0 ? TELLING.length : index;
  };
  return [...errors].sort((one, other) => rank(one) - rank(other))[0];
}

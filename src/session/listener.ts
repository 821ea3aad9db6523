import { PagelaneError } from '../errors.ts';
import { type Hello, Intent } from '../frame/hello.ts';
import { type Arrival, LinkListener } from '../path/listen.ts';
import { Arrivals } from './arrivals.ts';
import { type Proved, runServerHandshake } from './handshake.ts';
import { SESSIONS_MAX } from './limits.ts';
import { type CheckedOptions, checkOptions, type SessionOptions } from './options.ts';
import { Session } from './session.ts';

/** What the side that listens chooses. */
export interface ListenOptions extends SessionOptions {
  readonly host: string;
  /** 0 lets the system choose. */
  readonly port: number;
  /** Sessions at a time; further ones are refused. @default 64 */
  readonly sessionsMax?: number;
}

/** Accepts sessions on one port, and the paths that join them. */
export interface Listener {
  readonly host: string;
  /** The port in use. */
  readonly port: number;
  /** Connections that were given up before they were welcomed. */
  readonly refused: number;
  /** Called with the reason of each of them, for the log. */
  onRefused: ((error: PagelaneError) => void) | undefined;
  /**
   * Waits for the next session.
   *
   * @throws `signal.reason` If it is aborted.
   * @throws {PagelaneError} ERR_LISTENER_CLOSED If the listener is closed.
   */
  accept(options?: { signal?: AbortSignal }): Promise<Session>;
  /** Stops listening. Accepted sessions go on, without further paths; others end. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Listens for sessions. An aborted `signal` closes the listener.
 *
 * @throws {PathError} ERR_PATH_LISTEN If the address cannot be listened on.
 * @throws {PathError} ERR_PATH_SECURITY If certificates cannot be read.
 * @throws {RangeError} If an option has a value that is not allowed.
 * @throws `signal.reason` If it is aborted before.
 */
export async function listenForSessions(options: ListenOptions): Promise<Listener> {
  const checked = checkOptions(options);
  options.signal?.throwIfAborted();
  const { host, port, sessionsMax = SESSIONS_MAX } = options;
  const listener = new SessionListener(checked, sessionsMax);
  await listener.listen({ host, port });
  const { signal } = options;
  if (signal?.aborted === true) {
    await listener.close();
    throw signal.reason;
  }
  signal?.addEventListener('abort', () => listener.close(signal.reason), { once: true });
  return listener;
}

interface Entry {
  readonly session: Session;
  readonly secret: Uint8Array;
}

class SessionListener implements Listener {
  onRefused: ((error: PagelaneError) => void) | undefined;
  readonly #options: CheckedOptions;
  readonly #sessionsMax: number;
  #links: LinkListener | undefined;
  readonly #sessions = new Map<string, Entry>();
  readonly #arrived = new Arrivals<Session>();
  #refused = 0;
  #isClosed = false;
  #host = '';
  #port = 0;

  constructor(options: CheckedOptions, sessionsMax: number) {
    this.#options = options;
    this.#sessionsMax = sessionsMax;
  }

  get host(): string {
    return this.#host;
  }

  get port(): number {
    return this.#port;
  }

  get refused(): number {
    return this.#refused;
  }

  async listen({ host, port }: { host: string; port: number }): Promise<void> {
    const { security, clock, handshakeTimeoutMs } = this.#options;
    this.#links = await LinkListener.open({
      host,
      port,
      security,
      clock,
      handshakeTimeoutMs,
      onArrival: (arrival) => this.#onArrival(arrival),
      onRefused: (error) => {
        this.#refused++;
        this.onRefused?.(error);
      },
    });
    this.#host = this.#links.host;
    this.#port = this.#links.port;
  }

  accept(options: { signal?: AbortSignal } = {}): Promise<Session> {
    return this.#arrived.take(options);
  }

  async close(reason?: unknown): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const error = new PagelaneError('ERR_LISTENER_CLOSED', 'The listener is closed');
    for (const session of this.#arrived.drain()) session.fail(error);
    this.#arrived.end(reason ?? error);
    await this.#links?.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #onArrival({ link, exporter, finish }: Arrival): void {
    const { windowBytes, clock } = this.#options;
    runServerHandshake({
      link,
      exporter,
      windowBytes,
      clock,
      admit: (hello) => this.#admit(hello),
      prepare: (proved) => {
        this.#admit(proved.hello);
        return () => this.#welcome(link, proved);
      },
      onFinished: finish,
    });
  }

  /** The secret of the session that a Hello joins; undefined if it opens a new one. */
  #admit({ intent, id }: Hello): Uint8Array | undefined {
    const name = nameOf(id);
    const entry = this.#sessions.get(name);
    if (intent === Intent.Join) {
      if (entry === undefined) throw refusal('ERR_SESSION_UNKNOWN', `Session ${name} is unknown`);
      if (!entry.session.hasRoomForPath) {
        throw refusal('ERR_SESSION_PATHS', `Session ${name} has all the paths it may have`);
      }
      return entry.secret;
    }
    if (entry !== undefined) throw refusal('ERR_SESSION_EXISTS', `Session ${name} exists`);
    if (this.#sessions.size >= this.#sessionsMax) {
      throw refusal('ERR_SESSION_LIMIT', `There are ${this.#sessionsMax} sessions already`);
    }
    return undefined;
  }

  #welcome(link: Arrival['link'], proved: Proved): void {
    const { hello, secret, peerWindowBytes } = proved;
    const name = nameOf(hello.id);
    if (hello.intent === Intent.Join) {
      this.#sessions.get(name)!.session.adopt(link, proved);
      return;
    }
    const { windowBytes, clock } = this.#options;
    const { id } = hello;
    const session = new Session({ id, role: 'server', windowBytes, peerWindowBytes, clock });
    this.#sessions.set(name, { session, secret });
    session.ended.then(() => this.#sessions.delete(name));
    session.adopt(link, proved);
    this.#arrived.add(session);
  }
}

function nameOf(id: Uint8Array): string {
  return Buffer.from(id).toString('hex');
}

function refusal(code: string, message: string): PagelaneError {
  return new PagelaneError(code, message);
}

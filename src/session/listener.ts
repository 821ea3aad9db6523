import { PagelaneError } from '../errors.ts';
import { localAddresses, offeredAddresses } from '../path/interfaces.ts';
import { LinkListener } from '../path/listen.ts';
import { Arrivals } from './arrivals.ts';
import { SESSIONS_MAX } from './limits.ts';
import { type CheckedOptions, checkOptions, type SessionOptions } from './options.ts';
import { Reception } from './reception.ts';
import type { Session } from './session.ts';

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
  /**
   * Called with the reason of each of them, for the log. When they are many, most are told
   * together: ERR_REFUSED_MORE.
   */
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

class SessionListener implements Listener {
  onRefused: ((error: PagelaneError) => void) | undefined;
  readonly #options: CheckedOptions;
  readonly #reception: Reception;
  readonly #arrived = new Arrivals<Session>();
  #links: LinkListener | undefined;
  #isClosed = false;
  #host = '';
  #port = 0;

  constructor(options: CheckedOptions, sessionsMax: number) {
    this.#options = options;
    this.#reception = new Reception({
      ...options,
      sessionsMax,
      hasRoom: () => this.#links?.hasRoom ?? false,
      offer: () => ({
        addresses: offeredAddresses(this.#host, localAddresses()),
        port: this.#port,
      }),
      onSession: (session) => this.#arrived.add(session),
    });
  }

  get host(): string {
    return this.#host;
  }

  get port(): number {
    return this.#port;
  }

  get refused(): number {
    return this.#links?.refusedCount ?? 0;
  }

  async listen({ host, port }: { host: string; port: number }): Promise<void> {
    const { security, clock, handshakeTimeoutMs } = this.#options;
    this.#links = await LinkListener.open({
      host,
      port,
      security,
      clock,
      handshakeTimeoutMs,
      onArrival: (arrival) => this.#reception.receive(arrival),
      onRefused: (error) => this.onRefused?.(error),
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
}

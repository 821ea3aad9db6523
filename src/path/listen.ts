import net, { type Server, type Socket } from 'node:net';
import tls, { type TLSSocket, type TlsOptions } from 'node:tls';
import { formatHostPort } from '../address.ts';
import type { Clock } from '../clock.ts';
import { codeOf, messageOf, PagelaneError, PathError } from '../errors.ts';
import { formatEnd, SocketLink } from './connection.ts';
import { HANDSHAKES_MAX } from './limits.ts';
import { readInto, takeSocket } from './read-into.ts';
import { exporterOf, type Security, securityError, serverTls } from './secure.ts';

/** A connection that has arrived, TLS included, and still has to say what it wants. */
export interface Arrival {
  readonly link: SocketLink;
  /** Keying material of this connection; zeros without TLS. */
  readonly exporter: Uint8Array;
  /** Ends its probation: it was welcomed, or refused because of `error`. */
  finish(error?: Error): void;
}

export interface LinkListenerOptions {
  readonly host: string;
  readonly port: number;
  readonly security: Security;
  readonly clock: Clock;
  /** How long a connection may take until `finish`, milliseconds. */
  readonly handshakeTimeoutMs: number;
  readonly onArrival: (arrival: Arrival) => void;
  /** A connection was given up before it was welcomed. */
  readonly onRefused: (error: PagelaneError) => void;
}

/** A connection on probation: from its first packet until `finish`. */
interface Attempt {
  readonly socket: Socket;
  readonly remote: string;
  readonly cancelTimer: () => void;
}

/** Listens on one port, and bounds who may come in: how many at once, and for how long. */
export class LinkListener {
  readonly #options: LinkListenerOptions;
  readonly #server: Server;
  readonly #isSecure: boolean;
  readonly #attempts = new Map<string, Attempt>();

  private constructor(options: LinkListenerOptions, secure: TlsOptions | undefined) {
    this.#options = options;
    this.#isSecure = secure !== undefined;
    if (secure === undefined) {
      this.#server = net.createServer({ pauseOnConnect: true });
    } else {
      const { handshakeTimeoutMs } = options;
      // Later than our own timer, which covers the whole handshake and names it.
      this.#server = tls.createServer({ ...secure, handshakeTimeout: 2 * handshakeTimeoutMs });
      // Node leaves the socket of a failed handshake open; whoever handles the event closes it.
      this.#server.on('tlsClientError', (error: Error, socket: TLSSocket) => {
        this.#refuse(formatEnd(socket.remoteAddress, socket.remotePort), error);
        socket.destroy();
      });
      this.#server.on('secureConnection', (socket: TLSSocket) => this.#onSecure(socket));
    }
    this.#server.on('connection', (socket: Socket) => this.#onConnection(socket));
  }

  /**
   * Starts to listen.
   *
   * @throws {PathError} ERR_PATH_LISTEN If the address cannot be listened on.
   * @throws {PathError} ERR_PATH_SECURITY If certificates cannot be read.
   */
  static async open(options: LinkListenerOptions): Promise<LinkListener> {
    const listener = new LinkListener(options, await serverTls(options.security));
    await listener.#listen();
    return listener;
  }

  get host(): string {
    return this.#address().address;
  }

  get port(): number {
    return this.#address().port;
  }

  /** Connections that have not been welcomed yet. */
  get attemptCount(): number {
    return this.#attempts.size;
  }

  /** Stops listening and drops connections on probation; welcomed ones stay. */
  async close(): Promise<void> {
    this.#server.close();
    for (const attempt of this.#attempts.values()) {
      attempt.cancelTimer();
      attempt.socket.destroy();
    }
    this.#attempts.clear();
    await new Promise((resolve) => setImmediate(resolve));
  }

  #listen(): Promise<void> {
    const { host, port } = this.#options;
    return new Promise((resolve, reject) => {
      const onError = (cause: Error): void => {
        const at = formatHostPort(host, port);
        const why = codeOf(cause) === 'EADDRINUSE' ? 'the address is in use' : messageOf(cause);
        reject(new PathError('ERR_PATH_LISTEN', `Cannot listen on ${at}: ${why}`, at, cause));
      };
      this.#server.once('error', onError);
      this.#server.listen({ host, port }, () => {
        this.#server.off('error', onError);
        // A failed accept (too many open files) must not end the process.
        this.#server.on('error', (error) => this.#options.onRefused(refusal(error, '')));
        resolve();
      });
    });
  }

  #address(): { address: string; port: number } {
    const address = this.#server.address();
    if (address === null || typeof address === 'string') return { address: '', port: 0 };
    return address;
  }

  #onConnection(socket: Socket): void {
    const remote = formatEnd(socket.remoteAddress, socket.remotePort);
    socket.on('error', () => {});
    if (this.#attempts.size >= HANDSHAKES_MAX || socket.remoteAddress === undefined) {
      socket.destroy();
      const message = `Refused ${remote}: ${HANDSHAKES_MAX} connections are in their handshake`;
      this.#options.onRefused(new PathError('ERR_PATH_BUSY', message, remote));
      return;
    }
    const { clock, handshakeTimeoutMs } = this.#options;
    const cancelTimer = clock.after(handshakeTimeoutMs, () => {
      const attempt = this.#attempts.get(remote);
      this.#refuse(remote, timeoutError(remote, handshakeTimeoutMs));
      attempt?.socket.destroy();
    });
    if (this.#isSecure) {
      this.#attempts.set(remote, { socket, remote, cancelTimer });
      socket.once('close', () => this.#refuse(remote, closedError(remote)));
      return;
    }
    const link = new SocketLink();
    const { taken, hasReadOptions } = takeSocket(socket, link);
    this.#attempts.set(remote, { socket: taken, remote, cancelTimer });
    taken.once('close', () => this.#refuse(remote, closedError(remote)));
    this.#arrive(link, taken, { hasReadOptions });
    taken.resume();
  }

  #onSecure(socket: TLSSocket): void {
    const link = new SocketLink();
    const { hasReadOptions } = readInto(socket, link);
    this.#arrive(link, socket, { hasReadOptions });
    socket.resume();
  }

  #arrive(link: SocketLink, socket: Socket, options: { hasReadOptions: boolean }): void {
    link.attach(socket, options);
    const exporter = exporterOf(socket instanceof tls.TLSSocket ? socket : undefined);
    const finish = (error?: Error): void => {
      if (error === undefined) this.#forget(link.remote);
      else this.#refuse(link.remote, error);
    };
    this.#options.onArrival({ link, exporter, finish });
  }

  #forget(remote: string): boolean {
    this.#attempts.get(remote)?.cancelTimer();
    return this.#attempts.delete(remote);
  }

  /** Ends an attempt, and tells why: once for each. */
  #refuse(remote: string, error: Error): void {
    if (!this.#forget(remote)) return;
    this.#options.onRefused(refusal(error, remote));
  }
}

function refusal(error: Error, remote: string): PagelaneError {
  if (error instanceof PagelaneError) return error;
  const message = `Lost ${remote} in its handshake: ${messageOf(error)}`;
  return securityError(error, remote) ?? new PathError('ERR_PATH_LOST', message, remote, error);
}

function timeoutError(remote: string, timeoutMs: number): PathError {
  const message = `Refused ${remote}: no complete handshake after ${timeoutMs} ms`;
  return new PathError('ERR_PATH_TIMEOUT', message, remote);
}

function closedError(remote: string): PathError {
  return new PathError('ERR_PATH_LOST', `${remote} closed its connection in the handshake`, remote);
}

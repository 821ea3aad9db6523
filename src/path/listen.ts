import net, { type Server, type Socket } from 'node:net';
import tls, { type TLSSocket, type TlsOptions } from 'node:tls';
import { formatHostPort } from '../address.ts';
import type { Clock } from '../clock.ts';
import { codeOf, messageOf, PagelaneError, PathError } from '../errors.ts';
import { Admission, type Candidate, networkOf, Standing } from './admission.ts';
import { formatEnd, SocketLink } from './connection.ts';
import { BACKLOG, CONNECTIONS_MAX, HANDSHAKES_MAX } from './limits.ts';
import { readInto, takeSocket } from './read-into.ts';
import { RefusalLog } from './refusals.ts';
import { exporterOf, type Security, securityError, serverTls } from './secure.ts';

/*
 * The way of a connection that arrives
 *
 *   1. accept     it is on probation; another one may have to go for it: admission.ts
 *   2. speak      it has sent its first bytes: only now TLS is set up for it
 *   3. secure     its TLS handshake is done                     (without TLS there is no 2 and 3)
 *   4. arrive     its owner asks it what it wants
 *   5. finish     its owner has welcomed or refused it
 *
 * It may take `handshakeTimeoutMs` from 1 to 5. The methods below come in this order.
 */

/** A connection that has arrived, TLS included, and still has to say what it wants. */
export interface Arrival {
  readonly link: SocketLink;
  /** Keying material of this connection; zeros without TLS. */
  readonly exporter: Uint8Array;
  /** Where it comes from: see `networkOf`. */
  readonly network: string;
  /** It has said Hello, and nothing is against it so far. */
  noteHello(): void;
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
  /** A connection was given up before it was welcomed; of many, most are told together. */
  readonly onRefused: (error: PagelaneError) => void;
}

/** A connection, from its first packet until its socket is closed. */
interface Attempt extends Candidate {
  readonly socket: Socket;
  readonly remote: string;
  /** Both ends of the connection: all that a TLS socket tells of the one below it. */
  readonly ends: string;
  readonly cancelTimer: () => void;
  state: 'probation' | 'welcomed' | 'refused';
}

/** What a TLS handshake begins with. */
const TLS_HANDSHAKE = 0x16;

/** Listens on one port, and bounds who may come in: how many at once, and for how long. */
export class LinkListener {
  readonly #options: LinkListenerOptions;
  readonly #server: Server;
  /** Never listens: is given connections that the other one has taken. Absent without TLS. */
  readonly #tlsServer: tls.Server | undefined;
  readonly #admission = new Admission<Attempt>();
  readonly #byEnds = new Map<string, Attempt>();
  readonly #refusals: RefusalLog;
  #welcomedCount = 0;

  private constructor(options: LinkListenerOptions, secure: TlsOptions | undefined) {
    this.#options = options;
    this.#refusals = new RefusalLog(options.onRefused, options.clock);
    this.#tlsServer = secure === undefined ? undefined : this.#makeTls(secure);
    this.#server = net.createServer({ pauseOnConnect: secure === undefined });
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

  /** Connections that are on probation, or were refused and are about to close. */
  get attemptCount(): number {
    return this.#admission.size;
  }

  /** Connections that were welcomed and are not closed yet. */
  get welcomedCount(): number {
    return this.#welcomedCount;
  }

  /** Connections that were given up before they were welcomed. */
  get refusedCount(): number {
    return this.#refusals.total;
  }

  /** Whether a further connection may be welcomed. */
  get hasRoom(): boolean {
    return this.#welcomedCount < CONNECTIONS_MAX;
  }

  /** Stops listening and drops connections on probation; welcomed ones stay. */
  async close(): Promise<void> {
    this.#server.close();
    for (const attempt of this.#admission.candidates) {
      attempt.state = 'refused';
      attempt.cancelTimer();
      attempt.socket.destroy();
    }
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
      this.#server.listen({ host, port, backlog: BACKLOG }, () => {
        this.#server.off('error', onError);
        // A failed accept (too many open files) must not end the process.
        this.#server.on('error', (error) => this.#refusals.add(() => refusal(error, '')));
        resolve();
      });
    });
  }

  #address(): { address: string; port: number } {
    const address = this.#server.address();
    if (address === null || typeof address === 'string') return { address: '', port: 0 };
    return address;
  }

  #onConnection(accepted: Socket): void {
    accepted.on('error', () => {});
    if (accepted.remoteAddress === undefined) {
      // It has gone already.
      accepted.destroy();
      return;
    }
    if (this.#tlsServer !== undefined) {
      const attempt = this.#admit(accepted);
      accepted.once('readable', () => this.#onFirstBytes(attempt));
      return;
    }
    const link = new SocketLink();
    const { taken, hasReadOptions } = takeSocket(accepted, link);
    this.#arrive(this.#admit(taken), link, { socket: taken, hasReadOptions });
    taken.resume();
  }

  /** Puts a connection on probation, and turns away who has to go for it. */
  #admit(socket: Socket): Attempt {
    const { clock, handshakeTimeoutMs } = this.#options;
    const attempt: Attempt = {
      socket,
      remote: formatEnd(socket.remoteAddress, socket.remotePort),
      network: networkOf(socket.remoteAddress ?? ''),
      ends: endsOf(socket),
      standing: Standing.Silent,
      cancelTimer: clock.after(handshakeTimeoutMs, () =>
        this.#drop(attempt, () => timeoutError(attempt, handshakeTimeoutMs)),
      ),
      state: 'probation',
    };
    this.#byEnds.set(attempt.ends, attempt);
    socket.once('close', () => this.#onClose(attempt));
    const victim = this.#admission.enter(attempt);
    if (victim !== undefined) this.#drop(victim, () => busyError(victim));
    return attempt;
  }

  /** The state of a TLS connection is large, and takes long to make: not before it is wanted. */
  #onFirstBytes(attempt: Attempt): void {
    const { socket } = attempt;
    const bytes = socket.read() as Uint8Array | null;
    if (bytes === null || attempt.state !== 'probation') return;
    if (bytes[0] !== TLS_HANDSHAKE) {
      this.#drop(attempt, () => noTlsError(attempt));
      return;
    }
    this.#admission.move(attempt, Standing.Speaking);
    socket.unshift(bytes);
    this.#tlsServer!.emit('connection', socket);
  }

  #makeTls(secure: TlsOptions): tls.Server {
    const { pskCallback, requestCert = false } = secure;
    const server = tls.createServer({
      ...secure,
      // Node would drop who shows no right certificate and not tell why: we do it below.
      rejectUnauthorized: false,
      // Later than our own timer, which covers the whole handshake and names it.
      handshakeTimeout: 2 * this.#options.handshakeTimeoutMs,
      ...(pskCallback !== undefined && {
        pskCallback: (socket: TLSSocket, identity: string) => {
          // Who names the key and does not have it is refused in the same turn.
          this.#noteKnown(this.#attemptOf(socket));
          return pskCallback(socket, identity);
        },
      }),
    });
    // Node leaves the socket of a failed handshake open; whoever handles the event closes it.
    server.on('tlsClientError', (error: Error, socket: TLSSocket) => {
      const attempt = this.#attemptOf(socket);
      if (attempt !== undefined) this.#refuse(attempt, () => error);
      socket.destroy();
    });
    server.on('secureConnection', (socket: TLSSocket) => {
      const attempt = this.#attemptOf(socket);
      if (attempt?.state !== 'probation') {
        socket.destroy();
      } else if (requestCert && !socket.authorized) {
        this.#drop(attempt, () => untrustedError(socket));
      } else {
        this.#onSecure(attempt, socket);
      }
    });
    return server;
  }

  #onSecure(attempt: Attempt, socket: TLSSocket): void {
    this.#noteKnown(attempt);
    const link = new SocketLink();
    const { hasReadOptions } = readInto(socket, link);
    this.#arrive(attempt, link, { socket, hasReadOptions });
    socket.resume();
  }

  #attemptOf(socket: Socket): Attempt | undefined {
    return this.#byEnds.get(endsOf(socket));
  }

  #noteKnown(attempt: Attempt | undefined): void {
    if (attempt?.state === 'probation') this.#admission.move(attempt, Standing.Known);
  }

  #arrive(
    attempt: Attempt,
    link: SocketLink,
    { socket, hasReadOptions }: { socket: Socket; hasReadOptions: boolean },
  ): void {
    link.attach(socket, { hasReadOptions });
    this.#options.onArrival({
      link,
      exporter: exporterOf(socket instanceof tls.TLSSocket ? socket : undefined),
      network: attempt.network,
      noteHello: () => this.#noteKnown(attempt),
      finish: (error) => {
        if (error === undefined) this.#welcome(attempt);
        else this.#refuse(attempt, () => error);
      },
    });
  }

  #welcome(attempt: Attempt): void {
    if (attempt.state !== 'probation') return;
    attempt.state = 'welcomed';
    attempt.cancelTimer();
    this.#admission.leave(attempt);
    this.#welcomedCount++;
  }

  /** Ends a probation and tells why, once; the connection may still be read to its end. */
  #refuse(attempt: Attempt, makeError: () => Error): void {
    if (attempt.state !== 'probation') return;
    attempt.state = 'refused';
    attempt.cancelTimer();
    this.#admission.move(attempt, Standing.Leaving);
    this.#refusals.add(() => refusal(makeError(), attempt.remote));
  }

  /** Refuses a connection without a word. */
  #drop(attempt: Attempt, makeError: () => Error): void {
    this.#refuse(attempt, makeError);
    this.#admission.leave(attempt);
    attempt.socket.destroy();
  }

  #onClose(attempt: Attempt): void {
    if (attempt.state === 'welcomed') this.#welcomedCount--;
    this.#refuse(attempt, () => closedError(attempt));
    this.#admission.leave(attempt);
    if (this.#byEnds.get(attempt.ends) === attempt) this.#byEnds.delete(attempt.ends);
  }
}

function endsOf({ remoteAddress, remotePort, localAddress, localPort }: Socket): string {
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}

function refusal(error: Error, remote: string): PagelaneError {
  if (error instanceof PagelaneError) return error;
  const message = `Lost ${remote} in its handshake: ${messageOf(error)}`;
  return securityError(error, remote) ?? new PathError('ERR_PATH_LOST', message, remote, error);
}

function busyError({ remote }: Attempt): PathError {
  const message = `Refused ${remote}: ${HANDSHAKES_MAX} others are in their handshake`;
  return new PathError('ERR_PATH_BUSY', message, remote);
}

function timeoutError({ remote }: Attempt, timeoutMs: number): PathError {
  const message = `Refused ${remote}: no complete handshake after ${timeoutMs} ms`;
  return new PathError('ERR_PATH_TIMEOUT', message, remote);
}

function noTlsError({ remote }: Attempt): PathError {
  const why = 'it does not speak TLS (--insecure on one side only?)';
  const message = `Cannot open path with ${remote}: ${why}`;
  return new PathError('ERR_PATH_SECURITY', message, remote);
}

function untrustedError(socket: TLSSocket): Error {
  const code = String(socket.authorizationError);
  return Object.assign(new Error('the certificate cannot be verified'), { code });
}

function closedError({ remote }: Attempt): PathError {
  return new PathError('ERR_PATH_LOST', `${remote} closed its connection in the handshake`, remote);
}

import net, { type Server, type Socket } from 'node:net';
import tls, { type TLSSocket, type TlsOptions } from 'node:tls';
import { formatHostPort } from '../address.ts';
import type { Clock } from '../clock.ts';
import { codeOf, messageOf, PagelaneError, PathError } from '../errors.ts';
import { Admission, type Candidate, networkOf, Standing } from './admission.ts';
import { missingOfClientHello } from './client-hello.ts';
import { formatEnd, SocketLink } from './connection.ts';
import { BACKLOG, CONNECTIONS_MAX, HANDSHAKES_MAX } from './limits.ts';
import { readInto, takeSocket } from './read-into.ts';
import { RefusalLog } from './refusals.ts';
import { exporterOf, type Security, securityError, serverTls } from './secure.ts';

/*
 * The way of a connection that arrives
 *
 *   1. accept     it is on probation; another one may have to go for it: admission.ts
 *   2. speak      it has sent a whole ClientHello: only now TLS is set up for it
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
  readonly address: string | undefined;
  readonly port: number | undefined;
  readonly deadlineMs: number;
  state: 'probation' | 'welcomed' | 'refused';
  /** What has come of its ClientHello, until it is whole. */
  hello: Uint8Array | undefined;
  /** Both ends of its connection, once TLS is set up for it. */
  ends: string | undefined;
}

const ignore = (): void => {};

/** Listens on one port, and bounds who may come in: how many at once, and for how long. */
export class LinkListener {
  readonly #options: LinkListenerOptions;
  readonly #server: Server;
  /** Never listens: is given connections that the other one has taken. Absent without TLS. */
  readonly #tlsServer: tls.Server | undefined;
  readonly #admission = new Admission<Attempt>();
  /** By both ends of the connection: all that a TLS socket tells of the one below it. */
  readonly #byEnds = new Map<string, Attempt>();
  readonly #refusals: RefusalLog;
  #welcomedCount = 0;
  /** Runs as long as somebody is on probation: one timer for all, because there may be many. */
  #cancelTimer: (() => void) | undefined;

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
    this.#cancelTimer?.();
    for (const attempt of this.#admission.candidates()) {
      attempt.state = 'refused';
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
    accepted.on('error', ignore);
    if (accepted.remoteAddress === undefined) {
      // It has gone already.
      accepted.destroy();
      return;
    }
    if (this.#tlsServer !== undefined) {
      const attempt = this.#admit(accepted);
      accepted.on('readable', () => this.#onReadable(attempt));
      return;
    }
    const link = new SocketLink();
    const { taken, hasReadOptions } = takeSocket(accepted, link);
    this.#arrive(this.#admit(taken), link, { socket: taken, hasReadOptions });
    taken.resume();
  }

  /** Puts a connection on probation, and turns away who has to go for it. */
  #admit(socket: Socket): Attempt {
    const { remoteAddress: address, remotePort: port } = socket;
    const attempt: Attempt = {
      socket,
      address,
      port,
      network: networkOf(address ?? ''),
      standing: Standing.Silent,
      slot: undefined,
      arrival: 0,
      deadlineMs: this.#options.clock.now() + this.#options.handshakeTimeoutMs,
      state: 'probation',
      hello: undefined,
      ends: undefined,
    };
    socket.once('close', () => this.#onClose(attempt));
    const victim = this.#admission.enter(attempt);
    if (victim !== undefined) this.#drop(victim, () => busyError(victim));
    if (this.#cancelTimer === undefined) this.#expire();
    return attempt;
  }

  /** Drops whose time is over, and comes back when that of the next one is. */
  #expire(): void {
    const { clock, handshakeTimeoutMs } = this.#options;
    const nowMs = clock.now();
    let nextMs = Number.POSITIVE_INFINITY;
    for (const attempt of this.#admission.candidates()) {
      if (attempt.state !== 'probation') continue;
      if (attempt.deadlineMs > nowMs) nextMs = Math.min(nextMs, attempt.deadlineMs);
      else this.#drop(attempt, () => timeoutError(attempt, handshakeTimeoutMs));
    }
    const isDone = nextMs === Number.POSITIVE_INFINITY;
    this.#cancelTimer = isDone ? undefined : clock.after(nextMs - nowMs, () => this.#expire());
  }

  /** The state of a TLS connection is large, and takes long to make: not for half a ClientHello. */
  #onReadable(attempt: Attempt): void {
    const { socket } = attempt;
    const chunk = socket.read() as Uint8Array | null;
    if (chunk === null || attempt.state !== 'probation') return;
    const bytes = attempt.hello === undefined ? chunk : Buffer.concat([attempt.hello, chunk]);
    const missing = missingOfClientHello(bytes);
    if (missing === undefined) {
      this.#drop(attempt, () => noTlsError(attempt));
      return;
    }
    this.#admission.move(attempt, Standing.Speaking);
    attempt.hello = missing > 0 ? bytes : undefined;
    if (missing > 0) return;
    socket.removeAllListeners('readable');
    socket.unshift(bytes);
    attempt.ends = endsOf(socket);
    this.#byEnds.set(attempt.ends, attempt);
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
    this.#admission.leave(attempt);
    this.#welcomedCount++;
  }

  /** Ends a probation and tells why, once; the connection may still be read to its end. */
  #refuse(attempt: Attempt, makeError: () => Error): void {
    if (attempt.state !== 'probation') return;
    attempt.state = 'refused';
    this.#admission.move(attempt, Standing.Leaving);
    this.#refusals.add(() => refusal(makeError(), remoteOf(attempt)));
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
    const { ends } = attempt;
    if (ends !== undefined && this.#byEnds.get(ends) === attempt) this.#byEnds.delete(ends);
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

function remoteOf({ address, port }: Attempt): string {
  return formatEnd(address, port);
}

function busyError(attempt: Attempt): PathError {
  const remote = remoteOf(attempt);
  const message = `Refused ${remote}: ${HANDSHAKES_MAX} others are in their handshake`;
  return new PathError('ERR_PATH_BUSY', message, remote);
}

function timeoutError(attempt: Attempt, timeoutMs: number): PathError {
  const remote = remoteOf(attempt);
  const message = `Refused ${remote}: no complete handshake after ${timeoutMs} ms`;
  return new PathError('ERR_PATH_TIMEOUT', message, remote);
}

function noTlsError(attempt: Attempt): PathError {
  const remote = remoteOf(attempt);
  const why = 'it does not speak TLS (--insecure on one side only?)';
  return new PathError('ERR_PATH_SECURITY', `Cannot open path with ${remote}: ${why}`, remote);
}

function untrustedError(socket: TLSSocket): Error {
  const code = String(socket.authorizationError);
  return Object.assign(new Error('the certificate cannot be verified'), { code });
}

function closedError(attempt: Attempt): PathError {
  const remote = remoteOf(attempt);
  return new PathError('ERR_PATH_LOST', `${remote} closed its connection in the handshake`, remote);
}

import net, { type Socket } from 'node:net';
import tls, { type ConnectionOptions } from 'node:tls';
import { formatHostPort, type PathAddress } from '../address.ts';
import type { Clock } from '../clock.ts';
import { codeOf, messageOf, PathError } from '../errors.ts';
import { SocketLink } from './connection.ts';
import { clientTls, exporterOf, hasWrongProof, type Security, securityError } from './secure.ts';

/* Chosen by us */
/** How long one of several addresses of a name is tried before the next; milliseconds. */
const ADDRESS_ATTEMPT_MS = 2000;

/** A connection that is up, TLS included, and on which nothing was said yet. */
export interface DialledLink {
  readonly link: SocketLink;
  /** Keying material of this connection; zeros without TLS. */
  readonly exporter: Uint8Array;
}

export interface DialOptions {
  readonly security: Security;
  /** How long the connection and its TLS handshake may take together, milliseconds. */
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly signal?: AbortSignal;
}

/**
 * Opens a connection to `address`.
 *
 * @throws {PathError} ERR_PATH_REFUSED, ERR_PATH_TIMEOUT, ERR_PATH_UNREACHABLE, ERR_PATH_NAME or
 * ERR_PATH_FAILED If there is no connection.
 * @throws {PathError} ERR_PATH_SECURITY If the two sides do not trust each other.
 * @throws `signal.reason` If it is aborted.
 */
export async function dial(address: PathAddress, options: DialOptions): Promise<DialledLink> {
  options.signal?.throwIfAborted();
  const secure = await clientTls(options.security);
  options.signal?.throwIfAborted();
  return new Promise((resolve, reject) => {
    const link = new SocketLink();
    const socket = open(address, secure, link);
    let isConnected = false;
    const settle = (error?: unknown): void => {
      cancelTimer();
      options.signal?.removeEventListener('abort', onAbort);
      socket.removeListener('close', onClose);
      if (error === undefined) {
        socket.removeListener('error', onError);
        return;
      }
      socket.destroy();
      reject(error);
    };
    const cancelTimer = options.clock.after(options.timeoutMs, () =>
      settle(timeoutError(address, isConnected, options.timeoutMs)),
    );
    const onAbort = (): void => settle(options.signal?.reason);
    const onError = (error: Error): void => settle(dialError(error, address, isConnected));
    const onClose = (): void => settle(closedError(address));
    const onReady = (): void => {
      const secured = socket instanceof tls.TLSSocket ? socket : undefined;
      if (secured !== undefined && hasWrongProof(secured, options.security)) {
        settle(wrongProofError(address));
        return;
      }
      settle();
      link.attach(socket, { hasReadOptions: true });
      resolve({ link, exporter: exporterOf(secured) });
    };
    options.signal?.addEventListener('abort', onAbort);
    socket.on('connect', () => {
      isConnected = true;
    });
    socket.on('error', onError);
    socket.on('close', onClose);
    socket.once(secure === undefined ? 'connect' : 'secureConnect', onReady);
  });
}

function open(
  address: PathAddress,
  secure: ConnectionOptions | undefined,
  link: SocketLink,
): Socket {
  const where = {
    host: address.host,
    port: address.port,
    ...(address.local === undefined ? {} : { localAddress: address.local }),
    autoSelectFamily: true,
    autoSelectFamilyAttemptTimeout: ADDRESS_ATTEMPT_MS,
    onread: link.readOptions,
  };
  return secure === undefined ? net.connect(where) : tls.connect({ ...where, ...secure });
}

const NETWORK_ERRORS: Readonly<Record<string, readonly [string, string]>> = {
  ECONNREFUSED: ['ERR_PATH_REFUSED', 'nobody listens there'],
  ETIMEDOUT: ['ERR_PATH_TIMEOUT', 'no answer'],
  EHOSTUNREACH: ['ERR_PATH_UNREACHABLE', 'the host cannot be reached'],
  ENETUNREACH: ['ERR_PATH_UNREACHABLE', 'the network cannot be reached'],
  EADDRNOTAVAIL: ['ERR_PATH_UNREACHABLE', 'this host has no such local address'],
  ENOTFOUND: ['ERR_PATH_NAME', 'the name is not known'],
  EAI_AGAIN: ['ERR_PATH_NAME', 'the name could not be looked up'],
};

function dialError(error: Error, address: PathAddress, isConnected: boolean): PathError {
  const to = formatHostPort(address.host, address.port);
  const code = codeOf(error);
  const secure = isConnected ? securityError(error, to) : undefined;
  if (secure !== undefined) return secure;
  if (isConnected) return closedError(address, error);
  const from = address.local === undefined ? '' : ` from ${address.local}`;
  const [ours, what] = NETWORK_ERRORS[code] ?? ['ERR_PATH_FAILED', messageOf(error)];
  return new PathError(ours, `Cannot open path to ${to}${from}: ${what} (${code})`, to, error);
}

function timeoutError(address: PathAddress, isConnected: boolean, timeoutMs: number): PathError {
  const to = formatHostPort(address.host, address.port);
  const missing = isConnected ? 'TLS handshake' : 'connection';
  const message = `Cannot open path to ${to}: no ${missing} after ${timeoutMs} ms`;
  return new PathError('ERR_PATH_TIMEOUT', message, to);
}

function closedError(address: PathAddress, cause?: Error): PathError {
  const to = formatHostPort(address.host, address.port);
  const message =
    `Cannot open path to ${to}: it was closed in the TLS handshake ` +
    '(is there a pagelane, and does it expect TLS?)';
  return new PathError('ERR_PATH_SECURITY', message, to, cause);
}

function wrongProofError(address: PathAddress): PathError {
  const to = formatHostPort(address.host, address.port);
  const message = `Cannot open path to ${to}: it shows a certificate, and we expect the key file`;
  return new PathError('ERR_PATH_SECURITY', message, to);
}

import { constants, createPrivateKey, randomBytes, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ConnectionOptions, SecureVersion, TLSSocket, TlsOptions } from 'node:tls';
import { codeOf, messageOf, PathError } from '../errors.ts';

/** How paths are protected: configured on both sides, never negotiated. */
export type Security =
  | {
      /** TLS 1.3 with a key that both sides have. */
      readonly kind: 'key';
      /** 32 bytes. */
      readonly key: Uint8Array;
    }
  | {
      /** TLS 1.3 with certificates of one authority on both sides. */
      readonly kind: 'certificates';
      /** Holds `ca-cert.pem`, and `server-` and `client-` each with `cert.pem` and `key.pem`. */
      readonly directory: string;
    }
  | {
      /** No TLS: for tests and private wires. */
      readonly kind: 'none';
    };

/* Fixed by the protocol: docs/protocol.md, sections 2 and 4 */
/** Bytes of a key. */
export const KEY_BYTES: number = 32;
const IDENTITY = 'pagelane';
const CIPHERS = 'TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256';
const VERSION: SecureVersion = 'TLSv1.3';
const EXPORTER_LABEL = 'EXPORTER-pagelane-path';
const EXPORTER_BYTES = 32;

/**
 * Checks what can be checked before a connection is tried.
 *
 * @throws {RangeError} If the key has not 32 bytes.
 */
export function checkSecurity(security: Security): void {
  if (security.kind === 'key' && security.key.length !== KEY_BYTES) {
    throw new RangeError(`A key has ${KEY_BYTES} bytes, not ${security.key.length}`);
  }
}

/**
 * Gives the options of a TLS client.
 *
 * With a key no authority is trusted at all: a server that shows a certificate is not ours.
 *
 * @returns Absent without TLS.
 * @throws {PathError} ERR_PATH_SECURITY If a file cannot be read, or is not what its name says.
 */
export async function clientTls(security: Security): Promise<ConnectionOptions | undefined> {
  if (security.kind === 'none') return undefined;
  const common = { minVersion: VERSION, maxVersion: VERSION, ciphers: CIPHERS };
  if (security.kind === 'certificates') {
    return { ...common, ...(await readCertificates(security.directory, 'client')) };
  }
  const psk = Buffer.from(security.key);
  return {
    ...common,
    ca: [],
    pskCallback: () => ({ psk, identity: IDENTITY }),
    checkServerIdentity: (_host, certificate) =>
      hasCertificate(certificate) ? new Error('a certificate instead of the key') : undefined,
  };
}

/**
 * Gives the options of a TLS server. A path is never resumed: no ticket is of use.
 *
 * @returns Absent without TLS.
 * @throws {PathError} ERR_PATH_SECURITY If a file cannot be read, or is not what its name says.
 */
export async function serverTls(security: Security): Promise<TlsOptions | undefined> {
  if (security.kind === 'none') return undefined;
  const common = {
    minVersion: VERSION,
    maxVersion: VERSION,
    ciphers: CIPHERS,
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
  if (security.kind === 'certificates') {
    const files = await readCertificates(security.directory, 'server');
    return { ...common, ...files, requestCert: true, rejectUnauthorized: true };
  }
  const psk = Buffer.from(security.key);
  return {
    ...common,
    // A random key for a wrong identity: the peer cannot tell it from a wrong key.
    pskCallback: (_socket, identity) => (identity === IDENTITY ? psk : randomBytes(KEY_BYTES)),
  };
}

/** Keying material of a connection: equal on both ends, different on every connection. */
export function exporterOf(socket: TLSSocket | undefined): Uint8Array {
  if (socket === undefined) return new Uint8Array(EXPORTER_BYTES);
  return new Uint8Array(
    socket.exportKeyingMaterial(EXPORTER_BYTES, EXPORTER_LABEL, Buffer.alloc(0)),
  );
}

/** Whether a peer that should have proved a key showed a certificate instead. */
export function hasWrongProof(socket: TLSSocket, security: Security): boolean {
  return security.kind === 'key' && hasCertificate(socket.getPeerCertificate());
}

/** Names the failure of a protected connection; absent if the error is the network's. */
export function securityError(error: Error, address: string): PathError | undefined {
  const code = codeOf(error);
  const isNetwork = 'syscall' in error || /^E[A-Z]+$/.test(code) || code === 'ERR_INTERNAL';
  if (isNetwork) return undefined;
  return new PathError(
    'ERR_PATH_SECURITY',
    `Cannot open path with ${address}: ${adviceOf(code, error)}`,
    address,
    error,
  );
}

/**
 * The error of a path between `local` and `remote` that was lost, after `cause` if there is one.
 */
export function lostError(
  { local, remote }: { local: string; remote: string },
  cause?: Error,
): PathError {
  return new PathError(
    'ERR_PATH_LOST',
    `Path ${local} to ${remote} was lost: ${lossOf(cause)}`,
    remote,
    cause,
  );
}

function lossOf(cause: Error | undefined): string {
  if (cause === undefined) return 'the peer closed it';
  const code = codeOf(cause);
  if (code === 'ECONNRESET' || code === 'EPIPE') return 'the peer reset it';
  return code === 'ERR_INTERNAL' ? messageOf(cause) : code;
}

const ADVICE: ReadonlyArray<readonly [RegExp, string]> = [
  [
    /WRONG_VERSION|PACKET_LENGTH|HTTP_REQUEST|RECORD_LAYER|UNEXPECTED_MESSAGE/,
    'it does not speak TLS (--insecure on one side only?)',
  ],
  [/BINDER|ILLEGAL_PARAMETER|DECRYPT/, 'the keys differ'],
  [/PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL/, 'one side does not speak TLS 1.3'],
  [
    /HANDSHAKE_FAILURE|NO_SUITABLE|NO_SHARED|MISSING_EXTENSION|NO_CERTIFICATE|BAD_PSK/,
    'the two sides do not agree on key file or certificates',
  ],
  [/ALTNAME/, 'the certificate is of another host'],
  [/CERT_HAS_EXPIRED|CERTIFICATE_EXPIRED/, 'the certificate has expired'],
  [/NOT_YET_VALID/, 'the certificate is not valid yet'],
  [
    /CERT|UNABLE_TO|UNKNOWN_CA|SELF_SIGNED|ISSUER/,
    'the certificate is not of the authority that is trusted here',
  ],
];

function adviceOf(code: string, error: Error): string {
  for (const [pattern, advice] of ADVICE) if (pattern.test(code)) return `${advice} (${code})`;
  return `${code}: ${error.message.trim()}`;
}

function hasCertificate(certificate: object): boolean {
  return Object.keys(certificate).length > 0;
}

async function readCertificates(
  directory: string,
  side: 'client' | 'server',
): Promise<{ ca: Buffer; cert: Buffer; key: Buffer }> {
  const read = async <T>(
    name: string,
    parse: (bytes: Buffer) => T,
  ): Promise<{ bytes: Buffer; parsed: T }> => {
    const file = join(directory, name);
    try {
      const bytes = await readFile(file);
      return { bytes, parsed: parse(bytes) };
    } catch (cause) {
      // What is no certificate would be left out without a word, or fail as something else.
      const isSystem = cause instanceof Error && 'syscall' in cause;
      const why = isSystem ? codeOf(cause) : messageOf(cause);
      throw unreadable(file, why, cause);
    }
  };
  // One after the other: of several that cannot be read the first is told.
  const ca = await read('ca-cert.pem', (bytes) => new X509Certificate(bytes));
  const cert = await read(`${side}-cert.pem`, (bytes) => new X509Certificate(bytes));
  const key = await read(`${side}-key.pem`, (bytes) => createPrivateKey(bytes));
  if (!cert.parsed.checkPrivateKey(key.parsed)) {
    throw unreadable(join(directory, `${side}-key.pem`), `it is not the key of ${side}-cert.pem`);
  }
  return { ca: ca.bytes, cert: cert.bytes, key: key.bytes };
}

function unreadable(file: string, why: string, cause?: unknown): PathError {
  const message = `Cannot read certificate or key ${file}: ${why}`;
  return new PathError('ERR_PATH_SECURITY', message, '', cause);
}

/** A TCP address, optionally reached from a given local address. */
export interface PathAddress {
  readonly host: string;
  readonly port: number;
  /** Local address to connect from; the system chooses if absent. */
  readonly local?: string;
}

/** Where QEMU's migration channel is. */
export type QemuAddress =
  | { readonly kind: 'stdio' }
  | { readonly kind: 'null' }
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number };

/** Longest path of a unix socket on Linux, in bytes. */
const UNIX_PATH_BYTES_MAX = 107;

/**
 * Reads `HOST:PORT`, `[IPV6]:PORT`.
 *
 * @throws {SyntaxError} If there is no host, or the port is not in 0..65535.
 */
export function parseHostPort(text: string): { host: string; port: number } {
  const match = /^(?:\[([0-9a-fA-F:.%]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const port = match === null ? -1 : Number(match[3]);
  if (match === null || port > 65535) {
    throw new SyntaxError(`Cannot read address "${text}": expected HOST:PORT or [IPV6]:PORT`);
  }
  return { host: match[1] ?? match[2]!, port };
}

/**
 * Reads a path as it is written on a command line: `[LOCAL@]HOST:PORT`.
 *
 * @throws {SyntaxError} If it is not that.
 */
export function parsePathAddress(text: string): PathAddress {
  const at = text.lastIndexOf('@');
  const remote = parseHostPort(text.slice(at + 1));
  if (at < 0) return remote;
  const local = text.slice(0, at).replace(/^\[(.*)\]$/, '$1');
  if (local === '') {
    throw new SyntaxError(`Cannot read path "${text}": the local address before "@" is empty`);
  }
  return { ...remote, local };
}

/**
 * Reads where QEMU is: `-`, `unix:PATH`, `tcp:HOST:PORT`, or `null:` for nowhere: bytes are
 * discarded, to measure.
 *
 * @throws {SyntaxError} If it is none of them.
 */
export function parseQemuAddress(text: string): QemuAddress {
  if (text === '-') return { kind: 'stdio' };
  if (text === 'null:') return { kind: 'null' };
  if (text.startsWith('unix:')) {
    const path = text.slice('unix:'.length);
    const bytes = Buffer.byteLength(path);
    if (bytes === 0 || bytes > UNIX_PATH_BYTES_MAX) {
      throw new SyntaxError(
        `Cannot read "${text}": a unix socket's path has 1 to ${UNIX_PATH_BYTES_MAX} bytes, not ${bytes}`,
      );
    }
    return { kind: 'unix', path };
  }
  if (text.startsWith('tcp:')) return { kind: 'tcp', ...parseHostPort(text.slice('tcp:'.length)) };
  throw new SyntaxError(`Cannot read "${text}": expected -, unix:PATH, tcp:HOST:PORT or null:`);
}

/** Writes an address as `parseQemuAddress` reads it. */
export function formatQemuAddress(address: QemuAddress): string {
  if (address.kind === 'stdio') return '-';
  if (address.kind === 'null') return 'null:';
  if (address.kind === 'unix') return `unix:${address.path}`;
  return `tcp:${formatHostPort(address.host, address.port)}`;
}

/** Writes `HOST:PORT`, with brackets round an IPv6 address. */
export function formatHostPort(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

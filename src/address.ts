import { parseRate } from './units.ts';

/** A TCP address, optionally reached from a given local address. */
export interface PathAddress {
  readonly host: string;
  readonly port: number;
  /** Local address to connect from; the system chooses if absent. */
  readonly local?: string;
  /** Most bytes a second on this path; no limit if absent. */
  readonly maxBytesPerSecond?: number;
}

/** Paths as they are asked for: one by its addresses, or those that are found in a network. */
export type PathSpec =
  | { readonly kind: 'address'; readonly address: PathAddress }
  | {
      readonly kind: 'network';
      /** First address of the network, in canonical form. */
      readonly network: string;
      /** Bits that its addresses have in common, 0 to 32 or 128. */
      readonly prefixBits: number;
      /** Most bytes a second on each of its paths. */
      readonly maxBytesPerSecond?: number;
    }
  | { readonly kind: 'auto'; readonly maxBytesPerSecond?: number };

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
 * Reads paths as they are asked for on a command line: `[LOCAL@]HOST:PORT` for one, a network such
 * as `10.1.0.0/24` or `fd00:1::/64`, or `auto`; after any of them a limit, `,max=RATE`.
 *
 * @throws {SyntaxError} If it is none of them, bits are set behind the network's prefix, or the
 * limit is no rate.
 */
export function parsePathSpec(text: string): PathSpec {
  const [what = '', ...options] = text.split(',');
  const limit = parsePathOptions(text, options);
  if (what === 'auto') return { kind: 'auto', ...limit };
  if (what.includes('/')) return { kind: 'network', ...parseNetwork(text, what), ...limit };
  if (!what.includes(':')) {
    throw new SyntaxError(
      `Cannot read path "${text}": expected [LOCAL@]HOST:PORT, a network such as 10.1.0.0/24, or auto`,
    );
  }
  return { kind: 'address', address: { ...parsePathAddress(what), ...limit } };
}

function parsePathOptions(
  text: string,
  options: readonly string[],
): { maxBytesPerSecond?: number } {
  const [option, second] = options;
  if (option === undefined) return {};
  if (!option.startsWith('max=')) {
    throw new SyntaxError(`Cannot read path "${text}": option "${option}", expected max=RATE`);
  }
  if (second !== undefined) {
    throw new SyntaxError(`Cannot read path "${text}": "${second}" after its only option`);
  }
  return { maxBytesPerSecond: parseRate(option.slice('max='.length)) };
}

function parseNetwork(text: string, what: string): { network: string; prefixBits: number } {
  const match = /^([^/]+)\/(\d{1,3})$/.exec(what);
  const bytes = parseIp(match?.[1] ?? '');
  if (match === null || bytes === undefined) {
    throw new SyntaxError(
      `Cannot read path "${text}": expected a network such as 10.1.0.0/24 or fd00:1::/64`,
    );
  }
  const address = formatIp(bytes);
  if (bytes.length === IPV4_BYTES && match[1]!.includes(':')) {
    throw new SyntaxError(`Cannot read path "${text}": write it as a network of ${address}`);
  }
  const prefixBits = Number(match[2]);
  const bits = 8 * bytes.length;
  if (prefixBits > bits) {
    throw new SyntaxError(
      `Cannot read path "${text}": a prefix here has 0 to ${bits} bits, not ${prefixBits}`,
    );
  }
  const network = formatIp(maskIp(bytes, prefixBits));
  if (network !== address) {
    throw new SyntaxError(
      `Cannot read path "${text}": the network of ${address} is ${network}/${prefixBits}`,
    );
  }
  return { network, prefixBits };
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

/** Bytes of an IPv4 and of an IPv6 address. */
export const IPV4_BYTES: number = 4;
export const IPV6_BYTES: number = 16;

/** Where an IPv4 address is in an IPv6 address that stands for it, and what comes before it. */
const MAPPED_AT = IPV6_BYTES - IPV4_BYTES;
const MAPPED_PREFIX: readonly number[] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/**
 * Reads an IP address without a zone.
 *
 * @returns Its 4 or 16 bytes, highest first; undefined if it is none. An IPv4 address that is
 * written as IPv6, `::ffff:10.0.0.1`, comes back as IPv4.
 */
export function parseIp(text: string): Uint8Array | undefined {
  const bytes = text.includes(':') ? parseIpv6(text) : parseIpv4(text);
  if (bytes === undefined) return undefined;
  return Uint8Array.from(isMapped(bytes) ? bytes.slice(MAPPED_AT) : bytes);
}

/** Whether this is an IPv6 address that stands for an IPv4 address. */
export function isMapped(bytes: ArrayLike<number>): boolean {
  return bytes.length === IPV6_BYTES && MAPPED_PREFIX.every((byte, at) => bytes[at] === byte);
}

function parseIpv4(text: string): number[] | undefined {
  const parts = text.split('.');
  if (parts.length !== IPV4_BYTES) return undefined;
  const isByte = (part: string): boolean => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) < 256;
  return parts.every(isByte) ? parts.map(Number) : undefined;
}

function parseIpv6(text: string): number[] | undefined {
  const [front = '', back, extra] = text.split('::');
  const head = parseGroups(front, { hasEnd: back === undefined });
  const tail = parseGroups(back ?? '', { hasEnd: true });
  if (head === undefined || tail === undefined || extra !== undefined) return undefined;
  const missing = IPV6_BYTES - head.length - tail.length;
  // "::" stands for at least one group.
  if (back === undefined ? missing !== 0 : missing < 2) return undefined;
  return [...head, ...Array<number>(missing).fill(0), ...tail];
}

/** Reads the groups on one side of "::"; those at the address's end may end with IPv4. */
function parseGroups(text: string, { hasEnd }: { hasEnd: boolean }): number[] | undefined {
  const bytes: number[] = [];
  const groups = text === '' ? [] : text.split(':');
  for (const [index, group] of groups.entries()) {
    const isLast = hasEnd && index === groups.length - 1;
    const read = isLast && group.includes('.') ? parseIpv4(group) : parseGroup(group);
    if (read === undefined) return undefined;
    bytes.push(...read);
  }
  return bytes;
}

function parseGroup(text: string): number[] | undefined {
  if (!/^[0-9a-f]{1,4}$/i.test(text)) return undefined;
  const value = Number.parseInt(text, 16);
  return [value >>> 8, value & 0xff];
}

/**
 * Writes an IP address in canonical form.
 *
 * @param bytes 4 or 16 bytes, highest first.
 *
 * Source: RFC 5952, section 4.
 */
export function formatIp(bytes: Uint8Array): string {
  if (bytes.length === IPV4_BYTES) return bytes.join('.');
  const groups = Array.from({ length: 8 }, (_, index) =>
    ((bytes[2 * index]! << 8) | bytes[2 * index + 1]!).toString(16),
  );
  const { begin, count } = longestZeros(groups);
  if (count < 2) return groups.join(':');
  return `${groups.slice(0, begin).join(':')}::${groups.slice(begin + count).join(':')}`;
}

/** The longest run of zero groups, the first of several. */
function longestZeros(groups: readonly string[]): { begin: number; count: number } {
  let longest = { begin: 0, count: 0 };
  let count = 0;
  for (const [index, group] of groups.entries()) {
    count = group === '0' ? count + 1 : 0;
    if (count > longest.count) longest = { begin: index + 1 - count, count };
  }
  return longest;
}

/** Whether an address is in a network: of its family, and equal in its first `prefixBits` bits. */
export function isInNetwork(
  address: Uint8Array,
  { network, prefixBits }: { network: Uint8Array; prefixBits: number },
): boolean {
  if (address.length !== network.length) return false;
  const [one, other] = [maskIp(address, prefixBits), maskIp(network, prefixBits)];
  return one.every((byte, at) => byte === other[at]);
}

/** An address without the bits behind its prefix: the first of its network. */
function maskIp(bytes: Uint8Array, prefixBits: number): Uint8Array {
  return bytes.map((byte, at) => {
    const keptBits = Math.min(Math.max(prefixBits - 8 * at, 0), 8);
    return byte & (0xff << (8 - keptBits));
  });
}

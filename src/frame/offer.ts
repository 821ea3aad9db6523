import { formatIp, IPV4_BYTES, IPV6_BYTES, isInNetwork, isMapped, parseIp } from '../address.ts';
import { ProtocolError } from '../errors.ts';
import { readU16, writeU16 } from './bytes.ts';

/** Where a server can be reached, beside the address that its client knows. */
export interface Offer {
  /** IP addresses in canonical form. */
  readonly addresses: readonly string[];
  readonly port: number;
}

/* Fixed by the protocol */
/** Most addresses that a server offers. */
export const OFFERED_ADDRESSES_MAX: number = 32;

const COUNT_AT = 2;
const ADDRESSES_AT = 3;
const ADDRESS_BYTES: Readonly<Record<number, number>> = { 4: IPV4_BYTES, 6: IPV6_BYTES };

/** Networks of no use to another host: no address, this host, one link only, many hosts. */
const NEVER_OFFERED: readonly { network: Uint8Array; prefixBits: number }[] = [
  network('0.0.0.0', 8),
  network('127.0.0.0', 8),
  network('169.254.0.0', 16),
  network('224.0.0.0', 4),
  network('255.255.255.255', 32),
  // `::`, `::1`, and the addresses that once stood for IPv4.
  network('::', 96),
  network('fe80::', 10),
  network('ff00::', 8),
];

function network(text: string, prefixBits: number): { network: Uint8Array; prefixBits: number } {
  return { network: parseIp(text)!, prefixBits };
}

/**
 * Whether an address may be in an offer: not if it is unspecified, loopback, link-local, multicast
 * or broadcast, or IPv4 written as IPv6.
 *
 * @param bytes 4 or 16 bytes, highest first.
 */
export function isOfferable(bytes: Uint8Array): boolean {
  return !isMapped(bytes) && !NEVER_OFFERED.some((one) => isInNetwork(bytes, one));
}

/**
 * Writes the payload of an offer.
 *
 *    0 u16 port   2 u8 count (0 to 32)   3 count x: u8 family (4 or 6), its 4 or 16 bytes
 *
 * @throws {RangeError} If `decodeOffer` would not take it.
 */
export function encodeOffer({ addresses, port }: Offer): Uint8Array {
  if (!Number.isInteger(port) || port < 1 || port > 0xffff) {
    throw new RangeError(`Cannot write offer: port must be in 1..65535, not ${port}`);
  }
  if (addresses.length > OFFERED_ADDRESSES_MAX) {
    throw new RangeError(
      `Cannot write offer: it has at most ${OFFERED_ADDRESSES_MAX} addresses, not ${addresses.length}`,
    );
  }
  const list = addresses.map(readOfferable);
  const bytes = new Uint8Array(list.reduce((sum, one) => sum + 1 + one.length, ADDRESSES_AT));
  writeU16(bytes, 0, port);
  bytes[COUNT_AT] = list.length;
  let at = ADDRESSES_AT;
  for (const address of list) {
    bytes[at] = address.length === IPV4_BYTES ? 4 : 6;
    bytes.set(address, at + 1);
    at += 1 + address.length;
  }
  return bytes;
}

function readOfferable(text: string): Uint8Array {
  const bytes = parseIp(text);
  if (bytes !== undefined && isOfferable(bytes)) return bytes;
  throw new RangeError(`Cannot write offer: "${text}" is no address for another host`);
}

/**
 * Reads the payload of an offer.
 *
 * @throws {ProtocolError} ERR_FRAME_OFFER If it is not one, or an address may not be in it.
 */
export function decodeOffer(bytes: Uint8Array): Offer {
  if (bytes.length < ADDRESSES_AT) throw wrong(`${bytes.length} bytes`);
  const port = readU16(bytes, 0);
  if (port === 0) throw wrong('port 0');
  const count = bytes[COUNT_AT]!;
  if (count > OFFERED_ADDRESSES_MAX) throw wrong(`${count} addresses`);
  const addresses: string[] = [];
  let at = ADDRESSES_AT;
  for (let index = 0; index < count; index++) {
    const address = readAddress(bytes, at);
    addresses.push(formatIp(address));
    at += 1 + address.length;
  }
  if (at !== bytes.length) throw wrong(`${bytes.length} bytes for ${count} addresses`);
  return { addresses, port };
}

function readAddress(bytes: Uint8Array, at: number): Uint8Array {
  if (at >= bytes.length) throw wrong(`an address that is missing at byte ${at}`);
  const size = ADDRESS_BYTES[bytes[at]!];
  if (size === undefined) throw wrong(`family ${bytes[at]} at byte ${at}`);
  const address = bytes.subarray(at + 1, at + 1 + size);
  if (address.length !== size) throw wrong(`an address that is cut at byte ${at}`);
  if (!isOfferable(address)) throw wrong(`${formatIp(address)}, which is not for another host`);
  return address;
}

function wrong(seen: string): ProtocolError {
  return new ProtocolError('ERR_FRAME_OFFER', `Cannot read offer: it has ${seen}`);
}

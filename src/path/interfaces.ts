import { networkInterfaces } from 'node:os';
import { formatIp, IPV4_BYTES, isInNetwork, parseIp } from '../address.ts';
import { isOfferable, OFFERED_ADDRESSES_MAX } from '../frame/offer.ts';
import type { LocalAddress } from './find.ts';

/** Addresses that mean something only together with an interface. */
const IPV6_LINK_LOCAL = { network: parseIp('fe80::')!, prefixBits: 10 };

/** Lists this host's addresses, without those of loopback interfaces and IPv6 link-local ones. */
export function localAddresses(
  interfaces: ReturnType<typeof networkInterfaces> = networkInterfaces(),
): LocalAddress[] {
  return Object.entries(interfaces).flatMap(([name, list = []]) =>
    list
      .filter(({ address, internal }) => !internal && hasMeaningAlone(address))
      .map(({ address, cidr, family }) => {
        // A netmask with holes leaves no cidr: then nothing but the address itself is near.
        const prefixBits = Number(cidr?.split('/')[1] ?? (family === 'IPv4' ? 32 : 128));
        return { address, prefixBits, interface: name };
      }),
  );
}

function hasMeaningAlone(address: string): boolean {
  const bytes = parseIp(address);
  return bytes !== undefined && !isInNetwork(bytes, IPV6_LINK_LOCAL);
}

/**
 * Chooses what a server offers its clients, at most 32 addresses.
 *
 * A server that listens everywhere offers every address of the host; one that listens on an address
 * offers that. Addresses that another host cannot use are left out, so one on loopback offers none.
 *
 * @param listenHost The address that is listened on; `0.0.0.0` is all of IPv4, `::` is everything.
 */
export function offeredAddresses(listenHost: string, local: readonly LocalAddress[]): string[] {
  const listened = parseIp(listenHost);
  if (listened === undefined) return [];
  const isWildcard = listened.every((byte) => byte === 0);
  const isIpv4Only = listened.length === IPV4_BYTES;
  const offered = (isWildcard ? local.map(({ address }) => address) : [listenHost])
    .flatMap((address) => parseIp(address) ?? [])
    .filter((bytes) => isOfferable(bytes) && (!isIpv4Only || bytes.length === IPV4_BYTES))
    .map(formatIp);
  return [...new Set(offered)].slice(0, OFFERED_ADDRESSES_MAX);
}

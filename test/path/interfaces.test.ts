import type { NetworkInterfaceInfo } from 'node:os';
import { describe, expect, test } from 'vitest';
import { parseIp } from '../../src/address.ts';
import { decodeOffer, encodeOffer } from '../../src/frame/offer.ts';
import { localAddresses, offeredAddresses } from '../../src/path/interfaces.ts';

/** An entry as Node has it; of the rest nothing is read. */
function entry(address: string, cidr: string | null, isLoopback = false): NetworkInterfaceInfo {
  const common = { address, cidr, netmask: '', mac: '', internal: isLoopback };
  if (address.includes(':')) return { ...common, family: 'IPv6', scopeid: 0 };
  return { ...common, family: 'IPv4' };
}

describe('localAddresses()', () => {
  test('has every address but loopback and IPv6 link-local ones', () => {
    const list = localAddresses({
      lo: [
        entry('127.0.0.1', '127.0.0.1/8', true),
        entry('10.255.0.1', '10.255.0.1/32', true),
        entry('::1', '::1/128', true),
      ],
      eth0: [
        entry('10.1.0.1', '10.1.0.1/24'),
        entry('fd00::1', 'fd00::1/64'),
        entry('fe80::1', 'fe80::1/64'),
        entry('febf::1', 'febf::1/64'),
      ],
      eth1: [entry('10.2.0.1', '10.2.0.1/16'), entry('10.3.0.1', '10.3.0.1/8')],
      eth2: undefined,
    });
    expect(list).toEqual([
      { address: '10.1.0.1', prefixBits: 24, interface: 'eth0' },
      { address: 'fd00::1', prefixBits: 64, interface: 'eth0' },
      { address: '10.2.0.1', prefixBits: 16, interface: 'eth1' },
      { address: '10.3.0.1', prefixBits: 8, interface: 'eth1' },
    ]);
  });

  test('takes an address without a prefix for a subnet of its own', () => {
    const list = localAddresses({ p0: [entry('10.1.0.1', null), entry('fd00::1', null)] });
    expect(list.map(({ prefixBits }) => prefixBits)).toEqual([32, 128]);
  });

  test('reads this host', () => {
    for (const { address, prefixBits, interface: name } of localAddresses()) {
      expect(parseIp(address), address).toBeDefined();
      expect(prefixBits).toBeLessThanOrEqual(8 * parseIp(address)!.length);
      expect(name).not.toBe('lo');
    }
  });
});

describe('offeredAddresses()', () => {
  const LOCAL = ['10.1.0.1', 'fd00::1', '10.2.0.1', '169.254.3.4'].map((address) => ({
    address,
    prefixBits: 24,
    interface: 'eth0',
  }));

  test.each([
    ['0.0.0.0', ['10.1.0.1', '10.2.0.1']],
    ['::', ['10.1.0.1', 'fd00::1', '10.2.0.1']],
    ['10.2.0.1', ['10.2.0.1']],
    ['fd00:0::1', ['fd00::1']],
    ['::ffff:10.2.0.1', ['10.2.0.1']],
    ['192.168.0.1', ['192.168.0.1']],
    ['127.0.0.1', []],
    ['::1', []],
    ['fe80::1', []],
    ['169.254.3.4', []],
    ['localhost', []],
    ['', []],
  ])('of a server on %s are %j', (host, offered) => {
    expect(offeredAddresses(host, LOCAL)).toEqual(offered);
  });

  test('are few enough for an offer, and none twice', () => {
    const many = Array.from({ length: 40 }, (_, index) => ({
      address: `10.0.0.${1 + (index >> 1)}`,
      prefixBits: 24,
      interface: `eth${index}`,
    }));
    expect(offeredAddresses('::', many)).toHaveLength(20);
    const others = many.map((one, index) => ({ ...one, address: `10.1.0.${index}` }));
    const addresses = offeredAddresses('0.0.0.0', [...many, ...others]);
    expect(addresses).toHaveLength(32);
    expect(decodeOffer(encodeOffer({ addresses, port: 1 })).addresses).toEqual(addresses);
  });

  test('are nothing on a host that has none', () => {
    expect(offeredAddresses('::', [])).toEqual([]);
  });
});

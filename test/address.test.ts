import net from 'node:net';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  formatIp,
  isInNetwork,
  isMapped,
  parseIp,
  parsePathAddress,
  parsePathSpec,
} from '../src/address.ts';

const ipv4 = fc.uint8Array({ minLength: 4, maxLength: 4 });
/** Zeros are frequent, so that runs of them are. */
const ipv6 = fc
  .array(fc.oneof(fc.constant(0), fc.constant(1), fc.integer({ min: 0, max: 0xffff })), {
    minLength: 8,
    maxLength: 8,
  })
  .map((groups) => Uint8Array.from(groups.flatMap((group) => [group >>> 8, group & 0xff])));

describe('parsePathSpec()', () => {
  test.each([
    ['dst:7700', { host: 'dst', port: 7700 }],
    ['10.1.0.1@10.1.0.2:7700', { host: '10.1.0.2', port: 7700, local: '10.1.0.1' }],
    ['[fd00::1]@[fd00::2]:1', { host: 'fd00::2', port: 1, local: 'fd00::1' }],
    ['auto:7700', { host: 'auto', port: 7700 }],
  ])('reads the address %s', (text, address) => {
    expect(parsePathSpec(text)).toEqual({ kind: 'address', address });
    expect(parsePathSpec(text)).toEqual({ kind: 'address', address: parsePathAddress(text) });
  });

  test.each([
    ['10.1.0.0/24', '10.1.0.0', 24],
    ['10.1.0.7/32', '10.1.0.7', 32],
    ['0.0.0.0/0', '0.0.0.0', 0],
    ['10.128.0.0/9', '10.128.0.0', 9],
    ['fd00:1::/64', 'fd00:1::', 64],
    ['FD00:0001:0::/64', 'fd00:1::', 64],
    ['fd00::8000/113', 'fd00::8000', 113],
    ['::/0', '::', 0],
    ['::1/128', '::1', 128],
  ])('reads the network %s', (text, network, prefixBits) => {
    expect(parsePathSpec(text)).toEqual({ kind: 'network', network, prefixBits });
  });

  test('reads a limit after every form', () => {
    const maxBytesPerSecond = 125_000_000;
    expect(parsePathSpec('auto')).toEqual({ kind: 'auto' });
    expect(parsePathSpec('auto,max=1gbit')).toEqual({ kind: 'auto', maxBytesPerSecond });
    expect(parsePathSpec('10.1.0.0/24,max=125MB')).toEqual({
      kind: 'network',
      network: '10.1.0.0',
      prefixBits: 24,
      maxBytesPerSecond,
    });
    expect(parsePathSpec('a@b:1,max=1gbit')).toEqual({
      kind: 'address',
      address: { host: 'b', port: 1, local: 'a', maxBytesPerSecond },
    });
  });

  test.each([
    ['10.1.0.5/24', 'the network of 10.1.0.5 is 10.1.0.0/24'],
    ['10.1.0.1/31', 'the network of 10.1.0.1 is 10.1.0.0/31'],
    ['fd00::1/64', 'the network of fd00::1 is fd00::/64'],
    ['10.1.0.0/33', 'a prefix here has 0 to 32 bits, not 33'],
    ['fd00::/129', 'a prefix here has 0 to 128 bits, not 129'],
    ['::ffff:10.1.0.0/120', 'write it as a network of 10.1.0.0'],
    ['10.1.0.0/', 'expected a network such as'],
    ['10.1.0.0/24:7700', 'expected a network such as'],
    ['10.1.0.0/+24', 'expected a network such as'],
    ['10.1.0/24', 'expected a network such as'],
    ['dst/24', 'expected a network such as'],
    ['10.1.0.1@10.1.0.0/24', 'expected a network such as'],
    ['[fd00::]/64', 'expected a network such as'],
    ['fe80::%eth0/64', 'expected a network such as'],
    ['10.1.0.0/24/24', 'expected a network such as'],
    ['10.1.0.1', 'expected [LOCAL@]HOST:PORT, a network such as 10.1.0.0/24, or auto'],
    ['AUTO', 'expected [LOCAL@]HOST:PORT'],
    ['', 'expected [LOCAL@]HOST:PORT'],
    [',max=1gbit', 'expected [LOCAL@]HOST:PORT'],
    ['dst:70000', 'expected HOST:PORT'],
    ['@dst:1', 'the local address before "@" is empty'],
    ['auto,', 'option "", expected max=RATE'],
    ['auto,min=1gbit', 'option "min=1gbit", expected max=RATE'],
    ['auto,max', 'option "max", expected max=RATE'],
    ['auto,max=1gbit,max=2gbit', '"max=2gbit" after its only option'],
    ['auto,max=fast', 'Cannot read rate "fast"'],
    ['auto,max=0mbit', 'Cannot read rate "0mbit"'],
    ['auto,max=', 'Cannot read rate ""'],
  ])('refuses %s', (text, why) => {
    expect(() => parsePathSpec(text)).toThrow(SyntaxError);
    expect(() => parsePathSpec(text)).toThrow(why);
  });

  test('reads a network exactly if no bit is set behind its prefix', () => {
    fc.assert(
      fc.property(fc.oneof(ipv4, ipv6), fc.nat(128), (bytes, prefixBits) => {
        fc.pre(prefixBits <= 8 * bytes.length && !isMapped(bytes));
        const isFirst = bits(bytes).slice(prefixBits).includes('1') === false;
        const text = `${formatIp(bytes)}/${prefixBits}`;
        if (isFirst) {
          const network = formatIp(bytes);
          expect(parsePathSpec(text)).toEqual({ kind: 'network', network, prefixBits });
        } else {
          expect(() => parsePathSpec(text)).toThrow('the network of');
        }
      }),
    );
  });
});

function bits(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(2).padStart(8, '0')).join('');
}

describe('parseIp()', () => {
  test.each([
    '10.0.0.1',
    '255.255.255.255',
    '::',
    '::1',
    '1::',
    'fd00:1::2',
    '1:2:3:4:5:6:7:8',
    '1:2:3:4:5:6::',
    '1:0:3:4:5:6:7:8',
    '1::4:0:0:7:8',
    '1:0:0:4::8',
    '::102:304',
    '64:ff9b::102:304',
  ])('reads %s, which is in canonical form', (text) => {
    expect(formatIp(parseIp(text)!)).toBe(text);
  });

  test.each([
    ['1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:0'],
    ['::2:3:4:5:6:7:8', '0:2:3:4:5:6:7:8'],
    ['1:0:0:4:0:0:7:8', '1::4:0:0:7:8'],
    ['FD00::0001', 'fd00::1'],
    ['64:ff9b::1.2.3.4', '64:ff9b::102:304'],
  ])('reads %s as %s', (text, canonical) => {
    expect(formatIp(parseIp(text)!)).toBe(canonical);
  });

  test.each(['::ffff:10.0.0.1', '::FFFF:10.0.0.1', '::ffff:a00:1', '0:0:0:0:0:ffff:10.0.0.1'])(
    'reads %s as IPv4',
    (text) => {
      expect([...parseIp(text)!]).toEqual([10, 0, 0, 1]);
    },
  );

  test.each([
    '',
    'dst',
    '10.0.0',
    '10.0.0.1.2',
    '10.0.0.256',
    '10.0.0.01',
    '10.0.0.-1',
    '10.0.0.1 ',
    '0x10.0.0.1',
    ':',
    ':::',
    '1::2::3',
    ':1::',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7::8',
    '::12345',
    '::g',
    '::1%eth0',
    '1.2.3.4::',
    '::1.2.3',
    '1.2.3.4:5::',
    '[::1]',
  ])('says that "%s" is none', (text) => {
    expect(parseIp(text)).toBeUndefined();
  });

  test('agrees with Node on what an address is', () => {
    const characters = fc.constantFrom(...'012f:.:.:', '::', '255', 'ffff', '::ffff:', '1.2.3.4');
    const texts = fc.array(characters, { maxLength: 12 }).map((parts) => parts.join(''));
    fc.assert(
      fc.property(texts, (text) => {
        expect(parseIp(text) !== undefined).toBe(net.isIP(text) !== 0);
      }),
      { numRuns: 2000 },
    );
  });
});

describe('formatIp()', () => {
  test('is what parseIp() reads, and what a URL has', () => {
    fc.assert(
      fc.property(fc.oneof(ipv4, ipv6), (bytes) => {
        fc.pre(!isMapped(bytes));
        const text = formatIp(bytes);
        expect(parseIp(text)).toEqual(bytes);
        const host = bytes.length === 16 ? `[${text}]` : text;
        expect(new URL(`http://${host}`).hostname).toBe(host);
      }),
    );
  });

  test('is the same for every way to write an address', () => {
    fc.assert(
      fc.property(ipv6, (bytes) => {
        fc.pre(!isMapped(bytes));
        const groups = Array.from({ length: 8 }, (_, index) =>
          Buffer.from(bytes.subarray(2 * index, 2 * index + 2)).toString('hex'),
        );
        const long = groups.join(':').toUpperCase();
        const mixed = `${groups.slice(0, 6).join(':')}:${bytes.subarray(12).join('.')}`;
        expect(formatIp(parseIp(long)!)).toBe(formatIp(bytes));
        expect(formatIp(parseIp(mixed)!)).toBe(formatIp(bytes));
      }),
    );
  });
});

describe('isInNetwork()', () => {
  test('compares the bits of the prefix, and families', () => {
    const any = fc.oneof(ipv4, ipv6);
    fc.assert(
      fc.property(any, any, fc.nat(128), (address, network, prefixBits) => {
        const isIn = isInNetwork(address, { network, prefixBits });
        const isSameStart =
          bits(address).slice(0, prefixBits) === bits(network).slice(0, prefixBits);
        expect(isIn).toBe(address.length === network.length && isSameStart);
      }),
    );
  });

  test('agrees with Node in a network of its own', () => {
    fc.assert(
      fc.property(ipv4, fc.nat(31), fc.nat(31), (network, prefixBits, flipped) => {
        const address = network.slice();
        address[flipped >> 3]! ^= 0x80 >> (flipped & 7);
        const list = new net.BlockList();
        list.addSubnet(network.join('.'), prefixBits + 1);
        expect(isInNetwork(address, { network, prefixBits: prefixBits + 1 })).toBe(
          list.check(address.join('.')),
        );
      }),
    );
  });
});

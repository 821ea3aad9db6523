import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  formatIp,
  isInNetwork,
  type PathAddress,
  type PathSpec,
  parseIp,
  parsePathSpec,
} from '../../src/address.ts';
import { PATHS_MAX } from '../../src/frame/limits.ts';
import {
  type FoundPaths,
  findPaths,
  type LocalAddress,
  type Surroundings,
} from '../../src/path/find.ts';

const PORT = 7700;

/** Local addresses, written `eth0 10.1.0.1/24`. */
function local(...texts: string[]): LocalAddress[] {
  return texts.map((text) => {
    const [name = '', address = '', bits] = text.split(/[ /]/);
    return { address, prefixBits: Number(bits), interface: name };
  });
}

function find(
  specs: string | string[],
  around: { local: LocalAddress[]; offered: string[]; used?: PathAddress[] },
): FoundPaths {
  return findPaths([specs].flat().map(parsePathSpec), { ...around, port: PORT });
}

/** What was found, written `10.1.0.1>10.1.0.2`, ways of one path with `|` between them. */
function pairsOf({ paths }: FoundPaths): string[] {
  return paths.map(({ addresses }) =>
    addresses.map(({ local, host }) => `${local ?? ''}>${host}`).join('|'),
  );
}

const TWO_LINKS = {
  local: local('eth0 10.1.0.1/24', 'eth1 10.2.0.1/24'),
  offered: ['10.1.0.2', '10.2.0.2'],
};

describe('findPaths() of an address', () => {
  test('takes it as it is written, even twice', () => {
    const text = '10.1.0.1@dst:99,max=1gbit';
    const address = { host: 'dst', port: 99, local: '10.1.0.1', maxBytesPerSecond: 125_000_000 };
    const found = find([text, text], { local: [], offered: [] });
    expect(found).toEqual({
      paths: [{ addresses: [address] }, { addresses: [address] }],
      notes: [],
    });
  });
});

describe('findPaths() of a network', () => {
  test('finds the link that is in it', () => {
    const found = find('10.2.0.0/24,max=200mbit', TWO_LINKS);
    const address = { host: '10.2.0.2', port: PORT, local: '10.2.0.1' };
    expect(found.paths).toEqual([{ addresses: [{ ...address, maxBytesPerSecond: 25_000_000 }] }]);
    expect(found.notes).toEqual([]);
  });

  test('keeps the order of networks', () => {
    expect(pairsOf(find(['10.2.0.0/24', '10.1.0.0/24'], TWO_LINKS))).toEqual([
      '10.2.0.1>10.2.0.2',
      '10.1.0.1>10.1.0.2',
    ]);
  });

  test('pairs the i-th with the i-th if both hosts have as many', () => {
    const around = {
      local: local('eth1 10.0.0.10/24', 'eth0 10.0.0.9/24'),
      offered: ['10.0.0.21', '10.0.0.101'],
    };
    expect(pairsOf(find('10.0.0.0/24', around))).toEqual([
      '10.0.0.9>10.0.0.21',
      '10.0.0.10>10.0.0.101',
    ]);
  });

  test('otherwise takes every pair, each local address first', () => {
    const around = {
      local: local('eth0 10.0.0.1/24', 'eth1 10.0.0.2/24'),
      offered: ['10.0.0.11', '10.0.0.12', '10.0.0.13'],
    };
    expect(pairsOf(find('10.0.0.0/24', around))).toEqual([
      '10.0.0.1>10.0.0.11',
      '10.0.0.2>10.0.0.12',
      '10.0.0.1>10.0.0.12',
      '10.0.0.2>10.0.0.13',
      '10.0.0.1>10.0.0.13',
      '10.0.0.2>10.0.0.11',
    ]);
  });

  test('does not look at the prefixes of interfaces', () => {
    const around = { local: local('eth0 10.1.0.1/24'), offered: ['10.1.9.2'] };
    expect(pairsOf(find('10.1.0.0/16', around))).toEqual(['10.1.0.1>10.1.9.2']);
  });

  test('finds IPv6, in canonical form', () => {
    const around = { local: local('eth0 FD00:1:0::1/64'), offered: ['fd00:1::0:2', '10.0.0.1'] };
    expect(pairsOf(find('fd00:1::/64', around))).toEqual(['fd00:1::1>fd00:1::2']);
  });

  test('takes IPv4 that is written as IPv6 for IPv4', () => {
    const around = {
      local: local('eth0 ::ffff:10.0.0.1/120'),
      offered: ['::ffff:10.0.0.2', '::ffff:10.0.0.1'],
    };
    expect(pairsOf(find('10.0.0.0/24', around))).toEqual([]);
    expect(pairsOf(find('10.0.0.0/24', { ...around, offered: ['::ffff:a00:2'] }))).toEqual([
      '10.0.0.1>10.0.0.2',
    ]);
    expect(pairsOf(find('auto', { ...around, offered: ['10.0.0.2', '10.0.1.2'] }))).toEqual([
      '10.0.0.1>10.0.0.2',
    ]);
  });

  test.each([
    ['10.9.0.0/24', 'this host has no address in it'],
    ['10.3.0.0/24', 'the destination offers none in it'],
    ['172.17.0.0/16', 'both hosts have the same addresses in it'],
    ['fd00::/8', 'this host has no address in it'],
  ])('says why %s found nothing', (text, why) => {
    const around = {
      local: [...TWO_LINKS.local, ...local('eth2 10.3.0.1/24', 'docker0 172.17.0.1/16')],
      offered: [...TWO_LINKS.offered, '172.17.0.1'],
    };
    const found = find(['10.1.0.0/24', text], around);
    expect(pairsOf(found)).toEqual(['10.1.0.1>10.1.0.2']);
    expect(found.notes).toEqual([`--path ${text}: ${why}`]);
  });

  test('finds no pair twice, and is silent about it', () => {
    const found = find(['10.1.0.1@10.1.0.2:7700', '10.1.0.0/24', '10.0.0.0/8,max=1gbit'], {
      ...TWO_LINKS,
      used: [{ local: '::ffff:10.2.0.1', host: '10.2.0.2', port: PORT }],
    });
    expect(pairsOf(found)).toEqual(['10.1.0.1>10.1.0.2']);
    expect(found.notes).toEqual([]);
  });
});

describe('findPaths() of auto', () => {
  test('finds a path from each interface', () => {
    expect(pairsOf(find('auto', TWO_LINKS))).toEqual(['10.1.0.1>10.1.0.2', '10.2.0.1>10.2.0.2']);
  });

  test('limits every path', () => {
    const { paths } = find('auto,max=8mbit', TWO_LINKS);
    const limits = paths.map(({ addresses: [first] }) => first.maxBytesPerSecond);
    expect(limits).toEqual([1_000_000, 1_000_000]);
  });

  test('leaves out bridges for containers, which both hosts have', () => {
    const around = {
      local: [...TWO_LINKS.local, ...local('docker0 172.17.0.1/16')],
      offered: [...TWO_LINKS.offered, '172.17.0.1'],
    };
    expect(find('auto', around)).toEqual(find('auto', TWO_LINKS));
    const routed = { ...around, offered: ['10.9.0.2', '172.17.0.1'] };
    expect(pairsOf(find('auto', routed))).toEqual(['10.1.0.1>10.9.0.2', '10.2.0.1>10.9.0.2']);
  });

  test('finds one path for an interface, with its other addresses as ways', () => {
    const around = {
      local: local('eth0 fd00::1/64', 'eth0 10.1.0.1/24', 'eth0 fd00::99/64'),
      offered: ['fd00::2', '10.1.0.2'],
    };
    expect(pairsOf(find('auto', around))).toEqual([
      '10.1.0.1>10.1.0.2|fd00::1>fd00::2|fd00::99>fd00::2',
    ]);
  });

  test('spreads interfaces of one subnet over what the destination has in it', () => {
    const around = {
      local: local('eth0 10.0.0.1/24', 'eth1 10.0.0.2/24', 'eth2 10.0.0.3/24'),
      offered: ['10.0.0.11', '10.0.0.12'],
    };
    expect(pairsOf(find('auto', around))).toEqual([
      '10.0.0.1>10.0.0.11|10.0.0.1>10.0.0.12',
      '10.0.0.2>10.0.0.12|10.0.0.2>10.0.0.11',
      '10.0.0.3>10.0.0.11|10.0.0.3>10.0.0.12',
    ]);
  });

  test('tries routers for addresses in no subnet of this host, after what is near', () => {
    const around = {
      local: local('eth0 10.1.0.1/24', 'eth1 10.2.0.1/24'),
      offered: ['10.2.0.2', '10.8.0.2', '10.9.0.2', 'fd00::2'],
    };
    expect(pairsOf(find('auto', around))).toEqual([
      '10.2.0.1>10.2.0.2',
      '10.1.0.1>10.8.0.2|10.1.0.1>10.9.0.2',
    ]);
  });

  test('tries routers from an address without a subnet', () => {
    const around = { local: local('eth0 10.128.0.5/32'), offered: ['10.128.0.6'] };
    expect(pairsOf(find('auto', around))).toEqual(['10.128.0.5>10.128.0.6']);
  });

  test('does not use an interface again that has a path', () => {
    const used = [{ local: '10.1.0.1', host: '10.1.0.99', port: 1 }];
    expect(pairsOf(find('auto', { ...TWO_LINKS, used }))).toEqual(['10.2.0.1>10.2.0.2']);
    expect(pairsOf(find(['10.2.0.0/24', 'auto', 'auto'], TWO_LINKS))).toEqual([
      '10.2.0.1>10.2.0.2',
      '10.1.0.1>10.1.0.2',
    ]);
    const all = find(['auto', 'auto'], TWO_LINKS);
    expect(all.notes).toEqual([]);
  });

  test.each([
    [[], ['10.1.0.2'], 'this host has no address but loopback'],
    [['eth0 10.1.0.1/24'], [], 'the destination offers no address'],
    [['eth0 10.1.0.1/24'], ['10.1.0.1'], 'this host has every address offered, too'],
    [['eth0 10.1.0.1/24'], ['fd00::1'], 'no address of this host fits one'],
    [
      ['eth0 10.1.0.1/24', 'docker0 172.17.0.1/16'],
      ['172.17.0.1', 'fd00::1'],
      'no address of this host fits one',
    ],
  ])('from %j to %j says why there is no path', (ours, offered, why) => {
    const found = find('auto', { local: local(...ours), offered });
    expect(found.paths).toEqual([]);
    expect(found.notes).toHaveLength(1);
    expect(found.notes[0]).toContain(`--path auto: ${why}`);
  });
});

describe('findPaths() is bounded', () => {
  const MANY = {
    local: local(...Array.from({ length: 20 }, (_, index) => `eth${index} 10.0.0.${index}/24`)),
    offered: Array.from({ length: 32 }, (_, index) => `10.0.0.${100 + index}`),
  };

  test('to 16 paths, and says so', () => {
    const auto = find('auto', MANY);
    expect(auto.paths).toHaveLength(PATHS_MAX);
    expect(auto.notes).toEqual([
      '--path auto: 16 of its 20 paths are used: a session has at most 16',
    ]);
    const all = find(['10.0.0.0/24', 'dst:1'], MANY);
    expect(all.paths).toHaveLength(PATHS_MAX);
    expect(all.notes).toEqual([
      '--path 10.0.0.0/24: 16 of its 640 paths are used: a session has at most 16',
      '--path dst: 0 of its 1 paths are used: a session has at most 16',
    ]);
  });

  test('to what is left beside paths that are there', () => {
    const used = Array.from({ length: 15 }, () => ({ host: 'dst', port: 1 }));
    expect(find('auto', { ...TWO_LINKS, used }).paths).toHaveLength(1);
    const full = [...used, ...used];
    expect(find('auto', { ...TWO_LINKS, used: full }).paths).toHaveLength(0);
  });

  test('to 8 ways for a path', () => {
    for (const { addresses } of find('auto', MANY).paths) expect(addresses).toHaveLength(8);
  });
});

/* Few addresses, so that hosts meet in subnets, and share some. */
const ipText = fc
  .tuple(fc.integer({ min: 0, max: 2 }), fc.integer({ min: 1, max: 5 }), fc.nat(3))
  .map(([subnet, host, form]) => {
    if (form === 0) return `::ffff:10.0.${subnet}.${host}`;
    return form === 1 ? `fd00:${subnet}::${host}` : `10.0.${subnet}.${host}`;
  });
const localAddress = fc
  .tuple(ipText, fc.constantFrom(32, 24, 16, 0), fc.nat(4))
  .map(([address, bits, index]): LocalAddress => {
    const prefixBits = address.includes(':') ? 96 + bits : bits;
    return { address, prefixBits, interface: `eth${index}` };
  });
const surroundings = fc.record({
  local: fc.array(localAddress, { maxLength: 12 }),
  offered: fc.array(ipText, { maxLength: 12 }),
  port: fc.constant(PORT),
  used: fc.array(
    fc.tuple(ipText, ipText).map(([local, host]) => ({ local, host, port: PORT })),
    { maxLength: 2 },
  ),
});
const FOUND_SPECS = ['auto', '10.0.0.0/24', '10.0.0.0/16', 'fd00::/64', 'fd00::/16', '0.0.0.0/0'];
const foundSpecs = fc.array(fc.constantFrom(...FOUND_SPECS).map(parsePathSpec), { maxLength: 4 });

const canonical = (text: string): string => formatIp(parseIp(text)!);

function everyAddress({ paths }: FoundPaths): PathAddress[] {
  return paths.flatMap(({ addresses }) => [...addresses]);
}

function check(claim: (found: FoundPaths, around: Surroundings, specs: PathSpec[]) => void): void {
  fc.assert(
    fc.property(foundSpecs, surroundings, (specs, around) => {
      claim(findPaths(specs, around), around, specs);
    }),
    { numRuns: 500 },
  );
}

describe('findPaths() always', () => {
  test('goes from an address of this host to one that only the destination has', () => {
    check((found, { local, offered }) => {
      const ours = new Set(local.map(({ address }) => canonical(address)));
      const theirs = new Set(offered.map(canonical));
      for (const { local: from, host, port } of everyAddress(found)) {
        expect(ours).toContain(from);
        expect(theirs).toContain(host);
        expect(ours).not.toContain(host);
        expect(theirs).not.toContain(from);
        expect(port).toBe(PORT);
      }
    });
  });

  test('stays within a family', () => {
    check((found) => {
      for (const { local, host } of everyAddress(found)) {
        expect(parseIp(local!)!.length).toBe(parseIp(host)!.length);
      }
    });
  });

  test('is bounded', () => {
    check(({ paths, notes }, { used = [] }, specs) => {
      expect(paths.length + used.length).toBeLessThanOrEqual(PATHS_MAX);
      expect(notes.length).toBeLessThanOrEqual(specs.length);
      for (const { addresses } of paths) expect(addresses.length).toBeLessThanOrEqual(8);
    });
  });

  test('opens no pair twice, nor one that is open', () => {
    check(({ paths }, { used = [] }) => {
      const open = used.map(({ local, host }) => `${canonical(local!)}>${canonical(host)}`);
      const first = paths.map(({ addresses: [{ local, host }] }) => `${local}>${host}`);
      expect(new Set(first).size).toBe(first.length);
      expect(first.filter((pair) => open.includes(pair))).toEqual([]);
      for (const { addresses } of paths) {
        const ways = addresses.map(({ local, host }) => `${local}>${host}`);
        expect(new Set(ways).size).toBe(ways.length);
      }
    });
  });

  test('finds the same in whatever order addresses come, and however often', () => {
    const shuffled = surroundings.chain((around) =>
      fc.record({
        around: fc.constant(around),
        local: shuffle(around.local),
        offered: shuffle(around.offered),
      }),
    );
    fc.assert(
      fc.property(foundSpecs, shuffled, (specs, { around, local, offered }) => {
        const other = { ...around, local: [...local, ...local], offered: [...offered, ...offered] };
        expect(findPaths(specs, other)).toEqual(findPaths(specs, around));
      }),
      { numRuns: 500 },
    );
  });

  test('leaves its arguments as they are', () => {
    check((found, around, specs) => {
      const copy = structuredClone({ specs, around });
      expect(findPaths(specs, around)).toEqual(found);
      expect({ specs, around }).toEqual(copy);
    });
  });

  test('stays in the network that is asked for', () => {
    fc.assert(
      fc.property(fc.constantFrom(...FOUND_SPECS.slice(1)), surroundings, (text, around) => {
        const spec = parsePathSpec(text) as PathSpec & { kind: 'network' };
        const where = { network: parseIp(spec.network)!, prefixBits: spec.prefixBits };
        for (const { local, host } of everyAddress(findPaths([spec], around))) {
          expect(isInNetwork(parseIp(local!)!, where)).toBe(true);
          expect(isInNetwork(parseIp(host)!, where)).toBe(true);
        }
      }),
    );
  });

  test('goes straight to the destination where auto can', () => {
    fc.assert(
      fc.property(surroundings, (around) => {
        const reach = subnetsOf(around.local);
        const { paths } = findPaths([{ kind: 'auto' }], { ...around, used: [] });
        const kinds = paths.map(({ addresses }) =>
          addresses.map(({ local, host }) => reach(host, local!)),
        );
        // Ways of one path are of one kind, and near ones come before those over routers.
        for (const ways of kinds) expect(new Set(ways).size).toBe(1);
        const order = kinds.map(([first]) => (first === 'near' ? 0 : 1));
        expect(order).toEqual([...order].sort());
        expect(kinds.flat()).not.toContain('elsewhere');
      }),
      { numRuns: 500 },
    );
  });
});

function shuffle<T>(list: readonly T[]): fc.Arbitrary<T[]> {
  return fc.shuffledSubarray([...list], { minLength: list.length, maxLength: list.length });
}

/** How a host is reached from an address: in its subnet, by routers, or in another's subnet. */
function subnetsOf(
  local: readonly LocalAddress[],
): (host: string, from: string) => 'near' | 'routed' | 'elsewhere' {
  return (host, from) => {
    const near = local.filter(({ address, prefixBits }) => {
      const network = parseIp(address)!;
      const isMapped = address.includes(':') && network.length === 4;
      const own = isMapped ? prefixBits - 96 : prefixBits;
      return isInNetwork(parseIp(host)!, { network, prefixBits: own });
    });
    if (near.length === 0) return 'routed';
    return near.some(({ address }) => canonical(address) === from) ? 'near' : 'elsewhere';
  };
}

import {
  formatIp,
  IPV4_BYTES,
  IPV6_BYTES,
  isInNetwork,
  type PathAddress,
  type PathSpec,
  parseIp,
} from '../address.ts';
import { PATHS_MAX } from '../frame/limits.ts';

/*
 * From what was asked for to paths
 *
 *   1. read    both hosts' addresses, in one order whatever order they came in; an address that
 *              both hosts have (a bridge for containers, 172.17.0.1) leads nowhere
 *   2. find    what each spec asks for, one spec after the other, and no pair twice
 *   3. bound   at most 16 paths, those of the first specs
 */

/* Chosen by us */
/** Most pairs of addresses that are tried for one path. */
const WAYS_MAX = 8;

/** An address of this host. */
export interface LocalAddress {
  /** IPv4 or IPv6, without a zone. */
  readonly address: string;
  /** Bits of the address that are its subnet's: addresses with the same ones are near. */
  readonly prefixBits: number;
  /** Name of the interface that has it. */
  readonly interface: string;
}

/** What the two hosts have. The order of addresses changes nothing. */
export interface Surroundings {
  readonly local: readonly LocalAddress[];
  /** IP addresses that the destination offers. */
  readonly offered: readonly string[];
  /** Port at which it listens on all of them. */
  readonly port: number;
  /** Paths that are there already, with `local`: they count, and are not found again. */
  readonly used?: readonly PathAddress[];
}

/** One path that should be opened. */
export interface PathCandidate {
  /** Ways to open it, 1 to 8: each is for when the one before it cannot be opened. */
  readonly addresses: readonly [PathAddress, ...PathAddress[]];
}

export interface FoundPaths {
  /** In the order of the specs; together with `used` at most 16. */
  readonly paths: readonly PathCandidate[];
  /** For people: which spec found nothing and why, and what is left out. */
  readonly notes: readonly string[];
}

type NetworkSpec = PathSpec & { readonly kind: 'network' };

interface Ip {
  /** In canonical form. */
  readonly text: string;
  readonly bytes: Uint8Array;
}

interface LocalIp extends Ip {
  readonly prefixBits: number;
  readonly interface: string;
}

interface Hosts {
  readonly local: readonly LocalIp[];
  readonly offered: readonly Ip[];
  readonly port: number;
  /** Addresses that both hosts have, as text. */
  readonly shared: ReadonlySet<string>;
}

/** Two addresses that may make a path. */
interface Pair {
  readonly local: LocalIp;
  readonly host: Ip;
}

/** Pairs for one path, to be tried one after the other. */
type Ways = readonly [Pair, ...Pair[]];

/**
 * Finds the paths that are asked for.
 *
 * An address is taken as it is written, even twice. A network gives a path for each pair of its
 * addresses, the i-th with the i-th if both hosts have as many. `auto` gives one path from each
 * interface that has none yet. What several specs find has the limit of the first of them.
 *
 * What is found never leads to an address that this host has as well. Addresses that are not IP
 * addresses are ignored in `local` and `offered`.
 */
export function findPaths(specs: readonly PathSpec[], around: Surroundings): FoundPaths {
  const hosts = readHosts(around);
  const paths: PathCandidate[] = [];
  const notes: string[] = [];
  for (const spec of specs) {
    const first = paths.map(({ addresses }) => addresses[0]);
    const taken = [...(around.used ?? []), ...first].map(canonical);
    const found = findOne(spec, hosts, taken);
    const room = Math.max(0, PATHS_MAX - taken.length);
    paths.push(...found.slice(0, room));
    const why = found.length === 0 ? whyNothing(spec, hosts, taken) : whyLess(found.length, room);
    if (why !== undefined) notes.push(`--path ${formatSpec(spec)}: ${why}`);
  }
  return { paths, notes };
}

function readHosts({ local, offered, port }: Surroundings): Hosts {
  const ours = unique(local.flatMap(readLocal).sort(compareLocal));
  const theirs = unique(offered.flatMap(readIp).sort(compareIp));
  const texts = new Set(ours.map(({ text }) => text));
  const shared = new Set(theirs.map(({ text }) => text).filter((text) => texts.has(text)));
  return { local: ours, offered: theirs, port, shared };
}

function readIp(text: string): Ip[] {
  const bytes = parseIp(text);
  return bytes === undefined ? [] : [{ text: formatIp(bytes), bytes }];
}

function readLocal({ address, prefixBits, interface: name }: LocalAddress): LocalIp[] {
  return readIp(address).map((ip) => {
    const isMapped = ip.bytes.length === IPV4_BYTES && address.includes(':');
    const ownBits = isMapped ? prefixBits - 8 * (IPV6_BYTES - IPV4_BYTES) : prefixBits;
    return { ...ip, prefixBits: Math.max(0, ownBits), interface: name };
  });
}

/** IPv4 first, then by number. */
function compareIp(one: Ip, other: Ip): number {
  const at = one.bytes.findIndex((byte, index) => byte !== other.bytes[index]);
  return one.bytes.length - other.bytes.length || (at < 0 ? 0 : one.bytes[at]! - other.bytes[at]!);
}

function compareLocal(one: LocalIp, other: LocalIp): number {
  const byName = one.interface < other.interface ? -1 : 1;
  return compareIp(one, other) || one.prefixBits - other.prefixBits || byName;
}

function unique<T extends Ip>(sorted: readonly T[]): T[] {
  return sorted.filter(({ text }, index) => text !== sorted[index - 1]?.text);
}

/** An address in the form in which it can be compared; names stay as they are. */
function canonical(address: PathAddress): PathAddress {
  const form = (text: string): string => readIp(text)[0]?.text ?? text;
  const { host, local } = address;
  return { ...address, host: form(host), ...(local !== undefined && { local: form(local) }) };
}

function findOne(spec: PathSpec, hosts: Hosts, taken: readonly PathAddress[]): PathCandidate[] {
  if (spec.kind === 'address') return [{ addresses: [spec.address] }];
  const toAddress = ({ local, host }: Pair): PathAddress => ({
    host: host.text,
    port: hosts.port,
    local: local.text,
    ...(spec.maxBytesPerSecond !== undefined && { maxBytesPerSecond: spec.maxBytesPerSecond }),
  });
  const ways =
    spec.kind === 'auto' ? waysOfInterfaces(hosts, taken) : waysInNetwork(spec, hosts, taken);
  return ways.map(([first, ...others]) => ({
    addresses: [toAddress(first), ...others.map(toAddress)],
  }));
}

/**
 * Pairs the addresses of one network.
 *
 * Hosts that have as many links into a network are taken to be cabled alike: one path for each.
 * Otherwise nothing tells which belong together, so every pair is a path, and paths over one link
 * share it. The host's address changes from pair to pair, so that the first pairs use all there is.
 */
function waysInNetwork(spec: NetworkSpec, hosts: Hosts, taken: readonly PathAddress[]): Ways[] {
  const local = hosts.local.filter(isIn(spec)).filter(isOneHosts(hosts));
  const offered = hosts.offered.filter(isIn(spec)).filter(isOneHosts(hosts));
  const turnCount = local.length === offered.length ? Math.min(1, local.length) : offered.length;
  const pairs = Array.from({ length: turnCount }, (_, turn) =>
    local.map((one, index) => ({ local: one, host: offered[(index + turn) % offered.length]! })),
  );
  const isTaken = ({ local: { text }, host }: Pair): boolean =>
    taken.some((one) => one.local === text && one.host === host.text && one.port === hosts.port);
  return pairs
    .flat()
    .filter((pair) => !isTaken(pair))
    .map((pair): Ways => [pair]);
}

function isIn({ network, prefixBits }: NetworkSpec): (ip: Ip) => boolean {
  const where = { network: parseIp(network) ?? new Uint8Array(0), prefixBits };
  return ({ bytes }) => isInNetwork(bytes, where);
}

/** Whether only one of the hosts has an address. */
function isOneHosts({ shared }: Hosts): (ip: Ip) => boolean {
  return ({ text }) => !shared.has(text);
}

/**
 * Finds ways from each interface that has no path yet: first from those with a subnet in which the
 * destination is, then from those that may reach it over routers.
 *
 * It is one path for an interface, because its addresses (IPv4, IPv6, temporary ones) share its
 * link. An address in a subnet of some interface is not tried from the others.
 */
function waysOfInterfaces(hosts: Hosts, taken: readonly PathAddress[]): Ways[] {
  const offered = hosts.offered.filter(isOneHosts(hosts));
  const distant = offered.filter((host) => !hosts.local.some((local) => isNear({ local, host })));
  const near: Pair[][] = [];
  const routed: Pair[][] = [];
  for (const local of freeInterfaces(hosts, taken)) {
    const nearPairs = allPairs(local, offered).filter(isNear);
    if (nearPairs.length > 0) near.push(nearPairs);
    else routed.push(allPairs(local, distant).filter(isSameFamily));
  }
  return spread([...near, ...routed], taken);
}

/** The addresses of each interface from which there is no path. */
function freeInterfaces(hosts: Hosts, taken: readonly PathAddress[]): LocalIp[][] {
  const groups = new Map<string, LocalIp[]>();
  for (const local of hosts.local) {
    const group = groups.get(local.interface);
    if (group === undefined) groups.set(local.interface, [local]);
    else group.push(local);
  }
  return [...groups.values()]
    .filter((group) => !group.some(({ text }) => taken.some(({ local }) => local === text)))
    .map((group) => group.filter(isOneHosts(hosts)));
}

function allPairs(local: readonly LocalIp[], offered: readonly Ip[]): Pair[] {
  return local.flatMap((one) => offered.map((host) => ({ local: one, host })));
}

function isNear({ local, host }: Pair): boolean {
  return isInNetwork(host.bytes, { network: local.bytes, prefixBits: local.prefixBits });
}

function isSameFamily({ local, host }: Pair): boolean {
  return local.bytes.length === host.bytes.length;
}

/** Puts first, for each path, the pair whose host the fewest paths before it lead to. */
function spread(choices: readonly (readonly Pair[])[], taken: readonly PathAddress[]): Ways[] {
  const ledTo = taken.map(({ host }) => host);
  const useCount = ({ host }: Pair): number => ledTo.filter((text) => text === host.text).length;
  return choices.flatMap((pairs): Ways[] => {
    const sorted = [...pairs].sort((one, other) => useCount(one) - useCount(other));
    const [first, ...others] = sorted.slice(0, WAYS_MAX);
    if (first === undefined) return [];
    ledTo.push(first.host.text);
    return [[first, ...others]];
  });
}

/** Why a spec found nothing; undefined if all that it asks for is there already. */
function whyNothing(
  spec: PathSpec,
  hosts: Hosts,
  taken: readonly PathAddress[],
): string | undefined {
  if (spec.kind === 'auto') return whyNoInterface(hosts, taken);
  if (spec.kind === 'address') return undefined;
  const local = hosts.local.filter(isIn(spec));
  const offered = hosts.offered.filter(isIn(spec));
  if (local.length === 0) return 'this host has no address in it';
  if (offered.length === 0) return 'the destination offers none in it';
  const haveOwn = local.some(isOneHosts(hosts)) && offered.some(isOneHosts(hosts));
  return haveOwn ? undefined : 'both hosts have the same addresses in it';
}

function whyNoInterface(hosts: Hosts, taken: readonly PathAddress[]): string | undefined {
  if (hosts.local.length === 0) return 'this host has no address but loopback';
  if (hosts.offered.length === 0) return 'the destination offers no address';
  if (!hosts.offered.some(isOneHosts(hosts))) return 'this host has every address offered, too';
  const interfaceCount = new Set(hosts.local.map((local) => local.interface)).size;
  if (freeInterfaces(hosts, taken).length < interfaceCount) return undefined;
  return 'no address of this host fits one that the destination offers';
}

function whyLess(count: number, room: number): string | undefined {
  if (count <= room) return undefined;
  return `${room} of its ${count} paths are used: a session has at most ${PATHS_MAX}`;
}

function formatSpec(spec: PathSpec): string {
  if (spec.kind === 'network') return `${spec.network}/${spec.prefixBits}`;
  return spec.kind === 'auto' ? 'auto' : spec.address.host;
}

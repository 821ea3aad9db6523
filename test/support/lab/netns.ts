/*
 * Two hosts and the paths between them, made of network namespaces
 *
 *   source                                                destination
 *   path1 10.77.1.1  ── veth, each direction shaped ──  10.77.1.2 path1
 *   path2 10.77.2.1  ──────────────────────────────────  10.77.2.2 path2
 *
 * A namespace's name holds the id of the process that made it (`pl-PID-N-source`): what a
 * process that was killed has left is removed by the next one.
 */

import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { startDelay } from './delay.ts';
import { type RunningProcess, run } from './processes.ts';

/* Chosen by us */
const BURST = '256kb';
const QUEUE_LATENCY = '20ms';
const SUBFLOWS_MAX = 8; // the kernel's own limit

/** One path between the two namespaces. */
export interface LabPath {
  /** Name of the device, the same at both ends. */
  readonly device: string;
  readonly sourceAddress: string;
  readonly destinationAddress: string;
}

/**
 * How a path is cut.
 *
 * carrier: the link goes down, and both ends see it. silent: nothing arrives any more, and
 * nobody is told. reset: the connections are reset, and new ones can be made at once.
 */
export type CutKind = 'carrier' | 'silent' | 'reset';

/** Bytes that went over a path since it was made. */
export interface PathCounters {
  readonly toDestinationBytes: number;
  readonly toSourceBytes: number;
}

/** How the paths are made. */
export interface NetworkOptions {
  readonly count: number;
  /** Mb/s of each path, the last for all further ones; both directions. @default not shaped */
  readonly rateMbit?: readonly number[];
  /**
   * How long each path takes, one way and in each direction, milliseconds; 0 is a plain veth pair.
   *
   * @default 0
   */
  readonly delayMs?: readonly number[];
  /** Most bytes of the TCP buffers of a connection, both ends. @default the machine's */
  readonly tcpBufferBytes?: number;
}

type End = 'source' | 'destination';

const made = new Set<LabNetwork>();
let madeCount = 0;
process.on('exit', () => {
  for (const network of made) removeNamespaces(network.namespaces);
});

/** Two namespaces and the paths between them. */
export class LabNetwork implements AsyncDisposable {
  /** Name of the namespace of the source. */
  readonly source: string;
  /** Name of the namespace of the destination. */
  readonly destination: string;
  readonly paths: readonly LabPath[];
  /** What delays paths; ended with the network. */
  readonly #wires: RunningProcess[] = [];

  constructor(prefix: string, count: number) {
    made.add(this);
    this.source = `${prefix}-source`;
    this.destination = `${prefix}-destination`;
    this.paths = Array.from({ length: count }, (_, index) => ({
      device: `path${index + 1}`,
      sourceAddress: address(index, 'source'),
      destinationAddress: address(index, 'destination'),
    }));
  }

  /** Everything that is removed with it. */
  get namespaces(): readonly string[] {
    return [this.source, this.destination];
  }

  /** Words to put before a command that shall run in a namespace. */
  prefix(end: End): readonly string[] {
    return ['ip', 'netns', 'exec', this[end]];
  }

  /** Shapes a path, both directions, from now on. */
  async setRate(index: number, mbit: number): Promise<void> {
    const { device } = this.#path(index);
    for (const end of [this.source, this.destination]) await shape(end, device, mbit);
  }

  /** Cuts a path; see `CutKind`. */
  async cut(index: number, kind: CutKind): Promise<void> {
    const { device, sourceAddress } = this.#path(index);
    if (kind === 'carrier') {
      await run(['ip', '-n', this.destination, 'link', 'set', device, 'down']);
    } else if (kind === 'silent') {
      for (const end of [this.source, this.destination]) {
        await run(['ip', '-n', end, ...blackHole('add', device)]);
      }
    } else {
      const connections = ['--no-header', '--tcp', 'src', `${sourceAddress}/32`];
      const { stdout } = await run([...this.prefix('source'), 'ss', '-K', ...connections]);
      if (stdout.trim() === '') throw new Error(`There is no connection to reset on ${device}`);
    }
  }

  /**
   * Takes the destination's address of a path away: what is sent to it is dropped without a word,
   * and nothing can be answered from it.
   */
  async removeAddress(index: number): Promise<void> {
    const { device, destinationAddress } = this.#path(index);
    const words = ['address', 'delete', `${destinationAddress}/24`, 'dev', device];
    await run(['ip', '-n', this.destination, ...words]);
  }

  /** Undoes a cut of kind carrier or silent. */
  async restore(index: number, kind: 'carrier' | 'silent'): Promise<void> {
    const { device } = this.#path(index);
    if (kind === 'carrier') {
      await run(['ip', '-n', this.destination, 'link', 'set', device, 'up']);
      const lost = neighbours(index, 'destination', this.paths.length);
      await batch(['ip', '-n', this.destination], lost);
    } else {
      for (const end of [this.source, this.destination]) {
        await run(['ip', '-n', end, ...blackHole('del', device)]);
      }
    }
  }

  /** What went over a path so far, with every header. */
  async counters(index: number): Promise<PathCounters> {
    const show = ['-j', '-s', 'link', 'show', 'dev', this.#path(index).device];
    const { stdout } = await run(['ip', '-n', this.source, ...show]);
    const [link] = JSON.parse(stdout) as [{ stats64: Record<'tx' | 'rx', { bytes: number }> }];
    const { tx, rx } = link.stats64;
    return { toDestinationBytes: tx.bytes, toSourceBytes: rx.bytes };
  }

  /** Delays a path whose devices do not exist yet. */
  async delay(index: number, delayMs: number): Promise<void> {
    const { source, destination } = this;
    const { device } = this.#path(index);
    this.#wires.push(await startDelay({ device, source, destination, delayMs }));
    for (const end of ['source', 'destination'] as const) {
      const words = ['link', 'set', device, 'address', hardware(index, end)];
      await run(['ip', '-n', this[end], ...words]);
    }
  }

  /** Lets the source's MPTCP connections use the first path only, until `addSubflow`. */
  async removeSubflows(): Promise<void> {
    await run(['ip', '-n', this.source, 'mptcp', 'endpoint', 'flush']);
  }

  /** Lets the source's MPTCP connections, also those there are, use a further path. */
  async addSubflow(index: number): Promise<void> {
    const { device, sourceAddress } = this.#path(index);
    const endpoint = ['mptcp', 'endpoint', 'add', sourceAddress, 'dev', device, 'subflow'];
    await run(['ip', '-n', this.source, ...endpoint]);
  }

  /** How many further MPTCP subflows the source's connections have joined so far. */
  async mptcpJoins(): Promise<number> {
    const { stdout } = await run([...this.prefix('source'), 'nstat', '-az', 'MPTcpExtMPJoinSynTx']);
    return Number(/MPJoinSynTx\s+(\d+)/.exec(stdout)?.[1] ?? 0);
  }

  /** Removes the namespaces, and the paths with them. End the processes inside before. */
  async [Symbol.asyncDispose](): Promise<void> {
    made.delete(this);
    for (const wire of this.#wires) await wire.stop();
    removeNamespaces(this.namespaces);
  }

  #path(index: number): LabPath {
    const path = this.paths[index];
    if (path === undefined) throw new RangeError(`There is no path with index ${index}`);
    return path;
  }
}

/** Makes two namespaces with paths between them. Needs root. */
export async function createPaths(options: NetworkOptions): Promise<LabNetwork> {
  const { count, rateMbit = [], delayMs = [], tcpBufferBytes } = options;
  const network = new LabNetwork(nextPrefix(), count);
  const indexes = network.paths.map((_, index) => index);
  await batch(['ip'], [`netns add ${network.source}`, `netns add ${network.destination}`]);
  const peer = (index: number) =>
    `link add path${index + 1} address ${hardware(index, 'source')} type veth ` +
    `peer name path${index + 1} address ${hardware(index, 'destination')} ` +
    `netns ${network.destination}`;
  const delayOf = (index: number) => delayMs[index] ?? delayMs.at(-1) ?? 0;
  const plain = indexes.filter((index) => delayOf(index) === 0);
  await batch(['ip', '-n', network.source], plain.map(peer));
  for (const index of indexes) {
    if (delayOf(index) > 0) await network.delay(index, delayOf(index));
  }
  if (tcpBufferBytes !== undefined) await allowBuffers(network, tcpBufferBytes);
  await configureEnd(network, 'source');
  await configureEnd(network, 'destination');
  for (const index of indexes) {
    const mbit = rateMbit[index] ?? rateMbit.at(-1);
    if (mbit !== undefined) await network.setRate(index, mbit);
  }
  return network;
}

/** What the namespaces of one more network begin with. Those of processes that are gone go. */
export function nextPrefix(): string {
  removeStale();
  return `pl-${process.pid}-${madeCount++}`;
}

/** Limits what a device sends. */
export async function shape(namespace: string, device: string, mbit: number): Promise<void> {
  const words = ['root', 'tbf', 'rate', `${mbit}mbit`, 'burst', BURST, 'latency', QUEUE_LATENCY];
  await run(['tc', '-n', namespace, 'qdisc', 'replace', 'dev', device, ...words]);
}

async function allowBuffers(network: LabNetwork, bytes: number): Promise<void> {
  const values = [
    `net.ipv4.tcp_rmem=4096 131072 ${bytes}`,
    `net.ipv4.tcp_wmem=4096 16384 ${bytes}`,
  ];
  for (const end of ['source', 'destination'] as const) {
    await run([...network.prefix(end), 'sysctl', '--quiet', '--write', ...values]);
  }
}

async function configureEnd(network: LabNetwork, end: End): Promise<void> {
  const { paths } = network;
  const addresses = paths.flatMap(({ device }, index) => [
    `address add ${address(index, end)}/24 dev ${device}`,
    `link set ${device} up`,
    ...neighbours(index, end, paths.length),
  ]);
  // The source starts one more MPTCP subflow from each of its further addresses, so there is
  // one a path. (Addresses that the destination announces are joined too, but QEMU's data
  // then stays on the first path: tried on Linux 6.18.)
  const subflows = paths
    .slice(1, 1 + SUBFLOWS_MAX)
    .map(
      ({ device, sourceAddress }) => `mptcp endpoint add ${sourceAddress} dev ${device} subflow`,
    );
  await batch(
    ['ip', '-n', network[end]],
    [
      'link set lo up',
      ...addresses,
      `mptcp limits set subflows ${SUBFLOWS_MAX} add_addr_accepted ${SUBFLOWS_MAX}`,
      ...(end === 'source' ? subflows : []),
      // Makes room for a rule before the one for local addresses: see `blackHole`.
      'rule add pref 100 lookup local',
      'rule delete pref 0',
    ],
  );
}

/** A rule that drops, without a word, what arrives over `device`. */
function blackHole(action: 'add' | 'del', device: string): readonly string[] {
  return ['rule', action, 'pref', '10', 'iif', device, 'blackhole'];
}

/**
 * Fixes the peer's hardware address, so that a silent cut is not betrayed by ARP.
 *
 * MPTCP reaches every address of the peer over every path, so all are fixed on each.
 */
function neighbours(index: number, end: End, count: number): readonly string[] {
  const other = end === 'source' ? 'destination' : 'source';
  const onPath = `lladdr ${hardware(index, other)} dev path${index + 1} nud permanent`;
  return Array.from(
    { length: count },
    (_, reached) => `neighbour replace ${address(reached, other)} ${onPath}`,
  );
}

function address(index: number, end: End): string {
  return `10.77.${index + 1}.${end === 'source' ? 1 : 2}`;
}

function hardware(index: number, end: End): string {
  const last = end === 'source' ? '01' : '02';
  return `02:00:00:00:${(index + 1).toString(16).padStart(2, '0')}:${last}`;
}

/** Runs many `ip` commands, one after another; the first that fails is told. */
export async function batch(command: readonly string[], lines: readonly string[]): Promise<void> {
  for (const line of lines) await run([...command, ...line.split(' ')]);
}

/** Removes the namespaces of processes that are gone. */
function removeStale(): void {
  const names = execFileSync('ip', ['netns', 'list'], { encoding: 'utf8' });
  const stale = [...names.matchAll(/^(pl-(\d+)-\d+-\w+)/gm)]
    .filter(([, , pid]) => !existsSync(`/proc/${pid}`))
    .map(([, name]) => name!);
  removeNamespaces(stale);
}

/** Synchronous, since it also runs when the process ends. */
function removeNamespaces(names: readonly string[]): void {
  for (const name of names) {
    try {
      execFileSync('ip', ['netns', 'delete', name], { stdio: 'ignore' });
    } catch {
      // It was not made yet, or another process removed it.
    }
  }
}

/*
 * Hosts at a switch, made of network namespaces
 *
 *   source        10.77.1.1  ── rate ──┐
 *   destination   10.77.1.2  ── rate ──┤ switch
 *   redis1        10.77.1.11 ── rate ──┤
 *   redis2        10.77.1.12 ── rate ──┘
 *
 * A host's rate holds for each direction, and for all that it sends or gets together: what comes
 * to the destination from the source and from intermediaries shares one link.
 */

import { RedisServer } from '../redis.ts';
import { batch, LabNetwork, nextPrefix, shape } from './netns.ts';

const DEVICE = 'path1';
const REDIS_PORT = 6379;
const FIRST_INTERMEDIARY = 11;

/** Mb/s of each host's link; one that is absent is not shaped. */
export interface SwitchedRates {
  readonly sourceMbit?: number;
  readonly destinationMbit?: number;
  /** One for each intermediary. */
  readonly intermediaryMbit: readonly number[];
}

/** A host with a Redis. */
export interface IntermediaryHost {
  readonly namespace: string;
  readonly address: string;
}

/** Source and destination with one path between them, and intermediaries beside it. */
export class SwitchedNetwork extends LabNetwork {
  readonly switch: string;
  readonly intermediaries: readonly IntermediaryHost[];

  constructor(prefix: string, intermediaryCount: number) {
    super(prefix, 1);
    this.switch = `${prefix}-switch`;
    this.intermediaries = Array.from({ length: intermediaryCount }, (_, index) => ({
      namespace: `${prefix}-redis${index + 1}`,
      address: `10.77.1.${FIRST_INTERMEDIARY + index}`,
    }));
  }

  override get namespaces(): readonly string[] {
    const others = this.intermediaries.map(({ namespace }) => namespace);
    return [...super.namespaces, this.switch, ...others];
  }
}

/** Makes hosts at a switch. Needs root. */
export async function createSwitched(rates: SwitchedRates): Promise<SwitchedNetwork> {
  const { sourceMbit, destinationMbit, intermediaryMbit } = rates;
  const network = new SwitchedNetwork(nextPrefix(), intermediaryMbit.length);
  const [path] = network.paths;
  const ends = [
    { namespace: network.source, address: path!.sourceAddress, mbit: sourceMbit },
    { namespace: network.destination, address: path!.destinationAddress, mbit: destinationMbit },
  ];
  const others = network.intermediaries.map((host, index) => ({
    ...host,
    mbit: intermediaryMbit[index],
  }));
  await batch(['ip'], [`netns add ${network.switch}`]);
  await batch(['ip', '-n', network.switch], ['link add bridge type bridge', 'link set bridge up']);
  for (const [index, host] of [...ends, ...others].entries()) {
    const port = `port${index}`;
    await batch(['ip'], [`netns add ${host.namespace}`]);
    await batch(
      ['ip', '-n', host.namespace],
      [
        'link set lo up',
        `link add ${DEVICE} type veth peer name ${port} netns ${network.switch}`,
        `address add ${host.address}/24 dev ${DEVICE}`,
        `link set ${DEVICE} up`,
      ],
    );
    const plugged = [`link set ${port} master bridge`, `link set ${port} up`];
    await batch(['ip', '-n', network.switch], plugged);
    if (host.mbit === undefined) continue;
    await shape(host.namespace, DEVICE, host.mbit);
    await shape(network.switch, port, host.mbit);
  }
  return network;
}

/** A Redis on every intermediary, which all hosts reach. */
export class IntermediaryServers implements AsyncDisposable {
  /** What `--stage` is told. */
  readonly stage: string;
  readonly servers: readonly RedisServer[];

  private constructor({ intermediaries }: SwitchedNetwork, servers: readonly RedisServer[]) {
    this.stage = intermediaries.map(({ address }) => `redis://${address}:${REDIS_PORT}`).join(',');
    this.servers = servers;
  }

  /** Starts them, empty; none may take more than `maxMemoryMiB`. */
  static async start(network: SwitchedNetwork, maxMemoryMiB: number): Promise<IntermediaryServers> {
    const servers: RedisServer[] = [];
    try {
      for (const { address, namespace } of network.intermediaries) {
        const place = ['--port', `${REDIS_PORT}`, '--bind', address, '--protected-mode', 'no'];
        const memory = ['--maxmemory', `${maxMemoryMiB}mb`];
        servers.push(await RedisServer.start([...place, ...memory], { namespace }));
      }
      return new IntermediaryServers(network, servers);
    } catch (error) {
      for (const server of servers) await server[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Bytes of the memory that all of them have in use. */
  async usedBytes(): Promise<number> {
    let bytes = 0;
    for (const { admin } of this.servers) {
      bytes += Number(/used_memory:(\d+)/.exec(await admin.info('memory'))?.[1] ?? 0);
    }
    return bytes;
  }

  /** Keys that any of them holds. */
  async usedKeys(): Promise<number> {
    let keys = 0;
    for (const { admin } of this.servers) keys += await admin.dbsize();
    return keys;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.servers) await server[Symbol.asyncDispose]();
  }
}

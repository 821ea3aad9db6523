import { StagingError } from '../errors.ts';
import { type IntermediaryAddress, nodeAddress } from './address.ts';
import { Intermediary, type IntermediaryOptions } from './intermediary.ts';
import { INTERMEDIARIES_MAX } from './limits.ts';
import { stagingErrorOf } from './redis-error.ts';

/**
 * Connects to intermediaries, in this order. A cluster stands for its nodes: each that holds slots
 * is an intermediary of its own, with all its keys in one of its slots. The destination needs the
 * addresses of what was opened, not those that were asked for.
 *
 * Promise: if it throws, no connection is left open.
 *
 * @throws {StagingError} ERR_STAGING_… Of the first that fails.
 * @throws {RangeError} If there are none, or more than 64.
 */
export async function openIntermediaries(
  addresses: readonly IntermediaryAddress[],
  options: IntermediaryOptions = {},
): Promise<Intermediary[]> {
  const nodes: IntermediaryAddress[] = [];
  for (const address of addresses) {
    if (address.at.kind === 'cluster') nodes.push(...(await nodesOf(address)));
    else nodes.push(address);
  }
  if (nodes.length < 1 || nodes.length > INTERMEDIARIES_MAX) {
    throw new RangeError(`Cannot stage: there must be 1 to ${INTERMEDIARIES_MAX} intermediaries`);
  }
  const opened: Intermediary[] = [];
  try {
    for (const address of nodes) opened.push(await Intermediary.open(address, options));
    return opened;
  } catch (cause) {
    await closeIntermediaries(opened);
    throw cause;
  }
}

/** Closes those that are there. */
export async function closeIntermediaries(
  intermediaries: readonly (Intermediary | undefined)[],
): Promise<void> {
  for (const each of intermediaries) await each?.[Symbol.asyncDispose]();
}

/** The nodes of a cluster that hold slots, by the lowest slot of each. */
async function nodesOf(cluster: IntermediaryAddress): Promise<IntermediaryAddress[]> {
  const { connectClient } = await import('./client.ts');
  const client = await connectClient(cluster);
  try {
    const reply: unknown = await client.redis.cluster('SLOTS');
    const nodes = new Map<string, { host: string; port: number; slot: number }>();
    for (const range of Array.isArray(reply) ? (reply as unknown[]) : []) {
      const [slot, , main] = Array.isArray(range) ? (range as unknown[]) : [];
      const [host, port] = Array.isArray(main) ? (main as unknown[]) : [];
      if (typeof slot !== 'number' || typeof host !== 'string' || typeof port !== 'number') {
        const text = `Cannot use cluster ${cluster.text}: its nodes do not say where they are`;
        throw new StagingError('ERR_STAGING_REPLY', text, { intermediary: cluster.text });
      }
      // A node that does not know its own address means: where you asked.
      const known = host === '' && cluster.at.kind === 'cluster' ? cluster.at.host : host;
      const key = `${known}:${port}`;
      if (slot < (nodes.get(key)?.slot ?? Number.POSITIVE_INFINITY)) {
        nodes.set(key, { host: known, port, slot });
      }
    }
    const found = [...nodes.values()].sort((one, other) => one.slot - other.slot);
    return found.map((node) => nodeAddress(cluster, node));
  } catch (cause) {
    throw stagingErrorOf(cause, cluster.text);
  } finally {
    client.close();
  }
}

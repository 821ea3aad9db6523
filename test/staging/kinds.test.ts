import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { expect, test } from 'vitest';
import { nodeAddress, parseIntermediary } from '../../src/staging/address.ts';
import { slotOf, slotTag } from '../../src/staging/cluster-slot.ts';
import type { Intermediary } from '../../src/staging/intermediary.ts';
import { openIntermediaries } from '../../src/staging/open-intermediaries.ts';
import { type RunningProcess, startProcess, waitUntil } from '../support/lab/processes.ts';
import { freePort, RedisServer } from '../support/redis.ts';
import { StagedGuest, scatterGuest, startGather } from './staged-guest.ts';

/* Chosen by us */
const PAGES = 2000;
const READY_TIMEOUT_MS = 20_000;
const SLOTS = 16_384;

async function moves(intermediaries: readonly Intermediary[]): Promise<void> {
  using guest = new StagedGuest(PAGES, 31);
  using there = new StagedGuest(PAGES);
  const scattered = await scatterGuest(guest, intermediaries);
  await using gather = await startGather(there, scattered, intermediaries);
  expect(await gather.done()).toMatchObject({ pages: PAGES, badExtents: 0 });
  expect(Buffer.compare(there.bytes, guest.bytes)).toBe(0);
}

async function startSentinel(
  folder: string,
  { port, main }: { port: number; main: number },
): Promise<RunningProcess> {
  const file = join(folder, 'sentinel.conf');
  const lines = [`port ${port}`, 'bind 127.0.0.1', `dir ${folder}`];
  writeFileSync(file, `${[...lines, `sentinel monitor main 127.0.0.1 ${main} 1`].join('\n')}\n`);
  const process = startProcess(['redis-server', file, '--sentinel']);
  const client = new Redis({ port, host: '127.0.0.1', retryStrategy: () => 50 });
  client.on('error', () => {}); // it is not there yet
  const isReady = async () => (await client.ping().catch(() => '')) === 'PONG';
  await waitUntil('the sentinel', isReady, { timeoutMs: READY_TIMEOUT_MS });
  client.disconnect();
  return process;
}

test('an instance that a sentinel names', async () => {
  const [port, main] = [await freePort(), await freePort()];
  await using server = await RedisServer.start(['--port', `${main}`, '--bind', '127.0.0.1']);
  await using _ = await startSentinel(server.folder, { port, main });
  const address = parseIntermediary(`redis+sentinel://127.0.0.1:${port}/main`);
  const intermediaries = await openIntermediaries([address]);
  await moves(intermediaries);
  for (const each of intermediaries) await each[Symbol.asyncDispose]();
  const other = parseIntermediary(`redis+sentinel://127.0.0.1:${port}/nobody`);
  await expect(openIntermediaries([other])).rejects.toMatchObject({ code: 'ERR_STAGING_CONNECT' });
});

test('a cluster of three is three intermediaries', async () => {
  const ports = [await freePort(), await freePort(), await freePort()];
  const buses = [await freePort(), await freePort(), await freePort()];
  const servers = await Promise.all(
    ports.map((port, at) => {
      const words = ['--cluster-enabled', 'yes', '--cluster-port', `${buses[at]}`];
      return RedisServer.start(['--port', `${port}`, '--bind', '127.0.0.1', ...words]);
    }),
  );
  for (const [at, { admin }] of servers.entries()) {
    const [from, to] = [at, at + 1].map((part) => Math.floor((part * SLOTS) / 3));
    await admin.call('CLUSTER', 'ADDSLOTSRANGE', `${from}`, `${to! - 1}`);
    if (at > 0)
      await servers[0]!.admin.call('CLUSTER', 'MEET', '127.0.0.1', ports[at]!, buses[at]!);
  }
  const isWhole = async () => {
    const infos = await Promise.all(servers.map(({ admin }) => admin.call('CLUSTER', 'INFO')));
    return infos.every((info) => /cluster_state:ok.*cluster_known_nodes:3/s.test(`${info}`));
  };
  await waitUntil('the cluster', isWhole, { timeoutMs: READY_TIMEOUT_MS });

  const seed = parseIntermediary(`redis+cluster://127.0.0.1:${ports[2]}`);
  const intermediaries = await openIntermediaries([seed]);
  expect(intermediaries.map(({ address }) => address)).toEqual(
    ports.map((port, at) =>
      parseIntermediary(`redis://127.0.0.1:${port}?slot=${Math.floor((at * SLOTS) / 3)}`),
    ),
  );
  await moves(intermediaries);
  using guest = new StagedGuest(PAGES, 32);
  const { seal } = await scatterGuest(guest, intermediaries);
  for (const [at, intermediary] of intermediaries.entries()) {
    expect(await servers[at]!.admin.dbsize()).toBeGreaterThan(0);
    for await (const keys of intermediary.list(`pl:${seal.scope.vm}:`)) {
      await intermediary.remove(keys);
    }
    expect(await servers[at]!.admin.dbsize()).toBe(0);
  }
  for (const each of [...intermediaries, ...servers]) await each[Symbol.asyncDispose]();
});

test('slots are those of Redis', async () => {
  await using server = await RedisServer.start(['--cluster-enabled', 'yes']);
  for (const key of ['123456789', 'pl:guest:e1', 'a{b}c', 'a{}c', '{x', '}{y}', 'ä']) {
    expect(slotOf(key)).toBe(await server.admin.call('CLUSTER', 'KEYSLOT', key));
  }
  for (const slot of [0, 1, 5461, 16_383]) expect(slotOf(`any${slotTag(slot)}`)).toBe(slot);
  expect(() => slotTag(SLOTS)).toThrow(RangeError);
});

test('addresses of sentinels, clusters and nodes', () => {
  const sentinel = parseIntermediary('redis+sentinel://me@[::1]/main?sentinel=b:7000');
  expect(sentinel.at).toEqual({
    ...{ kind: 'sentinel', name: 'main' },
    sentinels: [
      { host: '::1', port: 26_379 },
      { host: 'b', port: 7000 },
    ],
  });
  expect(sentinel.user).toBe('me');
  const cluster = parseIntermediary('rediss+cluster://me@box:7000?ca=/ca&max=1gbit');
  const node = nodeAddress(cluster, { host: '::2', port: 7001, slot: 5 });
  expect(node.text).toBe('rediss://me@[::2]:7001?ca=/ca&max=1gbit&slot=5');
  expect(node).toMatchObject({ isEncrypted: true, user: 'me', slot: 5, caFile: '/ca' });
  for (const text of [
    'redis+sentinel://box',
    'redis://box/main',
    'redis+cluster://box/main',
    'redis://box?slot=16384',
    'redis://box?sentinel=x',
  ]) {
    expect(() => parseIntermediary(text)).toThrow(SyntaxError);
  }
});

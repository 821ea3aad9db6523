import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { type IntermediaryAddress, parseIntermediary } from '../../src/staging/address.ts';
import { Intermediary } from '../../src/staging/intermediary.ts';
import { RedisServer } from '../support/redis.ts';
import { newSeal, openAll, StagedGuest, scatterGuest } from './staged-guest.ts';

afterEach(() => {
  delete process.env['PAGELANE_REDIS_PASSWORD'];
});

async function codeOfOpening(address: IntermediaryAddress): Promise<string> {
  try {
    await using intermediary = await Intermediary.open(address);
    await intermediary.check(1, 'pl:guest:probe');
    return 'none';
  } catch (cause) {
    return (cause as { code: string }).code;
  }
}

/** Scatters a small guest to one intermediary; the code of the failure. */
async function codeOfScatter(server: RedisServer, pages = 2000): Promise<string> {
  using guest = new StagedGuest(pages, 7);
  const intermediaries = await openAll([server]);
  try {
    await scatterGuest(guest, intermediaries, { patienceMs: 200 });
    return 'none';
  } catch (cause) {
    return (cause as { code: string }).code;
  } finally {
    for (const each of intermediaries) await each[Symbol.asyncDispose]();
  }
}

test('nobody there', async () => {
  const address = parseIntermediary('redis+unix:/nowhere/at/all');
  expect(await codeOfOpening(address)).toBe('ERR_STAGING_CONNECT');
  expect(await codeOfOpening(parseIntermediary('redis://127.0.0.1:1'))).toBe('ERR_STAGING_CONNECT');
});

test('a password is needed, wrong, or right from a file and from the environment', async () => {
  await using server = await RedisServer.start([], { password: 'secret word' });
  const { address } = server;
  expect(await codeOfOpening(address)).toBe('ERR_STAGING_AUTH');
  const passwordFile = join(server.folder, 'password');
  writeFileSync(passwordFile, 'wrong\n');
  expect(await codeOfOpening({ ...address, passwordFile })).toBe('ERR_STAGING_AUTH');
  writeFileSync(passwordFile, 'secret word\n');
  expect(await codeOfOpening({ ...address, passwordFile })).toBe('none');
  process.env['PAGELANE_REDIS_PASSWORD'] = 'secret word';
  expect(await codeOfOpening(address)).toBe('none');
  expect(await codeOfOpening({ ...address, passwordFile: '/none' })).toBe('ERR_STAGING_AUTH');
});

test('a user needs no more rights than the documents say', async () => {
  await using server = await RedisServer.start();
  const commands = ['+ping', '+info', '+set', '+getrange', '+unlink', '+pexpire', '+scan'];
  await server.admin.call('ACL', 'SETUSER', 'lane', 'on', '>word', '~pl:*', ...commands);
  await server.admin.call('ACL', 'SETUSER', 'weak', 'on', '>word', '~pl:*', '+ping', '+info');
  process.env['PAGELANE_REDIS_PASSWORD'] = 'word';
  expect(await codeOfOpening({ ...server.address, user: 'lane' })).toBe('none');
  expect(await codeOfOpening({ ...server.address, user: 'weak' })).toBe('ERR_STAGING_AUTH');
  await using intermediary = await Intermediary.open({ ...server.address, user: 'lane' });
  await intermediary.put('pl:guest:e0', new Uint8Array(100));
  expect(await intermediary.renew(['pl:guest:e0', 'pl:guest:e1'])).toEqual(['pl:guest:e1']);
  expect(await intermediary.get('pl:guest:e0')).toHaveLength(100);
  for await (const keys of intermediary.list('pl:')) await intermediary.remove(keys);
  expect(await server.admin.dbsize()).toBe(0);
});

test('a policy that throws keys away', async () => {
  await using server = await RedisServer.start(['--maxmemory-policy', 'allkeys-lru']);
  expect(await codeOfScatter(server)).toBe('ERR_STAGING_POLICY');
  expect(await server.admin.dbsize()).toBe(0);
});

test('too little memory, before the first byte', async () => {
  await using server = await RedisServer.start(['--maxmemory', '6mb']);
  expect(await codeOfScatter(server)).toBe('ERR_STAGING_FULL');
  expect(await server.admin.dbsize()).toBe(0);
});

test('a replica', async () => {
  await using main = await RedisServer.start(['--port', '0']);
  await using server = await RedisServer.start();
  await server.admin.call('REPLICAOF', '127.0.0.1', '1');
  expect(await codeOfScatter(server)).toBe('ERR_STAGING_READ_ONLY');
  expect(main.address.isEncrypted).toBe(false);
});

test('memory that is taken away in mid-run: it evicts nothing, and is used no more', async () => {
  await using server = await RedisServer.start();
  await using other = await RedisServer.start();
  using guest = new StagedGuest(4000, 9);
  const intermediaries = await openAll([server, other]);
  let isLimited = false;
  const { scatter } = await scatterGuest(guest, intermediaries, {
    afterEntry: (entries) => {
      if (isLimited || entries.length < 20) return;
      isLimited = true;
      void server.admin.config('SET', 'maxmemory', '1mb');
    },
  });
  expect(scatter.facts().lost).toEqual([]);
  expect(scatter.manifest.pages).toBe(guest.pages);
  const sizes = [await server.admin.dbsize(), await other.admin.dbsize()];
  expect(sizes[0]).toBeGreaterThan(0);
  expect(sizes[0]! + sizes[1]!).toBe(scatter.facts().extents - scatter.facts().voidExtents);
  for (const each of intermediaries) await each[Symbol.asyncDispose]();
});

test('memory that is taken away where there is no other intermediary', async () => {
  await using server = await RedisServer.start();
  using guest = new StagedGuest(4000, 9);
  const intermediaries = await openAll([server]);
  const run = scatterGuest(guest, intermediaries, {
    afterEntry: (entries) => {
      if (entries.length === 20) void server.admin.config('SET', 'maxmemory', '1mb');
    },
  });
  await expect(run).rejects.toMatchObject({ code: 'ERR_STAGING_EXHAUSTED' });
  for (const each of intermediaries) await each[Symbol.asyncDispose]();
});

test('left-over keys are listed and removed, and no others', async () => {
  await using server = await RedisServer.start();
  using guest = new StagedGuest(4000, 9);
  const [intermediary] = await openAll([server]);
  const seal = newSeal();
  await scatterGuest(guest, [intermediary!], { seal });
  await server.admin.set('mine', '1');
  await server.admin.set('pl:other:1:e0', '1');
  const before = await server.admin.dbsize();
  const found = new Set<string>();
  for await (const keys of intermediary!.list(`pl:${seal.scope.vm}:`)) {
    for (const key of keys) found.add(key);
  }
  expect(found.size).toBe(before - 2);
  expect(await intermediary!.remove([...found])).toBe(before - 2);
  expect((await server.admin.keys('*')).sort()).toEqual(['mine', 'pl:other:1:e0']);
  await intermediary![Symbol.asyncDispose]();
});

test.each([
  'redis://:word@host',
  'redis://me:word@host',
  'http://host',
  'redis://host?ca',
  'redis://',
])('"%s" is no intermediary, and a password in it is not repeated', (text) => {
  expect(() => parseIntermediary(text)).toThrow(SyntaxError);
  expect(() => parseIntermediary(text)).not.toThrow(/me:word|:word@/);
});

test('addresses', () => {
  expect(parseIntermediary('rediss://me@[::1]:7000?max=400mbit&ca=/etc/ca%20file')).toEqual({
    text: 'rediss://me@[::1]:7000?max=400mbit&ca=/etc/ca%20file',
    at: { kind: 'tcp', host: '::1', port: 7000 },
    isEncrypted: true,
    user: 'me',
    caFile: '/etc/ca file',
    maxBytesPerSecond: 50e6,
  });
  expect(parseIntermediary('redis://box').at).toEqual({ kind: 'tcp', host: 'box', port: 6379 });
});

// Requires: the built command, a QEMU, redis-server, root for userfaultfd.
import { writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BOUND_MS, Commands, ended, failureOf, resultOf } from '../support/command.ts';
import { type Guest, startGuest } from '../support/lab/guest.ts';
import { beginTo, configure, listenAt } from '../support/lab/migrate.ts';
import { type RunningProcess, waitUntil } from '../support/lab/processes.ts';
import { freePort, RedisServer } from '../support/redis.ts';
import { startLasting } from './failing.ts';

/*
 * What is not right with the intermediaries is found while the guest is whole at the source: it
 * runs on there.
 */

const MEMORY_MIB = 128;
const WORDS = ['--output', 'ndjson', '--resume-timeout', '5s'];
const POSTCOPY = { capabilities: { 'postcopy-ram': true } };

let guest: Guest;
beforeAll(async () => {
  guest = await startLasting();
});
afterAll(async () => await guest.stop());

/** An end of a command: what it told, and how it exited. */
async function endOf(process: RunningProcess) {
  const { code, stdout, stderr } = await ended(process);
  const failure = failureOf(stderr);
  const result = resultOf(stdout);
  expect(result.error?.code).toBe(failure.code);
  return { exitCode: code, failure, result };
}

interface Words {
  readonly send: (commands: Commands) => readonly string[];
  readonly receive?: (commands: Commands) => readonly string[];
}

/** Begins what is refused, before any QEMU is let in. */
async function refused({ send, receive = () => [] }: Words) {
  await using commands = new Commands();
  const { receiver, port } = await commands.receive([...WORDS, ...receive(commands)]);
  const sender = commands.start(commands.sendWords(port, [...WORDS, ...send(commands)]));
  const ends = { sent: await endOf(sender), received: await endOf(receiver) };
  await expectRunsOn();
  return ends;
}

async function expectRunsOn(): Promise<void> {
  await waitUntil(
    'the guest to run at the source',
    async () => (await guest.qmp.execute<{ status: string }>('query-status')).status === 'running',
    { timeoutMs: BOUND_MS },
  );
  await guest.waitForCounter(guest.counter() + 1, BOUND_MS);
  expect(guest.complaints()).toEqual([]);
}

type Ends = Awaited<ReturnType<typeof refused>>;

/** Both ends name the same failure, and the source as where the guest is. */
function expectBoth({ sent, received }: Ends, wanted: { code: string; message: RegExp }): void {
  for (const { exitCode, failure, result } of [sent, received]) {
    expect(failure.code).toBe(wanted.code);
    expect(failure.message).toMatch(wanted.message);
    expect(failure.guest).toMatch(/^at the source, where it runs on/);
    expect(failure.advice).toBeDefined();
    expect(result).toMatchObject({ outcome: 'failed', guest: 'source' });
    expect(exitCode).toBe(1);
  }
}

/** `send` ends before it takes QEMU's channel; no QEMU has begun anything. */
async function refusedEarly(stage: string): Promise<Awaited<ReturnType<typeof endOf>>> {
  await using commands = new Commands();
  const { port } = await commands.receive();
  const words = commands.sendWords(port, [...WORDS, '--stage', stage]);
  const end = await endOf(commands.start(words));
  expect(end.failure).toMatchObject({ side: 'source', phase: 'setup' });
  expect(end.failure.guest).toMatch(/^at the source, where it runs on/);
  expect(end.exitCode).toBe(1);
  await expectRunsOn();
  return end;
}

describe('before QEMU is let in', () => {
  test('an intermediary that is not there', async () => {
    const { failure } = await refusedEarly(`redis://127.0.0.1:${await freePort()}`);
    expect(failure.code).toBe('ERR_STAGING_CONNECT');
    expect(failure.advice).toMatch(/is Redis running there\?/);
  });

  test('one of two that is not there', async () => {
    await using server = await RedisServer.start();
    const missing = `redis://127.0.0.1:${await freePort()}`;
    const { failure } = await refusedEarly(`${server.address.text},${missing}`);
    expect(failure).toMatchObject({ code: 'ERR_STAGING_CONNECT' });
    expect(failure.message).toContain(missing);
    expect(await server.admin.dbsize()).toBe(0);
  });

  test.each(['without a password', 'with the wrong one'])('%s', async (how) => {
    await using server = await RedisServer.start([], { password: 'right' });
    const file = `${server.folder}/password`;
    writeFileSync(file, 'wrong\n');
    const query = how === 'without a password' ? '' : `?password-file=${file}`;
    const { failure } = await refusedEarly(server.address.text + query);
    expect(failure.code).toBe('ERR_STAGING_AUTH');
    expect(failure.advice).toMatch(/look at user and password/);
    expect(failure.message).not.toContain('wrong');
  });
});

describe('what an intermediary says of itself', () => {
  test('a replica that may not be written', async () => {
    const port = await freePort();
    await using main = await RedisServer.start([
      '--port',
      `${port}`,
      '--repl-diskless-sync-delay',
      '0',
    ]);
    await using replica = await RedisServer.start(['--replicaof', `127.0.0.1 ${port}`]);
    const linked = async () => /master_link_status:up/.test(await replica.admin.info());
    await waitUntil('the replica to follow', linked, { timeoutMs: BOUND_MS });
    const ends = await refused({ send: () => ['--stage', replica.address.text] });
    expectBoth(ends, { code: 'ERR_STAGING_READ_ONLY', message: /it is a replica of 127\.0\.0\.1/ });
    expect(await main.admin.dbsize()).toBe(0);
  });

  test('a policy that may throw pages away', async () => {
    const words = ['--maxmemory', '1gb', '--maxmemory-policy', 'allkeys-lru'];
    await using server = await RedisServer.start(words);
    const ends = await refused({ send: () => ['--stage', server.address.text] });
    expectBoth(ends, { code: 'ERR_STAGING_POLICY', message: /maxmemory-policy is allkeys-lru/ });
    expect(await server.admin.dbsize()).toBe(0);
  });
});

describe('when the destination cannot gather', () => {
  test('it does not reach an intermediary', async () => {
    await using server = await RedisServer.start();
    const ends = await refused({
      send: () => ['--stage', server.address.text],
      receive: (commands) => ['--stage', `redis+unix:${commands.path('nobody')}`],
    });
    expectBoth(ends, { code: 'ERR_STAGING_CONNECT', message: /nobody/ });
    expect(await server.admin.dbsize()).toBe(0);
  });

  test('it has no password for what the source names', async () => {
    await using server = await RedisServer.start([], { password: 'right' });
    const file = `${server.folder}/password`;
    writeFileSync(file, 'right\n');
    const ends = await refused({
      send: () => ['--stage', `${server.address.text}?password-file=${file}`],
    });
    expectBoth(ends, { code: 'ERR_STAGING_AUTH', message: /NOAUTH|password|auth/i });
  });

  test('its --stage has another length', async () => {
    await using one = await RedisServer.start();
    await using other = await RedisServer.start();
    const stage = [one, other].map(({ address }) => address.text).join(',');
    const ends = await refused({
      send: () => ['--stage', stage],
      receive: () => ['--stage', one.address.text],
    });
    const message = /--stage names 1 intermediaries here, and the source has 2/;
    expectBoth(ends, { code: 'ERR_STAGING_CONNECT', message });
  });
});

test('after all of that the guest has its memory, and a right --stage moves it', async () => {
  await using server = await RedisServer.start();
  await guest.verifyMemory();
  await using commands = new Commands();
  await using destination = await startGuest({ memoryMiB: MEMORY_MIB, isIncoming: true });
  await configure({ source: guest, destination }, POSTCOPY);
  await listenAt(destination, { uri: `unix:${commands.in}` });
  const { receiver, port } = await commands.receive(WORDS);
  const sender = await commands.send(port, [...WORDS, '--stage', server.address.text]);
  await beginTo(guest, { uri: `unix:${commands.out}` });
  await guest.qmp.execute('migrate-start-postcopy');
  for (const process of [sender, receiver]) expect((await ended(process)).code).toBe(0);
  await destination.waitForCounter(guest.counter() + 1, BOUND_MS);
  await destination.verifyMemory();
  expect(await server.admin.dbsize()).toBe(0);
}, 120_000);

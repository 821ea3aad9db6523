// Requires: the built command, root for a namespace.
import { describe, expect, test } from 'vitest';
import { Commands, type Ended, failureOf, resultOf } from '../support/command.ts';
import { createPaths } from '../support/lab/netns.ts';

function expectEarly({ code, stderr }: Ended, wanted: { code: string; message: RegExp }): void {
  const failure = failureOf(stderr);
  expect(failure).toMatchObject({ code: wanted.code, side: 'source', phase: 'setup' });
  expect(failure.message).toMatch(wanted.message);
  expect(failure.guest).toMatch(/^at the source, where it runs on/);
  expect(failure.advice).toBeDefined();
  expect(code).toBe(1);
}

describe('a destination that cannot be reached', () => {
  test('refuses: nobody listens', async () => {
    await using commands = new Commands();
    expectEarly(await commands.run(commands.sendWords(1)), {
      code: 'ERR_PATH_REFUSED',
      message: /Cannot open path to 127\.0\.0\.1:1: nobody listens there/,
    });
  });

  test('has a name that nobody knows', async () => {
    await using commands = new Commands();
    const words = commands.sendWords(1, ['--path', 'no-such-host.invalid:7700']);
    expectEarly(await commands.run(words), {
      code: 'ERR_PATH_NAME',
      message: /Cannot open path to no-such-host\.invalid:7700: the name/,
    });
  });

  test('is on a network without a route', async () => {
    await using network = await createPaths({ count: 1 });
    await using commands = new Commands();
    const words = commands.sendWords(1, ['--path', '198.51.100.7:7700']);
    expectEarly(await commands.run(words, { namespace: network.source }), {
      code: 'ERR_PATH_UNREACHABLE',
      message: /Cannot open path to 198\.51\.100\.7:7700: the network cannot be reached/,
    });
  });

  test('is to be reached from an address that is not ours', async () => {
    await using commands = new Commands();
    const words = commands.sendWords(1, ['--path', '192.0.2.77@127.0.0.1:7700']);
    expectEarly(await commands.run(words), {
      code: 'ERR_PATH_UNREACHABLE',
      message: /this host has no such local address/,
    });
  });
});

test('receive says that it cannot have its address', async () => {
  await using commands = new Commands();
  const { port } = await commands.receive();
  const words = ['receive', '--listen', `127.0.0.1:${port}`, ...commands.keyWords];
  const { code, stderr } = await commands.run(words);
  const failure = failureOf(stderr);
  expect(failure).toMatchObject({ code: 'ERR_PATH_LISTEN', side: 'destination', phase: 'setup' });
  expect(failure.message).toMatch(/Cannot listen on 127\.0\.0\.1:\d+/);
  expect(failure.advice).toMatch(/port that is free/);
  expect(code).toBe(1);
});

describe('--wait has an end', () => {
  test('for receive, when no source comes', async () => {
    await using commands = new Commands();
    const listen = ['receive', '--listen', '127.0.0.1:0', '--qemu', `unix:${commands.in}`];
    const words = [...listen, ...commands.keyWords, '--wait', '200ms', '--output', 'ndjson'];
    const { code, stdout, stderr } = await commands.run(words);
    expect(failureOf(stderr)).toMatchObject({
      code: 'ERR_PATH_TIMEOUT',
      side: 'destination',
      message: 'No source connected within 200 ms (--wait)',
    });
    expect(resultOf(stdout)).toMatchObject({ outcome: 'failed', guest: 'source' });
    expect(code).toBe(1);
  });

  test('for send, when QEMU does not come; receive hears why', async () => {
    await using commands = new Commands();
    const { receiver, port } = await commands.receive();
    const { code, stderr } = await commands.run(commands.sendWords(port, ['--wait', '200.4ms']));
    const failure = failureOf(stderr);
    expect(failure).toMatchObject({ code: 'ERR_QEMU_TIMEOUT', side: 'source', phase: 'setup' });
    expect(failure.message).toMatch(/QEMU did not connect to unix:.*out within 200 ms/);
    expect(failure.advice).toMatch(/QEMU's end of the channel/);
    expect(code).toBe(1);
    expect(await receiver.exit(30_000)).toBe(1);
    expect(failureOf(receiver.stderr())).toMatchObject({
      code: 'ERR_QEMU_TIMEOUT',
      side: 'destination',
      guest: expect.stringMatching(/^at the source/),
    });
  });
});

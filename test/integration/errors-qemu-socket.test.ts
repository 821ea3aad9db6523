// Requires: the built command.
import { once } from 'node:events';
import { chmodSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { expect, test } from 'vitest';
import { BOUND_MS, Commands, ended, failureOf, waitForLine } from '../support/command.ts';
import { FakeDestination, FakeSource, shut } from '../support/fake-qemu.ts';
import { waitUntil } from '../support/lab/processes.ts';
import { smallStream } from '../support/small-stream.ts';

test('a plain file at the socket of send is left alone', async () => {
  await using commands = new Commands();
  writeFileSync(commands.out, 'precious');
  const { code, stderr } = await commands.run(commands.sendWords(1));
  const failure = failureOf(stderr);
  expect(failure).toMatchObject({ code: 'ERR_QEMU_LISTEN', side: 'source', phase: 'setup' });
  expect(failure.message).toMatch(/Cannot listen on unix:.*out: a file that is no socket is there/);
  expect(failure.guest).toMatch(/^at the source/);
  expect(failure.advice).toMatch(/permissions/);
  expect(readFileSync(commands.out, 'utf8')).toBe('precious');
  expect(code).toBe(1);
});

test('a second send at the same socket is refused, and the first one still works', async () => {
  await using commands = new Commands();
  await using destination = await FakeDestination.listen(commands.in);
  const { receiver, port } = await commands.receive();
  const sender = await commands.send(port);
  const { code, stderr } = await commands.run(commands.sendWords(port));
  expect(failureOf(stderr)).toMatchObject({
    code: 'ERR_QEMU_LISTEN',
    message: expect.stringMatching(/another process listens there/),
  });
  expect(code).toBe(1);

  const stream = smallStream();
  await using source = await FakeSource.connect(commands.out);
  source.write(stream);
  await destination.untilBytes(stream.length, BOUND_MS);
  destination.write(shut(0));
  await waitUntil('the word of the destination', () => source.received().length > 0, {
    timeoutMs: BOUND_MS,
  });
  source.close();
  expect((await ended(sender)).code).toBe(0);
  expect((await ended(receiver)).code).toBe(0);
  expect(Buffer.compare(destination.received(), stream)).toBe(0);
});

test('another listener at the socket of send is not disturbed', async () => {
  await using commands = new Commands();
  let visitors = 0;
  const other = createServer(() => visitors++).listen(commands.out);
  await once(other, 'listening');
  try {
    const { code, stderr } = await commands.run(commands.sendWords(1));
    expect(failureOf(stderr).code).toBe('ERR_QEMU_LISTEN');
    expect(code).toBe(1);
    expect(visitors).toBe(0);
    expect(existsSync(commands.out)).toBe(true);
  } finally {
    other.close();
  }
});

test('a socket that a killed send has left is used again, for its owner only', async () => {
  await using commands = new Commands();
  const { port } = await commands.receive();
  const killed = await commands.send(port);
  await killed.stop('SIGKILL');
  expect(existsSync(commands.out)).toBe(true);
  chmodSync(commands.out, 0o666);
  const { port: again } = await commands.receive();
  await commands.send(again);
  expect(statSync(commands.out).mode & 0o777).toBe(0o600);
});

test('without the socket of the destination QEMU both ends say so', async () => {
  await using commands = new Commands();
  const { receiver, port } = await commands.receive();
  const sender = await commands.send(port);
  await using source = await FakeSource.connect(commands.out);
  source.write(smallStream());
  await source.untilClosed(BOUND_MS);
  for (const [side, process] of [
    ['source', sender],
    ['destination', receiver],
  ] as const) {
    const { code, stderr } = await ended(process);
    const failure = failureOf(stderr);
    expect(failure).toMatchObject({ code: 'ERR_QEMU_CONNECT', side });
    expect(failure.message).toMatch(
      /QEMU at unix:.*in: .*ENOENT.*; is it started with -incoming\?/,
    );
    expect(failure.guest).toMatch(/^at the source, where it runs on/);
    expect(failure.advice).toMatch(/-incoming/);
    expect(code).toBe(1);
  }
});

test('stdin and stdout that are no channel are said to be none', async () => {
  await using commands = new Commands();
  const { port } = await commands.receive();
  const words = ['send', '--to', `127.0.0.1:${port}`, ...commands.keyWords];
  const { code, stderr } = await commands.run(words);
  const failure = failureOf(stderr);
  expect(failure).toMatchObject({ code: 'ERR_QEMU_STDIO', side: 'source', phase: 'setup' });
  expect(failure.message).toMatch(/they are no pipes or sockets; run from QEMU as "exec:pagelane/);
  expect(code).toBe(1);
});

test('send ends when its peer goes before QEMU has come', async () => {
  await using commands = new Commands();
  const { receiver, port } = await commands.receive();
  const sender = await commands.send(port);
  await waitForLine(receiver, /migration begins/);
  await receiver.stop('SIGKILL');
  const { code, stderr } = await ended(sender);
  const failure = failureOf(stderr);
  expect(failure).toMatchObject({ code: 'ERR_PATHS_EXHAUSTED', side: 'source', phase: 'setup' });
  expect(failure.guest).toMatch(/^at the source, where it runs on/);
  expect(code).toBe(1);
});

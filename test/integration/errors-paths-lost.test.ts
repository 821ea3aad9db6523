// Requires: the built command.
import { connect } from 'node:net';
import { expect, test } from 'vitest';
import { connect as connectSession, readKeyFile } from '../../src/index.ts';
import {
  BOUND_MS,
  Commands,
  ended,
  failureOf,
  jsonLines,
  resultOf,
  waitForLine,
} from '../support/command.ts';
import { FakeDestination, FakeSource, shut } from '../support/fake-qemu.ts';
import { waitUntil, within } from '../support/lab/processes.ts';
import { smallStream, unfinishedStream } from '../support/small-stream.ts';

/** Both QEMUs, with both commands between them. */
async function join(commands: Commands, words: readonly string[] = []) {
  const destination = await FakeDestination.listen(commands.in);
  const { receiver, port } = await commands.receive(words);
  const sender = await commands.send(port, words);
  const source = await FakeSource.connect(commands.out);
  const parts = { destination, receiver, port, sender, source };
  return {
    ...parts,
    [Symbol.asyncDispose]: async () => {
      await source[Symbol.asyncDispose]();
      await destination[Symbol.asyncDispose]();
    },
  };
}

test('after device state began the guest is unknown: send holds the channel until told', async () => {
  await using commands = new Commands();
  await using parts = await join(commands, ['--output', 'ndjson']);
  const { source, destination, sender, receiver } = parts;
  const stream = smallStream();
  source.write(stream);
  await destination.untilBytes(stream.length, BOUND_MS);
  await receiver.stop('SIGKILL');
  await waitForLine(sender, /holding the channel so that the source QEMU stays stopped/);
  const failure = failureOf(sender.stderr());
  expect(failure).toMatchObject({
    code: 'ERR_PATHS_EXHAUSTED',
    side: 'source',
    phase: 'switchover',
    guest: 'UNKNOWN: start neither copy; ask both QEMUs (query-status) which one runs',
  });
  expect(resultOf(sender.stdout())).toMatchObject({ outcome: 'failed', guest: 'unknown' });
  // QEMU may still talk without being stopped, and must hear nothing: neither a word nor the end.
  const talk = source.write(new Uint8Array(4 * 1024 * 1024));
  await within(talk, BOUND_MS, 'the source QEMU to be rid of its bytes');
  expect(source.isClosed()).toBe(false);
  expect(source.received()).toHaveLength(0);
  sender.signal('SIGINT');
  expect((await ended(sender)).code).toBe(6);
  await source.untilClosed(BOUND_MS);
});

test('send stops holding when the source QEMU is gone', async () => {
  await using commands = new Commands();
  await using parts = await join(commands);
  const { source, destination, sender, receiver } = parts;
  const stream = smallStream();
  source.write(stream);
  await destination.untilBytes(stream.length, BOUND_MS);
  await receiver.stop('SIGKILL');
  await waitForLine(sender, /holding the channel/);
  source.close();
  expect((await ended(sender)).code).toBe(6);
});

test('after device state began, without a return path, the guest is at the source', async () => {
  await using commands = new Commands();
  await using parts = await join(commands);
  const { source, destination, sender, receiver } = parts;
  const stream = smallStream({ hasReturnPath: false }).slice(0, -10);
  source.write(stream);
  await destination.untilBytes(stream.length, BOUND_MS);
  await receiver.stop('SIGKILL');
  await source.untilClosed(BOUND_MS);
  const { code, stderr } = await ended(sender);
  expect(failureOf(stderr).guest).toMatch(/^at the source, where it runs on/);
  expect(code).toBe(1);
});

test('SIGINT in switchover does not cancel: the migration goes to its end', async () => {
  await using commands = new Commands();
  await using parts = await join(commands);
  const { source, destination, sender, receiver } = parts;
  const stream = smallStream();
  source.write(stream);
  await destination.untilBytes(stream.length, BOUND_MS);
  for (const process of [sender, receiver]) process.signal('SIGINT');
  await waitForLine(sender, /cancelling; interrupt again to force/);
  await waitForLine(receiver, /stopping; interrupt again to force/);
  destination.write(shut(0));
  await waitUntil('the word of the destination', () => source.received().length === 8, {
    timeoutMs: BOUND_MS,
  });
  source.close();
  for (const process of [sender, receiver]) {
    const { code, stderr } = await ended(process);
    expect(stderr).toMatch(/note: cancelled too late: switchover may have begun/);
    expect(code).toBe(0);
  }
});

test('two SIGINTs in switchover end send at once, with code 6', async () => {
  await using commands = new Commands();
  await using parts = await join(commands);
  const { source, destination, sender } = parts;
  const stream = smallStream();
  source.write(stream);
  await destination.untilBytes(stream.length, BOUND_MS);
  sender.signal('SIGINT');
  await waitForLine(sender, /interrupt again to force/);
  sender.signal('SIGINT');
  expect((await ended(sender)).code).toBe(6);
});

test('a session that begins nothing does no harm to receive', async () => {
  await using commands = new Commands();
  await using destination = await FakeDestination.listen(commands.in);
  const { receiver, port } = await commands.receive();
  const security = { kind: 'key', key: readKeyFile(commands.path('key')) } as const;
  const session = await connectSession({ paths: [{ host: '127.0.0.1', port }], security });
  await session.close();
  await waitForLine(receiver, /warning: a session ended before its migration began/);
  const sender = await commands.send(port);
  await using source = await FakeSource.connect(commands.out);
  const stream = smallStream({ hasReturnPath: false });
  source.write(stream);
  source.close();
  await destination.untilBytes(stream.length, BOUND_MS);
  destination.close();
  expect([(await ended(sender)).code, (await ended(receiver)).code]).toEqual([0, 0]);
});

test('rubbish at the port of receive does not disturb a migration', async () => {
  await using commands = new Commands();
  await using parts = await join(commands, ['--output', 'ndjson']);
  const { source, destination, sender, receiver, port } = parts;
  const whole = smallStream();
  source.write(whole.slice(0, unfinishedStream().length));
  const rubbish = [
    new Uint8Array(0),
    Buffer.from('GET / HTTP/1.1\r\n\r\n'),
    Uint8Array.of(0x16, 3, 1, 2, 0, 1, 0, 1, 252),
    Buffer.alloc(100_000, 'SSH-2.0-'),
  ];
  const visitors = rubbish.map((bytes) => {
    const visitor = connect(port, '127.0.0.1', () => visitor.end(bytes));
    return visitor.on('error', () => {}).resume();
  });
  await waitUntil(
    'receive to turn all of them away',
    () => [...receiver.stderr().matchAll(/turned a connection away/g)].length === rubbish.length,
    { timeoutMs: BOUND_MS },
  );
  for (const visitor of visitors) visitor.destroy();
  source.write(whole.slice(unfinishedStream().length));
  await destination.untilBytes(whole.length, BOUND_MS);
  destination.write(shut(0));
  await waitUntil('the word of the destination', () => source.received().length === 8, {
    timeoutMs: BOUND_MS,
  });
  source.close();
  const ends = [await ended(sender), await ended(receiver)];
  expect(ends.map(({ code }) => code)).toEqual([0, 0]);
  expect(Buffer.compare(destination.received(), whole)).toBe(0);
  const lost = jsonLines(ends[0]!.stdout).filter(({ type }) => type === 'pathLost');
  expect(lost).toEqual([]);
});

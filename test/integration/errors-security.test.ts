// Requires: the built command.
import { describe, expect, test } from 'vitest';
import { createKeyFile } from '../../src/index.ts';
import { Commands, ended, failureOf, waitForLine } from '../support/command.ts';

const INSECURE = ['--insecure'];

describe('two ends that do not trust each other', () => {
  const cases = [
    { what: 'other keys', send: 'other', receive: 'key', says: /the keys differ/ },
    {
      what: '--insecure at the source',
      send: undefined,
      receive: 'key',
      says: /the other side expect TLS/,
    },
    { what: '--insecure at the destination', send: 'key', receive: undefined, says: /--insecure/ },
  ] as const;
  test.each(cases)('$what: send says so and ends, receive waits on', async (each) => {
    await using commands = new Commands();
    createKeyFile(commands.path('other'));
    const wordsOf = (key: string | undefined): readonly string[] =>
      key === undefined ? INSECURE : ['--key', commands.path(key)];
    const { receiver, port } = await commands.receive([], wordsOf(each.receive));
    const { code, stderr } = await commands.run(commands.sendWords(port, [], wordsOf(each.send)));
    const failure = failureOf(stderr);
    expect(failure).toMatchObject({ code: 'ERR_PATH_SECURITY', side: 'source', phase: 'setup' });
    expect(failure.message).toMatch(each.says);
    expect(failure.guest).toMatch(/^at the source, where it runs on/);
    expect(failure.advice).toMatch(/the same key/);
    expect(code).toBe(1);
    await waitForLine(receiver, /turned a connection away: .*127\.0\.0\.1/);
    receiver.signal('SIGINT');
    expect((await ended(receiver)).code).toBe(130);
  });
});

test('--insecure is warned of on both sides, every time', async () => {
  await using commands = new Commands();
  const quiet = ['--quiet', '--wait', '10ms'];
  const listen = ['receive', '--listen', '127.0.0.1:0', '--qemu', `unix:${commands.in}`];
  const received = await commands.run([...listen, ...INSECURE, ...quiet]);
  const sent = await commands.run(commands.sendWords(1, quiet, INSECURE));
  for (const { stderr } of [received, sent]) {
    expect(stderr).toMatch(/^pagelane: warning: --insecure: guest memory travels in clear/);
  }
});

test('a folder of certificates that is missing is said by both ends', async () => {
  await using commands = new Commands();
  const words = ['--tls-dir', commands.path('none')];
  const sent = await commands.run(commands.sendWords(1, [], words));
  const received = await commands.run(['receive', '--listen', '127.0.0.1:0', ...words]);
  for (const [side, { code, stderr }] of [
    ['source', sent],
    ['destination', received],
  ] as const) {
    expect(failureOf(stderr)).toMatchObject({ code: 'ERR_PATH_SECURITY', side, phase: 'setup' });
    expect(stderr).toMatch(/Cannot read certificate or key .*none\/ca-cert.pem: ENOENT/);
    expect(code).toBe(1);
  }
});

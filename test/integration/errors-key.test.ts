// Requires: the built command.
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { Commands, failureOf } from '../support/command.ts';

/** What is wrong with the file, how it is made, what the command says. */
const KEYS: ReadonlyArray<readonly [what: string, make: (path: string) => void, says: RegExp]> = [
  ['missing', () => {}, /Cannot use key file ".*key2": ENOENT: no such file/],
  ['a folder', (path) => mkdirSync(path, { mode: 0o700 }), /Cannot use key file .*EISDIR/],
  ['empty', (path) => writeFileSync(path, '', { mode: 0o600 }), /it holds no key/],
  ['too short', (path) => writeKey(path, 16), /it holds no key; make one with "pagelane keygen/],
  ['too long', (path) => writeKey(path, 48), /it holds no key/],
  ['readable by the group', (path) => writeKey(path, 32, 0o640), /others may read it \(mode 640\)/],
  ['readable by all', (path) => writeKey(path, 32, 0o604), /others may read it \(mode 604\)/],
];

const SIDES = [
  { side: 'source', words: ['send', '--to', '127.0.0.1:1'] },
  { side: 'destination', words: ['receive', '--listen', '127.0.0.1:0'] },
] as const;

function writeKey(path: string, keyBytes: number, mode = 0o600): void {
  const text = Buffer.alloc(keyBytes, 7).toString('base64');
  writeFileSync(path, `pagelane-key-1 ${text}\n`);
  chmodSync(path, mode);
}

describe.each(SIDES)('at the $side a key file that cannot be used is', ({ side, words }) => {
  test.each(KEYS)('%s: said, with code 1', async (_what, make, says) => {
    await using commands = new Commands();
    const key = commands.path('key2');
    make(key);
    const qemu = ['--qemu', `unix:${commands.out}`];
    const { code, stderr } = await commands.run([...words, ...qemu, '--key', key]);
    const failure = failureOf(stderr);
    expect(failure).toMatchObject({ code: 'ERR_KEY_FILE', side, phase: 'setup' });
    expect(failure.message).toMatch(says);
    expect(failure.guest).toMatch(/^at the source, where it runs on/);
    expect(failure.advice).toMatch(/pagelane keygen FILE.*chmod 600/);
    expect(code).toBe(1);
  });
});

test('keygen writes a key that only its owner reads, and never over another file', async () => {
  await using commands = new Commands();
  const file = commands.path('new');
  expect((await commands.run(['keygen', file])).code).toBe(0);
  const key = readFileSync(file, 'utf8');
  const again = await commands.run(['keygen', file]);
  expect(again.code).toBe(1);
  expect(again.stderr).toMatch(/^pagelane: ERR_KEY_FILE: Cannot write key file: EEXIST/);
  expect(again.stderr).not.toContain('guest');
  expect(readFileSync(file, 'utf8')).toBe(key);
});

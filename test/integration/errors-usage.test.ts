// Requires: the built command.
import { describe, expect, test } from 'vitest';
import { Commands } from '../support/command.ts';

const KEY = ['--key', '/none'];
const TO = ['--to', '127.0.0.1:7700'];
const MANY_PATHS = Array.from({ length: 17 }, () => ['--path', '127.0.0.1:7700']).flat();

const MISTAKES: ReadonlyArray<readonly [words: readonly string[], says: RegExp]> = [
  [['teleport'], /there is no command "teleport"/],
  [['constructor'], /there is no command "constructor"/],
  [['send', ...KEY], /give --to HOST:PORT, or --path/],
  [['send', ...KEY, '--to', 'host'], /--to: Cannot read address "host": expected HOST:PORT/],
  [['send', ...KEY, '--to', 'host:99999'], /--to: Cannot read address/],
  [['send', ...KEY, '--path', '@host:1'], /--path: .* local address before "@" is empty/],
  [['send', ...KEY, ...MANY_PATHS], /1 to 16 paths, not 17/],
  [['send', ...TO], /give one of --key FILE .*, --tls-dir DIR, --insecure/],
  [['send', ...TO, ...KEY, '--insecure'], /give one of --key FILE/],
  [['send', ...TO, ...KEY, '--tls-dir', '/none'], /give one of --key FILE/],
  [['send', ...TO, ...KEY, '--codec', 'rar'], /--codec: "rar" is none of auto, none, lz4, zstd/],
  [
    ['send', ...TO, ...KEY, '--qemu', 'fifo:/x'],
    /--qemu: Cannot read "fifo:\/x": expected -, unix:/,
  ],
  [['send', ...TO, ...KEY, '--qemu', `unix:/${'x'.repeat(120)}`], /has 1 to 107 bytes, not 121/],
  [['send', ...TO, ...KEY, '--qemu', 'null:'], /--qemu null: is for receive only/],
  [['send', ...TO, ...KEY, '--speed', '9'], /Unknown option '--speed'/],
  [['send', ...TO, ...KEY, '--name'], /--name <value>' argument missing/],
  [['send', ...TO, ...KEY, 'vm1'], /unexpected "vm1"/],
  [['send', ...TO, ...KEY, '--threads', '0'], /--threads: "0" is not a number from 1 to 256/],
  [['send', ...TO, ...KEY, '--cpu-set', '0-'], /--cpu-set: .*expected a list as 0-3,8: "0-" is/],
  [['send', ...TO, ...KEY, '--cpu-set', '8191'], /--cpu-set: .* 8191: this process may use \d/],
  [['send', ...TO, ...KEY, '--priority', '20'], /--priority: "20" is not a number from -20 to 19/],
  [['send', ...TO, ...KEY, '--priority', '-5'], /'--priority' argument is ambiguous/],
  [
    ['receive', ...KEY, '--listen', '127.0.0.1:0', '--cpu-set', '8191'],
    /--cpu-set: Cannot use processors 8191: this process may use \d/,
  ],
  [['send', ...TO, ...KEY, '--window', '2000'], /--window: "2000" is not a number from 1 to 1024/],
  [['send', ...TO, ...KEY, '--wait', '10'], /--wait: Cannot read duration "10"/],
  [['send', ...TO, ...KEY, '--wait', '1000h'], /--wait: "1000h" is more than 24 days/],
  [['send', ...TO, ...KEY, '--interval', 'soon'], /--interval: Cannot read duration "soon"/],
  [['send', ...TO, ...KEY, '--output', 'xml'], /--output: "xml" is none of text, json, ndjson/],
  [['receive', ...KEY], /give --listen ADDR:PORT/],
  [['receive', ...KEY, '--listen', '7700'], /--listen: Cannot read address "7700"/],
  [['receive', ...KEY, '--listen', '::1:7700'], /--listen: Cannot read address "::1:7700"/],
  [['receive', '--listen', '127.0.0.1:0'], /give one of --key FILE/],
  [['keygen'], /keygen takes one FILE/],
  [['keygen', '/none/a', '/none/b'], /keygen takes one FILE/],
];

describe('a mistake on the command line ends with code 2, and says which', () => {
  test.each(MISTAKES)('%j', async (words, says) => {
    await using commands = new Commands();
    const { code, stdout, stderr } = await commands.run(words);
    expect(stderr).toMatch(says);
    expect(stderr).toMatch(/^pagelane: .*; see "pagelane --help"\n$/);
    expect(stdout).toBe('');
    expect(code).toBe(2);
  });
});

test('a call without a command shows the help, with code 2', async () => {
  await using commands = new Commands();
  expect(await commands.run([])).toMatchObject({
    code: 2,
    stdout: expect.stringContaining('Usage: pagelane COMMAND'),
  });
});

test.each(['send', 'receive', 'keygen'])('%s --help says how, with code 0', async (name) => {
  await using commands = new Commands();
  const { code, stdout, stderr } = await commands.run([name, '--help']);
  expect(stdout).toContain(`Usage: pagelane ${name} `);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
});

// Requires: the built command, Linux 6.7 or newer.
import { describe, expect, test } from 'vitest';
import { Commands, ended, jsonLines } from '../support/command.ts';
import { waitUntil } from '../support/lab/processes.ts';

const SMALL = ['bench', '--size', '16MiB', '--threads', '1'];

const MISTAKES: ReadonlyArray<readonly [words: readonly string[], says: RegExp]> = [
  [['--size', '4KiB'], /--size: must be 1MiB to 4GiB, in multiples of 64 KiB/],
  [['--size', '8GiB'], /--size: must be 1MiB to 4GiB/],
  [['--size', '1048577B'], /--size: /],
  [['--size', 'large'], /--size: Cannot read size "large"/],
  [['--zero', '101'], /--zero: "101" is not a number from 0 to 100/],
  [['--zero', '60', '--random', '60'], /--zero and --random are over 100/],
  [['--dirty-rate', '-1'], /dirty-rate/],
  [['--dirty-log', 'guess'], /--dirty-log: "guess" is none of write-protect, hash/],
  [['--downtime', '0ms'], /--downtime: must be more than 0/],
  [['--downtime', 'short'], /--downtime: Cannot read duration "short"/],
  [['--paths', '0'], /--paths: "0" is not a number from 1 to 16/],
  [['--paths', '17'], /--paths: "17" is not a number from 1 to 16/],
  [['--codec', 'rar'], /--codec: "rar" is none of auto, none, lz4, zstd/],
  [['--threads', '0'], /--threads: "0" is not a number from 1 to 256/],
  [['--output', 'xml'], /--output: "xml" is none of text, json, ndjson/],
  [['--to', '127.0.0.1:7701'], /give one of --key FILE .*, --insecure/],
  [['--to', 'host', '--insecure'], /--to: Cannot read address "host"/],
  [['--listen', '127.0.0.1:0'], /give one of --key FILE .*, --insecure/],
  [['--listen', '7701', '--insecure'], /--listen: Cannot read address "7701"/],
  [['--qemu', '-'], /Unknown option '--qemu'/],
  [['null:'], /unexpected "null:"/],
];

describe('pagelane bench', () => {
  test.each(MISTAKES)('%j is a mistake: code 2', async (words, says) => {
    await using commands = new Commands();
    const { code, stdout, stderr } = await commands.run(['bench', '--size', '1MiB', ...words]);
    expect(stderr).toMatch(says);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  });

  test('--help says how, and what the exit codes are', async () => {
    await using commands = new Commands();
    const { code, stdout, stderr } = await commands.run(['bench', '--help']);
    expect(stdout).toContain('Usage: pagelane bench ');
    expect(stdout).toContain('--dirty-log write-protect|hash');
    expect(stdout).toContain('Exit codes: 0 done, and memory is the same');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  });

  test.each(['write-protect', 'hash'])('brings all memory over paths, log %s', async (log) => {
    await using commands = new Commands();
    const words = [...SMALL, '--dirty-log', log, '--dirty-rate', '500', '--downtime', '5s'];
    const ran = await commands.run([...words, '--paths', '3', '--output', 'json']);
    expect(ran.stderr).toBe('');
    const [record] = jsonLines(ran.stdout);
    expect(record).toMatchObject({
      type: 'bench',
      isSame: true,
      memory: expect.stringMatching(/^[0-9a-f]{16}$/),
      result: {
        outcome: 'completed',
        guest: 'destination',
        memoryBytes: 16 * 2 ** 20,
        digest: { equal: true },
        effective: { threads: 1 },
        downtimeMs: { switchover: expect.any(Number) },
      },
    });
    const { roundFacts, paths } = record!['result'] as {
      roundFacts: { pages: number; dirtyPages: number }[];
      paths: unknown[];
    };
    expect(paths).toHaveLength(3);
    expect(roundFacts[0]!.pages).toBe(4096);
    expect(roundFacts.at(-1)!.dirtyPages).toBe(0);
    expect(ran.code).toBe(0);
  });

  test('draws its rounds, and says that memory is the same', async () => {
    await using commands = new Commands();
    const words = ['--insecure', '--paths', '1', '--downtime', '5s'];
    const { code, stdout, stderr } = await commands.run([...SMALL, ...words]);
    expect(stdout).toMatch(/^round +rate +left\n +1 /);
    expect(stdout).toMatch(/\n\ncompleted\nmemory {4}16\.0 MiB, 2000 pages\/s written to, /);
    expect(stdout).toMatch(/\ndowntime {2}\S+ \S+ of 5\.0 s\n/);
    expect(stdout).toMatch(/\nmemory is the same there\n$/);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  });

  test.each(['write-protect', 'hash'])('goes to nowhere, log %s', async (log) => {
    await using commands = new Commands();
    const words = [...SMALL, '--paths', 'null:', '--dirty-log', log, '--downtime', '5s'];
    const { code, stdout, stderr } = await commands.run([...words, '--output', 'ndjson']);
    const [record] = jsonLines(stdout);
    expect(record).toMatchObject({ result: { outcome: 'completed', paths: [], wireBytes: 0 } });
    // Nobody has a copy to compare with.
    expect(record).not.toHaveProperty('isSame');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  });

  test('goes to one that listens, and both say the same of memory', async () => {
    await using commands = new Commands();
    const there = commands.start(['bench', '--listen', '127.0.0.1:0', ...commands.keyWords]);
    await waitUntil('the destination to listen', () => there.stdout().includes('listening'), {
      timeoutMs: 20_000,
    });
    const { port } = jsonLines(there.stdout())[0] as unknown as { port: number };
    const key = [...commands.keyWords, '--downtime', '5s'];
    const to = ['--to', `127.0.0.1:${port}`, '--to', `127.0.0.1:${port}`];
    const here = await commands.run([...SMALL, ...to, ...key, '--output', 'json']);
    expect(here).toMatchObject({ code: 0, stderr: '' });
    const { code, stdout } = await ended(there);
    const [sent] = jsonLines(here.stdout);
    const [, received] = jsonLines(stdout);
    expect(sent).not.toHaveProperty('isSame');
    expect(received).toMatchObject({ type: 'bench', memory: sent!['memory'] });
    expect(received).toMatchObject({ result: { side: 'destination', guest: 'destination' } });
    expect(code).toBe(0);
  });

  test('says what to do where nobody listens: code 1', async () => {
    await using commands = new Commands();
    const words = [...SMALL, '--to', '127.0.0.1:1', '--insecure'];
    const { code, stdout, stderr } = await commands.run(words);
    expect(stderr).toMatch(/^pagelane: ERR_PATH_REFUSED: .*127\.0\.0\.1:1.*\n {2}to do: /);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  });
});

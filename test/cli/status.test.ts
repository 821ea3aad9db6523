import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { UsageError } from '../../src/cli/options.ts';
import { status } from '../../src/cli/status.ts';
import { FileJournal, type JournalEntry } from '../../src/index.ts';

const MIGRATION = 'ab'.repeat(16);

let folder: string;
let stdout: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'pagelane-status-'));
  stdout = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    stdout += text;
    return true;
  });
});

afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true, force: true });
});

async function write(file: string, fields: Readonly<Record<string, unknown>>): Promise<string> {
  const path = join(folder, file);
  const entry = { v: 1, migration: MIGRATION, attempt: 1, name: 'vm1', isSettled: false };
  await new FileJournal(path).write({ ...entry, context: {}, ...fields } as JournalEntry);
  return path;
}

test.each([
  ['source', 'copying', 'source', 0],
  ['source', 'committed', 'unknown', 6],
  ['source', 'released', 'destination', 0],
  ['source', 'aborted', 'source', 0],
  ['destination', 'reserved', 'source', 0],
  ['destination', 'ready', 'unknown', 6],
  ['destination', 'activating', 'destination', 0],
  ['destination', 'active', 'destination', 0],
  ['destination', 'aborted', 'source', 0],
])('a journal of the %s, "%s": %s', async (side, state, guest, code) => {
  const path = await write('vm1.journal', { side, state });
  expect(await status([path, '--output', 'json'])).toBe(code);
  expect(JSON.parse(stdout)).toEqual({
    v: 1,
    type: 'journals',
    journals: [
      {
        path,
        name: 'vm1',
        side,
        state,
        migration: MIGRATION,
        attempt: 1,
        isSettled: false,
        context: {},
        guest,
        text: expect.stringMatching(guest === 'unknown' ? 'start neither' : `at the ${guest}`),
      },
    ],
  });
});

test('is a line for each journal of a directory', async () => {
  await write('b.journal', { side: 'source', state: 'released', name: 'b\u001b[2J' });
  await write('a.journal', { side: 'source', state: 'committed', name: '' });
  await write('c.journal.new', { side: 'source', state: 'committed' });
  expect(await status([folder])).toBe(6);
  expect(stdout).toBe(
    `${folder}/a.journal (source, committed): who owns the guest: ask the destination; ` +
      'until then start neither copy\n' +
      'b?[2J (source, released): the guest is at the destination, which has said that it runs there\n',
  );
});

test('what one side cannot know the other side’s journal tells', async () => {
  const here = await write('here', { side: 'source', state: 'committed' });
  const active = await write('active', { side: 'destination', state: 'active' });
  const aborted = await write('aborted', { side: 'destination', state: 'aborted' });
  const ready = await write('ready', { side: 'destination', state: 'ready' });
  const reserved = await write('reserved', { side: 'destination', state: 'reserved' });
  const older = await write('older', { side: 'destination', state: 'aborted', attempt: 2 });
  expect(await status([here, active])).toBe(0);
  expect(stdout).toContain('(source, committed): the guest is at the destination');
  expect(await status([here, aborted])).toBe(0);
  expect(stdout).toContain('(source, committed): the guest is at the source');
  expect(await status([here, ready])).toBe(6);
  // It may have gone on since somebody copied its journal.
  expect(await status([here, reserved])).toBe(6);
  expect(await status([here, older])).toBe(6);
});

test('a damaged journal is not known, and keeps nobody from seeing the others', async () => {
  await write('a.journal', { side: 'source', state: 'copying' });
  writeFileSync(join(folder, 'b.journal'), 'released\n');
  expect(await status([folder, '--output', 'ndjson'])).toBe(6);
  const { journals } = JSON.parse(stdout);
  expect(journals).toMatchObject([
    { guest: 'source' },
    { guest: 'unknown', error: { code: 'ERR_JOURNAL' } },
  ]);
  expect(await status([folder])).toBe(6);
  expect(stdout).toContain('it is damaged; start no copy by it');
});

test('needs a path, and one that is there', async () => {
  expect(() => status([])).toThrow(UsageError);
  await expect(status([join(folder, 'none')])).rejects.toMatchObject({ code: 'ERR_JOURNAL' });
  await expect(status([folder])).rejects.toThrow(/it has no file \*\.journal/);
  expect(await status(['--help'])).toBe(0);
  expect(stdout).toContain('6 not known: start neither copy');
});

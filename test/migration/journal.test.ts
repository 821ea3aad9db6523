import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { chmod, mkdir, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { JournalEntry } from '../../src/migration/commit.ts';
import { FileJournal, newMigrationId } from '../../src/migration/journal.ts';
import { repositoryRoot } from '../support/lab/binaries.ts';

const ENTRY: JournalEntry = {
  v: 1,
  side: 'source',
  state: 'committed',
  migration: 'ab'.repeat(16),
  attempt: 1,
  name: 'vm-1 übung',
  isSettled: false,
  context: { memory: '/dev/shm/vm1', peer: { host: '10.1.0.2', port: 7700 } },
};

let folder: string;
let path: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'pagelane-journal-'));
  path = join(folder, 'vm1.journal');
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function codeOfRead(): Promise<string> {
  const error = await new FileJournal(path).read().catch((thrown: unknown) => thrown);
  return error instanceof Error && 'code' in error ? `${error.code}: ${error.message}` : 'read';
}

test('newMigrationId() is 32 hexadecimal digits, another each time', () => {
  const ids = new Set(Array.from({ length: 100 }, newMigrationId));
  expect(ids.size).toBe(100);
  for (const id of ids) expect(id).toMatch(/^[0-9a-f]{32}$/);
});

describe('FileJournal', () => {
  test('read() has nothing before write(), and then what was written last', async () => {
    const journal = new FileJournal(path);
    expect(await journal.read()).toBeUndefined();
    await journal.write(ENTRY);
    expect(await journal.read()).toEqual(ENTRY);
    const next = { ...ENTRY, state: 'released', isSettled: true } as const;
    await journal.write(next);
    expect(await new FileJournal(path).read()).toEqual(next);
  });

  test('write() lets only the owner read, and passes over what a crash has left', async () => {
    writeFileSync(`${path}.new`, 'half of an entr');
    await new FileJournal(path).write(ENTRY);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(() => statSync(`${path}.new`)).toThrow('ENOENT');
  });

  test('write() does not follow a link that somebody has left', async () => {
    const other = join(folder, 'other');
    writeFileSync(other, 'mine');
    await symlink(other, `${path}.new`);
    await new FileJournal(path).write(ENTRY);
    expect(readFileSync(other, 'utf8')).toBe('mine');
    expect(await new FileJournal(path).read()).toEqual(ENTRY);
  });

  test('read() refuses a journal in which one byte differs', async () => {
    await new FileJournal(path).write(ENTRY);
    const good = readFileSync(path);
    for (let at = 0; at < good.length; at++) {
      const bad = Buffer.from(good);
      bad[at] = bad[at]! ^ 1;
      writeFileSync(path, bad);
      expect({ at, said: await codeOfRead() }).toEqual({
        at,
        said: expect.stringMatching(/^ERR_JOURNAL: Cannot use .*is damaged; start no copy by it/),
      });
    }
  });

  test('read() refuses a journal that is cut anywhere, or has more behind it', async () => {
    await new FileJournal(path).write(ENTRY);
    const good = readFileSync(path);
    for (let length = 0; length < good.length; length++) {
      writeFileSync(path, good.subarray(0, length));
      expect(await codeOfRead()).toMatch(/^ERR_JOURNAL/);
    }
    writeFileSync(path, Buffer.concat([good, good]));
    expect(await codeOfRead()).toMatch(/^ERR_JOURNAL/);
  });

  test.each([
    ['another version', { v: 2 }, /its version is 2/],
    ['a side that is none', { side: 'middle' }, /"side"/],
    ['a state of the other side', { state: 'ready' }, /"state"/],
    ['a migration that is none', { migration: '../etc' }, /"migration"/],
    ['an attempt that is none', { attempt: 0 }, /"attempt"/],
    ['a name that is too long', { name: 'a'.repeat(257) }, /"name"/],
    ['a word for a truth', { isSettled: 'no' }, /"isSettled"/],
    ['a context that is none', { context: [] }, /"context"/],
  ])('read() refuses %s, though it is whole', async (_, fields, why) => {
    await new FileJournal(path).write({ ...ENTRY, ...fields } as unknown as JournalEntry);
    expect(await codeOfRead()).toMatch(why);
  });

  test('read() and write() refuse what is no file of that size', async () => {
    const context = { text: 'a'.repeat(70_000) };
    const journal = new FileJournal(path);
    await expect(journal.write({ ...ENTRY, context })).rejects.toThrow(/below 65536 bytes/);
    expect(await journal.read()).toBeUndefined();
    writeFileSync(path, 'a'.repeat(70_000));
    expect(await codeOfRead()).toMatch(/^ERR_JOURNAL: Cannot read .* has 70000 bytes/);
    rmSync(path);
    await mkdir(path);
    expect(await codeOfRead()).toMatch(/^ERR_JOURNAL: Cannot read .* it is no file/);
    await expect(journal.write(ENTRY)).rejects.toMatchObject({ code: 'ERR_JOURNAL' });
  });

  test('write() that fails leaves what was there', async () => {
    const journal = new FileJournal(path);
    await journal.write(ENTRY);
    await mkdir(`${path}.new`);
    await chmod(folder, 0o700);
    await expect(journal.write({ ...ENTRY, attempt: 2 })).rejects.toMatchObject({
      code: 'ERR_JOURNAL',
    });
    expect(await journal.read()).toEqual(ENTRY);
  });

  test('a process that is killed while it writes leaves a whole entry', async () => {
    const script = `
      const { FileJournal } = await import(${JSON.stringify(join(repositoryRoot, 'dist/index.js'))});
      const journal = new FileJournal(${JSON.stringify(path)});
      const entry = ${JSON.stringify(ENTRY)};
      for (let attempt = 1; ; attempt++) {
        await journal.write({ ...entry, attempt });
        if (attempt % 10 === 0) process.stdout.write('.');
      }`;
    let last = 0;
    for (let round = 1; round <= 5; round++) {
      await new Promise<void>((resolve) => {
        const child = execFile(process.execPath, ['--input-type=module', '-e', script]);
        let written = 0;
        child.stdout!.on('data', (dots: string) => {
          written += dots.length;
          if (written >= round) child.kill('SIGKILL');
        });
        child.on('close', () => resolve());
      });
      const entry = await new FileJournal(path).read();
      last = entry!.attempt;
      expect(entry).toEqual({ ...ENTRY, attempt: last });
      expect(last).toBeGreaterThanOrEqual(10 * round);
    }
  });
});

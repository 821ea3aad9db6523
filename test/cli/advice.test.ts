import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { adviceOn } from '../../src/cli/advice.ts';
import { repositoryRoot } from '../support/lab/binaries.ts';

/** Codes for which there is nothing to do, or that only events and other failures' causes have. */
const TELLING = [
  ...['ERR_ABORTED', 'ERR_CANCELLED', 'ERR_CLOSE_TIMEOUT', 'ERR_CUTTER_STATE', 'ERR_DESTROYED'],
  ...['ERR_INTERNAL', 'ERR_LISTENER_CLOSED', 'ERR_PATH_BUSY', 'ERR_PATH_CLOSED', 'ERR_PATH_LOST'],
  'ERR_PATH_REMOVED',
];

/** Codes of the table, those that end in "…" as the beginnings of many. */
function codesOfTable(): { code: string; isBeginning: boolean }[] {
  const text = readFileSync(join(repositoryRoot, 'docs/cli.md'), 'utf8');
  const table = text.slice(text.indexOf('### Error codes'));
  const rows = table.split('\n').filter((line) => line.startsWith('| `ERR_'));
  return rows.flatMap((row) =>
    [...row.split('|')[1]!.matchAll(/`(ERR_\w+)(…?)`/g)].map(([, code, more]) => ({
      code: code!,
      isBeginning: more !== '',
    })),
  );
}

/** Every code that the library or the addon has in quotes. */
function codesOfSources(): string[] {
  const codes = new Set<string>();
  for (const folder of ['src', 'native']) {
    const root = join(repositoryRoot, folder);
    for (const file of readdirSync(root, { recursive: true, encoding: 'utf8' })) {
      if (!/\.(ts|cc|h)$/.test(file)) continue;
      const text = readFileSync(join(root, file), 'utf8');
      for (const [, code] of text.matchAll(/['"](ERR_[A-Z0-9_]+)['"]/g)) codes.add(code!);
    }
  }
  return [...codes].sort();
}

test('every code in the table of docs/cli.md has advice', () => {
  const codes = codesOfTable().map(({ code }) => code);
  expect(codes.length).toBeGreaterThan(20);
  expect(codes.filter((code) => adviceOn(code) === undefined)).toEqual([]);
});

test('every code there is has a row in the table of docs/cli.md, or is none to do about', () => {
  const rows = codesOfTable();
  const codes = codesOfSources();
  expect(codes.length).toBeGreaterThan(80);
  const isInTable = (code: string): boolean =>
    rows.some((row) => (row.isBeginning ? code.startsWith(row.code) : code === row.code));
  expect(codes.filter((code) => !isInTable(code))).toEqual(TELLING);
  expect(TELLING.filter((code) => adviceOn(code) !== undefined)).toEqual([]);
});

test('every row of the table is of a code there is', () => {
  const codes = codesOfSources();
  const isThere = ({ code, isBeginning }: { code: string; isBeginning: boolean }): boolean =>
    codes.some((each) => (isBeginning ? each.startsWith(code) : each === code));
  expect(codesOfTable().filter((row) => !isThere(row))).toEqual([]);
});

test('a code that says all by itself has none', () => {
  expect(adviceOn('ERR_CANCELLED')).toBeUndefined();
});

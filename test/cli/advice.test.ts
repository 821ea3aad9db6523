import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { adviceOn } from '../../src/cli/advice.ts';
import { repositoryRoot } from '../support/lab/binaries.ts';

test('every code in the table of docs/cli.md has advice', () => {
  const text = readFileSync(join(repositoryRoot, 'docs/cli.md'), 'utf8');
  const table = text.slice(text.indexOf('### Error codes'));
  const rows = table.split('\n').filter((line) => line.startsWith('| `ERR_'));
  const codes = rows.flatMap((row) =>
    [...row.split('|')[1]!.matchAll(/`(ERR_\w+)…?`/g)].map(([, code]) => code!),
  );
  expect(codes.length).toBeGreaterThan(20);
  expect(codes.filter((code) => adviceOn(code) === undefined)).toEqual([]);
});

test('a code that says all by itself has none', () => {
  expect(adviceOn('ERR_CANCELLED')).toBeUndefined();
});

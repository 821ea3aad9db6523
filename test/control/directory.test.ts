import { chmodSync, chownSync, mkdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  controlDirectories,
  controlSocketPath,
  controlSockets,
  isOwnDirectory,
  makeControlDirectory,
} from '../../src/control/directory.ts';
import { Folder, ID } from './support.ts';

const refusal = (why: RegExp) =>
  expect.objectContaining({ code: 'ERR_CONTROL_DIR', message: expect.stringMatching(why) });

const modeOf = (path: string): number => statSync(path).mode & 0o777;

describe('controlDirectories()', () => {
  const temporary = join(tmpdir(), `pagelane-${process.getuid!()}`);

  test('the one that is chosen is the only one', () => {
    const environment = { PAGELANE_CONTROL_DIR: '/a', XDG_RUNTIME_DIR: '/b' };
    expect(controlDirectories(environment)).toEqual(['/a']);
  });

  test('the runtime directory comes first, then the one for services', () => {
    const found = controlDirectories({ PAGELANE_CONTROL_DIR: '', XDG_RUNTIME_DIR: '/run/user/7' });
    expect(found).toEqual(['/run/user/7/pagelane', temporary]);
  });

  test.each([{}, { XDG_RUNTIME_DIR: '' }, { XDG_RUNTIME_DIR: 'relative' }])(
    '%j names none',
    (env) => {
      expect(controlDirectories(env)).toEqual([temporary]);
    },
  );
});

describe('makeControlDirectory()', () => {
  test.each([0, 0o022, 0o777])('only its owner may enter it, with umask %i', (mask) => {
    using folder = new Folder();
    const directory = join(folder.path, 'sockets');
    const before = process.umask(mask);
    try {
      makeControlDirectory(directory);
    } finally {
      process.umask(before);
    }
    expect(modeOf(directory)).toBe(0o700);
    makeControlDirectory(directory);
    expect(isOwnDirectory(directory)).toBe(true);
  });

  test.each([0o701, 0o710, 0o704, 0o720, 0o777])('refuses one of mode %i', (mode) => {
    using folder = new Folder();
    chmodSync(folder.path, mode);
    const shown = mode.toString(8);
    const wanted = refusal(new RegExp(`others may enter it: its mode is ${shown}, not 700`));
    expect(() => makeControlDirectory(folder.path)).toThrow(wanted);
    expect(modeOf(folder.path)).toBe(mode);
  });

  test('refuses a link, to whatever it leads', () => {
    using folder = new Folder();
    const link = join(folder.path, 'link');
    symlinkSync(folder.path, link);
    expect(() => makeControlDirectory(link)).toThrow(refusal(/it is no directory/));
    symlinkSync('/nowhere', join(folder.path, 'broken'));
    expect(() => makeControlDirectory(join(folder.path, 'broken'))).toThrow(
      refusal(/it is no directory/),
    );
  });

  test('refuses a file, and a place where none can be', () => {
    using folder = new Folder();
    writeFileSync(join(folder.path, 'file'), '');
    expect(() => makeControlDirectory(join(folder.path, 'file'))).toThrow(
      refusal(/it is no directory/),
    );
    expect(() => makeControlDirectory(join(folder.path, 'file', 'in'))).toThrow(
      refusal(/Cannot use ".*\/file\/in" for control sockets: ENOTDIR/),
    );
    expect(() => makeControlDirectory(join(folder.path, 'none', 'in'))).toThrow(refusal(/ENOENT/));
  });

  test('refuses one of another user', () => {
    using folder = new Folder();
    // As root it can be given away; for others the root directory is such a one.
    if (process.getuid!() === 0) chownSync(folder.path, 12345, 12345);
    const directory = process.getuid!() === 0 ? folder.path : '/';
    expect(() => makeControlDirectory(directory)).toThrow(
      refusal(/it belongs to user \d+, not to/),
    );
  });
});

describe('controlSocketPath()', () => {
  test('names session and side', () => {
    expect(controlSocketPath('/run', ID, 'source')).toBe(`/run/${ID}-source.sock`);
  });

  test('refuses what the system would cut off', () => {
    const longest = `/${'d'.repeat(107 - 1 - 1 - `${ID}-destination.sock`.length)}`;
    expect(controlSocketPath(longest, ID, 'destination').length).toBe(107);
    expect(() => controlSocketPath(`${longest}d`, ID, 'destination')).toThrow(
      refusal(/a socket's path has at most 107 bytes, not 108/),
    );
  });
});

describe('controlSockets()', () => {
  test('finds sockets by their names, and nothing else', () => {
    using folder = new Folder();
    const { environment } = folder;
    expect(controlSockets(environment)).toEqual([]);
    const directory = environment['PAGELANE_CONTROL_DIR']!;
    makeControlDirectory(directory);
    const names = [`${ID}-source.sock`, `${ID}-destination.sock`];
    const others = [`${ID}-source.new`, `${ID}-other.sock`, 'x-source.sock', `${ID}-source.sock~`];
    for (const name of [...names, ...others]) writeFileSync(join(directory, name), '');
    expect(controlSockets(environment)).toEqual(names.sort().map((name) => join(directory, name)));
  });

  test('a directory that others may enter is refused, unless another can be used', () => {
    using folder = new Folder();
    const unsafe = join(folder.path, 'pagelane');
    mkdirSync(unsafe);
    chmodSync(unsafe, 0o755);
    expect(() => controlSockets({ PAGELANE_CONTROL_DIR: unsafe })).toThrow(refusal(/mode is 755/));
    const temporary = process.env['TMPDIR'];
    try {
      process.env['TMPDIR'] = folder.path;
      expect(() => controlSockets({ XDG_RUNTIME_DIR: folder.path })).toThrow(
        refusal(/mode is 755/),
      );
      makeControlDirectory(join(folder.path, `pagelane-${process.getuid!()}`));
      expect(controlSockets({ XDG_RUNTIME_DIR: folder.path })).toEqual([]);
    } finally {
      if (temporary === undefined) delete process.env['TMPDIR'];
      else process.env['TMPDIR'] = temporary;
    }
  });
});

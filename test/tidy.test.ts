import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..');

/**
 * Rooms a room may import from; `root` is the files directly under src/. docs/contributing.md has
 * the table.
 */
const ALLOWED: Record<string, readonly string[]> = {
  frame: ['root'],
  page: ['root', 'frame/sequence-set'],
  stream: ['root', 'page/block'],
  path: ['root', 'frame'],
  session: ['root', 'frame', 'path'],
  staging: ['root', 'page', 'path/pacing'],
  qmp: ['root'],
  migration: ['root', 'frame', 'page', 'stream', 'path', 'session', 'staging'],
  control: ['root', 'path', 'session', 'migration'],
  cli: ['index'],
};

/** Files that must run on any clock and network: no node: module, no timer. */
const PURE = [
  'address',
  'units',
  'frame/header',
  'frame/encode',
  'frame/decode',
  'frame/offer',
  'migration/commit',
  'path/admission',
  'path/client-hello',
  'path/find',
  'path/pacing',
  'path/rate',
  'session/join-throttle',
  'session/parking',
  'session/redial',
  'session/scheduler',
  'cli/chart',
  'migration/convergence',
  'page/codec-choice',
  'page/cpu-set',
  'page/round',
  'staging/address',
  'staging/cluster-slot',
  'staging/fetch-window',
  'staging/manifest',
  'staging/manifest-codec',
  'staging/parity',
  'staging/placement',
  'staging/rate',
  'staging/stripes',
  'stream/format',
  'stream/return-path',
];

function filesUnder(folder: string, suffix: RegExp): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((file) => suffix.test(file))
    .map((file) => join(folder, file))
    .sort();
}

const sources = filesUnder('src', /\.ts$/);
const code = [
  ...sources,
  ...filesUnder('test', /\.(ts|c|cc)$/),
  ...filesUnder('bench', /\.ts$/),
  ...filesUnder('examples', /\.ts$/),
  ...filesUnder('scripts', /\.(ts|mjs)$/),
  ...filesUnder('native', /\.(cc|h)$/),
];

const read = (file: string): string => readFileSync(join(ROOT, file), 'utf8');

function placeOf(file: string): string {
  return relative(join(ROOT, 'src'), join(ROOT, file)).replaceAll(sep, '/').replace(/\.ts$/, '');
}

function roomOf(file: string): string {
  const parts = placeOf(file).split('/');
  return parts.length === 1 ? 'root' : parts[0]!;
}

function importsOf(file: string): string[] {
  return [...read(file).matchAll(/from '(\.[^']+)'/g)].map((match) =>
    join(dirname(file), match[1]!),
  );
}

test('rooms import only from the rooms below them', () => {
  const wrong = sources.flatMap((file) =>
    importsOf(file)
      .filter((target) => !isAllowed(file, target))
      .map((target) => `${file} imports ${target}`),
  );
  expect(wrong).toEqual([]);
});

function isAllowed(file: string, target: string): boolean {
  const room = roomOf(file);
  if (placeOf(file) === 'index') return roomOf(target) !== 'cli';
  if (room === roomOf(target)) return room !== 'root' || placeOf(target) !== 'index';
  const allowed = ALLOWED[room] ?? [];
  if (room === 'cli') return placeOf(target) === 'index';
  return allowed.includes(roomOf(target)) || allowed.includes(placeOf(target));
}

test('only page and stream load the addon', () => {
  const wrong = sources.filter(
    (file) =>
      importsOf(file).some((target) => placeOf(target) === 'native') &&
      !['page', 'stream', 'migration'].includes(roomOf(file)),
  );
  expect(wrong).toEqual([]);
});

test('imports have no cycle', () => {
  const graph = new Map(sources.map((file) => [file, importsOf(file)]));
  const done = new Set<string>();
  const visit = (file: string, trail: readonly string[]): void => {
    expect(trail, 'cycle').not.toContain(file);
    if (done.has(file)) return;
    for (const next of graph.get(file) ?? []) visit(next, [...trail, file]);
    done.add(file);
  };
  for (const file of sources) visit(file, []);
});

test('pure files import no node: module and hold no timer', () => {
  const wrong = PURE.filter((place) => {
    const text = read(join('src', `${place}.ts`));
    return /from 'node:|setTimeout|setInterval|Date\.now|performance\.now|Math\.random/.test(text);
  });
  expect(wrong).toEqual([]);
});

test('only index.ts re-exports, and nothing is exported by default', () => {
  const reexports = sources.filter((file) =>
    /^export (\*|\{[^}]*\}|type \{[^}]*\}) from/m.test(read(file)),
  );
  expect(reexports).toEqual(['src/index.ts']);
  expect(sources.filter((file) => /^export default/m.test(read(file)))).toEqual([]);
});

test('kernels know no Node header', () => {
  const wrong = filesUnder('native/kernel', /\.(cc|h)$/).filter((file) =>
    /#include [<"](napi|node|uv|v8|binding)/.test(read(file)),
  );
  expect(wrong).toEqual([]);
});

test('files have at most 600 lines, lines at most 100 columns, functions at most 70 lines', () => {
  const wrong = code.flatMap((file) => {
    const lines = read(file).split('\n');
    const found = lines.length > 600 ? [`${file} has ${lines.length} lines`] : [];
    for (const [index, line] of lines.entries()) {
      if (line.length > columnsMax(line))
        found.push(`${file}:${index + 1} has ${line.length} columns`);
    }
    return [...found, ...longFunctions(file, lines)];
  });
  expect(wrong).toEqual([]);
});

/** A message stays in one piece, so that it can be searched for. */
function columnsMax(line: string): number {
  return /['"`]/.test(line) && !/^\s*(\*|\/)/.test(line) ? 120 : 100;
}

function longFunctions(file: string, lines: readonly string[]): string[] {
  if (!file.startsWith('src') && !file.startsWith('native')) return [];
  const found: string[] = [];
  let begin = -1;
  let indent = '';
  for (const [index, line] of lines.entries()) {
    const head = /^(\s*)\S.*\) ?(:.*)?(const |noexcept |override )*\{$/.exec(line);
    if (begin < 0 && head !== null && head[1]!.length <= 2 && !/^\s*(class|namespace)/.test(line)) {
      begin = index;
      indent = head[1]!;
    } else if (begin >= 0 && line.startsWith(`${indent}}`)) {
      if (index - begin > 70) found.push(`${file}:${begin + 1} is ${index - begin} lines long`);
      begin = -1;
    }
  }
  return found;
}

test('nothing is left for later', () => {
  const marks = new RegExp(['TO', 'DO|FIX', 'ME|XX', 'X\\b|HA', 'CK\\b'].join(''));
  const wrong = code.filter((file) => file !== 'test/tidy.test.ts' && marks.test(read(file)));
  expect(wrong).toEqual([]);
  const skipped = filesUnder('test', /\.test\.ts$/).filter((file) =>
    /\b(it|test|describe)\.(only|skip|todo)\b/.test(read(file)),
  );
  expect(skipped.filter((file) => file !== 'test/tidy.test.ts')).toEqual([]);
});

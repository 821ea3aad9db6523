import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { KeptMemory } from '../../src/index.ts';

const LAYOUT = {
  pageBits: 12,
  hasFooter: false,
  sectionId: 0,
  blocks: [
    { name: 'ram', usedBytes: 8192 },
    { name: 'rom', usedBytes: 4096 },
  ],
};
const KEY = { owner: 'ann', name: 'vm' };

let folder: string;
beforeEach(() => {
  folder = mkdtempSync('/dev/shm/pagelane-kept-');
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const pathsOf = (name: string): string[] => [0, 1].map((block) => join(folder, `${name}-${block}`));

function makeFiles(name: string, letter: string): string[] {
  const paths = pathsOf(name);
  for (const [block, path] of paths.entries()) writeFileSync(path, letter.repeat(8192 >> block));
  return paths;
}

test('files are given back to the same guest of the same owner, once', async () => {
  const kept = new KeptMemory(join(folder, 'kept'), { bytesMax: 1e6 });
  expect(await kept.keep(KEY, LAYOUT, makeFiles('a', 'x'))).toBe(true);
  expect(await kept.bytes()).toBe(12288 + 4096);
  expect(existsSync(pathsOf('a')[0]!)).toBe(false);
  expect(await kept.take({ ...KEY, owner: 'bob' }, LAYOUT, pathsOf('b'))).toBe(false);
  expect(await kept.take({ ...KEY, name: 'other' }, LAYOUT, pathsOf('b'))).toBe(false);
  expect(await kept.take(KEY, LAYOUT, pathsOf('b'))).toBe(true);
  expect(readFileSync(pathsOf('b')[1]!, 'utf8')).toBe('x'.repeat(4096));
  expect(await kept.take(KEY, LAYOUT, pathsOf('c'))).toBe(false);
  expect(await kept.bytes()).toBe(0);
});

test('files of other RAM blocks are not given, and not kept any longer', async () => {
  const kept = new KeptMemory(join(folder, 'kept'), { bytesMax: 1e6 });
  await kept.keep(KEY, LAYOUT, makeFiles('a', 'x'));
  const larger = { ...LAYOUT, blocks: [{ name: 'ram', usedBytes: 4096 }, LAYOUT.blocks[1]!] };
  expect(await kept.take(KEY, larger, pathsOf('b'))).toBe(false);
  expect(await kept.take(KEY, LAYOUT, pathsOf('b'))).toBe(false);
});

test('the guests that were kept first make room; one that is too large is removed', async () => {
  const kept = new KeptMemory(join(folder, 'kept'), { bytesMax: 40_000 });
  for (const name of ['one', 'two', 'three']) {
    expect(await kept.keep({ owner: 'ann', name }, LAYOUT, makeFiles(name, 'y'))).toBe(true);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  expect(await kept.bytes()).toBeLessThanOrEqual(40_000);
  expect(await kept.take({ owner: 'ann', name: 'one' }, LAYOUT, pathsOf('b'))).toBe(false);
  expect(await kept.take({ owner: 'ann', name: 'three' }, LAYOUT, pathsOf('b'))).toBe(true);
  const small = new KeptMemory(join(folder, 'small'), { bytesMax: 1000 });
  const files = makeFiles('big', 'z');
  expect(await small.keep(KEY, LAYOUT, files)).toBe(false);
  expect(existsSync(files[0]!)).toBe(false);
});

test('names are no paths, and what cannot be moved is an error', async () => {
  const kept = new KeptMemory(join(folder, 'kept'), { bytesMax: 1e6 });
  const key = { owner: '../../ann', name: '/etc/passwd' };
  expect(await kept.keep(key, LAYOUT, makeFiles('a', 'x'))).toBe(true);
  await kept.drop(key);
  expect(await kept.bytes()).toBe(0);
  await expect(kept.keep(KEY, LAYOUT, [join(folder, 'none')])).rejects.toMatchObject({
    code: 'ERR_KEPT_MEMORY',
  });
  mkdirSync(pathsOf('d')[0]!);
  await kept.keep(KEY, LAYOUT, makeFiles('e', 'x'));
  await expect(kept.take(KEY, LAYOUT, pathsOf('d'))).rejects.toMatchObject({
    code: 'ERR_KEPT_MEMORY',
  });
});

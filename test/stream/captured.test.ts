import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliDecompressSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { readPages, type StreamPages } from '../naive/migration-stream.ts';
import { repositoryRoot } from '../support/lab/binaries.ts';
import { createPrng } from '../support/prng.ts';
import { cutAnywhere, readAll, shuffledInEpochs, writeAll } from './support.ts';

/*
 * Streams of real QEMUs, captured by scripts/capture: through reader, encoder, decoder and writer.
 */

const FOLDER = join(repositoryRoot, 'test/fixtures');
const FIXTURES = readdirSync(FOLDER).filter((name) => name.endsWith('.br'));
const CHUNK_BYTES = [200_000, 4096, 700, 61] as const;

function fixture(name: string): Buffer {
  return brotliDecompressSync(readFileSync(join(FOLDER, name)));
}

function expectSamePages(seen: StreamPages, wanted: StreamPages): void {
  expect([...seen.pages.keys()].sort()).toEqual([...wanted.pages.keys()].sort());
  const wrong = [...wanted.pages].filter(
    ([page, content]) => !content.equals(seen.pages.get(page)!),
  );
  expect(wrong.map(([page]) => page)).toEqual([]);
}

test('there are streams of both QEMUs, of every kind, and small', () => {
  for (const version of ['7.2', '10.0']) {
    for (const name of ['pc', 'microvm', 'return-path', 'xbzrle']) {
      expect(FIXTURES).toContain(`qemu-${version}-${name}.br`);
    }
  }
  for (const name of FIXTURES) {
    expect(readFileSync(join(FOLDER, name)).length).toBeLessThan(200 * 1024);
  }
  const records = FIXTURES.map((name) => readPages(fixture(name)).records);
  for (const { zero, page } of records) {
    expect(zero).toBeGreaterThan(4000);
    expect(page).toBeGreaterThan(40);
  }
  expect(records.some(({ xbzrle }) => xbzrle > 0)).toBe(true);
});

describe.each(FIXTURES)('%s', (name) => {
  const input = fixture(name);

  test.each(CHUNK_BYTES)('comes out as it went in, in chunks of up to %i bytes', async (bytes) => {
    const random = createPrng(bytes);
    const { found, layout, reader } = readAll(cutAnywhere(input, random, bytes), {
      flushEachChunk: bytes === 700,
      literalBytes: 8 * 4096,
    });
    expect(reader.fallback).toBeUndefined();
    expect(() => reader.end()).not.toThrow();
    expect(reader.hasReturnPath).toBe(name.includes('return-path'));
    const order = found.map((_, index) => index);
    const output = await writeAll(found, layout, order, {
      codec: bytes === 4096 ? 'zstd' : 'lz4',
      storeSlots: bytes === 700 ? 0 : 64,
    });
    expect(Buffer.compare(output, input)).toBe(0);
  });

  test('holds the same memory, epochs being applied in any order', async () => {
    const random = createPrng(5);
    const { found, layout } = readAll([input], { literalBytes: 16 * 4096 });
    const output = await writeAll(found, layout, shuffledInEpochs(found, random), {
      storeSlots: 300,
    });
    const [seen, wanted] = [readPages(Buffer.from(output)), readPages(input)];
    expectSamePages(seen, wanted);
    expect(seen.records).toEqual(wanted.records);
    // Device state follows, as it was.
    const tail = input.subarray(wanted.endOfRam);
    expect(Buffer.compare(output.subarray(seen.endOfRam), tail)).toBe(0);
  });

  test('is noticed to be cut before its end of RAM', () => {
    const { endOfRam } = readPages(input);
    for (const bytes of [endOfRam - 1, endOfRam >> 1]) {
      const { reader } = readAll([input.subarray(0, bytes)]);
      expect(() => reader.end()).toThrow(/ended early/);
    }
    const { reader } = readAll([input.subarray(0, endOfRam)]);
    expect(() => reader.end()).not.toThrow();
  });
});

test('the check above sees one byte of one page', () => {
  const input = fixture(FIXTURES[0]!);
  const wanted = readPages(input);
  const pages = new Map(wanted.pages);
  const [first] = pages.keys();
  const content = Buffer.from(pages.get(first!)!);
  content[100]! ^= 1;
  pages.set(first!, content);
  expect(() => expectSamePages({ ...wanted, pages }, wanted)).toThrow();
});

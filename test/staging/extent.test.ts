import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { batchesOf, ExtentBuilder, ExtentKind, ExtentSeal } from '../../src/staging/extent.ts';
import {
  EXTENT_BYTES_MAX,
  EXTENT_PLAIN_BYTES_MAX,
  EXTENTS_MAX,
  SEAL_BYTES,
} from '../../src/staging/limits.ts';

const key = randomBytes(32);
const scope = { vm: 'guest', attempt: 'a'.repeat(32) };
const seal = new ExtentSeal(key, scope);
const plain = new TextEncoder().encode('pages of a guest');

function codeOf(open: () => unknown): string {
  try {
    open();
    return 'none';
  } catch (cause) {
    return (cause as { code?: string }).code ?? String(cause);
  }
}

describe('a seal', () => {
  test('opens to what was sealed, and is never the same twice', () => {
    const values = new Set<string>();
    for (let number = 0; number < 100; number++) {
      const value = seal.seal(ExtentKind.Pages, number, plain);
      expect(value).toHaveLength(plain.length + SEAL_BYTES);
      expect(Uint8Array.from(seal.open(ExtentKind.Pages, number, value))).toEqual(plain);
      values.add(Buffer.from(value).toString('hex'));
    }
    expect(values.size).toBe(100);
  });

  test.each([
    ['another guest', new ExtentSeal(key, { ...scope, vm: 'other' })],
    ['another attempt', new ExtentSeal(key, { ...scope, attempt: 'b'.repeat(32) })],
    ['another key', new ExtentSeal(randomBytes(32), scope)],
  ])('does not open for %s', (_, other) => {
    const value = other.seal(ExtentKind.Pages, 3, plain);
    expect(codeOf(() => seal.open(ExtentKind.Pages, 3, value))).toBe('ERR_EXTENT_SEAL');
  });

  test('does not open at another place, or as something else', () => {
    const value = seal.seal(ExtentKind.Pages, 3, plain);
    expect(codeOf(() => seal.open(ExtentKind.Pages, 4, value))).toBe('ERR_EXTENT_SEAL');
    expect(codeOf(() => seal.open(ExtentKind.Manifest, 3, value))).toBe('ERR_EXTENT_SEAL');
  });

  test('does not open with any bit flipped, or any byte missing', () => {
    const value = seal.seal(ExtentKind.Pages, 3, plain);
    for (let bit = 0; bit < 8 * value.length; bit++) {
      const flipped = Uint8Array.from(value);
      flipped[bit >>> 3]! ^= 1 << (bit & 7);
      expect(codeOf(() => seal.open(ExtentKind.Pages, 3, flipped))).toBe('ERR_EXTENT_SEAL');
    }
    for (let length = 0; length < value.length; length++) {
      const code = codeOf(() => seal.open(ExtentKind.Pages, 3, value.subarray(0, length)));
      expect(code).toBe(length <= SEAL_BYTES ? 'ERR_EXTENT_LENGTH' : 'ERR_EXTENT_SEAL');
    }
  });

  test('limits', () => {
    const most = new Uint8Array(EXTENT_PLAIN_BYTES_MAX);
    expect(seal.seal(ExtentKind.Pages, EXTENTS_MAX - 1, most)).toHaveLength(EXTENT_BYTES_MAX);
    expect(() => seal.seal(ExtentKind.Pages, EXTENTS_MAX, plain)).toThrow(RangeError);
    expect(() => seal.seal(ExtentKind.Pages, 0, new Uint8Array(most.length + 1))).toThrow(
      RangeError,
    );
    expect(() => seal.seal(ExtentKind.Pages, 0, new Uint8Array(0))).toThrow(RangeError);
    const tooLong = new Uint8Array(EXTENT_BYTES_MAX + 1);
    expect(codeOf(() => seal.open(ExtentKind.Pages, 0, tooLong))).toBe('ERR_EXTENT_LENGTH');
    expect(() => new ExtentSeal(new Uint8Array(16), scope)).toThrow(RangeError);
    for (const vm of ['', 'a:b', 'a*', 'a'.repeat(65), 'ä']) {
      expect(() => new ExtentSeal(key, { ...scope, vm })).toThrow(RangeError);
    }
    expect(() => new ExtentSeal(key, { ...scope, attempt: 'a' })).toThrow(RangeError);
  });
});

describe('batches in an extent', () => {
  test('come out as they went in, as many as fit', () => {
    const batches = fc.array(fc.uint8Array({ minLength: 1, maxLength: 30_000 }), { minLength: 1 });
    fc.assert(
      fc.property(batches, (all) => {
        const builder = new ExtentBuilder();
        const inside = all.filter((batch) => {
          if (!builder.fits(batch.length)) return false;
          builder.add(batch);
          return true;
        });
        const found = batchesOf(builder.take());
        expect(found.map((batch) => Buffer.compare(batch, inside.shift()!))).toEqual(
          found.map(() => 0),
        );
        expect(inside).toEqual([]);
        expect(builder.isEmpty).toBe(true);
      }),
      { numRuns: 50 },
    );
  });

  test('one that does not fit is refused', () => {
    const builder = new ExtentBuilder();
    expect(() => builder.add(new Uint8Array(EXTENT_PLAIN_BYTES_MAX - 1))).toThrow(RangeError);
    expect(() => builder.add(new Uint8Array(0))).toThrow(RangeError);
    builder.add(new Uint8Array(EXTENT_PLAIN_BYTES_MAX - 2));
    expect(builder.take()).toHaveLength(EXTENT_PLAIN_BYTES_MAX);
  });

  test('contents that are cut anywhere else than behind a batch are refused', () => {
    const builder = new ExtentBuilder();
    for (const bytes of [5, 1, 300]) builder.add(new Uint8Array(bytes));
    const contents = builder.take().slice();
    const ends = new Set([0, 7, 10, 312]);
    for (let end = 0; end <= contents.length; end++) {
      const code = codeOf(() => batchesOf(contents.subarray(0, end)));
      expect(code, `end ${end}`).toBe(ends.has(end) ? 'none' : 'ERR_EXTENT_FORMAT');
    }
    expect(codeOf(() => batchesOf(new Uint8Array(2)))).toBe('ERR_EXTENT_FORMAT');
  });
});

import { array, assert, constantFrom, integer, property, uint8Array } from 'fast-check';
import { expect, test } from 'vitest';
import { native } from '../../src/native.ts';
import { naiveDelta } from '../naive/delta.ts';
import { createPrng, exactRandomBytes, integerBelow } from '../support/prng.ts';

const features = native.features();
const PAGE_BYTES = [64, 1024, 4096, 4160];

function zeros(byteCount: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new ArrayBuffer(byteCount));
}

/** A page size, and changes to a page of that size: where, and what is XORed to it. */
const pageBytes = constantFrom(...PAGE_BYTES);
const changes = array(
  integer({ min: 0, max: 0xffff_ffff }).map((bits) => [bits >>> 8, bits & 0xff] as const),
  { maxLength: 40 },
);

function changed(base: Uint8Array, edits: readonly (readonly [number, number])[]): Uint8Array {
  const page = base.slice();
  for (const [at, bits] of edits) page[at % page.length]! ^= bits;
  return page;
}

test('features() names the chosen variant of each kernel among those that run', () => {
  for (const kernel of ['fillPage', 'delta', 'similarity', 'hash'] as const) {
    const variants = features[`${kernel}Variants`];
    expect(variants[0]).toBe('portable');
    expect(variants).toContain(features[kernel]);
  }
});

test.each(features.fillPageVariants)('isFillPage() %s sees one changed byte', (variant) => {
  for (const size of PAGE_BYTES) {
    const page = zeros(size + 3).subarray(3);
    for (let at = 0; at < size; at++) page[at] = 17 * (1 + (at % 8));
    expect(native.isFillPage(page, variant)).toBe(true);
    for (let at = 0; at < size; at++) {
      page[at]! ^= 1;
      if (native.isFillPage(page, variant)) expect.fail(`byte ${at} of ${size} was missed`);
      page[at]! ^= 1;
    }
  }
});

test.each(features.deltaVariants)('encodeDelta() %s is the naive one, and applies', (variant) => {
  const random = createPrng(5);
  assert(
    property(pageBytes, changes, (size, edits) => {
      const base = exactRandomBytes(random, size);
      const page = changed(base, edits);
      const wanted = naiveDelta(base, page);
      const out = zeros(wanted.length);
      expect(native.encodeDelta(base, page, out, variant)).toBe(wanted.length);
      expect(Buffer.compare(out, wanted)).toBe(0);
      if (wanted.length > 0) {
        const small = zeros(wanted.length - 1);
        expect(native.encodeDelta(base, page, small, variant)).toBe(-1);
      }
      expect(native.applyDelta(out, base)).toBe(true);
      expect(Buffer.compare(base, page)).toBe(0);
    }),
  );
});

test('encodeDelta() of equal pages is nothing, and nothing changes nothing', () => {
  const page = exactRandomBytes(createPrng(1), 4096);
  expect(native.encodeDelta(page, page.slice(), zeros(0))).toBe(0);
  const same = page.slice();
  expect(native.applyDelta(zeros(0), same)).toBe(true);
  expect(Buffer.compare(same, page)).toBe(0);
});

test('applyDelta() accepts only what encodeDelta() writes', () => {
  assert(
    property(uint8Array({ maxLength: 60 }), (bytes) => {
      const page = zeros(1024);
      if (!native.applyDelta(bytes, page)) return;
      // Words XORed with zero are unchanged: they are the one thing that can be said in two ways.
      const again = naiveDelta(zeros(1024), page);
      expect(again.length).toBeLessThanOrEqual(bytes.length);
    }),
    { numRuns: 1000 },
  );
});

test('applyDelta() refuses every truncation', () => {
  const random = createPrng(9);
  const base = exactRandomBytes(random, 4096);
  const page = base.slice();
  for (let at = 3; at < 4096; at += 500) page[at]! ^= 1;
  const out = zeros(4096);
  const delta = out.subarray(0, native.encodeDelta(base, page, out));
  for (let length = 1; length < delta.length; length++) {
    if (length % 10 === 0) continue; // whole runs of two counts and a word
    const exact = delta.slice(0, length);
    if (native.applyDelta(exact, base.slice())) expect.fail(`${length} bytes were accepted`);
  }
});

test.each(features.similarityVariants)('findFeatures() %s is the naive one', (variant) => {
  const random = createPrng(13);
  for (const size of PAGE_BYTES) {
    const page = exactRandomBytes(random, size);
    for (let word = 0; word < size / 8; word++) {
      if (integerBelow(random, 3) === 0) page.fill(0, word * 8, word * 8 + 8);
    }
    const found = new Uint32Array(4);
    native.findFeatures(page, found, variant);
    expect([...found]).toEqual(naiveFeatures(page));
  }
});

/** The largest product of a word's hash and each factor; native/kernel/similarity.h. */
function naiveFeatures(page: Uint8Array): number[] {
  const words = new DataView(page.buffer, page.byteOffset, page.byteLength);
  return [0xc2b2ae3d, 0x27d4eb2f, 0x165667b1, 0xd35a2d97].map((factor) => {
    let largest = 0;
    for (let at = 0; at < page.length; at += 8) {
      const low = Math.imul(words.getUint32(at, true), 0x9e3779b1);
      const high = Math.imul(words.getUint32(at + 4, true), 0x85ebca77);
      const mixed = (low ^ high) >>> 0;
      largest = Math.max(largest, Math.imul(mixed ^ (mixed >>> 15), factor) >>> 0);
    }
    return largest;
  });
}

test('findFeatures() of similar pages are mostly the same, of others not', () => {
  const random = createPrng(17);
  let [similar, other] = [0, 0];
  const [one, two] = [new Uint32Array(4), new Uint32Array(4)];
  for (let round = 0; round < 50; round++) {
    const page = exactRandomBytes(random, 4096);
    native.findFeatures(page, one);
    for (let left = 16; left > 0; left--) page[integerBelow(random, 4096)]! ^= 0x40;
    native.findFeatures(page, two);
    similar += one.filter((feature, k) => feature === two[k]).length;
    native.findFeatures(exactRandomBytes(random, 4096), two);
    other += one.filter((feature, k) => feature === two[k]).length;
  }
  expect(similar).toBeGreaterThan(170);
  expect(other).toBe(0);
});

test('kernels refuse pages and variants that do not fit', () => {
  const page = zeros(128);
  const found = new Uint32Array(4);
  for (const size of [0, 8, 63, 65]) {
    expect(() => native.isFillPage(zeros(size))).toThrow(RangeError);
    expect(() => native.encodeDelta(zeros(size), zeros(size), page)).toThrow(RangeError);
    expect(() => native.applyDelta(page, zeros(size))).toThrow(RangeError);
    expect(() => native.findFeatures(zeros(size), found)).toThrow(RangeError);
  }
  expect(() => native.encodeDelta(page, zeros(64), page)).toThrow(RangeError);
  expect(() => native.findFeatures(page, new Uint32Array(3))).toThrow(RangeError);
  expect(() => native.isFillPage(page, 'none')).toThrow('features().fillPageVariants');
  expect(() => native.encodeDelta(page, page, page, 'none')).toThrow('features().deltaVariants');
  expect(() => native.findFeatures(page, found, 'none')).toThrow('similarityVariants');
  expect(() => native.hash64(page, 0n, 'none')).toThrow('features().hashVariants');
  expect(() => native.isFillPage(page, 1 as unknown as string)).toThrow(TypeError);
});

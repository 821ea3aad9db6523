import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import * as item from '../../src/stream/item.ts';
import { StreamBuilder } from '../support/qemu-stream.ts';

const { NEED_MORE, NOT_KNOWN } = item;
const SECTIONS = { ram: 2, bitmap: 3 };
const FORM = { hasAddresses: false, mayHavePageSizes: false };
const build = (): StreamBuilder => new StreamBuilder({ blocks: [{ name: 'pc.ram', pages: 4 }] });
const u64 = (value: number | bigint): number[] => [...build().u64(value).bytes()];

/** An item is measured once it is there as a whole, whatever follows; before that it needs more. */
function expectMeasured(measure: (bytes: Uint8Array) => number, whole: Uint8Array): void {
  for (let count = 1; count < whole.length; count++) {
    expect(measure(whole.slice(0, count)), `${count} of ${whole.length} bytes`).toBe(NEED_MORE);
  }
  expect(measure(whole)).toBe(whole.length);
  expect(measure(Uint8Array.of(...whole, 8, 9))).toBe(whole.length);
}

describe('header', () => {
  test('mayBeHeader() is true for the magic as far as it goes', () => {
    const magic = Buffer.from('QEVM');
    for (let count = 0; count <= 4; count++)
      expect(item.mayBeHeader(magic.subarray(0, count))).toBe(true);
    for (let at = 0; at < 4; at++) {
      const other = new Uint8Array(magic).with(at, 0);
      expect(item.mayBeHeader(other.subarray(0, at + 1))).toBe(false);
    }
  });

  test('measureRecovery() finds the command that a recovered post-copy begins with', () => {
    expect(item.measureRecovery(Uint8Array.of(8))).toBe(NEED_MORE);
    expect(item.measureRecovery(Uint8Array.of(8, 0))).toBe(NOT_KNOWN);
    expect(item.measureRecovery(Uint8Array.of(8, 1))).toBe(0);
    expect(item.measureRecovery(Buffer.from('QEVM'))).toBe(0);
  });
});

describe('measureConfiguration()', () => {
  const { measureConfiguration: measure } = item;

  test('measures the configuration and the subsections it knows', () => {
    expectMeasured(measure, build().raw([7]).u32(5).raw([1, 2, 3, 4, 5]).bytes());
    const pageBits = build().subsection('configuration/target-page-bits', [0, 0, 0, 14]).bytes();
    expectMeasured(measure, pageBits);
    expect(item.readConfiguration(pageBits)).toMatchObject({ pageBits: 14 });
    expectMeasured(measure, build().subsection('configuration/uuid', new Uint8Array(16)).bytes());
    const names = [...build().u32(2).text('xbzrle').text('x-ignore-shared').bytes()];
    const capabilities = build().subsection('configuration/capabilities', names).bytes();
    expectMeasured(measure, capabilities);
    expect(item.readConfiguration(capabilities).ignoresShared).toBe(true);
  });

  test('is over where something else begins', () => {
    expect(measure(Uint8Array.of(8, 0, 1))).toBe(0);
    expect(measure(Uint8Array.of(1))).toBe(0);
  });

  test.each([
    ['a machine name too long', build().raw([7]).u32(4097).bytes()],
    [
      'page bits too small',
      build().subsection('configuration/target-page-bits', [0, 0, 0, 9]).bytes(),
    ],
    [
      'page bits too large',
      build().subsection('configuration/target-page-bits', [0, 0, 0, 17]).bytes(),
    ],
    ['an unknown subsection', build().subsection('configuration/new', [1]).bytes()],
    [
      'too many capabilities',
      build().subsection('configuration/capabilities', [0, 0, 0, 65]).bytes(),
    ],
    [
      'pages that are not in the stream',
      build()
        .subsection('configuration/capabilities', [0, 0, 0, 1, 10, ...Buffer.from('mapped-ram')])
        .bytes(),
    ],
  ])('does not know %s', (_what, bytes) => {
    expect(measure(bytes)).toBe(NOT_KNOWN);
  });
});

describe('measureItem()', () => {
  const measure = (bytes: Uint8Array): number => item.measureItem(bytes, SECTIONS);

  test.each([1, 2, 3, 11])('measures command %i', (command) => {
    expectMeasured(measure, build().command(command, [1, 2, 3, 4]).bytes());
  });

  test.each([4, 5, 6, 7, 8, 9, 10, 12, 999])('does not know command %i', (command) => {
    expect(measure(build().command(command, [1]).bytes())).toBe(NOT_KNOWN);
  });

  test('measures footers and the headers of what it follows', () => {
    expectMeasured(measure, build().footer(2).bytes());
    expectMeasured(measure, build().section(1, 2, 'ram', 4).bytes());
    expectMeasured(measure, build().section(1, 3, 'dirty-bitmap', 1).bytes());
    expectMeasured(measure, build().raw([2]).u32(2).bytes());
    expectMeasured(measure, build().raw([3]).u32(3).bytes());
  });

  test.each([
    ['START of another', build().section(1, 4, 'vfio', 1).bytes()],
    ['FULL of RAM', build().section(4, 2, 'ram', 4).bytes()],
    ['PART of another', build().raw([2]).u32(9).bytes()],
    ['END of another', build().raw([3]).u32(9).bytes()],
    ['EOF', Uint8Array.of(0)],
    ['a type that is none', Uint8Array.of(77)],
  ])('does not know %s', (_what, bytes) => {
    expect(measure(bytes)).toBe(NOT_KNOWN);
  });

  test('virtio-mem: header and fields, then a bitmap', () => {
    const fields = [...u64(0), ...u64(1 << 27), ...u64(1 << 21), ...u64(0), 0, 0, 0, 0];
    const whole = build().section(4, 5, 'virtio-mem-device-early', 1).raw(fields).bytes();
    expectMeasured(measure, whole);
    expect(item.virtioMemBitmapBytes(whole)).toBe(8);
  });
});

describe("the body of RAM's START section", () => {
  const name = fc.string({ minLength: 1, maxLength: 255, unit: 'grapheme-ascii' });
  const block = fc.record({ name, pages: fc.integer({ min: 1, max: 1 << 20 }) });

  function bodyOf(
    blocks: readonly { name: string; pages: number }[],
    more: (index: number) => number[] = () => [],
  ): Uint8Array {
    const total = blocks.reduce((sum, { pages }) => sum + pages * 4096, 0);
    const body = build().u64(BigInt(total) | 4n);
    for (const [index, each] of blocks.entries()) {
      body
        .text(each.name)
        .u64(each.pages * 4096)
        .raw(more(index));
    }
    return body.u64(0x10).bytes();
  }

  test('is measured and read, in each of its forms', () => {
    const forms = fc.record({ hasAddresses: fc.boolean(), mayHavePageSizes: fc.boolean() });
    const blocks = fc.array(block, { minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(forms, blocks, fc.nat(63), (form, list, sizesMask) => {
        const more = (index: number): number[] => [
          ...(form.hasAddresses ? u64(index * 4096) : []),
          ...(form.mayHavePageSizes && ((sizesMask >> index) & 1) === 1 ? u64(2097152) : []),
        ];
        const body = bodyOf(list, more);
        expect(item.measureRamStart(body, form)).toBe(body.length);
        expect(item.measureRamStart(body.slice(0, -1), form)).toBe(NEED_MORE);
        const found = item.readRamStart(body, form);
        expect(found).toEqual(list.map(({ name, pages }) => ({ name, usedBytes: pages * 4096 })));
      }),
    );
  });

  test('needs more at every cut', () => {
    expectMeasured((bytes) => item.measureRamStart(bytes, FORM), bodyOf([{ name: 'a', pages: 2 }]));
  });

  test.each([
    ['no MEM_SIZE', build().u64(0x1008).bytes()],
    [
      'a block without a name',
      build()
        .u64(4096n | 4n)
        .raw([0])
        .u64(4096)
        .bytes(),
    ],
    [
      'a block larger than all',
      build()
        .u64(4096n | 4n)
        .text('a')
        .u64(8192)
        .bytes(),
    ],
    [
      'something behind the blocks',
      build()
        .u64(4096n | 4n)
        .text('a')
        .u64(4096)
        .u64(0x80)
        .bytes(),
    ],
  ])('does not know %s', (_what, bytes) => {
    expect(item.measureRamStart(bytes, FORM)).toBe(NOT_KNOWN);
  });

  test('saysMultifd() finds the mark behind the blocks', () => {
    const blocks = build()
      .u64(4096n | 4n)
      .text('a')
      .u64(4096);
    expect(item.saysMultifd(blocks.bytes(), FORM)).toBe(false);
    expect(item.saysMultifd(blocks.u64(0x200).bytes(), FORM)).toBe(true);
    expect(item.saysMultifd(bodyOf([{ name: 'a', pages: 2 }]), FORM)).toBe(false);
    expect(item.isMultifdFlush(Uint8Array.of(0, 0, 0, 0, 0, 0, 2))).toBe(false);
  });

  test('has an end, also where blocks are empty', () => {
    const body = build().u64(4096n | 4n);
    for (let count = 0; count < 5000; count++) body.text('a').u64(0);
    expect(item.measureRamStart(body.bytes(), FORM)).toBe(NOT_KNOWN);
  });
});

test('hasSeveralPageSizes() is true where the sum is no power of two', () => {
  expect([0n, 4096n, 1n << 21n].map(item.hasSeveralPageSizes)).toEqual([false, false, false]);
  expect(item.hasSeveralPageSizes(4096n + (1n << 21n))).toBe(true);
});

describe('dirty bitmaps', () => {
  const { measureBitmapChunk: measure } = item;
  const head = (flags: number): StreamBuilder => build().raw([flags]);

  test.each([
    ['EOS', head(0x01).bytes(), 0],
    ['START', head(0x1c).text('node').text('bitmap').raw(new Uint8Array(5)).bytes(), 0],
    ['zeroes', head(0x42).raw(new Uint8Array(12)).bytes(), 0],
    ['bits', head(0x40).raw(new Uint8Array(12)).u64(77).bytes(), 77],
    ['bits of another', head(0x4c).text('n').text('b').raw(new Uint8Array(12)).u64(5).bytes(), 5],
  ])('measures %s', (_what, whole, dataBytes) => {
    if (whole.length > 1) expectMeasured(measure, whole);
    expect(measure(whole)).toBe(whole.length);
    expect(item.bitmapDataBytes(whole)).toBe(dataBytes);
  });

  test('does not know flags that are longer', () => {
    expect(measure(Uint8Array.of(0x80))).toBe(NOT_KNOWN);
  });
});

test('describeUnknown() says it in words', () => {
  const { describeUnknown: describeIt } = item;
  expect(describeIt(build().command(4).bytes())).toBe('post-copy');
  expect(describeIt(build().command(7, [1]).bytes())).toBe('post-copy');
  expect(describeIt(build().command(8).bytes())).toBe('command 8');
  expect(describeIt(build().command(99).bytes())).toBe('command 99');
  expect(describeIt(build().section(1, 4, 'vfio', 1).bytes())).toBe('section "vfio"');
  expect(describeIt(Uint8Array.of(99, 1))).toBe('an item of type 99');
  // A name that is not there as a whole.
  for (const type of [1, 4]) {
    for (const rest of [[], [0, 0, 0, 1], [0, 0, 0, 1, 9], [0, 0, 0, 1, 9, 65, 66]]) {
      expect(describeIt(Uint8Array.of(type, ...rest))).toBe(`an item of type ${type}`);
    }
  }
});

import { expect, test } from 'vitest';
import {
  type BlockTable,
  Codec,
  Decoded,
  Encoded,
  native,
  Order,
  type PageStore,
  type RamCutter,
  Sealed,
  SLOT_ROOM_BYTES,
  type StoreIndex,
} from '../../src/native.ts';
import { RamWriter } from '../naive/ram-stream.ts';
import {
  type CutBatch,
  CutDriver,
  encode,
  openCutter,
  openTable,
  orderOf,
  SMALL,
} from './cutting.ts';

/*
 * Every export with arguments it must refuse. Nothing here may end the process.
 */

type Callable = (...args: unknown[]) => unknown;

const SLOT_BYTES = SLOT_ROOM_BYTES + 4096;
const exact = (byteCount: number): Uint8Array<ArrayBuffer> =>
  new Uint8Array(new ArrayBuffer(byteCount));
const shared = (byteCount: number): Uint8Array => new Uint8Array(new SharedArrayBuffer(byteCount));

function detached(byteCount: number): Uint8Array {
  const bytes = exact(byteCount);
  structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
  return bytes;
}

function resizable(byteCount: number): Uint8Array {
  const Resizable = ArrayBuffer as unknown as new (
    byteCount: number,
    options: { maxByteLength: number },
  ) => ArrayBuffer;
  return new Uint8Array(new Resizable(byteCount, { maxByteLength: 2 * byteCount }));
}

/** What no parameter takes as bytes. */
const NOT_BYTES: readonly unknown[] = [
  undefined,
  null,
  1,
  'bytes',
  {},
  [1, 2],
  new ArrayBuffer(8),
  new DataView(new ArrayBuffer(8)),
  new Uint8ClampedArray(8),
  new Uint16Array(8),
  new Int8Array(8),
  new Float64Array(8),
  new BigUint64Array(8),
  shared(SLOT_BYTES),
  Symbol('bytes'),
  () => 1,
  new Proxy(new Uint8Array(8), {}),
  Object.create(Uint8Array.prototype),
];

const NOT_INTEGERS: readonly unknown[] = [-1, 0.5, Number.NaN, Infinity, -Infinity, 2 ** 53, 1e300];
const NOT_NUMBERS: readonly unknown[] = [undefined, null, '1', 1n, {}, [], true, Symbol('number')];

/** Calls with one argument replaced at a time. */
function refuses(
  call: Callable,
  good: readonly unknown[],
  at: number,
  bad: readonly unknown[],
): void {
  for (const value of bad) {
    const args = good.map((argument, index) => (index === at ? value : argument));
    let thrown: unknown;
    try {
      const result = call(...args);
      if (result instanceof Promise) result.catch(() => {});
    } catch (error) {
      thrown = error;
    }
    const isRefused = thrown instanceof TypeError || thrown instanceof RangeError;
    if (!isRefused) expect.fail(`argument ${at} was ${typeof value}, thrown was ${String(thrown)}`);
  }
}

function batchInSlot(): CutBatch {
  const driver = new CutDriver(SMALL, 4096);
  const bytes = exact(1024).map((_, index) => index % 5);
  driver.push(
    new RamWriter(SMALL).begin().record({ kind: 'raw', block: 0, page: 0, bytes }).stream(),
  );
  driver.seal();
  return driver.batches[0]!;
}

test('setThreads() takes 1 to 256, processors and a nice value', () => {
  const call = native.setThreads as Callable;
  const isGiven = (value: unknown): boolean => value !== undefined;
  refuses(call, [1], 0, [...NOT_NUMBERS, ...NOT_INTEGERS, 0, 257]);
  refuses(call, [1, Uint32Array.of(0)], 1, [
    ...NOT_BYTES.filter(isGiven),
    new Int32Array(1),
    new Uint32Array(0),
    Uint32Array.of(0, 8192),
    Uint32Array.of(2 ** 32 - 1),
  ]);
  refuses(call, [1, undefined, 0], 2, [
    ...NOT_NUMBERS.filter(isGiven),
    ...NOT_INTEGERS.filter((value) => value !== -1),
    ...[-21, 20],
  ]);
  native.setThreads(256);
  native.setThreads(1);
  native.setThreads(2);
});

test('hash64() takes bytes and 64 bits', () => {
  const call = native.hash64 as Callable;
  refuses(call, [exact(4), 0n], 0, NOT_BYTES);
  refuses(call, [exact(4), 0n], 1, [
    ...NOT_NUMBERS.filter((value) => value !== 1n),
    1,
    -1n,
    1n << 64n,
  ]);
  expect(native.hash64(detached(8), 0n)).toBe(native.hash64(exact(0), 0n));
  expect(native.hash64(resizable(8), 7n)).toBe(native.hash64(exact(8), 7n));
  expect(native.hash64(exact(1), (1n << 64n) - 1n)).toBeTypeOf('bigint');
});

test('findZeroPages() takes sizes that agree', () => {
  const call = native.findZeroPages as Callable;
  const good = [exact(8192), 4096, new Uint32Array(1), 'portable'];
  expect(call(...good)).toBe(2);
  refuses(call, good, 0, [...NOT_BYTES, exact(8191), exact(4097)]);
  refuses(call, good, 1, [...NOT_NUMBERS, ...NOT_INTEGERS, 0, 63, 65, 4095, 2 ** 31]);
  refuses(call, good, 2, [...NOT_BYTES, new Uint8Array(8), new Int32Array(1), new Uint32Array(0)]);
  refuses(call, good, 3, [null, 1, {}, 'sse', '', 'portable '.repeat(20), 'portable\0']);
  expect(call(detached(8192), 4096, new Uint32Array(0))).toBe(0);
  const large = new Uint8Array(33 * 64);
  expect(() => native.findZeroPages(large, 64, new Uint32Array(1))).toThrow(RangeError);
});

test('RamCutter is constructed with page bits', () => {
  const construct = (bits: unknown): RamCutter => new native.RamCutter(bits as number);
  refuses(construct as Callable, [12], 0, [...NOT_NUMBERS, ...NOT_INTEGERS, 9, 17]);
  const call = native.RamCutter as unknown as Callable;
  expect(() => call(12)).toThrow(TypeError);
});

test('BlockTable is constructed with page bits, footer and section', () => {
  const construct = (...args: unknown[]): BlockTable =>
    new native.BlockTable(args[0] as number, args[1] as boolean, args[2] as number);
  const good = [12, true, 0xffff_ffff];
  construct(...good);
  refuses(construct as Callable, good, 0, [...NOT_NUMBERS, ...NOT_INTEGERS, 9, 17]);
  refuses(construct as Callable, good, 1, [undefined, null, 0, 1, 'true', {}]);
  refuses(construct as Callable, good, 2, [...NOT_NUMBERS, ...NOT_INTEGERS, 2 ** 32]);
});

test.each(['RamCutter', 'BlockTable'])(
  '%s setBlocks() takes only lists within the limits',
  (kind) => {
    const handle =
      kind === 'RamCutter' ? new native.RamCutter(12) : new native.BlockTable(12, true, 1);
    const call: Callable = (names, used) =>
      handle.setBlocks(names as string[], used as Float64Array);
    const good = [['a', 'b'], Float64Array.of(1, 2)];
    call(...good);
    const throwing = Object.defineProperty(['a', 'b'], 0, {
      get: () => {
        throw new RangeError('from a getter');
      },
    });
    const names = [
      [],
      ['a'],
      ['a', 'a'],
      ['a', ''],
      ['a', 'x'.repeat(256)],
      ['a', 'é'.repeat(128)],
    ];
    refuses(call, good, 0, [
      undefined,
      null,
      'ab',
      { length: 2 },
      ['a', 1],
      [Symbol('a'), 'b'],
      throwing,
    ]);
    refuses(call, good, 0, [
      ...names,
      new Array(2),
      new Array(4097).fill('a'),
      new Array(2 ** 32 - 1),
    ]);
    const sizes = [-1, 0.5, Number.NaN, Infinity, 2 ** 52 + 1, 2 ** 64, 1e300];
    refuses(
      call,
      good,
      1,
      sizes.map((size) => Float64Array.of(1, size)),
    );
    refuses(call, good, 1, [...NOT_BYTES.filter((value) => !(value instanceof Float64Array))]);
    refuses(call, good, 1, [new Float64Array(new SharedArrayBuffer(16)), new Float64Array(3)]);
    call(['é'.repeat(127), 'x'.repeat(255)], Float64Array.of(0, 1));
    const many = Array.from({ length: 4096 }, (_, index) => `block ${index}`);
    call(many, new Float64Array(4096).fill(4096));
  },
);

test('setBlocks() is not fooled by a getter that takes the other argument away', () => {
  const table = openTable(SMALL);
  const used = new Float64Array(2);
  const names = Object.defineProperty(['a', 'b'], 1, {
    get: () => {
      structuredClone(used.buffer, { transfer: [used.buffer] });
      return 'b';
    },
  });
  expect(() => table.setBlocks(names, used)).toThrow(RangeError);
});

test('RamCutter methods refuse what is not theirs', () => {
  const cutter = openCutter(SMALL);
  const { begin, cut } = native.RamCutter.prototype;
  for (const other of [{}, null, openTable(SMALL), Object.create(native.RamCutter.prototype)]) {
    expect(() => (cut as Callable).call(other, exact(1), 0, 1)).toThrow(TypeError);
    expect(() => (begin as Callable).call(other, exact(SLOT_BYTES))).toThrow(TypeError);
  }
  const beginWith: Callable = (slot) => cutter.begin(slot as Uint8Array);
  refuses(beginWith, [exact(SLOT_BYTES)], 0, [
    ...NOT_BYTES,
    exact(0),
    exact(SLOT_ROOM_BYTES + 2047),
    detached(SLOT_BYTES),
    resizable(SLOT_BYTES),
  ]);
  cutter.begin(exact(SLOT_ROOM_BYTES + 2048));
  const cutWith: Callable = (chunk, from, to) =>
    cutter.cut(chunk as Uint8Array, from as number, to as number);
  refuses(cutWith, [exact(8), 0, 8], 0, [...NOT_BYTES, exact(7), detached(8)]);
  refuses(cutWith, [exact(8), 0, 8], 1, [...NOT_NUMBERS, ...NOT_INTEGERS, 9]);
  refuses(cutWith, [exact(8), 2, 8], 2, [...NOT_NUMBERS, ...NOT_INTEGERS, 1, 9]);
  refuses((value) => cutter.setInside(value as boolean), [true], 0, [undefined, 0, 'true', null]);
  refuses((value) => cutter.seal(value as Int32Array), [new Int32Array(Sealed.count)], 0, [
    ...NOT_BYTES,
    new Uint32Array(Sealed.count),
    new Int32Array(Sealed.count - 1),
    new Int32Array(new SharedArrayBuffer(4 * Sealed.count)),
  ]);
  expect(cutter.cut(detached(8), 0, 0)).toBe(0);
  expect(cutter.cut(resizable(8).fill(1), 0, 7)).toBe(7 * 8);
});

test('RamCutter says when it is used out of turn', () => {
  const state = { code: 'ERR_CUTTER_STATE' };
  const catching = (call: () => unknown): unknown => {
    try {
      return call();
    } catch (error) {
      return error;
    }
  };
  const cutter = openCutter(SMALL);
  expect(catching(() => cutter.cut(exact(1), 0, 1))).toMatchObject(state);
  expect(catching(() => cutter.seal(new Int32Array(Sealed.count)))).toMatchObject(state);
  expect(catching(() => cutter.markSectionBegin())).toMatchObject(state);
  cutter.begin(exact(SLOT_BYTES));
  expect(catching(() => cutter.markSectionEnd())).toMatchObject(state);
  cutter.markSectionBegin();
  expect(catching(() => cutter.markSectionBegin())).toMatchObject(state);
  expect(catching(() => cutter.begin(exact(SLOT_BYTES)))).toMatchObject(state);
  expect(catching(() => cutter.setInside(false))).toMatchObject(state);
  expect(catching(() => cutter.beginEpoch())).toMatchObject(state);
  expect(catching(() => cutter.setBlocks(['a'], Float64Array.of(1)))).toMatchObject(state);
  cutter.seal(new Int32Array(Sealed.count));
  expect(catching(() => cutter.seal(new Int32Array(Sealed.count)))).toMatchObject(state);
  const slot = exact(SLOT_BYTES);
  cutter.begin(slot);
  structuredClone(slot.buffer, { transfer: [slot.buffer] });
  expect(catching(() => cutter.cut(exact(1), 0, 1))).toMatchObject(state);
  expect(catching(() => cutter.seal(new Int32Array(Sealed.count)))).toMatchObject(state);
  cutter.begin(exact(SLOT_BYTES));
  cutter.seal(new Int32Array(Sealed.count));
});

/** All arguments of `encodeBatch` for a sealed batch, with LZ4. */
function encodeArguments({ slot, sealed }: CutBatch, store?: StoreIndex): unknown[] {
  const out = exact(slot.length);
  const order = orderOf(Codec.Lz4, 1);
  return [slot.slice(), sealed[0], sealed[1], order, store, out, new Int32Array(Encoded.count)];
}

function openIndex(pageBits: number): StoreIndex {
  return new native.StoreIndex(['a'], Float64Array.of(4096), pageBits, 4);
}

test('encodeBatch() refuses wrong arguments before it starts', async () => {
  const batch = batchInSlot();
  const { sealed } = batch;
  const good = encodeArguments(batch);
  const slot = good[0] as Uint8Array;
  const call = native.encodeBatch as Callable;
  refuses(call, good, 0, [...NOT_BYTES, exact(10), detached(slot.length), resizable(slot.length)]);
  refuses(call, good, 1, [...NOT_NUMBERS, ...NOT_INTEGERS, sealed[1]! + 1]);
  refuses(call, good, 2, [...NOT_NUMBERS, ...NOT_INTEGERS, sealed[0]! - 1, slot.length + 1]);
  refuses(call, good, 3, [...NOT_BYTES, ...NOT_NUMBERS, new Int32Array(Order.count - 1)]);
  refuses(call, good, 3, [new Uint32Array(Order.count), new Float64Array(Order.count)]);
  const isGiven = (value: unknown): boolean => value !== undefined;
  const notStores = [...NOT_NUMBERS, ...NOT_BYTES, openCutter(SMALL), openTable(SMALL)];
  refuses(call, good, 4, notStores.filter(isGiven));
  const kept = new native.PageStore(10, 4);
  refuses(call, good, 4, [kept, Object.create(openIndex(10)), new Proxy(openIndex(10), {})]);
  refuses(call, good, 5, [...NOT_BYTES, slot, slot.subarray(10), exact(sealed[1]! - 1)]);
  refuses(call, good, 5, [detached(slot.length), resizable(slot.length)]);
  refuses(call, good, 6, [...NOT_BYTES, new Int32Array(Encoded.count - 1)]);
  await call(...good);
});

const NUMBER_MAX = 2 ** 31 - 2;

test.each([
  ['codec', [3, -1]],
  ['level', [0, 65538, -1]],
  ['number', [-1, NUMBER_MAX + 1, -(2 ** 31)]],
  ['base', [-1, 1, NUMBER_MAX]],
  ['flags', [-1, 4]],
] as const)(
  'encodeBatch() refuses an order whose %s is out of its limits',
  async (name, values) => {
    const good = encodeArguments(batchInSlot());
    const call = native.encodeBatch as Callable;
    for (const value of values) {
      const order = orderOf(Codec.Lz4, 1);
      order[Order[name]] = value;
      refuses(call, good, 3, [order]);
      expect(() => call(...good.with(3, order))).toThrow(`order's "${name}" must be`);
    }
    const zstd = orderOf(Codec.Zstd, 23);
    refuses(call, good, 3, [zstd, orderOf(Codec.Zstd, -131073)]);
    const last = { number: NUMBER_MAX, base: NUMBER_MAX, flags: 3 };
    await call(...good.with(3, orderOf(Codec.Zstd, 22, last)));
  },
);

test('PageStore and StoreIndex are constructed with sizes within the limits', () => {
  const store: Callable = (bits, slots) => new native.PageStore(bits as number, slots as number);
  store(10, 1);
  refuses(store, [12, 4], 0, [...NOT_NUMBERS, ...NOT_INTEGERS, 9, 17]);
  refuses(store, [12, 4], 1, [...NOT_NUMBERS, ...NOT_INTEGERS, 0, 2 ** 31 + 1]);
  const index: Callable = (...args) =>
    new native.StoreIndex(
      ...(args as [names: string[], usedBytes: Float64Array, pageBits: number, slots: number]),
    );
  const good = [['a', 'b'], Float64Array.of(4096, 1), 12, 4];
  index(...good);
  refuses(index, good, 0, [undefined, null, 'ab', ['a'], ['a', 'a'], ['a', 1], ['a', '']]);
  refuses(index, good, 1, [...NOT_NUMBERS, new Float64Array(3), Float64Array.of(1, 0.5)]);
  refuses(index, good, 2, [...NOT_NUMBERS, ...NOT_INTEGERS, 9, 17]);
  refuses(index, good, 3, [...NOT_NUMBERS, ...NOT_INTEGERS, 0, 2 ** 31 + 1]);
  for (const kind of [native.PageStore, native.StoreIndex]) {
    expect(() => (kind as unknown as Callable)(12, 4)).toThrow(TypeError);
  }
});

test('BlockTable setStore() takes a store whose pages have its size', () => {
  const table = openTable(SMALL);
  const set: Callable = (store) => table.setStore(store as PageStore);
  const index = new native.StoreIndex(['a'], Float64Array.of(4096), 10, 4);
  const good = new native.PageStore(10, 4);
  refuses(set, [good], 0, [
    ...[undefined, null, {}, 1, table, index, Object.create(good), new Proxy(good, {})],
    new native.PageStore(12, 4),
  ]);
  set(good);
});

test('encodeBatch() rejects a store whose pages have another size', async () => {
  const done = (native.encodeBatch as Callable)(...encodeArguments(batchInSlot(), openIndex(12)));
  await expect(done).rejects.toMatchObject({ code: 'ERR_BATCH_HEADER' });
});

test('encodeBatch() rejects what is no sealed batch', async () => {
  const { slot, sealed } = batchInSlot();
  const encoded = new Int32Array(Encoded.count);
  const order = orderOf(Codec.None, 0);
  for (let start = 0; start <= sealed[1]!; start += start < 60_000 ? 4001 : 1) {
    if (start === sealed[0]) continue;
    const work = slot.slice();
    const done = native.encodeBatch(work, start, sealed[1]!, order, undefined, work, encoded);
    await expect(done).rejects.toMatchObject({ code: 'ERR_BATCH_HEADER' });
    if (start > sealed[0]! + 400) break;
  }
});

test('inspectBatch() and decodeBatch() refuse wrong arguments', async () => {
  const batch = await encode(batchInSlot(), Codec.None, 0);
  const table = openTable(SMALL);
  const inspect = native.inspectBatch as Callable;
  const notTables = [
    undefined,
    null,
    {},
    1,
    openCutter(SMALL),
    Object.create(table),
    new Proxy(table, {}),
  ];
  const target = new Int32Array(Decoded.count);
  inspect(table, batch, target);
  refuses(inspect, [table, batch, target], 0, notTables);
  refuses(inspect, [table, batch, target], 1, NOT_BYTES);
  refuses(inspect, [table, batch, target], 2, [...NOT_BYTES, new Int32Array(Decoded.count - 1)]);
  expect(() => inspect(table, detached(batch.length), target)).toThrow('batch bytes must be >=');

  const good: readonly unknown[] = [table, batch, exact(target[Decoded.outputBytes]!), target];
  const decode = native.decodeBatch as Callable;
  await decode(...good);
  refuses(decode, good, 0, notTables);
  refuses(decode, good, 1, [...NOT_BYTES, resizable(batch.length)]);
  refuses(decode, good, 2, [...NOT_BYTES, resizable(9000), batch, batch.subarray(3)]);
  refuses(decode, good, 3, [...NOT_BYTES, new Int32Array(Decoded.count - 1)]);
  await expect(decode(...good.with(1, detached(9)))).rejects.toMatchObject({
    code: 'ERR_BATCH_HEADER',
  });
  await expect(decode(...good.with(2, detached(9)))).rejects.toMatchObject({
    code: 'ERR_BATCH_OUTPUT',
  });
  await expect(decode(...good.with(2, exact(0)))).rejects.toMatchObject({
    code: 'ERR_BATCH_OUTPUT',
  });
});

test('a result array that is detached before the end gets nothing', async () => {
  const { slot, sealed } = batchInSlot();
  const encoded = new Int32Array(new ArrayBuffer(4 * Encoded.count));
  const order = orderOf(Codec.None, 0);
  const [start, end] = [sealed[0]!, sealed[1]!];
  const done = native.encodeBatch(slot, start, end, order, undefined, slot, encoded);
  structuredClone(encoded.buffer, { transfer: [encoded.buffer] });
  await done;
  expect(encoded).toHaveLength(0);
});

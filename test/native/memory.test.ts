import { expect, test } from 'vitest';
import { native } from '../../src/native.ts';
import type { NativeGuestMemory } from '../../src/native-memory.ts';
import { OpenFiles, wordsFor } from '../support/guest-memory.ts';

const PAGE = 4096;

type Words = ConstructorParameters<typeof native.GuestMemory>;
const Memory = native.GuestMemory as unknown as new (...words: unknown[]) => NativeGuestMemory;

/** Arguments for two blocks, the second a buffer, some of them replaced. */
function words(file: number, others: Readonly<Record<number, unknown>> = {}): unknown[] {
  const good: unknown[] = [
    ['file', 'buffer'],
    Float64Array.of(2 * PAGE, PAGE),
    Int32Array.of(file, -1),
    Float64Array.of(PAGE, 0),
    [undefined, new Uint8Array(PAGE)],
    true,
    12,
  ];
  return good.map((word, index) => (index in others ? others[index] : word)) as unknown as Words;
}

test('native.GuestMemory checks each argument', () => {
  using files = new OpenFiles();
  const file = files.shm(3 * PAGE);
  new Memory(...words(file)).dispose();
  const detached = new Uint8Array(PAGE);
  structuredClone(detached, { transfer: [detached.buffer] });
  const resizable = Reflect.construct(ArrayBuffer, [PAGE, { maxByteLength: 2 * PAGE }]);
  const cases: Record<number, unknown[]> = {
    0: [undefined, 'file', ['file'], ['file', 'file'], ['file', 1], ['', 'b'], []],
    1: [undefined, [1, 2], Float64Array.of(PAGE), Float64Array.of(PAGE, Number.NaN), words],
    2: [undefined, Int32Array.of(file), Float64Array.of(file, -1)],
    3: [undefined, Float64Array.of(0), Float64Array.of(-1, 0), Float64Array.of(0.5, 0)],
    4: [
      undefined,
      null,
      [],
      [undefined, 5],
      [undefined, new Uint8Array(2 * PAGE)],
      [undefined, new Int8Array(PAGE)],
      [undefined, detached],
      [undefined, new Uint8Array(resizable)],
    ],
    5: [undefined, 1],
    6: [undefined, 9, 17, 12.5, '12'],
  };
  for (const [index, values] of Object.entries(cases)) {
    for (const [number, value] of values.entries()) {
      const make = (): unknown => new Memory(...words(file, { [index]: value }));
      expect(make, `${index}: ${number}`).toThrow(/^Cannot map memory: /);
      expect(make, `${index}: ${number}`).toThrow(expect.toSatisfy(isArgumentError));
    }
  }
});

function isArgumentError(error: unknown): boolean {
  return error instanceof TypeError || error instanceof RangeError;
}

test('native.GuestMemory passes on what a getter throws', () => {
  using files = new OpenFiles();
  const buffers = [undefined, undefined];
  Object.defineProperty(buffers, 1, {
    get: () => {
      throw new Error('mine');
    },
  });
  expect(() => new Memory(...words(files.shm(3 * PAGE), { 4: buffers }))).toThrow(/^mine$/);
});

test('native.GuestMemory attaches to what is there alone', () => {
  using files = new OpenFiles();
  const shared = new Uint8Array(new SharedArrayBuffer(2 * PAGE));
  const buffer = shared.subarray(0, PAGE);
  const memory = new Memory(...words(files.shm(3 * PAGE), { 4: [undefined, buffer] }));
  const id = memory.id();
  for (const value of [undefined, '1', 0, -1, 0.5, 2 ** 53]) {
    expect(() => new Memory(value, [])).toThrow(expect.toSatisfy(isArgumentError));
  }
  for (const value of [undefined, {}, [], [undefined], [undefined, shared.subarray(PAGE)]]) {
    expect(() => new Memory(id, value)).toThrow(TypeError);
  }
  const missing = expect.objectContaining({ code: 'ERR_MEMORY_CLOSED' });
  expect(() => new Memory(id === 1 ? 2 : id - 1, [])).toThrow(missing);
  const other = new Memory(id, [undefined, buffer]);
  memory.dispose();
  expect([other.id(), other.view(1)]).toEqual([id, buffer]);
  other.dispose();
  expect(() => new Memory(id, [undefined, buffer])).toThrow(missing);
});

test('native.GuestMemory: methods check their arguments, and what they are called on', () => {
  using files = new OpenFiles();
  const memory = new Memory(...words(files.shm(3 * PAGE)));
  for (const block of [-1, 2, 0.5, Number.NaN]) {
    expect(() => memory.view(block)).toThrow(RangeError);
    expect(() => memory.findPopulated(block, wordsFor(2))).toThrow(RangeError);
    expect(() => memory.scanPopulated(block, wordsFor(2))).toThrow(RangeError);
    expect(() => memory.punch(block, 0, 1)).toThrow(RangeError);
  }
  for (const [first, count] of [
    [-1, 1],
    [0, 3],
    [2, 1],
    [0, -1],
    [2 ** 42, 2 ** 42],
    [2 ** 53, 1],
  ] as const) {
    expect(() => memory.punch(0, first, count)).toThrow(RangeError);
  }
  expect(() => memory.scanPopulated(0, wordsFor(100))).toThrow(RangeError);
  expect(() => memory.findPopulated(0, new Uint8Array(4) as unknown as Uint32Array)).toThrow(
    TypeError,
  );
  const method = memory.view as (this: unknown, block: number) => unknown;
  for (const other of [{}, undefined, native, new native.PageStore(12, 1)]) {
    expect(() => method.call(other, 0)).toThrow();
  }
});

test('views keep what they show when the memory is let go of without dispose', async () => {
  using files = new OpenFiles();
  const file = files.shm(3 * PAGE);
  const view = new Memory(...words(file)).view(0);
  view[PAGE] = 3;
  for (let time = 0; time < 5; time++) {
    new Uint8Array(64 << 20).fill(time);
    await new Promise(setImmediate);
  }
  expect(view[PAGE]).toBe(3);
});

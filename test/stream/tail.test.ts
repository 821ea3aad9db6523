import fc from 'fast-check';
import { expect, test } from 'vitest';
import { TailWatcher } from '../../src/stream/tail.ts';

/** EOF, and a description with its length. */
function tailOf(description: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(6 + description.length);
  bytes[1] = 6;
  new DataView(bytes.buffer).setUint32(2, description.length);
  bytes.set(description, 6);
  return bytes;
}

function watch(bytes: Uint8Array, chunkBytes = bytes.length): boolean {
  const watcher = new TailWatcher();
  for (let at = 0; at < bytes.length; at += chunkBytes) {
    watcher.push(bytes.subarray(at, at + chunkBytes));
  }
  return watcher.endsWhole();
}

test('TailWatcher endsWhole() is true for a whole tail, wherever the chunks are cut', () => {
  const parts = fc.tuple(
    fc.uint8Array({ maxLength: 5000 }),
    fc.uint8Array({ maxLength: 3000 }),
    fc.integer({ min: 1, max: 700 }),
  );
  fc.assert(
    fc.property(parts, ([devices, description, chunkBytes]) => {
      const whole = new Uint8Array(Buffer.concat([devices, tailOf(description)]));
      expect(watch(whole, chunkBytes)).toBe(true);
    }),
  );
});

test('TailWatcher endsWhole() is false for every shorter one', () => {
  const devices = Uint8Array.from({ length: 300 }, (_, index) => index % 5);
  const description = new Uint8Array(Buffer.from('{"devices": []}'));
  const whole = new Uint8Array(Buffer.concat([devices, tailOf(description)]));
  expect(watch(whole)).toBe(true);
  for (let count = 0; count < whole.length; count++) {
    expect(watch(whole.subarray(0, count)), `${count} bytes`).toBe(false);
  }
});

test('a description without EOF before it, or of another length, is none', () => {
  const whole = tailOf(new Uint8Array(20));
  expect(watch(whole)).toBe(true);
  expect(watch(whole.with(0, 7))).toBe(false);
  expect(watch(whole.with(5, 21))).toBe(false);
  expect(watch(new Uint8Array(Buffer.concat([whole, Uint8Array.of(0)])))).toBe(false);
});

test.each([1, 2, 3, 5])('%i MiB of device state do not hide the tail', (megabytes) => {
  const devices = new Uint8Array(megabytes * 1024 * 1024).fill(6);
  const whole = new Uint8Array(Buffer.concat([devices, tailOf(new Uint8Array(40_000))]));
  expect(watch(whole, 300_000)).toBe(true);
  expect(watch(whole)).toBe(true);
  expect(watch(whole.subarray(0, -1), 300_000)).toBe(false);
});

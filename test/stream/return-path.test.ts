import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ReturnPathWatcher } from '../../src/stream/return-path.ts';

function message(type: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(4 + payload.length);
  new DataView(bytes.buffer).setUint16(0, type);
  new DataView(bytes.buffer).setUint16(2, payload.length);
  bytes.set(payload, 4);
  return bytes;
}

const u32 = (value: number): Uint8Array => {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value);
  return bytes;
};

const harmless = fc
  .record({
    type: fc.integer({ min: 0, max: 20 }).filter((type) => type !== 1 && type !== 5),
    payload: fc.uint8Array({ maxLength: 512 }),
  })
  .map(({ type, payload }) => message(type, payload));

test('ReturnPathWatcher finds SHUT behind any messages, wherever the chunks are cut', () => {
  fc.assert(
    fc.property(
      fc.array(harmless, { maxLength: 8 }),
      fc.nat(0xffff_ffff),
      fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 200 }),
      (messages, status, sizes) => {
        const watcher = new ReturnPathWatcher();
        const bytes = Buffer.concat([...messages, message(1, u32(status))]);
        for (let at = 0, turn = 0; at < bytes.length; turn++) {
          expect(watcher.shutStatus).toBeUndefined();
          const end = at + sizes[turn % sizes.length]!;
          watcher.push(new Uint8Array(bytes.subarray(at, end)));
          at = end;
        }
        expect(watcher.shutStatus).toBe(status);
        expect(watcher.messages).toBe(messages.length + 1);
      },
    ),
  );
});

test('the last SHUT counts', () => {
  const watcher = new ReturnPathWatcher();
  watcher.push(message(1, u32(1)));
  watcher.push(message(1, u32(0)));
  expect(watcher.shutStatus).toBe(0);
});

test('a SHUT of another length says nothing', () => {
  const watcher = new ReturnPathWatcher();
  watcher.push(message(1, new Uint8Array(3)));
  watcher.push(message(1, new Uint8Array(8)));
  expect(watcher.shutStatus).toBeUndefined();
  expect(watcher.messages).toBe(2);
});

/** A bitmap of received pages: its message, and the bits behind it, which no length counts. */
const bitmap = fc
  .tuple(fc.uint8Array({ maxLength: 255 }), fc.uint8Array({ maxLength: 300 }))
  .map(([name, bits]) => {
    const size = new Uint8Array(8);
    new DataView(size.buffer).setBigUint64(0, BigInt(bits.length));
    const mark = Uint8Array.of(1, 35, 69, 103, 137, 171, 205, 239);
    return Buffer.concat([message(5, Uint8Array.of(name.length, ...name)), size, bits, mark]);
  });

test('bitmaps of a recovery are passed over, wherever the chunks are cut', () => {
  const sizes = fc.integer({ min: 1, max: 60 });
  fc.assert(
    fc.property(fc.array(fc.oneof(bitmap, harmless), { maxLength: 6 }), sizes, (parts, size) => {
      const watcher = new ReturnPathWatcher();
      const bytes = new Uint8Array(Buffer.concat([...parts, message(1, u32(0))]));
      for (let at = 0; at < bytes.length; at += size) watcher.push(bytes.slice(at, at + size));
      expect(watcher.shutStatus).toBe(0);
      expect(watcher.messages).toBe(parts.length + 1);
      expect(watcher.isLost).toBe(false);
    }),
  );
});

test.each([
  ['a bitmap larger than any', [...message(5, Uint8Array.of(0)), 255, 0, 0, 0, 0, 0, 0, 0]],
  ['a payload that QEMU would not send', [...message(3, new Uint8Array(513))]],
])('after %s it looks no further', (_what, bytes) => {
  const watcher = new ReturnPathWatcher();
  watcher.push(Uint8Array.from(bytes));
  watcher.push(message(1, u32(0)));
  expect(watcher.shutStatus).toBeUndefined();
  expect(watcher.isLost).toBe(true);
});

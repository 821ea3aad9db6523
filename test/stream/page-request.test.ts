import fc from 'fast-check';
import { expect, test } from 'vitest';
import { encodePageRequest, PageRequestReader } from '../../src/stream/page-request.ts';
import { ReturnPathWatcher, ReturnType } from '../../src/stream/return-path.ts';

/** A request as QEMU writes it, without the name of its block. */
function unnamed(offsetBytes: number, lengthBytes: number): Uint8Array {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt16BE(4, 0);
  bytes.writeUInt16BE(12, 2);
  bytes.writeBigUInt64BE(BigInt(offsetBytes), 4);
  bytes.writeUInt32BE(lengthBytes, 12);
  return new Uint8Array(bytes);
}

/** The same with the name. */
function named(block: string, offsetBytes: number, lengthBytes: number): Uint8Array {
  const name = Buffer.from(block, 'latin1');
  const bytes = Buffer.concat([unnamed(offsetBytes, lengthBytes), Buffer.of(name.length), name]);
  bytes.writeUInt16BE(3, 0);
  bytes.writeUInt16BE(13 + name.length, 2);
  return new Uint8Array(bytes);
}

const request = fc.record({
  block: fc.string({
    unit: fc.integer({ min: 33, max: 255 }).map((code) => String.fromCharCode(code)),
    maxLength: 255,
  }),
  offsetBytes: fc.nat(2 ** 31 - 1).map((page) => page * 4096),
  lengthBytes: fc.integer({ min: 0, max: 0xffff_ffff }),
});

test('a request is read as QEMU writes it, and written so', () => {
  fc.assert(
    fc.property(request, ({ block, offsetBytes, lengthBytes }) => {
      const wanted = { block, offsetBytes, lengthBytes };
      const bytes = named(block, offsetBytes, lengthBytes);
      expect(new PageRequestReader().read(bytes)).toEqual(wanted);
      expect(encodePageRequest(wanted)).toEqual(bytes);
    }),
  );
});

test('a request without a block is of the block named last', () => {
  const reader = new PageRequestReader();
  reader.read(named('pc.ram', 0, 4096));
  expect(reader.read(unnamed(8192, 4096))).toEqual({
    block: 'pc.ram',
    offsetBytes: 8192,
    lengthBytes: 4096,
  });
  reader.read(named('vga.vram', 4096, 4096));
  expect(reader.read(unnamed(0, 65_536)).block).toBe('vga.vram');
});

test('the first must name a block', () => {
  const read = () => new PageRequestReader().read(unnamed(0, 4096));
  expect(read).toThrow(expect.objectContaining({ code: 'ERR_STREAM_REQUEST' }));
});

test.each([
  ['of no bytes', Uint8Array.of(0, 3, 0, 0)],
  ['without a range', Uint8Array.of(0, 4, 0, 4, 0, 0, 0, 0)],
  ['a byte short', named('pc.ram', 0, 4096).slice(0, -1)],
  ['a byte long', Uint8Array.of(...named('pc.ram', 0, 4096), 1)],
  ['unnamed, and a byte long', Uint8Array.of(...unnamed(0, 4096), 1)],
  ['without the length of its name', Uint8Array.of(0, 3, ...unnamed(0, 4096).slice(2))],
])('malformed: %s', (_, bytes) => {
  const reader = new PageRequestReader();
  reader.read(named('pc.ram', 0, 4096));
  expect(() => reader.read(bytes)).toThrow(expect.objectContaining({ code: 'ERR_STREAM_REQUEST' }));
  // It does not count.
  expect(reader.read(unnamed(0, 1)).block).toBe('pc.ram');
});

test('any bytes are a request, or refused as none', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 4, maxLength: 40 }), (bytes) => {
      try {
        new PageRequestReader().read(bytes);
      } catch (error) {
        expect(error).toMatchObject({ code: 'ERR_STREAM_REQUEST' });
      }
    }),
    { numRuns: 1000 },
  );
});

test('a watcher hands on every request whole, wherever the chunks are cut', () => {
  fc.assert(
    fc.property(
      fc.array(request, { minLength: 1, maxLength: 8 }),
      fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 50 }),
      (requests, sizes) => {
        const reader = new PageRequestReader();
        const found: unknown[] = [];
        const watcher = new ReturnPathWatcher((type, message) => {
          if (type === ReturnType.RequestById) found.push(reader.read(message));
        });
        const pong = Uint8Array.of(0, 2, 0, 4, 0, 0, 0, 3);
        const bytes = Buffer.concat(requests.flatMap((each) => [encodePageRequest(each), pong]));
        for (let at = 0, turn = 0; at < bytes.length; turn++) {
          const end = at + sizes[turn % sizes.length]!;
          watcher.push(new Uint8Array(bytes.subarray(at, end)));
          at = end;
        }
        expect(found).toEqual(requests);
      },
    ),
  );
});

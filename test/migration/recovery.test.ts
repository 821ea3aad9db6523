import { expect, test } from 'vitest';
import { keepMissing, ReceivedBitmaps, ramEnd, ramSection } from '../../src/migration/recovery.ts';
import { Sealed, SLOT_ROOM_BYTES } from '../../src/native.ts';
import { BatchDecoder } from '../../src/page/decode.ts';
import { BatchEncoder } from '../../src/page/encode.ts';
import { be64, blockId } from '../naive/batch.ts';
import { type RamRecord, RamWriter } from '../naive/ram-stream.ts';
import { openCutter } from '../native/cutting.ts';
import { createPrng, exactRandomBytes, integerBelow } from '../support/prng.ts';

const LAYOUT = {
  pageBits: 12,
  hasFooter: true,
  sectionId: 2,
  blocks: [
    { name: 'pc.ram', usedBytes: 130 * 4096 },
    { name: 'vga', usedBytes: 3 * 4096 },
  ],
};

/** What a destination answers for a block: bits, lowest page first. */
function answer(name: string, pages: number, hasPage: (page: number) => boolean): Uint8Array {
  const bitmap = new Uint8Array(8 * Math.ceil(pages / 64));
  for (let page = 0; page < pages; page++) {
    if (hasPage(page)) bitmap[page >> 3]! |= 1 << (page & 7);
  }
  const id = blockId(name);
  const head = Uint8Array.of(0, 5, 0, id.length);
  return Buffer.concat([head, id, be64(BigInt(bitmap.length)), bitmap, be64(0x0123456789abcdefn)]);
}

const isReceived = (block: number, page: number): boolean => (page * 7 + block) % 3 === 0;

function answers(): Uint8Array {
  const pong = Uint8Array.of(0, 2, 0, 4, 0, 0, 0, 1);
  const blocks = LAYOUT.blocks.map(({ name, usedBytes }, block) =>
    answer(name, usedBytes / 4096, (page) => isReceived(block, page)),
  );
  return Buffer.concat([blocks[1]!, pong, blocks[0]!]);
}

test.each([1, 3, 7, 64, 1000])('bitmaps are read off a return path, %i bytes at a time', (step) => {
  const received = new ReceivedBitmaps(LAYOUT);
  const after = Uint8Array.of(0, 6, 0, 4, 0, 0, 0, 1);
  const stream = Buffer.concat([answers(), after]);
  const rest: Uint8Array[] = [];
  for (let at = 0; at < stream.length; at += step) {
    const chunk = new Uint8Array(stream.subarray(at, at + step));
    rest.push(received.isComplete ? chunk : received.push(chunk));
  }
  expect(received.isComplete).toBe(true);
  expect(Buffer.concat(rest)).toEqual(Buffer.from(after));
  for (const [block, { usedBytes }] of LAYOUT.blocks.entries()) {
    for (let page = 0; page < usedBytes / 4096; page++) {
      expect(received.has(block, page)).toBe(isReceived(block, page));
    }
  }
});

test.each([
  ['of a block there is not', answer('other', 130, () => true)],
  ['of another size', answer('pc.ram', 200, () => true)],
  [
    'without its end',
    ((bytes) => bytes.fill(0, bytes.length - 8))(answer('vga', 3, () => true) as Buffer),
  ],
])('an answer %s is refused', (_, bytes) => {
  const received = new ReceivedBitmaps(LAYOUT);
  expect(() => received.push(bytes)).toThrow(expect.objectContaining({ code: 'ERR_RECOVERY' }));
});

test.each([1, 2, 3, 4])('what has arrived is taken out of a batch, seed %i', async (seed) => {
  const random = createPrng(seed);
  const records: RamRecord[] = [];
  for (let page = 0; page < 130; page += 1 + integerBelow(random, 3)) {
    const kind = (['zero', 'raw', 'blank'] as const)[integerBelow(random, 3)]!;
    records.push({ kind, block: 0, page, bytes: exactRandomBytes(random, 4096) });
  }
  const writer = new RamWriter(LAYOUT);
  for (const record of records) writer.record(record);
  const stream = writer.stream();

  const cutter = openCutter(LAYOUT);
  const slot = new Uint8Array(new ArrayBuffer(SLOT_ROOM_BYTES + (1 << 20)));
  cutter.begin(slot);
  cutter.setInside(true);
  cutter.cut(stream, 0, stream.length);
  const sealed = new Int32Array(Sealed.count);
  cutter.seal(sealed);
  const encoder = new BatchEncoder({ codec: 'none', threads: 1, now: () => 0 });
  const batch = await encoder.encode(slot, sealed, 0);
  const decoder = new BatchDecoder(LAYOUT, 0, { isOrdered: false });
  const decoded = await decoder.decode(batch.buffer.subarray(batch.start, batch.end), 0);

  const received = new ReceivedBitmaps(LAYOUT);
  received.push(answers());
  const expected = records
    .filter(({ page }) => !isReceived(0, page))
    .flatMap(({ kind, page, bytes }) => [
      be64((BigInt(page) << 12n) | (kind === 'zero' ? 2n : 8n)),
      blockId('pc.ram'),
      kind === 'zero' ? Uint8Array.of(0) : kind === 'blank' ? new Uint8Array(4096) : bytes!,
    ]);
  expect(Buffer.compare(keepMissing(decoded, received, LAYOUT), Buffer.concat(expected))).toBe(0);
});

test('a RAM section, and the end of a post-copy', () => {
  const eos = [0, 0, 0, 0, 0, 0, 0, 0x10];
  const footer = [0x7e, 0, 0, 0, 2];
  const section = ramSection(LAYOUT, Uint8Array.of(1, 2));
  expect([...section]).toEqual([2, 0, 0, 0, 2, 1, 2, ...eos, ...footer]);
  expect([...ramEnd(LAYOUT)]).toEqual([3, 0, 0, 0, 2, ...eos, ...footer, 0]);
  expect([...ramEnd({ ...LAYOUT, hasFooter: false })]).toEqual([3, 0, 0, 0, 2, ...eos, 0]);
});

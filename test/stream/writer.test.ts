import { expect, test } from 'vitest';
import { Decoded } from '../../src/native.ts';
import { StreamWriter } from '../../src/stream/writer.ts';
import { StreamBuilder } from '../support/qemu-stream.ts';

const ROOM = 1024;
const LAYOUT = {
  pageBits: 12,
  hasFooter: true,
  sectionId: 2,
  blocks: [
    { name: 'pc.ram', usedBytes: 1 << 20 },
    { name: 'rom', usedBytes: 1 << 16 },
  ],
};
const PLACE = { isInsideBefore: false, isInsideAfter: false, isVerbatim: false, lastBlock: -1 };

const build = (hasFooter = true): StreamBuilder =>
  new StreamBuilder({ blocks: LAYOUT.blocks.map(({ name }) => ({ name, pages: 16 })), hasFooter });

/** A decoded batch of one zero page, as the decoder leaves it. */
function batchOf(
  block: number,
  { continues = false, isInside = true, endsInside = true } = {},
): { output: Uint8Array; decoded: Int32Array } {
  const record = build().u64(continues ? 0x5022 : 0x5002);
  if (!continues) record.text(LAYOUT.blocks[block]!.name);
  const bytes = record.raw([0]).bytes();
  const output = new Uint8Array(ROOM + bytes.length);
  output.set(bytes, ROOM);
  const decoded = new Int32Array(Decoded.count);
  decoded[Decoded.start] = ROOM;
  decoded[Decoded.end] = output.length;
  decoded[Decoded.opensInside] = isInside ? 1 : 0;
  decoded[Decoded.endsInside] = endsInside ? 1 : 0;
  decoded[Decoded.firstRecord] = ROOM;
  decoded[Decoded.firstContinues] = continues ? 1 : 0;
  decoded[Decoded.firstBlock] = block;
  decoded[Decoded.lastRecord] = ROOM;
  decoded[Decoded.lastRecordEnd] = output.length;
  decoded[Decoded.lastBlock] = block;
  return { output, decoded };
}

function write(writer: StreamWriter, sequence: number, ...batch: Parameters<typeof batchOf>) {
  const { output, decoded } = batchOf(...batch);
  return writer.batch(output, decoded, sequence).slice();
}

function makeWriter(hasFooter = true): StreamWriter {
  const writer = new StreamWriter();
  writer.setLayout({ ...LAYOUT, hasFooter });
  return writer;
}

test('hasLayout is true once there is one', () => {
  const writer = new StreamWriter();
  expect(writer.hasLayout).toBe(false);
  writer.setLayout(LAYOUT);
  expect(writer.hasLayout).toBe(true);
});

test('bytes where the stream stands as at the source need nothing before them', () => {
  const writer = makeWriter();
  expect(writer.beforeBytes(PLACE)).toHaveLength(0);
  expect(writer.beforeBytes({ ...PLACE, isInsideAfter: true })).toHaveLength(0);
  expect(writer.beforeBytes({ ...PLACE, isInsideBefore: true })).toHaveLength(0);
});

test.each([true, false])(
  'a section is opened and closed where it must be, footer %s',
  (hasFooter) => {
    const writer = makeWriter(hasFooter);
    const opened = build(hasFooter).partBegin().bytes();
    const closed = build(hasFooter).partEnd().bytes();
    const inside = { ...PLACE, isInsideBefore: true, isInsideAfter: true };
    expect(new Uint8Array(writer.beforeBytes(inside))).toEqual(opened);
    expect(new Uint8Array(writer.beforeBytes(PLACE))).toEqual(closed);
    const named = build().u64(0x5002).text('rom').raw([0]).bytes();
    expect(write(writer, 1, 1)).toEqual(Uint8Array.of(...opened, ...named));
    expect(new Uint8Array(writer.beforeBytes(PLACE))).toEqual(closed);
  },
);

test('a batch that continues another block than the last one names its own', () => {
  const writer = makeWriter();
  write(writer, 0, 1);
  const named = build().u64(0x5002).text('pc.ram').raw([0]).bytes();
  const continued = build().u64(0x5022).raw([0]).bytes();
  expect(write(writer, 1, 0, { continues: true })).toEqual(named);
  expect(write(writer, 2, 0, { continues: true })).toEqual(continued);
});

test('verbatim bytes: QEMU knows the block of the source, by the record that came last there', () => {
  const writer = makeWriter();
  write(writer, 0, 1);
  write(writer, 5, 0);
  write(writer, 3, 1);
  const place = { ...PLACE, isInsideBefore: true, isVerbatim: true, lastBlock: 0 };
  const named = build().u64(0x5002).text('pc.ram').raw([0]).bytes();
  expect(new Uint8Array(writer.beforeBytes(place))).toEqual(named);
  // From here on nothing is mended.
  expect(writer.beforeBytes({ ...place, isInsideBefore: false })).toHaveLength(0);
});

test('verbatim bytes outside of a section: it is opened for the record, and closed', () => {
  const writer = makeWriter();
  write(writer, 0, 0, { isInside: false });
  write(writer, 9, 1, { continues: false });
  write(writer, 4, 0, { endsInside: false });
  const expected = build().partBegin().u64(0x5002).text('rom').raw([0]).partEnd().bytes();
  const place = { ...PLACE, isVerbatim: true, lastBlock: 1 };
  expect(new Uint8Array(writer.beforeBytes(place))).toEqual(expected);
});

test('verbatim bytes: a kept record that continued is named', () => {
  const writer = makeWriter();
  write(writer, 0, 0);
  write(writer, 7, 0, { continues: true });
  write(writer, 1, 1);
  const named = build().u64(0x5002).text('pc.ram').raw([0]).bytes();
  const place = { ...PLACE, isInsideBefore: true, isVerbatim: true, lastBlock: 0 };
  expect(new Uint8Array(writer.beforeBytes(place))).toEqual(named);
});

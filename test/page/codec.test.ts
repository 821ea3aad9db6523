import { describe, expect, test } from 'vitest';
import { ProtocolError } from '../../src/errors.ts';
import { Codec, Decoded } from '../../src/native.ts';
import { BatchDecoder, DECODED_MAX } from '../../src/page/decode.ts';
import {
  BatchEncoder,
  type EncodedBatch,
  LITERAL_BYTES_MAX,
  SENDER_SLOTS_MAX,
} from '../../src/page/encode.ts';
import { StreamReader } from '../../src/stream/reader.ts';
import { createPrng } from '../support/prng.ts';
import { PAGE_BYTES, randomBytes, StreamBuilder } from '../support/qemu-stream.ts';

const LAYOUT = {
  pageBits: 12,
  hasFooter: true,
  sectionId: 2,
  blocks: [{ name: 'pc.ram', usedBytes: 256 * PAGE_BYTES }],
};

type Fill = 'text' | 'noise' | 'zero';

/** Cuts one batch of pages with such contents, in a slot of the encoder. */
function cutBatch(
  encoder: BatchEncoder,
  fill: Fill,
  { pageCount = 100, slot = encoder.takeSlot() }: { pageCount?: number; slot?: Uint8Array } = {},
) {
  const builder = new StreamBuilder({ blocks: [{ name: 'pc.ram', pages: 256 }] });
  builder.header().ramStart().partBegin();
  const random = createPrng(7);
  for (let page = 0; page < pageCount; page++) {
    if (fill === 'zero') builder.page(0, page, { kind: 'zero' });
    else if (fill === 'noise') {
      builder.page(0, page, { kind: 'page', bytes: randomBytes(random, PAGE_BYTES) });
    } else {
      const bytes = new Uint8Array(Buffer.alloc(PAGE_BYTES, `line ${page} of many\n`));
      builder.page(0, page, { kind: 'page', bytes });
    }
  }
  let cut: { slot: Uint8Array; sealed: Int32Array } | undefined;
  const reader = new StreamReader({
    takeSlot: () => slot,
    layout: () => {},
    bytes: () => {},
    pages: (filled, sealed) => {
      cut = { slot: filled, sealed: sealed.slice() };
    },
    epoch: () => {},
  });
  reader.push(builder.bytes(), 0);
  reader.flush();
  return cut!;
}

/** As many batches of one encoder, none of them acked. */
async function encodeMany(codec: 'none' | 'lz4' | 'zstd', fill: Fill, count: number) {
  const encoder = new BatchEncoder({ codec, threads: 1, now: () => performance.now() });
  const payloads: Uint8Array[] = [];
  while (payloads.length < count) {
    const { slot, sealed } = cutBatch(encoder, fill);
    const { buffer, start, end } = await encoder.encode(slot, sealed, 0);
    payloads.push(new Uint8Array(buffer.slice(start, end)));
  }
  return payloads;
}

async function encodeOne(codec: 'none' | 'lz4' | 'zstd', fill: Fill) {
  const encoder = new BatchEncoder({ codec, threads: 1, now: () => performance.now() });
  const { slot, sealed } = cutBatch(encoder, fill);
  const batch = await encoder.encode(slot, sealed, 0);
  return { encoder, batch, payload: new Uint8Array(batch.buffer.slice(batch.start, batch.end)) };
}

describe('BatchEncoder encode() and BatchDecoder decode()', () => {
  const cases = (['none', 'lz4', 'zstd'] as const).flatMap((codec) =>
    (['text', 'noise', 'zero'] as const).map((fill) => ({ codec, fill })),
  );
  test.each(cases)('$codec of $fill: the records come back', async ({ codec, fill }) => {
    const plain = await encodeOne('none', fill);
    const coded = await encodeOne(codec, fill);
    const records = await Promise.all(
      [plain.payload, coded.payload].map(async (payload) => {
        const decoder = new BatchDecoder(LAYOUT, 0);
        const { output, decoded } = await decoder.decode(payload, 0);
        expect(decoded[Decoded.pages]).toBe(100);
        expect(decoded[Decoded.zeroPages]).toBe(fill === 'zero' ? 100 : 0);
        return output.slice(decoded[Decoded.start], decoded[Decoded.end]);
      }),
    );
    expect(Buffer.compare(records[0]!, records[1]!)).toBe(0);
  });

  test('what compresses is smaller, what does not is sent as it is', async () => {
    const { batch: text } = await encodeOne('zstd', 'text');
    expect(text.codec).toBe(Codec.Zstd);
    expect(text.end - text.start).toBeLessThan(text.facts.literalBytes / 10);
    const { batch: noise } = await encodeOne('zstd', 'noise');
    expect(noise.codec).toBe(Codec.None);
    const { batch: zero } = await encodeOne('zstd', 'zero');
    expect(zero.codec).toBe(Codec.None);
    expect(zero.facts).toMatchObject({ pages: 100, zeroPages: 100, literalBytes: 0 });
  });
});

describe('BatchEncoder takeSlot()', () => {
  test('gives no slot while the threads have one batch more than they can work on', async () => {
    const encoder = new BatchEncoder({ codec: 'lz4', threads: 2, now: () => performance.now() });
    const works: Promise<unknown>[] = [];
    while (works.length < 10) {
      const slot = encoder.takeSlot();
      if (slot === undefined) break;
      const { slot: filled, sealed } = cutBatch(encoder, 'text', { pageCount: 10, slot });
      works.push(encoder.encode(filled, sealed, 0));
    }
    expect(works).toHaveLength(3);
    expect(encoder.inWork).toBe(3);
    await Promise.all(works);
    expect(encoder.inWork).toBe(0);
    expect(encoder.takeSlot()).toBeDefined();
  });

  test.each(['text', 'noise'] as const)(
    'batches of %s that are never acked end it',
    async (fill) => {
      const encoder = new BatchEncoder({ codec: 'lz4', threads: 1, now: () => performance.now() });
      const sent: EncodedBatch[] = [];
      for (let slot = encoder.takeSlot(); slot !== undefined; slot = encoder.takeSlot()) {
        const cut = cutBatch(encoder, fill, { pageCount: 4, slot });
        sent.push(await encoder.encode(cut.slot, cut.sealed, 0));
      }
      expect(sent.length).toBeLessThan(SENDER_SLOTS_MAX);
      expect(sent.length).toBeGreaterThan(SENDER_SLOTS_MAX - 4);
      expect(new Set(sent.map(({ buffer }) => buffer)).size).toBe(sent.length);
      expect(sent.map(({ number }) => number)).toEqual(sent.map((_, index) => index));
      encoder.acked(sent[0]!);
      expect(encoder.takeSlot()).toBeDefined();
    },
  );

  test('slots hold a batch of the documented size', () => {
    const slot = new BatchEncoder({
      codec: 'none',
      threads: 1,
      now: () => performance.now(),
    }).takeSlot()!;
    expect(slot.length).toBe(76 * 1024 + LITERAL_BYTES_MAX);
  });
});

describe('BatchDecoder decode()', () => {
  test('refuses a damaged batch, with its sequence', async () => {
    const { payload } = await encodeOne('lz4', 'text');
    const decoder = new BatchDecoder(LAYOUT, 0);
    payload[payload.length - 9]! ^= 1;
    const error = await decoder.decode(payload, 42).catch((cause: unknown) => cause);
    expect(error).toBeInstanceOf(ProtocolError);
    expect(error).toMatchObject({ code: expect.stringMatching(/^ERR_BATCH_/), sequence: 42 });
  });

  test('refuses a page outside of its block', async () => {
    const { payload } = await encodeOne('none', 'noise');
    const blocks = [{ name: 'pc.ram', usedBytes: 50 * PAGE_BYTES }];
    const decoder = new BatchDecoder({ ...LAYOUT, blocks }, 0);
    await expect(decoder.decode(payload, 0)).rejects.toMatchObject({
      code: expect.stringMatching(/^ERR_BATCH_/),
    });
  });

  test('works with more outputs out than it keeps', async () => {
    const payloads = await encodeMany('none', 'noise', DECODED_MAX + 3);
    const decoder = new BatchDecoder(LAYOUT, 0);
    const outputs = new Set<Uint8Array>();
    for (const payload of payloads.slice(0, -1)) {
      outputs.add((await decoder.decode(payload, 0)).output);
    }
    expect(outputs.size).toBe(DECODED_MAX + 2);
    for (const output of outputs) decoder.give(output);
    expect(outputs).toContain((await decoder.decode(payloads.at(-1)!, 0)).output);
  });

  test('a batch that failed gives its output back', async () => {
    const [first, ...others] = await encodeMany('lz4', 'text', DECODED_MAX + 3);
    const decoder = new BatchDecoder(LAYOUT, 0);
    const { output } = await decoder.decode(first!, 0);
    decoder.give(output);
    for (const bad of others.slice(0, -1)) {
      bad[bad.length - 9]! ^= 1;
      await expect(decoder.decode(bad, 0)).rejects.toThrow();
    }
    // Otherwise this one would be a buffer of its own, made to measure.
    expect((await decoder.decode(others.at(-1)!, 0)).output.length).toBe(output.length);
  });
});

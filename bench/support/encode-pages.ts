/*
 * A sender without a network: cuts QEMU's stream into batches, and encodes them in one thread.
 *
 *   node encode-pages.js SETTINGS
 *
 * The first pass decodes every batch and compares it with the pages; it does not count.
 */
import { readFileSync } from 'node:fs';
import { Codec, Decoded, native } from '../../src/native.ts';
import { BatchDecoder } from '../../src/page/decode.ts';
import { BatchEncoder, type EncodedBatch } from '../../src/page/encode.ts';
import { storeSlots } from '../../src/page/store.ts';
import { StreamReader } from '../../src/stream/reader.ts';
import { PAGE_BYTES } from '../../test/support/qemu-stream.ts';
import type { EncodeReport, EncodeSettings } from './encode-message.ts';

/* Chosen by us */
/** As much as is read from QEMU's socket at a time. */
const CHUNK_BYTES: number = 1024 * 1024;

const NAMES = { [Codec.None]: 'none', [Codec.Lz4]: 'lz4', [Codec.Zstd]: 'zstd' } as const;

/* QEMU's RAM sections */
const SECTION_PART = 2;
const SECTION_BYTES = 5;
const FLAG_PAGE = 0x08;
const FLAG_EOS = 0x10;
const FLAG_CONTINUE = 0x20;

/** Takes each batch before its buffer is used again. */
type Take = (batch: EncodedBatch, decoder: BatchDecoder) => Promise<void> | undefined;

/** Compares what batches decode to with the pages, each of which must come once. */
class PageChecker {
  readonly #pages = readFileSync(settings.pages);
  readonly #places = new Map(settings.indexes.map((index, at) => [index, at * PAGE_BYTES]));
  #sequence = 0;

  async take(batch: EncodedBatch, decoder: BatchDecoder): Promise<void> {
    const payload = batch.buffer.subarray(batch.start, batch.end);
    const { output, decoded } = await decoder.decode(payload, this.#sequence++);
    const start = decoded[Decoded.start]!;
    const bytes = Buffer.from(output.buffer, start, decoded[Decoded.end]! - start);
    this.#check(bytes, decoded[Decoded.opensInside] === 1);
    decoder.give(output);
  }

  end(): void {
    if (this.#places.size > 0) throw new Error(`${this.#places.size} pages are missing`);
  }

  /** Walks over QEMU's records, and over the sections that begin and end between them. */
  #check(bytes: Buffer, opensInside: boolean): void {
    let isInside = opensInside;
    for (let at = 0; at < bytes.length; ) {
      if (!isInside) {
        isInside = bytes[at] === SECTION_PART;
        at += SECTION_BYTES; // or a footer of as many
        continue;
      }
      const word = bytes.readBigUInt64BE(at);
      at += 8;
      const flags = Number(word & 0xfffn);
      if (flags === FLAG_EOS) {
        isInside = false;
        continue;
      }
      if ((flags & FLAG_CONTINUE) === 0) at += 1 + bytes[at]!;
      if ((flags & FLAG_PAGE) === 0) throw new Error(`A record with flags ${flags}`);
      this.#compare(Number(word >> 12n), bytes.subarray(at, at + PAGE_BYTES));
      at += PAGE_BYTES;
    }
  }

  #compare(index: number, page: Buffer): void {
    const place = this.#places.get(index);
    if (place === undefined) throw new Error(`Page ${index} was not sent, or came before`);
    this.#places.delete(index);
    if (!page.equals(this.#pages.subarray(place, place + PAGE_BYTES))) {
      throw new Error(`Page ${index} is not what it was`);
    }
  }
}

const settings = JSON.parse(readFileSync(process.argv[2]!, 'utf8')) as EncodeSettings;
const stream = readFileSync(settings.stream);
native.setThreads(1);

const checker = new PageChecker();
await pass((batch, decoder) => checker.take(batch, decoder));
checker.end();
let best: EncodeReport | undefined;
const begunMs = performance.now();
do {
  const report = await pass(() => undefined);
  if (best === undefined || report.cpuSeconds < best.cpuSeconds) best = report;
} while (performance.now() - begunMs < settings.seconds * 1000);
console.log(JSON.stringify(best));

async function pass(take: Take): Promise<EncodeReport> {
  const encoder = new BatchEncoder({
    codec: settings.codec,
    threads: 1,
    now: () => performance.now(),
  });
  const sums = { pages: 0, batches: 0, wireBytes: 0 };
  const codecs: Record<string, number> = {};
  const inWork = new Set<Promise<void>>();
  let decoder: BatchDecoder;
  const encode = async (slot: Uint8Array, sealed: Int32Array): Promise<void> => {
    const batch = await encoder.encode(slot, sealed, settings.isNetworkLimit ? 1 : 0);
    sums.pages += batch.facts.pages;
    sums.batches++;
    sums.wireBytes += batch.end - batch.start;
    codecs[NAMES[batch.codec]] = (codecs[NAMES[batch.codec]] ?? 0) + 1;
    await take(batch, decoder);
    encoder.acked(batch); // as if the network took no time
  };
  const reader = new StreamReader({
    takeSlot: () => encoder.takeSlot(),
    layout: (layout) => {
      const slots = storeSlots(layout, settings.storeBytes);
      decoder = new BatchDecoder(layout, slots);
      encoder.openStore(layout, slots);
    },
    bytes: () => {},
    epoch: () => {},
    pages: (slot, sealed) => {
      const work: Promise<void> = encode(slot, sealed).finally(() => inWork.delete(work));
      inWork.add(work);
    },
  });
  const cpu = process.cpuUsage();
  const passBegunMs = performance.now();
  for (let at = 0; at < stream.length; at += CHUNK_BYTES) {
    const chunk = stream.subarray(at, at + CHUNK_BYTES);
    let used = reader.push(chunk, 0);
    while (used < chunk.length) {
      await Promise.race(inWork);
      used = reader.push(chunk, used);
    }
  }
  reader.flush();
  reader.end();
  await Promise.all(inWork);
  const { user, system } = process.cpuUsage(cpu);
  const seconds = (performance.now() - passBegunMs) / 1000;
  const step = encoder.choice.current.name;
  return { ...sums, codecs, step, seconds, cpuSeconds: (user + system) / 1e6 };
}

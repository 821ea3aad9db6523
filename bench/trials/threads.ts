import { randomFillSync } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { BatchDecoder } from '../../src/page/decode.ts';
import { BatchEncoder } from '../../src/page/encode.ts';
import { setThreads } from '../../src/page/threads.ts';
import { StreamReader } from '../../src/stream/reader.ts';
import { createPrng } from '../../test/support/prng.ts';
import { PAGE_BYTES, StreamBuilder } from '../../test/support/qemu-stream.ts';
import { type Figures, formatSpread, spread, type Trial } from '../harness.ts';

/* Chosen by us */
const BATCHES = 64;
const PAGES_PER_BATCH = 128;
const BATCH_BYTES: number = PAGES_PER_BATCH * PAGE_BYTES;

const LAYOUT = {
  pageBits: 12,
  hasFooter: true,
  sectionId: 2,
  blocks: [{ name: 'pc.ram', usedBytes: BATCHES * BATCH_BYTES }],
};

type CodecName = 'lz4' | 'zstd';

/** A batch as the reader leaves it in a slot. */
interface CutBatch {
  readonly slot: Uint8Array;
  readonly sealed: Int32Array;
}

/** What each thread adds, with the script thread that feeds them. */
export const threads: Trial = {
  name: 'threads',
  question: 'What does each thread add to encoding and decoding, batches of realistic pages?',
  async run({ isSmoke, pairs }) {
    const seconds = isSmoke ? 0.05 : 2;
    const cut = cutBatches(makePages());
    const lines: string[] = [];
    for (const codec of ['lz4', 'zstd'] as const) {
      const payloads = await encodeAll(codec, cut);
      const wireBytes = payloads.reduce((sum, payload) => sum + payload.length, 0);
      const ratio = (BATCHES * BATCH_BYTES) / wireBytes;
      const name = codec === 'zstd' ? 'zstd 1' : codec;
      lines.push(
        ...(await scale(`encode ${name}, ${ratio.toFixed(2)}×`, pairs, (count) =>
          encoding(codec, cut, count, seconds),
        )),
        ...(await scale(`decode ${name}`, pairs, (count) => decoding(payloads, count, seconds))),
      );
    }
    return lines;
  },
};

/** Measures 1, 2, … threads in turn, again and again, and states each against one. */
async function scale(
  title: string,
  times: number,
  measure: (count: number) => Promise<Figures>,
): Promise<string[]> {
  const counts = Array.from({ length: availableParallelism() }, (_, index) => index + 1);
  const figures = new Map<number, Figures[]>(counts.map((count) => [count, []]));
  for (let time = 0; time < times; time++) {
    for (const count of counts) {
      setThreads({ threads: count });
      figures.get(count)!.push(await measure(count));
    }
  }
  const rates = (count: number): number[] => figures.get(count)!.map((each) => each['rate']!);
  return [
    `${title}:`,
    ...counts.map((count) => {
      const shares = rates(count).map((rate, time) => rate / rates(1)[time]! / count);
      const cpu = spread(figures.get(count)!.map((each) => each['cpuSecondsPerGB']!));
      return (
        `  ${count} thread${count === 1 ? ' ' : 's'}  ${formatSpread(spread(rates(count)))} GB/s  ` +
        `efficiency ${formatSpread(spread(shares))}  processor ${formatSpread(cpu)} s/GB`
      );
    }),
  ];
}

/** Encodes batches with `count` threads, one batch more in work than there are threads. */
async function encoding(
  codec: CodecName,
  cut: readonly CutBatch[],
  count: number,
  seconds: number,
): Promise<Figures> {
  const encoder = new BatchEncoder({ codec, threads: count, now: () => performance.now() });
  return await inParallel(count + 1, seconds, async (index) => {
    const { slot: source, sealed } = cut[index % BATCHES]!;
    // In place of the reader's copy from the stream.
    const slot = encoder.takeSlot()!;
    slot.set(source);
    encoder.acked(await encoder.encode(slot, sealed, 0));
  });
}

async function decoding(
  payloads: readonly Uint8Array[],
  count: number,
  seconds: number,
): Promise<Figures> {
  let decoder: BatchDecoder;
  return await inParallel(count + 1, seconds, async (index) => {
    // A decoder takes each batch once.
    if (index % BATCHES === 0) decoder = new BatchDecoder(LAYOUT, 0);
    const taken = decoder;
    const { output } = await taken.decode(payloads[index % BATCHES]!, index);
    taken.give(output);
  });
}

/** Runs `work` again and again, `lanes` at once, and says how many bytes of pages that was. */
async function inParallel(
  lanes: number,
  seconds: number,
  work: (index: number) => Promise<void>,
): Promise<Figures> {
  const cpuBefore = process.cpuUsage();
  const beganMs = performance.now();
  let begun = 0;
  await Promise.all(
    Array.from({ length: lanes }, async () => {
      while (performance.now() - beganMs < seconds * 1000) await work(begun++);
    }),
  );
  const gigabytes = (begun * BATCH_BYTES) / 1e9;
  const cpu = process.cpuUsage(cpuBefore);
  return {
    rate: gigabytes / ((performance.now() - beganMs) / 1000),
    cpuSecondsPerGB: (cpu.user + cpu.system) / 1e6 / gigabytes,
  };
}

async function encodeAll(codec: CodecName, cut: readonly CutBatch[]): Promise<Uint8Array[]> {
  const encoder = new BatchEncoder({ codec, threads: 1, now: () => performance.now() });
  const payloads: Uint8Array[] = [];
  // None is acked, so that none has to wait for another where it is decoded.
  for (const { slot: source, sealed } of cut) {
    const slot = encoder.takeSlot()!;
    slot.set(source);
    const { buffer, start, end } = await encoder.encode(slot, sealed, 0);
    payloads.push(new Uint8Array(buffer.slice(start, end)));
  }
  return payloads;
}

/** Cuts pages into batches, as the source does. */
function cutBatches(pages: readonly Uint8Array[]): CutBatch[] {
  const builder = new StreamBuilder({ blocks: [{ name: 'pc.ram', pages: pages.length }] });
  builder.header().ramStart().partBegin();
  for (const [page, bytes] of pages.entries()) builder.page(0, page, { kind: 'page', bytes });
  const encoder = new BatchEncoder({ codec: 'none', threads: 1, now: () => performance.now() });
  const cut: CutBatch[] = [];
  const reader = new StreamReader({
    takeSlot: () => encoder.takeSlot(),
    layout: () => {},
    bytes: () => {},
    pages: (slot, sealed) => {
      cut.push({ slot, sealed: sealed.slice() });
    },
    epoch: () => {},
  });
  reader.push(builder.bytes(), 0);
  reader.flush();
  return cut;
}

/**
 * Pages like those of a machine that works: of eight, three of pointers, two of text, one of small
 * numbers, one filled in part, one that does not compress.
 */
function makePages(): Uint8Array[] {
  const random = createPrng(11);
  const kinds = [pointers, text, pointers, noise, pointers, text, numbers, partly];
  return Array.from({ length: BATCHES * PAGES_PER_BATCH }, (_, page) =>
    kinds[page % kinds.length]!(random),
  );
}

/** Objects of a heap: pointers near each other, flags, lengths, some zeros. */
function pointers(random: () => number): Uint8Array {
  const words = new BigUint64Array(PAGE_BYTES / 8);
  const base = 0x7f3a_0000_0000n + BigInt(Math.floor(random() * 4096)) * 4096n;
  for (let index = 0; index < words.length; index++) {
    const field = index % 6;
    if (field < 2) words[index] = base + BigInt(Math.floor(random() * 65_536)) * 16n;
    else if (field === 2) words[index] = BigInt(Math.floor(random() * 256));
    else if (field === 3) words[index] = 0x5581_0020_4a10n + BigInt(Math.floor(random() * 8)) * 64n;
  }
  return new Uint8Array(words.buffer);
}

/** Words of a log: few, in any order, with numbers between. */
function text(random: () => number): Uint8Array {
  const words = 'the server of request page error kernel at memory open to in close user file a';
  const all = words.split(' ');
  let line = '';
  while (line.length < PAGE_BYTES) {
    line += random() < 0.15 ? `${Math.floor(random() * 1e6)}` : all[Math.floor(random() * 16)];
    line += random() < 0.1 ? '\n' : ' ';
  }
  return new Uint8Array(Buffer.from(line.slice(0, PAGE_BYTES), 'latin1'));
}

/** Samples that wander by little. */
function numbers(random: () => number): Uint8Array {
  const samples = new Int16Array(PAGE_BYTES / 2);
  let sample = 0;
  for (let index = 0; index < samples.length; index++) {
    sample += Math.round((random() - 0.5) * 24);
    samples[index] = sample;
  }
  return new Uint8Array(samples.buffer);
}

/** A page of which a fifth is in use. */
function partly(random: () => number): Uint8Array {
  const bytes = new Uint8Array(PAGE_BYTES);
  bytes.set(pointers(random).subarray(0, 800), 64);
  return bytes;
}

function noise(): Uint8Array {
  return randomFillSync(new Uint8Array(PAGE_BYTES));
}

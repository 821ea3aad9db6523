import { randomFillSync } from 'node:crypto';
import Benchmark from 'benchmark';
import { Codec, Encoded, native, Sealed, SLOT_ROOM_BYTES } from '../../src/native.ts';
import { StreamBuilder } from '../../test/support/qemu-stream.ts';
import type { Trial } from '../harness.ts';

const PAGE_BYTES = 4096;
const PAGES = 128;

/** Kernels of the addon, one by one, on data in the processor's cache. */
export const kernels: Trial = {
  name: 'kernels',
  question: 'How fast are the addon’s kernels, per thread?',
  async run({ isSmoke }) {
    const seconds = isSmoke ? 0.05 : 1;
    return [
      ...native.features().zeroPageVariants.map((variant) => zeroScan(variant, seconds)),
      cutting(seconds),
      await encoding('none', Codec.None, 0, seconds),
      await encoding('LZ4', Codec.Lz4, 1, seconds),
      await encoding('zstd -3', Codec.Zstd, -3, seconds),
      await encoding('zstd 1', Codec.Zstd, 1, seconds),
    ];
  },
};

function zeroScan(variant: string, seconds: number): string {
  const pages = new Uint8Array(new ArrayBuffer(PAGES * PAGE_BYTES));
  const bitmap = new Uint32Array(PAGES / 32);
  const rate = timed(seconds, pages.length, () => {
    native.findZeroPages(pages, PAGE_BYTES, bitmap, variant);
  });
  return `  zero scan, ${variant}, zero pages: ${rate}`;
}

/** Bytes of one PART section with structured pages. */
function ramSection(): { stream: Uint8Array; bodyAt: number } {
  const builder = new StreamBuilder({ blocks: [{ name: 'pc.ram', pages: PAGES }] }).partBegin();
  const bodyAt = builder.bytes().length;
  for (let page = 0; page < PAGES; page++) {
    builder.page(0, page, { kind: 'page', bytes: structuredPage(page) });
  }
  return { stream: builder.partEnd().bytes(), bodyAt };
}

function structuredPage(page: number): Uint8Array {
  const words = new BigUint64Array(PAGE_BYTES / 8);
  for (let index = 0; index < words.length; index++) {
    words[index] =
      index % 3 === 0
        ? 0n
        : 0x7f00_0000_0000n + BigInt(((page * 7 + index) * 2654435761) % 65536) * 64n;
  }
  const bytes = new Uint8Array(words.buffer);
  randomFillSync(bytes, 0, 256);
  return bytes;
}

function newCutter() {
  const cutter = new native.RamCutter(12);
  cutter.setBlocks(['pc.ram'], Float64Array.of(PAGES * PAGE_BYTES));
  return cutter;
}

function newSlot(): Uint8Array {
  return new Uint8Array(new ArrayBuffer(SLOT_ROOM_BYTES + PAGES * PAGE_BYTES));
}

function cutting(seconds: number): string {
  const { stream, bodyAt } = ramSection();
  const cutter = newCutter();
  const slot = newSlot();
  const sealed = new Int32Array(Sealed.count);
  const rate = timed(seconds, PAGES * PAGE_BYTES, () => {
    cutter.setInside(true);
    cutter.begin(slot);
    cutter.cut(stream, bodyAt, stream.length);
    cutter.seal(sealed);
    cutter.beginEpoch();
  });
  return `  cut QEMU records into a batch: ${rate}`;
}

function timed(seconds: number, bytes: number, run: () => void): string {
  const suite = new Benchmark('kernel', run, { maxTime: seconds });
  suite.run();
  const { mean, rme } = suite.stats;
  return `${(bytes / mean / 1e9).toFixed(2)} GB/s ±${rme.toFixed(1)} %`;
}

async function encoding(
  name: string,
  codec: Codec,
  level: number,
  seconds: number,
): Promise<string> {
  native.setThreads(1);
  const { stream, bodyAt } = ramSection();
  const cutter = newCutter();
  const slot = newSlot();
  const out = newSlot();
  const sealed = new Int32Array(Sealed.count);
  cutter.setInside(true);
  cutter.begin(slot);
  cutter.cut(stream, bodyAt, stream.length);
  cutter.seal(sealed);
  const encoded = new Int32Array(Encoded.count);
  const [start, end] = [sealed[Sealed.start]!, sealed[Sealed.end]!];
  const beganMs = performance.now();
  let count = 0;
  while (performance.now() - beganMs < seconds * 1000) {
    await native.encodeBatch(slot, start, end, codec, level, out, encoded);
    count++;
  }
  const gigabytes = (count * PAGES * PAGE_BYTES) / 1e9;
  const rate = gigabytes / ((performance.now() - beganMs) / 1000);
  const share = (encoded[Encoded.end]! - encoded[Encoded.start]!) / (PAGES * PAGE_BYTES);
  return `  encode a batch, ${name}: ${rate.toFixed(2)} GB/s, ${(100 * share).toFixed(0)} % of its bytes`;
}

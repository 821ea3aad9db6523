import { randomFillSync } from 'node:crypto';
import Benchmark from 'benchmark';
import { Codec, Encoded, native, Sealed, SLOT_ROOM_BYTES } from '../../src/native.ts';
import { StreamBuilder } from '../../test/support/qemu-stream.ts';
import { formatSpread, spread, type Trial } from '../harness.ts';
import { MemoryProgram } from '../native/memory.ts';
import { perfMemcpy, qemuImgScan } from '../native/peers.ts';

const PAGE_BYTES = 4096;
const PAGES = 128;

/** Kernels of the addon, one by one, on data in the processor's cache and in memory. */
export const kernels: Trial = {
  name: 'kernels',
  question: 'How fast are the addon’s kernels, per thread, beside what memory allows?',
  async run({ isSmoke, pairs }) {
    const seconds = isSmoke ? 0.05 : 1;
    const memoryBytes = isSmoke ? 16 * 2 ** 20 : 2 ** 30;
    return [
      ...(await scanningMemory(memoryBytes, pairs)),
      ...(await pageKernels('in L2', 256 * 1024, isSmoke ? 20 : 1000)),
      ...(await pageKernels('from memory', memoryBytes, isSmoke ? 1 : 5)),
      cutting(seconds),
      await encoding('none', Codec.None, 0, seconds),
      await encoding('LZ4', Codec.Lz4, 1, seconds),
      await encoding('zstd -3', Codec.Zstd, -3, seconds),
      await encoding('zstd 1', Codec.Zstd, 1, seconds),
    ];
  },
};

/** Runs everything in turn, as often as there are pairs; the first turn does not count. */
async function inTurn(
  pairs: number,
  runs: Readonly<Record<string, () => number | Promise<number>>>,
): Promise<Record<string, number[]>> {
  const taken: Record<string, number[]> = {};
  for (let pair = -1; pair < pairs; pair++) {
    for (const [name, run] of Object.entries(runs)) {
      taken[name] ??= [];
      const nanoseconds = await run();
      if (pair >= 0) taken[name].push(nanoseconds);
    }
  }
  return taken;
}

/** Pages like the program's: every second one is zero. */
function halfZero(byteCount: number): Uint8Array {
  const pages = new Uint8Array(new ArrayBuffer(byteCount)).fill(0x7f);
  for (let at = 0; at < byteCount; at += 2 * PAGE_BYTES) pages.fill(0, at, at + PAGE_BYTES);
  return pages;
}

/** B1 of the targets: zero pages of memory, beside memcpy and reading alone. */
async function scanningMemory(byteCount: number, pairs: number): Promise<string[]> {
  const pages = halfZero(byteCount);
  const bitmap = new Uint32Array(byteCount / PAGE_BYTES / 32);
  const scan = (): number => {
    const begin = process.hrtime.bigint();
    native.findZeroPages(pages, PAGE_BYTES, bitmap);
    return Number(process.hrtime.bigint() - begin);
  };
  await using small = new MemoryProgram(byteCount, 'small');
  await small.run('pages', 'half');
  const addon = await inTurn(pairs, {
    scan,
    copy: () => small.run('copy'),
    read: () => small.run('read'),
  });
  const lines = stateScan('half zero, addon', byteCount, addon);
  const ours = spread(addon['scan']!).median / 1e9;
  const perf = perfMemcpy();
  if (perf !== undefined) {
    const ratio = byteCount / 1e9 / ours / perf;
    lines.push(`    ÷ memcpy as perf measures it ${ratio.toFixed(2)} (${perf.toFixed(1)} GB/s)`);
  }
  const image = qemuImgScan(pages);
  if (image !== undefined) {
    const whole = image.scan + image.read;
    lines.push(
      `    time ÷ qemu-img -S 4k ${(ours / whole).toFixed(3)}, ` +
        `÷ what that takes longer than -S 0 ${(ours / image.scan).toFixed(3)}`,
    );
  }
  const variant = native.features().zeroPage;
  for (const size of ['small', 'huge'] as const) {
    await using program = new MemoryProgram(byteCount, size);
    for (const kind of ['half', 'mixed', 'zero', 'full']) {
      await program.run('pages', kind);
      const taken = await inTurn(pairs, {
        scan: () => program.run('scan', variant),
        copy: () => program.run('copy'),
        read: () => program.run('read'),
      });
      lines.push(...stateScan(`${kind}, ${size} pages`, byteCount, taken));
    }
  }
  return lines;
}

/** Rate of a scan, its ratios to copying and reading, and nanoseconds a page. */
function stateScan(title: string, byteCount: number, taken: Record<string, number[]>): string[] {
  const rate = (name: string): string =>
    formatSpread(spread(taken[name]!.map((nanoseconds) => byteCount / nanoseconds)), 1);
  const ratio = (name: string): string =>
    formatSpread(spread(taken['scan']!.map((ours, index) => taken[name]![index]! / ours)));
  const perPage = spread(taken['scan']!.map((each) => (each * PAGE_BYTES) / byteCount));
  return [
    `  zero scan, ${title}: ${rate('scan')} GB/s, ${formatSpread(perPage, 1)} ns a page`,
    `    ÷ memcpy ${ratio('copy')} (${rate('copy')}), ÷ reading ${ratio('read')} (${rate('read')})`,
  ];
}

/** Every variant of each kernel that works on single pages. */
async function pageKernels(place: string, byteCount: number, rounds: number): Promise<string[]> {
  const features = native.features();
  await using program = new MemoryProgram(byteCount, 'huge');
  const lines: string[] = [];
  const measure = async (command: string, word: string, bytes = byteCount): Promise<void> => {
    const nanoseconds = await program.run(command, word, rounds);
    const perPage = ((nanoseconds * PAGE_BYTES) / bytes).toFixed(0);
    const name = word === '-' ? command : `${command}, ${word}`;
    lines.push(
      `  ${place}, ${name}: ${(bytes / nanoseconds).toFixed(1)} GB/s, ${perPage} ns a page`,
    );
  };
  await program.run('pages', 'zero');
  for (const variant of features.zeroPageVariants) await measure('scan', variant);
  for (const variant of features.fillPageVariants) await measure('fill', variant);
  await program.run('pages', 'full');
  for (const variant of features.similarityVariants) await measure('similarity', variant);
  for (const variant of features.hashVariants) await measure('hash', variant);
  for (const variant of features.deltaVariants) await measure('delta', variant, byteCount / 2);
  await measure('apply', '-');
  return lines;
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
  const order = Int32Array.of(codec, level, 0, 0, 0);
  const beganMs = performance.now();
  let count = 0;
  while (performance.now() - beganMs < seconds * 1000) {
    await native.encodeBatch(slot, start, end, order, undefined, out, encoded);
    count++;
  }
  const gigabytes = (count * PAGES * PAGE_BYTES) / 1e9;
  const rate = gigabytes / ((performance.now() - beganMs) / 1000);
  const share = (encoded[Encoded.end]! - encoded[Encoded.start]!) / (PAGES * PAGE_BYTES);
  return `  encode a batch, ${name}: ${rate.toFixed(2)} GB/s, ${(100 * share).toFixed(0)} % of its bytes`;
}

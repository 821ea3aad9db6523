import { DirtyBitmap } from '../../src/page/bitmap.ts';
import { createPrng, integerBelow } from '../../test/support/prng.ts';
import { type Figures, formatSpread, spread, type Trial, takeTurns } from '../harness.ts';

const RUNS_TOGETHER = 1024;
const SHARE = 0.01;

/** Passes over a dirty bitmap: the addon's, and what JavaScript does by itself. */
export const bitmapWalk: Trial = {
  name: 'bitmap-walk',
  question: 'How fast are 3,000,000,000 pages looked through, of which 1 % is dirty?',
  async run({ isSmoke, pairs }) {
    const pageCount = isSmoke ? 3_000_000 : 3_000_000_000;
    const shared = new SharedArrayBuffer(8 * Math.ceil(pageCount / 64));
    const bitmap = new DirtyBitmap(pageCount);
    const kept = new DirtyBitmap(pageCount, new Uint32Array(shared));
    const lines: string[] = [];
    for (const [title, fill] of [
      ['scattered', setScattered],
      ['clusters of 16 to 64', setClusters],
      ['none dirty', () => {}],
    ] as const) {
      bitmap.clearAll();
      fill(bitmap);
      lines.push(...(await walking(title, bitmap, pairs)));
      if (fill === setScattered) lines.push(...(await others(bitmap, kept, pairs)));
    }
    return lines;
  },
};

function setScattered(bitmap: DirtyBitmap): void {
  const random = createPrng(1);
  for (let left = SHARE * bitmap.pageCount; left > 0; left--) {
    bitmap.set(integerBelow(random, bitmap.pageCount));
  }
}

function setClusters(bitmap: DirtyBitmap): void {
  const random = createPrng(2);
  for (let left = SHARE * bitmap.pageCount; left > 0; ) {
    const count = 16 + integerBelow(random, 49);
    bitmap.set(integerBelow(random, bitmap.pageCount - 64), count);
    left -= count;
  }
}

async function walking(title: string, bitmap: DirtyBitmap, pairs: number): Promise<string[]> {
  const { words } = bitmap;
  const part = words.subarray(0, words.length / 16);
  const turns = await takeTurns(pairs, {
    ours: timed(words, () => walk(bitmap)),
    words: timed(words, () => walkWords(words)),
    bits: timed(part, () => walkBits(part)),
  });
  return [
    `  runs of ${bitmap.pageCount} pages, ${title}: ${median(turns.ours, 'runs')} runs, ` +
      `${formatSpread(spread(turns.ours.map((each) => each['milliseconds']!)), 0)} ms`,
    `    ${rates(turns.ours)} GB/s; ÷ word by word in JavaScript ${ratio(turns.ours, turns.words)}` +
      ` (${rates(turns.words)}), ÷ bit by bit ${ratio(turns.ours, turns.bits)}` +
      ` (${rates(turns.bits, 3)})`,
  ];
}

/** Counting, cutting, merging and taking: whole passes as well. */
async function others(bitmap: DirtyBitmap, kept: DirtyBitmap, pairs: number): Promise<string[]> {
  const { words } = bitmap;
  const counting = await takeTurns(pairs, {
    ours: timed(words, () => bitmap.count()),
    words: timed(words, () => countWords(words)),
    cut: timed(words, () => cutBatches(bitmap)),
  });
  const merging = await takeTurns(pairs, {
    ours: timed(words, () => merged(kept, bitmap)),
    words: timed(words, () => mergeWords(kept.words, words)),
  });
  const taking: Figures[] = [];
  const into = new DirtyBitmap(bitmap.pageCount);
  for (let pair = 0; pair < pairs; pair++) {
    into.clearAll();
    kept.clearAll();
    kept.merge(bitmap);
    taking.push(await timed(words, () => taken(into, kept))());
  }
  return [
    `    count: ${rates(counting.ours)} GB/s, ÷ JavaScript ${ratio(counting.ours, counting.words)}` +
      `; cut into batches of 256: ${rates(counting.cut)} GB/s`,
    `    merge into shared words: ${rates(merging.ours)} GB/s, ` +
      `÷ JavaScript, not atomic ${ratio(merging.ours, merging.words)}; takeFrom: ${rates(taking)} GB/s`,
  ];
}

/** GB/s of bitmap, and what was found. */
function timed(words: Uint32Array, run: () => number): () => Promise<Figures> {
  return async () => {
    const begin = process.hrtime.bigint();
    const runs = run();
    const nanoseconds = Number(process.hrtime.bigint() - begin);
    return { rate: words.byteLength / nanoseconds, milliseconds: nanoseconds / 1e6, runs };
  };
}

function walk(bitmap: DirtyBitmap): number {
  const runs = new Float64Array(2 * RUNS_TOGETHER);
  let all = 0;
  for (let from = 0, found = RUNS_TOGETHER; found === RUNS_TOGETHER; ) {
    found = bitmap.findRuns(from, runs);
    all += found;
    if (found > 0) from = runs[2 * found - 2]! + runs[2 * found - 1]!;
  }
  return all;
}

/** As one would write it: words without a page are skipped, pages found by their lowest bits. */
function walkWords(words: Uint32Array): number {
  const runs = new Float64Array(2 * RUNS_TOGETHER);
  let all = 0;
  let end = -1;
  for (let word = 0; word < words.length; word++) {
    for (let bits = words[word]!; bits !== 0; bits &= bits - 1) {
      const page = 32 * word + 31 - Math.clz32(bits & -bits);
      if (page !== end) {
        runs[2 * (all++ % RUNS_TOGETHER)] = page;
        runs[2 * ((all - 1) % RUNS_TOGETHER) + 1] = 0;
      }
      runs[2 * ((all - 1) % RUNS_TOGETHER) + 1]!++;
      end = page + 1;
    }
  }
  return all;
}

function walkBits(words: Uint32Array): number {
  const runs = new Float64Array(2 * RUNS_TOGETHER);
  let all = 0;
  let count = 0;
  for (let page = 0; page < 32 * words.length; page++) {
    if (((words[page >>> 5]! >>> (page & 31)) & 1) === 1) {
      count++;
    } else if (count > 0) {
      runs[2 * (all % RUNS_TOGETHER)] = page - count;
      runs[2 * (all++ % RUNS_TOGETHER) + 1] = count;
      count = 0;
    }
  }
  return all;
}

function countWords(words: Uint32Array): number {
  let count = 0;
  for (let word = 0; word < words.length; word++) {
    let bits = words[word]!;
    bits -= (bits >>> 1) & 0x5555_5555;
    bits = (bits & 0x3333_3333) + ((bits >>> 2) & 0x3333_3333);
    count += Math.imul((bits + (bits >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
  }
  return count;
}

function cutBatches(bitmap: DirtyBitmap): number {
  let batches = 0;
  for (let from = 0; from < bitmap.pageCount; batches++) from = bitmap.endOf(from, 256).end;
  return batches;
}

function merged(into: DirtyBitmap, from: DirtyBitmap): number {
  into.merge(from);
  return 0;
}

function mergeWords(into: Uint32Array, from: Uint32Array): number {
  for (let word = 0; word < into.length; word++) into[word]! |= from[word]!;
  return 0;
}

function taken(into: DirtyBitmap, from: DirtyBitmap): number {
  into.takeFrom(from);
  return 0;
}

function rates(figures: readonly Figures[], digits = 1): string {
  return formatSpread(spread(figures.map((each) => each['rate']!)), digits);
}

function ratio(ours: readonly Figures[], peers: readonly Figures[]): string {
  const all = ours.map((our, index) => our['rate']! / peers[index]!['rate']!);
  return formatSpread(spread(all), 1);
}

function median(figures: readonly Figures[], name: string): number {
  return spread(figures.map((each) => each[name]!)).median;
}

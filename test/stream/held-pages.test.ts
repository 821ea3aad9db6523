import { expect, test } from 'vitest';
import { native } from '../../src/native.ts';
import { createPrng, integerBelow } from '../support/prng.ts';
import {
  loadStream,
  PAGE_BYTES,
  type PageRecord,
  randomBytes,
  randomStream,
  StreamBuilder,
} from '../support/qemu-stream.ts';
import { cutAnywhere, readAll, shuffledInEpochs, writeAll } from './support.ts';

/*
 * Pages that keep changing may be held back. The oracle: what QEMU loads of each page is what it
 * would have loaded, with some versions left out, but never the last, and never one that a record
 * of QEMU's own encoding builds upon.
 */

const SEEDS = Array.from({ length: 60 }, (_, index) => index + 1);
const BLOCKS = [
  { name: 'pc.ram', pages: 400 },
  { name: 'vga.vram', pages: 20 },
];
const COMMAND_PING = 2;

/** Many rounds over a few hot pages among others. */
function hotStream(random: () => number, { hasForeign = false } = {}): Uint8Array {
  const builder = new StreamBuilder({ blocks: BLOCKS }).header().ramStart();
  const hot = Array.from({ length: 1 + integerBelow(random, 300) }, () =>
    integerBelow(random, BLOCKS[0]!.pages),
  );
  const record = (): PageRecord => {
    const dice = random();
    if (dice < 0.1) return { kind: 'zero' };
    if (dice < 0.2) return { kind: 'page', bytes: new Uint8Array(PAGE_BYTES).fill(dice * 999) };
    if (hasForeign && dice < 0.23) return { kind: 'xbzrle', bytes: randomBytes(random, 9) };
    return { kind: 'page', bytes: randomBytes(random, PAGE_BYTES) };
  };
  const rounds = 3 + integerBelow(random, 6);
  for (let round = 0; round <= rounds; round++) {
    const isLast = round === rounds;
    builder.partBegin(isLast ? 3 : 2);
    for (const page of new Set(hot)) {
      if (round > 2 && random() < 0.4) continue;
      builder.page(0, page, record());
      if (!isLast && random() < 0.02)
        builder.partEnd().command(COMMAND_PING, [0, 0, 0, 9]).partBegin();
    }
    if (random() < 0.3) builder.page(1, integerBelow(random, 20), record());
    builder.partEnd();
  }
  return builder.tail(randomBytes(random, 100)).bytes();
}

/** Pages whose versions were not carried as the oracle demands. */
function wrongPages(input: Uint8Array, output: Uint8Array): string[] {
  const expected = loadStream(input).pages;
  const loaded = loadStream(output).pages;
  const wrong = [...loaded.keys()].filter((page) => !expected.has(page));
  for (const [page, versions] of expected) {
    const kept = loaded.get(page) ?? [];
    let at = versions.length;
    // From the last version back: whatever is kept comes in the same order.
    for (const version of [...kept].reverse()) {
      const builtUpon = at < versions.length && versions[at]!.startsWith('xbzrle');
      const from = versions.lastIndexOf(version, at - 1);
      if (
        from < 0 ||
        (at === versions.length && from !== at - 1) ||
        (builtUpon && from !== at - 1)
      ) {
        wrong.push(page);
        break;
      }
      at = from;
    }
    if (kept.length === 0) wrong.push(page);
  }
  return wrong;
}

test.each(SEEDS)('the last version of every page arrives, seed %i', async (seed) => {
  const random = createPrng(seed);
  const input = hotStream(random, { hasForeign: seed % 3 === 0 });
  const { found, layout } = readAll(cutAnywhere(input, random, 20_000), {
    mayHold: true,
    literalBytes: seed % 5 === 0 ? 4 * PAGE_BYTES : 64 * PAGE_BYTES,
    isBusy: () => random() < 0.3,
  });
  const order = seed % 2 === 0 ? found.map((_, index) => index) : shuffledInEpochs(found, random);
  const output = await writeAll(found, layout, order);
  expect(wrongPages(input, output)).toEqual([]);
  expect(Buffer.compare(loadStream(output).tail, loadStream(input).tail)).toBe(0);
});

test.each(SEEDS)('any stream of QEMU is carried, held pages or not, seed %i', async (seed) => {
  const random = createPrng(seed);
  const input = randomStream(random);
  const { found, layout } = readAll([input], { mayHold: true });
  const output = await writeAll(found, layout, shuffledInEpochs(found, random));
  expect(wrongPages(input, output)).toEqual([]);
});

test('of a page that comes ten times, three versions are sent', async () => {
  const builder = new StreamBuilder({ blocks: BLOCKS }).header().ramStart();
  for (let round = 0; round < 10; round++) {
    const bytes = new Uint8Array(PAGE_BYTES).fill(round, 9);
    builder
      .partBegin(round === 9 ? 3 : 2)
      .page(0, 7, { kind: 'page', bytes })
      .partEnd();
  }
  const input = builder.tail(new Uint8Array(4)).bytes();
  const { found, layout } = readAll([input], { mayHold: true });
  const order = found.map((_, index) => index);
  const { pages } = loadStream(await writeAll(found, layout, order));
  const [all] = [...loadStream(input).pages.values()];
  expect([...pages.values()]).toEqual([[all![0], all![1], all![9]]]);
});

test('the oracle finds a last version that is missing', () => {
  const build = (rounds: number): Uint8Array => {
    const builder = new StreamBuilder({ blocks: BLOCKS }).header().ramStart();
    for (let round = 0; round < rounds; round++) {
      const bytes = new Uint8Array(PAGE_BYTES).fill(round + 1);
      builder.partBegin(2).page(0, 5, { kind: 'page', bytes }).partEnd();
    }
    return builder.partBegin(3).partEnd().tail(new Uint8Array(4)).bytes();
  };
  expect(wrongPages(build(4), build(4))).toEqual([]);
  expect(wrongPages(build(4), build(3))).toHaveLength(1);
});

test('a page is held from its third version on, at most 1 MiB of them, and released whole', () => {
  const cutter = new native.RamCutter(12);
  cutter.setBlocks(['pc.ram'], Float64Array.of(400 * PAGE_BYTES));
  const slot = (): Uint8Array => new Uint8Array(new ArrayBuffer(4 * 1024 * 1024));
  cutter.begin(slot());
  cutter.setInside(true);
  cutter.setHolding(true);
  const sealed = new Int32Array(16);
  for (let round = 1; round <= 5; round++) {
    const builder = new StreamBuilder({ blocks: [{ name: 'pc.ram', pages: 400 }] });
    for (let page = 0; page < 300; page++) {
      const bytes = new Uint8Array(PAGE_BYTES).fill(page).fill(round, 100);
      builder.page(0, page, { kind: 'page', bytes });
    }
    const records = builder.bytes();
    for (let at = 0; at < records.length; ) {
      const result = cutter.cut(records, at, records.length);
      at += Math.floor(result / 8);
      if (result % 8 === 0) continue;
      cutter.seal(sealed);
      cutter.begin(slot());
      cutter.setInside(true);
      if (result % 8 === 2) cutter.beginEpoch();
    }
    expect(cutter.heldPages()).toBe(round < 3 ? 0 : 256);
  }
  cutter.setHolding(false);
  expect(cutter.heldPages()).toBe(256);
  for (let stop = cutter.release(); stop !== 0; stop = cutter.release()) {
    cutter.seal(sealed);
    cutter.begin(slot());
    cutter.setInside(true);
    if (stop === 2) cutter.beginEpoch();
  }
  expect(cutter.heldPages()).toBe(0);
});

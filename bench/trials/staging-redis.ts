import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { DirtyBitmap } from '../../src/page/bitmap.ts';
import type { CodecName } from '../../src/page/codec-choice.ts';
import { GuestMemory } from '../../src/page/memory.ts';
import { ExtentSeal } from '../../src/staging/extent.ts';
import { Gather } from '../../src/staging/gather.ts';
import { Intermediary } from '../../src/staging/intermediary.ts';
import { EXTENT_BYTES_MAX } from '../../src/staging/limits.ts';
import type { ManifestEntry } from '../../src/staging/manifest.ts';
import { applyTo, extentEncoder, scatterPages } from '../../src/staging/pages.ts';
import { Scatter } from '../../src/staging/scatter.ts';
import { run } from '../../test/support/lab/processes.ts';
import { PAGE_BYTES } from '../../test/support/qemu-stream.ts';
import { RedisServer } from '../../test/support/redis.ts';
import {
  type Figures,
  formatSpread,
  isChosen,
  spread,
  type Trial,
  type Turns,
  takeTurns,
} from '../harness.ts';
import { takeProcessImage } from '../support/page-set.ts';

/* Chosen by us */
const FULL_BYTES: number = 512 * 1024 * 1024;
const SMOKE_BYTES: number = 16 * 1024 * 1024;
const PEER_CONNECTIONS = 4;
const PIPELINE_PAGES = 128;
const TIMEOUT_MS = 120_000;
/** Keys that a cell writes again and again, and so many that none comes twice. */
const CELL_KEYS = 500;
const FRESH_KEYS = 100_000_000;
const THREADS = 1;
/** Bytes of values that redis-benchmark is tried with, and requests it has under way. */
const CELLS = [4090, 16_374, 65_526].flatMap((bytes) => [1, 16].map((depth) => ({ bytes, depth })));

/** How fast pages come to Redis and back, against Redis's own limit and a page at a time. */
export const stagingRedis: Trial = {
  name: 'staging-redis',
  question: "How near do put and get of pages come to Redis's limit, and what do they take there?",
  async run(options) {
    const { isSmoke, pairs } = options;
    const folder = mkdtempSync(join(tmpdir(), 'pagelane-bench-'));
    await using server = await RedisServer.start();
    try {
      const { file } = await takeProcessImage(folder, isSmoke ? SMOKE_BYTES : FULL_BYTES);
      const pages = readFileSync(file);
      const setting: Setting = { server, pages: new Uint8Array(pages), isSmoke };
      const turns = await takeTurns(
        pairs,
        {
          extents: () => carryExtents(setting),
          raw: () => moveGuest(setting, 'none'),
          compressed: () => moveGuest(setting, 'lz4'),
          cells: () => bestCells(setting),
          pageKeys: () => carryPages(setting),
        },
        { warmUp: !isSmoke },
      );
      return isChosen('redis', options) ? describe(turns) : [];
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
};

interface Setting {
  readonly server: RedisServer;
  readonly pages: Uint8Array;
  readonly isSmoke: boolean;
}

type Contestant = 'extents' | 'raw' | 'compressed' | 'cells' | 'pageKeys';

function describe(turns: Turns<Contestant>): string[] {
  const ratio = (ours: Contestant, peer: Contestant, figure: string): string =>
    formatSpread(spread(turns[ours].map((our, at) => our[figure]! / turns[peer][at]![figure]!)));
  const rate = (name: Contestant, figure: string): string =>
    formatSpread(spread(turns[name].map((each) => each[figure]!)));
  const lines = (['putGBs', 'getGBs'] as const).flatMap((figure) => [
    `${figure}: extents ${rate('extents', figure)}, sealed pages ${rate('raw', figure)}, ` +
      `lz4 ${rate('compressed', figure)}, best cell ${rate('cells', figure)}, ` +
      `key per page ${rate('pageKeys', figure)}`,
    `  extents ÷ best cell ${ratio('extents', 'cells', figure)}, ` +
      `sealed pages ÷ best cell ${ratio('raw', 'cells', figure)}, ` +
      `sealed pages ÷ key per page ${ratio('raw', 'pageKeys', figure)}`,
  ]);
  return [
    ...lines,
    `put: extents ÷ redis-benchmark into fresh memory ${formatSpread(
      spread(turns.extents.map((our, at) => our['putGBs']! / turns.cells[at]!['freshPutGBs']!)),
    )}`,
    `used_memory ÷ key per page: raw ${ratio('raw', 'pageKeys', 'usedMB')}, ` +
      `lz4 ${ratio('compressed', 'pageKeys', 'usedMB')}`,
  ];
}

/** Values of an extent's size, without pages or seals: what the connections carry. */
async function carryExtents({ server, pages }: Setting): Promise<Figures> {
  await server.admin.flushall();
  await using intermediary = await Intermediary.open(server.address);
  const count = Math.floor(pages.length / EXTENT_BYTES_MAX);
  const putMs = await timed(() =>
    eachAtOnce(count, intermediary.slots, (at) =>
      intermediary.put(
        `pl:e${at}`,
        pages.subarray(at * EXTENT_BYTES_MAX, (at + 1) * EXTENT_BYTES_MAX),
      ),
    ),
  );
  const getMs = await timed(() =>
    eachAtOnce(count, intermediary.slots, async (at) => {
      const value = await intermediary.get(`pl:e${at}`);
      if (value?.length !== EXTENT_BYTES_MAX) throw new Error(`Extent ${at} is not there`);
    }),
  );
  const bytes = count * EXTENT_BYTES_MAX;
  return { putGBs: gbs(bytes, putMs), getGBs: gbs(bytes, getMs) };
}

/** Pages of guest memory, encoded, sealed, scattered, gathered, applied and compared. */
async function moveGuest({ server, pages }: Setting, codec: CodecName): Promise<Figures> {
  await server.admin.flushall();
  const emptyBytes = await usedBytes(server);
  await using intermediary = await Intermediary.open(server.address);
  using guest = new GuestMemory([{ name: 'ram', buffer: pages }]);
  const attempt = randomBytes(16).toString('hex');
  const seal = new ExtentSeal(randomBytes(32), { vm: 'bench', attempt });
  const entries: ManifestEntry[] = [];
  const { layout } = guest;
  const where = { layout, seal, intermediaries: [intermediary] };
  const onEntry = (entry: ManifestEntry): void => void entries.push(entry);
  const bitmap = new DirtyBitmap(pages.length / PAGE_BYTES);
  bitmap.setAll();
  const encoder = extentEncoder(PAGE_BYTES, { codec, threads: THREADS });
  const putMs = await timed(async () => {
    await using scatter = await Scatter.open({ ...where, onEntry }, pages.length);
    const how = { scatter, threads: THREADS };
    await scatterPages({ memory: guest, block: 0, pages: bitmap }, encoder, how);
    if (!(await scatter.verify())) throw new Error('Redis has lost pages');
  });
  const usedMB = ((await usedBytes(server)) - emptyBytes) / 1e6;
  const buffer = new Uint8Array(new ArrayBuffer(pages.length)).fill(1);
  using there = new GuestMemory([{ name: 'ram', buffer }], { isWritable: true });
  const getMs = await timed(async () => {
    await using gather = new Gather({ ...where, apply: await applyTo(there) });
    for (const entry of entries) gather.accept(entry);
    gather.complete();
    await gather.done();
  });
  if (Buffer.compare(buffer, pages) !== 0) throw new Error('Pages are not what they were');
  return { putGBs: gbs(pages.length, putMs), getGBs: gbs(pages.length, getMs), usedMB };
}

/** The fastest of what redis-benchmark does with values of several sizes, to the same socket. */
async function bestCells({ server, pages, isSmoke }: Setting): Promise<Figures> {
  await server.admin.flushall();
  const best = { putGBs: 0, getGBs: 0, freshPutGBs: 0 };
  const socket = server.address.at.kind === 'unix' ? server.address.at.path : '';
  const rates = async (bytes: number, depth: number, keys: number): Promise<[number, number]> => {
    const requests = Math.ceil(pages.length / (isSmoke ? 8 : 1) / bytes);
    const what = ['-t', 'set,get', '-r', `${keys}`, '-d', `${bytes}`, '-n', `${requests}`];
    const how = ['-c', `${PEER_CONNECTIONS}`, '-P', `${depth}`, '--csv'];
    const command = ['redis-benchmark', '-s', socket, ...what, ...how];
    const { stdout } = await run(command, { timeoutMs: TIMEOUT_MS });
    const rate = (test: string): number => {
      const perSecond = new RegExp(`^"${test}","([\\d.]+)"`, 'm').exec(stdout)?.[1];
      return (Number(perSecond) * bytes) / 1e9;
    };
    return [rate('SET'), rate('GET')];
  };
  // As much as there are pages, into memory that Redis has not touched.
  [best.freshPutGBs] = await rates(EXTENT_BYTES_MAX, 1, FRESH_KEYS);
  for (const { bytes, depth } of CELLS) {
    const [put, get] = await rates(bytes, depth, CELL_KEYS);
    best.putGBs = Math.max(best.putGBs, put);
    best.getGBs = Math.max(best.getGBs, get);
  }
  return best;
}

/** A key for each page, in pipelines: the same number of connections, as much under way. */
async function carryPages({ server, pages }: Setting): Promise<Figures> {
  await server.admin.flushall();
  const emptyBytes = await usedBytes(server);
  const path = server.address.at.kind === 'unix' ? server.address.at.path : '';
  const clients = Array.from({ length: PEER_CONNECTIONS }, () => new Redis({ path }));
  const count = pages.length / PAGE_BYTES / PIPELINE_PAGES;
  const pipe = async (at: number, worker: number, isPut: boolean): Promise<void> => {
    const pipeline = clients[worker]!.pipeline();
    for (let page = at * PIPELINE_PAGES; page < (at + 1) * PIPELINE_PAGES; page++) {
      const bytes = pages.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
      if (isPut) pipeline.set(`p${page}`, Buffer.from(bytes.buffer, bytes.byteOffset, PAGE_BYTES));
      else pipeline.getBuffer(`p${page}`);
    }
    for (const [cause] of (await pipeline.exec()) ?? []) if (cause !== null) throw cause;
  };
  const putMs = await timed(() =>
    eachAtOnce(count, PEER_CONNECTIONS, (at, by) => pipe(at, by, true)),
  );
  const usedMB = ((await usedBytes(server)) - emptyBytes) / 1e6;
  const getMs = await timed(() =>
    eachAtOnce(count, PEER_CONNECTIONS, (at, by) => pipe(at, by, false)),
  );
  for (const client of clients) client.disconnect();
  return { putGBs: gbs(pages.length, putMs), getGBs: gbs(pages.length, getMs), usedMB };
}

/** Does `step` for each index below `count`, so many at once. */
async function eachAtOnce(
  count: number,
  workers: number,
  step: (index: number, worker: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const work = async (_: unknown, worker: number): Promise<void> => {
    while (next < count) await step(next++, worker);
  };
  await Promise.all(Array.from({ length: workers }, work));
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const beganMs = performance.now();
  await work();
  return performance.now() - beganMs;
}

async function usedBytes({ admin }: RedisServer): Promise<number> {
  return Number(/^used_memory:(\d+)/m.exec(await admin.info('memory'))?.[1]);
}

function gbs(bytes: number, ms: number): number {
  return bytes / ms / 1e6;
}

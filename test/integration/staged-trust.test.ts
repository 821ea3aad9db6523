// Requires: the newest QEMU, redis-server, /dev/shm, root for userfaultfd.
// PAGELANE_ROUNDS=20 does each deed so often, to each of the intermediaries in turn.
import { randomBytes } from 'node:crypto';
import { closeSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { queryMigration } from '../support/lab/migrate.ts';
import { waitUntil } from '../support/lab/processes.ts';
import {
  type FilledPair,
  filledContent,
  type StagedRun,
  type StagedRunOptions,
  startStagedRun,
} from '../support/pagelane.ts';
import { createPrng, integerBelow } from '../support/prng.ts';
import type { RedisServer } from '../support/redis.ts';

/*
 * Redis is trusted neither to keep nor to keep quiet: whatever it gives back, no page at the
 * destination is another than it was; and it never sees what is in one.
 */

const TIMEOUT_MS = 30_000;
const ROUNDS = Number(process.env['PAGELANE_ROUNDS'] ?? 1);
const PAGE_BYTES = 4096;

/** Nearly all is left when post-copy begins, however late it is asked for. */
const SLOW_PRECOPY = { parameters: { 'max-bandwidth': 256 * 1024 } };

/** So slow that most is still with intermediaries when something is done to it. */
const SLOW_GATHER = ['--stage-bandwidth', '500KB'];

/** Moves a guest until its source is free; what is staged is still to be gathered. */
async function stageAll(options: Partial<StagedRunOptions> = {}): Promise<StagedRun> {
  const common = { serverCount: 2, content: filledContent(1, 8), receiveWords: SLOW_GATHER };
  const run = await startStagedRun({ ...common, ...options });
  await run.migration.beginPostcopy(run.pair, SLOW_PRECOPY);
  const ends = ['completed', 'failed', 'postcopy-paused'];
  const status = await run.pair.source.qmp.waitForMigration(ends, { timeoutMs: TIMEOUT_MS });
  expect(status).toBe('completed');
  expect(await run.migration.sender.exit(TIMEOUT_MS), run.migration.narration()).toBe(0);
  return run;
}

interface Comparison {
  /** Pages that have no memory at the destination yet. */
  readonly absent: number;
  readonly wrong: number;
  /** The last page that is there, and as it was; -1 if none is. */
  readonly lastRight: number;
}

/** Compares the memory of a destination that may never be whole, page by page. */
function compare({ sourceMemory, destination, destinationMemory }: FilledPair): Comparison {
  const [wanted, found] = [sourceMemory, destinationMemory].map((file) => readFileSync(file));
  const isThere = presence(destination.pid, destinationMemory, found!.length / PAGE_BYTES);
  const counts = { absent: 0, wrong: 0, lastRight: -1 };
  for (let page = 0; page < isThere.length; page++) {
    const [from, to] = [page * PAGE_BYTES, (page + 1) * PAGE_BYTES];
    if (!isThere[page]) counts.absent++;
    else if (wanted!.compare(found!, from, to, from, to) !== 0) counts.wrong++;
    else counts.lastRight = page;
  }
  return counts;
}

/** Which pages of its memory a QEMU has: bit 63 of /proc/PID/pagemap. */
function presence(pid: number, file: string, pages: number): boolean[] {
  const maps = readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n');
  const line = maps.find((each) => each.endsWith(file));
  if (line === undefined) throw new Error(`${file} is not mapped`);
  const firstPage = Number.parseInt(line, 16) / PAGE_BYTES;
  const bits = Buffer.alloc(pages * 8);
  const map = openSync(`/proc/${pid}/pagemap`, 'r');
  try {
    readSync(map, bits, 0, bits.length, firstPage * 8);
  } finally {
    closeSync(map);
  }
  return Array.from({ length: pages }, (_, page) => (bits[page * 8 + 7]! & 0x80) !== 0);
}

/** Every key that is there, in no order. */
async function keysOf({ admin }: RedisServer): Promise<Buffer[]> {
  return await admin.keysBuffer('*');
}

/** The destination says plainly that pages are gone, and none of those it has is wrong. */
async function expectGone({ pair, migration }: StagedRun): Promise<void> {
  expect(await migration.receiver.exit(120_000)).toBe(6);
  const { outcome, guest, error } = migration.result('receiver')!;
  expect({ outcome, guest }).toEqual({ outcome: 'failed', guest: 'unknown' });
  expect(error).toMatchObject({ code: 'ERR_STAGING_PAGES_GONE', phase: 'postcopy' });
  expect(error!.message).toMatch(/[1-9]\d* pages are gone|page \d+ of block \d+ is gone/);
  const told = migration.receiver.stderr();
  expect(told).toMatch(/to do: pages can be had nowhere any more: the guest cannot be completed/);
  const paused = async () => (await queryMigration(pair.destination)).status === 'postcopy-paused';
  await waitUntil('QEMU to pause post-copy', paused, { timeoutMs: TIMEOUT_MS });
  const { absent, wrong } = compare(pair);
  expect(wrong).toBe(0);
  expect(absent).toBeGreaterThan(0);
}

/** Memory is whole; some of it was mended. */
async function expectMended({ pair, migration }: StagedRun): Promise<void> {
  expect(await migration.receiver.exit(120_000)).toBe(0);
  const result = migration.result('receiver')!;
  expect(result).toMatchObject({ outcome: 'completed', guest: 'destination' });
  expect(result.gathered!.mendedExtents).toBeGreaterThan(0);
  const [wanted, found] = [pair.sourceMemory, pair.destinationMemory].map((file) =>
    readFileSync(file),
  );
  expect(Buffer.compare(wanted!, found!)).toBe(0);
}

/** Each deed, as often as there are rounds. */
function inRounds(): { deed: string; round: number }[] {
  const rounds = Array.from({ length: ROUNDS }, (_, round) => round);
  return rounds.flatMap((round) => Object.keys(DEEDS).map((deed) => ({ deed, round })));
}

/** What somebody does to all that one of them holds. */
const DEEDS: Record<string, (server: RedisServer) => Promise<void>> = {
  'restarted empty': async (server) => {
    await server.kill();
    await server.restart();
  },
  flushed: async ({ admin }) => void (await admin.flushall()),
  'values swapped between keys': async (server) => {
    const keys = await keysOf(server);
    const values = await server.admin.mgetBuffer(...keys);
    for (const [index, key] of keys.entries()) {
      const other = values[(index + 1) % keys.length];
      if (other != null) await server.admin.set(key, other);
    }
  },
  'values overwritten by older ones': async (server) => {
    const keys = (await keysOf(server)).sort(Buffer.compare);
    const oldest = await server.admin.getBuffer(keys[0]!);
    for (const key of keys.slice(1)) await server.admin.set(key, oldest!);
  },
  'values cut, lengthened, and with bits flipped': async (server) => {
    const random = createPrng(7);
    for (const [index, key] of (await keysOf(server)).entries()) {
      const value = await server.admin.getBuffer(key);
      if (value === null) continue;
      const at = integerBelow(random, value.length);
      if (index % 3 === 1) value[at]! ^= 1 << integerBelow(random, 8);
      const longer = Buffer.concat([value, Buffer.of(0)]);
      await server.admin.set(key, [value.subarray(0, at), value, longer][index % 3]!);
    }
  },
};

// Most of the time they wait: for what is gathered slowly, and for Redis to come back.
describe.concurrent('after the source was freed, without parity: never a wrong page', () => {
  test('killed, and not back', async () => {
    await using run = await stageAll({ serverCount: 1 });
    await run.servers[0]!.kill();
    await expectGone(run);
    // A wrong page would be found.
    const { lastRight } = compare(run.pair);
    const memory = openSync(run.pair.destinationMemory, 'r+');
    const [byte] = readFileSync(run.pair.sourceMemory).subarray(lastRight * PAGE_BYTES);
    writeSync(memory, Uint8Array.of(byte! ^ 1), 0, 1, lastRight * PAGE_BYTES);
    closeSync(memory);
    expect(compare(run.pair).wrong).toBe(1);
  }, 180_000);

  test.each(inRounds())(
    '$deed, round $round',
    async ({ deed }) => {
      await using run = await stageAll({ serverCount: 1 });
      await DEEDS[deed]!(run.servers[0]!);
      await expectGone(run);
    },
    120_000,
  );
});

describe.concurrent('after the source was freed, with parity: it is mended', () => {
  test.each(inRounds())(
    '$deed, round $round',
    async ({ deed, round }) => {
      await using run = await stageAll({ serverCount: 3, hasParity: true });
      await DEEDS[deed]!(run.servers[(round + 1) % 3]!);
      await expectMended(run);
    },
    120_000,
  );
});

/** All that MONITOR tells, as the bytes that Redis was given. */
class Listener implements Disposable {
  readonly #socket: ReturnType<typeof createConnection>;
  readonly #parts: Buffer[] = [];

  constructor({ folder }: RedisServer) {
    this.#socket = createConnection(join(folder, 'socket'));
    this.#socket.on('data', (bytes) => this.#parts.push(bytes));
    this.#socket.write('MONITOR\r\n');
  }

  /** What it has heard by now, unescaped; the last `partCount` parts of it. */
  heard(partCount = this.#parts.length): Buffer {
    const text = Buffer.concat(this.#parts.slice(-partCount)).toString('latin1');
    const plain = text.replace(/\\(?:x([0-9a-f]{2})|(.))/g, (_, hex?: string, letter?: string) =>
      hex === undefined
        ? (LETTERS[letter!] ?? letter!)
        : String.fromCharCode(Number.parseInt(hex, 16)),
    );
    return Buffer.from(plain, 'latin1');
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}

const LETTERS: Readonly<Record<string, string>> = { n: '\n', r: '\r', t: '\t', a: '\x07', b: '\b' };

test('what is in a page is seen neither in its files, nor in its values, nor on the wire', async () => {
  const marker = randomBytes(64);
  const content = filledContent(2, 8);
  for (let at = 0; at < content.length; at += 3 * PAGE_BYTES) content.set(marker, at + 100);
  const common = { serverCount: 2, content, receiveWords: SLOW_GATHER, codec: 'none' as const };
  await using run = await startStagedRun(common);
  const { pair, servers, migration } = run;
  const listeners = servers.map((server) => new Listener(server));
  await migration.beginPostcopy(pair, SLOW_PRECOPY);
  await pair.source.qmp.waitForMigration(['completed', 'failed'], { timeoutMs: TIMEOUT_MS });
  expect(await migration.sender.exit(TIMEOUT_MS)).toBe(0);
  expect(readFileSync(pair.sourceMemory).includes(marker)).toBe(true);
  let values = 0;
  let heardBytes = 0;
  for (const [index, { admin, files }] of servers.entries()) {
    for (const key of await keysOf(servers[index]!)) {
      const value = await admin.getBuffer(key);
      if (value === null) continue;
      values++;
      expect(value.includes(marker)).toBe(false);
    }
    await admin.config('SET', 'rdbcompression', 'no');
    await admin.save();
    expect(files.call(servers[index]!).includes(marker)).toBe(false);
    const heard = listeners[index]!.heard();
    heardBytes += heard.length;
    expect(heard.includes(marker)).toBe(false);
  }
  expect(values).toBeGreaterThan(10);
  expect(heardBytes).toBeGreaterThan(content.length / 2);

  // It would be found.
  const [first] = servers;
  await first!.admin.set('found', marker);
  await first!.admin.save();
  expect(first!.files().includes(marker)).toBe(true);
  await waitUntil('the marker to be heard', () => listeners[0]!.heard(2).includes(marker), {
    timeoutMs: TIMEOUT_MS,
  });
  for (const listener of listeners) listener[Symbol.dispose]();
}, 120_000);

import { expect, test } from 'vitest';
import { extentKey } from '../../src/staging/extent.ts';
import type { Intermediary } from '../../src/staging/intermediary.ts';
import { applyTo } from '../../src/staging/pages.ts';
import { createPrng, integerBelow } from '../support/prng.ts';
import { RedisServer, startServers } from '../support/redis.ts';
import {
  newSeal,
  openAll,
  PAGE_BYTES,
  StagedGuest,
  scatterGuest,
  startGather,
} from './staged-guest.ts';

const PAGES = 4000;

async function closeAll(handles: readonly AsyncDisposable[]): Promise<void> {
  for (const each of handles) await each[Symbol.asyncDispose]();
}

test.each([false, true])('one of three killed while scattering, parity %s', async (hasParity) => {
  const servers = await startServers(3);
  using guest = new StagedGuest(PAGES, 3);
  using there = new StagedGuest(PAGES);
  const intermediaries = await openAll(servers);
  let killed: Promise<void> | undefined;
  const scattered = await scatterGuest(guest, intermediaries, {
    hasParity,
    patienceMs: 300,
    afterEntry: (entries) => {
      if (entries.length === 50) killed = servers[1]!.kill();
    },
  });
  await killed;
  expect(scattered.scatter.facts().lost).toEqual([servers[1]!.address.text]);
  expect(scattered.scatter.manifest.pages).toBe(PAGES);
  await using gather = await startGather(there, scattered, intermediaries, { patienceMs: 300 });
  expect(await gather.done()).toMatchObject({ pages: PAGES });
  expect(Buffer.compare(there.bytes, guest.bytes)).toBe(0);
  await closeAll([...intermediaries, ...servers]);
});

test('restarted empty while scattering: its extents are scattered again', async () => {
  const servers = await startServers(2);
  using guest = new StagedGuest(PAGES, 4);
  using there = new StagedGuest(PAGES);
  const intermediaries = await openAll(servers);
  let restarted: Promise<void> | undefined;
  const scattered = await scatterGuest(guest, intermediaries, {
    afterEntry: (entries) => {
      if (entries.length !== 50) return;
      restarted = servers[0]!.kill().then(() => servers[0]!.restart());
    },
  });
  await restarted;
  expect(scattered.scatter.facts().lost).toEqual([servers[0]!.address.text]);
  await using gather = await startGather(there, scattered, intermediaries);
  expect(await gather.done()).toMatchObject({ pages: PAGES, badExtents: 0 });
  expect(Buffer.compare(there.bytes, guest.bytes)).toBe(0);
  await closeAll([...intermediaries, ...servers]);
});

test('flushed while scattering: it is noticed before the source may go', async () => {
  const servers = await startServers(2);
  using guest = new StagedGuest(PAGES, 5);
  using there = new StagedGuest(PAGES);
  const intermediaries = await openAll(servers);
  const scattered = await scatterGuest(guest, intermediaries, {
    afterEntry: (entries) => {
      if (entries.length === 60) void servers[0]!.admin.flushall();
    },
  });
  expect(scattered.scatter.facts().voidExtents).toBeGreaterThan(0);
  await using gather = await startGather(there, scattered, intermediaries);
  expect(await gather.done()).toMatchObject({ pages: PAGES, badExtents: 0 });
  expect(Buffer.compare(there.bytes, guest.bytes)).toBe(0);
  await closeAll([...intermediaries, ...servers]);
});

test('killed before gathering, with parity: nothing is lost', async () => {
  const servers = await startServers(3);
  using guest = new StagedGuest(PAGES, 6);
  using there = new StagedGuest(PAGES);
  const intermediaries = await openAll(servers);
  const scattered = await scatterGuest(guest, intermediaries, { hasParity: true });
  await servers[2]!.kill();
  await using gather = await startGather(there, scattered, intermediaries);
  const facts = await gather.done();
  expect(facts.pages).toBe(PAGES);
  expect(facts.mendedExtents).toBeGreaterThan(0);
  expect(Buffer.compare(there.bytes, guest.bytes)).toBe(0);
  await closeAll([...intermediaries, ...servers]);
});

test('one of three killed at any moment, with parity: memory is equal, 20 of 20', async () => {
  for (let seed = 0; seed < 20; seed++) {
    const random = createPrng(seed);
    const servers = await startServers(3);
    using guest = new StagedGuest(1500, seed);
    using there = new StagedGuest(1500);
    const intermediaries = await openAll(servers);
    const victim = servers[integerBelow(random, 3)]!;
    const scatterSteps = 1 + integerBelow(random, 120);
    let applySteps = 1 + integerBelow(random, 50);
    const scattered = await scatterGuest(guest, intermediaries, {
      hasParity: true,
      patienceMs: 100,
      afterEntry: ({ length }) => {
        if (length === scatterSteps) void victim.kill();
      },
    });
    const apply = await applyTo(there.memory);
    await using gather = await startGather(there, scattered, intermediaries, {
      patienceMs: 100,
      apply: async (batch, extent) => {
        if (applySteps-- === 0) void victim.kill();
        return await apply(batch, extent);
      },
    });
    expect((await gather.done()).pages, `seed ${seed}`).toBe(1500);
    expect(Buffer.compare(there.bytes, guest.bytes), `seed ${seed}`).toBe(0);
    await closeAll([...intermediaries, ...servers]);
  }
});

test('killed before gathering, without parity: the source is asked, or it is said plainly', async () => {
  const servers = await startServers(2);
  using guest = new StagedGuest(PAGES, 6);
  using there = new StagedGuest(PAGES);
  const intermediaries = await openAll(servers);
  const scattered = await scatterGuest(guest, intermediaries);
  await servers[0]!.kill();
  const way = { patienceMs: 200, removes: false };
  await using plain = await startGather(there, scattered, intermediaries, way);
  await expect(plain.done()).rejects.toMatchObject({ code: 'ERR_STAGING_PAGES_GONE' });
  const gone = plain.gonePages.flatMap(({ runs }) => runs);
  const goneCount = gone.reduce((sum, { count }) => sum + count, 0);
  expect(goneCount + plain.facts().pages).toBe(PAGES);
  await expect(plain.want(0, gone[0]!.first)).rejects.toMatchObject({
    code: 'ERR_STAGING_PAGES_GONE',
  });

  let asked = 0;
  await using gather = await startGather(there, scattered, intermediaries, {
    ...way,
    askSource: async (_, runs) => {
      for (const { first, count } of runs) {
        const [begin, end] = [first * PAGE_BYTES, (first + count) * PAGE_BYTES];
        there.bytes.set(guest.bytes.subarray(begin, end), begin);
        asked += count;
      }
      return true;
    },
  });
  expect((await gather.done()).pages + asked).toBe(PAGES);
  expect(asked).toBe(goneCount);
  expect(Buffer.compare(there.bytes, guest.bytes)).toBe(0);
  await closeAll([...intermediaries, ...servers]);
});

test('an intermediary that stands still for a while is waited for', async () => {
  const servers = await startServers(2);
  using guest = new StagedGuest(PAGES, 8);
  using there = new StagedGuest(PAGES);
  const intermediaries = await openAll(servers);
  const scattered = await scatterGuest(guest, intermediaries);
  await using gather = await startGather(there, scattered, intermediaries);
  servers[0]!.signal('SIGSTOP');
  setTimeout(() => servers[0]!.signal('SIGCONT'), 500);
  expect(await gather.done()).toMatchObject({ pages: PAGES, badExtents: 0 });
  expect(Buffer.compare(there.bytes, guest.bytes)).toBe(0);
  await closeAll([...intermediaries, ...servers]);
});

test('a wanted page is looked for elsewhere while its intermediary stands still', async () => {
  const servers = await startServers(3);
  using guest = new StagedGuest(PAGES, 16);
  using there = new StagedGuest(PAGES);
  const intermediaries = await openAll(servers);
  const scattered = await scatterGuest(guest, intermediaries, { hasParity: true });
  for (const intermediary of intermediaries) intermediary.setLimit(100_000);
  await using gather = await startGather(there, scattered, intermediaries);
  servers[1]!.signal('SIGSTOP');
  const entry = scattered.entries.findLast(
    (each) => each.kind === 'extent' && each.intermediary === 1,
  );
  if (entry?.kind !== 'extent') throw new Error('Nothing is there');
  const page = entry.runs[0]!.first;
  const beganMs = performance.now();
  await gather.want(0, page);
  // Redis would not answer for as long as a request may take: ten seconds.
  expect(performance.now() - beganMs).toBeLessThan(5000);
  expect(gather.facts().mendedExtents).toBe(1);
  const [begin, end] = [page * PAGE_BYTES, (page + 1) * PAGE_BYTES];
  expect(there.bytes.subarray(begin, end)).toEqual(guest.bytes.subarray(begin, end));
  servers[1]!.signal('SIGCONT');
  for (const intermediary of intermediaries) intermediary.setLimit(undefined);
  expect(await gather.done()).toMatchObject({ pages: PAGES, badExtents: 0 });
  expect(Buffer.compare(there.bytes, guest.bytes)).toBe(0);
  await closeAll([...intermediaries, ...servers]);
});

test('a wanted page comes before all others', async () => {
  const servers = await startServers(1);
  using guest = new StagedGuest(PAGES, 8);
  using there = new StagedGuest(PAGES);
  const intermediaries = await openAll(servers);
  const scattered = await scatterGuest(guest, intermediaries);
  intermediaries[0]!.setLimit(100_000); // all of it takes minutes
  await using gather = await startGather(there, scattered, intermediaries);
  for (const page of [PAGES - 1, 2000, 1000]) {
    await gather.want(0, page);
    const [begin, end] = [page * PAGE_BYTES, (page + 1) * PAGE_BYTES];
    expect(there.bytes.subarray(begin, end)).toEqual(guest.bytes.subarray(begin, end));
  }
  expect(gather.facts().wantedExtents).toBe(3);
  expect(gather.facts().pages).toBeLessThan(PAGES / 2);
  intermediaries[0]!.setLimit(undefined);
  expect(await gather.done()).toMatchObject({ pages: PAGES });
  await closeAll([...intermediaries, ...servers]);
});

/** Does something bad to a value, or to two. */
type Fault = (server: RedisServer, keys: readonly string[], random: () => number) => Promise<void>;

const pick = <Item>(items: readonly Item[], random: () => number): Item =>
  items[integerBelow(random, items.length)]!;

function faultsFor(older: ReadonlyMap<string, Buffer>): Record<string, Fault> {
  return {
    flipped: async ({ admin }, keys, random) => {
      const key = pick(keys, random);
      const value = (await admin.getBuffer(key))!;
      const bit = integerBelow(random, 8 * value.length);
      value[bit >>> 3]! ^= 1 << (bit & 7);
      await admin.set(key, value);
    },
    swapped: async ({ admin }, keys, random) => {
      const one = pick(keys, random);
      const other = pick(
        keys.filter((key) => key !== one),
        random,
      );
      const values = [(await admin.getBuffer(one))!, (await admin.getBuffer(other))!] as const;
      await admin.set(one, values[1]);
      await admin.set(other, values[0]);
    },
    truncated: async ({ admin }, keys, random) => {
      const key = pick(keys, random);
      const value = (await admin.getBuffer(key))!;
      await admin.set(key, value.subarray(0, integerBelow(random, value.length)));
    },
    lengthened: async ({ admin }, keys, random) => {
      await admin.append(pick(keys, random), Buffer.alloc(1 + integerBelow(random, 200_000)));
    },
    'rolled back': async ({ admin }, keys, random) => {
      const key = pick(keys, random);
      await admin.set(key, older.get(key.split(':').at(-1)!) ?? Buffer.alloc(20));
    },
    removed: async ({ admin }, keys, random) => {
      await admin.del(pick(keys, random));
    },
    'of another type': async ({ admin }, keys, random) => {
      const key = pick(keys, random);
      await admin.del(key);
      await admin.lpush(key, 'page');
    },
  };
}

test('200 runs in which values are changed: never a wrong page', { timeout: 120_000 }, async () => {
  const pages = 300;
  const servers = await startServers(2);
  const intermediaries: Intermediary[] = await openAll(servers);
  using guest = new StagedGuest(pages, 12);
  using before = new StagedGuest(pages, 13);
  // Another attempt's extents, in the same places.
  const first = await scatterGuest(before, intermediaries);
  const older = new Map<string, Buffer>();
  for (const { admin } of servers) {
    for (const key of await admin.keys('*')) {
      older.set(key.split(':').at(-1)!, (await admin.getBuffer(key))!);
    }
    await admin.flushall();
  }
  expect(older.size).toBe(first.scatter.facts().extents);
  const faults = Object.entries(faultsFor(older));
  let badRuns = 0;
  for (let seed = 0; seed < 200; seed++) {
    const random = createPrng(seed);
    const [name, fault] = faults[seed % faults.length]!;
    using there = new StagedGuest(pages);
    there.bytes.fill(0xee);
    const scattered = await scatterGuest(guest, intermediaries);
    const lists = await Promise.all(servers.map(({ admin }) => admin.keys('*')));
    const full = servers.filter((_, index) => lists[index]!.length > 1);
    const server = pick(full, random);
    await fault(server, lists[servers.indexOf(server)]!.sort(), random);
    const gone = new Set<number>();
    await using gather = await startGather(there, scattered, intermediaries);
    await gather.done().catch(() => {
      for (const { runs } of gather.gonePages)
        for (const run of runs) for (let at = 0; at < run.count; at++) gone.add(run.first + at);
    });
    if (gone.size > 0) badRuns++;
    for (let page = 0; page < pages; page++) {
      const [begin, end] = [page * PAGE_BYTES, (page + 1) * PAGE_BYTES];
      const want = gone.has(page) ? UNTOUCHED : guest.bytes.subarray(begin, end);
      const isRight = Buffer.compare(there.bytes.subarray(begin, end), want) === 0;
      expect(isRight, `seed ${seed}, ${name}, page ${page}`).toBe(true);
    }
    for (const { admin } of servers) await admin.flushall();
  }
  expect(badRuns).toBe(200);
  await closeAll([...intermediaries, ...servers]);
});

const UNTOUCHED = new Uint8Array(PAGE_BYTES).fill(0xee);

test('what the guest holds is not in the files of Redis', async () => {
  await using server = await RedisServer.start();
  using guest = new StagedGuest(PAGES, 15);
  const marker = 'pagelane-marker-of-the-guest';
  for (let page = 0; page < PAGES; page += 3) {
    guest.bytes.set(new TextEncoder().encode(marker), page * PAGE_BYTES + 100);
  }
  const intermediaries = await openAll([server]);
  const seal = newSeal();
  await scatterGuest(guest, intermediaries, { seal });
  await server.admin.save();
  const files = server.files();
  expect(files.length).toBeGreaterThan(1_000_000);
  expect(files.includes(extentKey(seal.scope, 0))).toBe(true);
  expect(files.includes(marker)).toBe(false);
  await closeAll(intermediaries);
});

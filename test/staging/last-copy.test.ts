import { expect, test } from 'vitest';
import { StagingError } from '../../src/errors.ts';
import { type ExtentSeal, extentKey, parityKey } from '../../src/staging/extent.ts';
import type { Intermediary } from '../../src/staging/intermediary.ts';
import { TTL_MS } from '../../src/staging/limits.ts';
import type { ExtentEntry, ManifestEntry, ParityEntry } from '../../src/staging/manifest.ts';
import { extentEncoder, scatterPages } from '../../src/staging/pages.ts';
import { type LostPages, Scatter, type ScatterOptions } from '../../src/staging/scatter.ts';
import { MiB } from '../../src/units.ts';
import { waitUntil } from '../support/lab/processes.ts';
import { createPrng, integerBelow } from '../support/prng.ts';
import { RedisServer, startServers } from '../support/redis.ts';
import { newSeal, openAll, PAGE_BYTES, StagedGuest, startGather } from './staged-guest.ts';

const PAGES = 1500;
const SEEDS = 12 * Number(process.env['PAGELANE_ROUNDS'] ?? 1);

interface LastCopyWay extends Partial<ScatterOptions> {
  readonly seed?: number;
  readonly pages?: number;
  readonly ttlMs?: number;
  /** Called behind each entry, with how many there are. */
  readonly afterEntry?: (count: number) => void;
}

interface LastCopyParts {
  readonly guest: StagedGuest;
  readonly servers: readonly RedisServer[];
  readonly intermediaries: readonly Intermediary[];
  readonly seal: ExtentSeal;
  readonly entries: readonly ManifestEntry[];
  readonly scatter: Scatter;
}

/** A guest that is scattered once, and what was told of it. */
class LastCopy implements AsyncDisposable {
  readonly guest: StagedGuest;
  readonly servers: readonly RedisServer[];
  readonly intermediaries: readonly Intermediary[];
  readonly seal: ExtentSeal;
  readonly entries: readonly ManifestEntry[];
  readonly scatter: Scatter;

  private constructor(parts: LastCopyParts) {
    this.guest = parts.guest;
    this.servers = parts.servers;
    this.intermediaries = parts.intermediaries;
    this.seal = parts.seal;
    this.entries = parts.entries;
    this.scatter = parts.scatter;
  }

  static async open(servers: readonly RedisServer[], way: LastCopyWay = {}): Promise<LastCopy> {
    const { seed = 1, pages = PAGES, ttlMs = TTL_MS, afterEntry, ...options } = way;
    const guest = new StagedGuest(pages, seed);
    const intermediaries = await openAll(servers, { ttlMs });
    const seal = newSeal();
    const entries: ManifestEntry[] = [];
    const onEntry = (entry: ManifestEntry): void => {
      entries.push(entry);
      afterEntry?.(entries.length);
    };
    const { layout } = guest.memory;
    const where = { layout, seal, intermediaries, onEntry, isLastCopy: true, patienceMs: 200 };
    const scatter = await Scatter.open({ ...where, ...options }, pages * PAGE_BYTES);
    return new LastCopy({ guest, servers, intermediaries, seal, entries, scatter });
  }

  /** Gives each page once. */
  async scatterOnce(): Promise<void> {
    const { memory, bitmap } = this.guest;
    const encoder = extentEncoder(PAGE_BYTES, { codec: 'none', threads: 2 });
    const how = { scatter: this.scatter, threads: 2 };
    await scatterPages({ memory, block: 0, pages: bitmap }, encoder, how);
  }

  get extents(): ExtentEntry[] {
    return this.entries.filter((entry) => entry.kind === 'extent');
  }

  get parities(): ParityEntry[] {
    return this.entries.filter((entry) => entry.kind === 'parity');
  }

  get voids(): number[] {
    return this.entries.flatMap((entry) => (entry.kind === 'void' ? entry.extents : []));
  }

  /** Removes an extent behind the back of the scatter. */
  async remove(number: number): Promise<void> {
    const { intermediary } = this.scatter.manifest.at(number)!;
    const key = extentKey(this.seal.scope, number);
    expect(await this.servers[intermediary]!.admin.del(key)).toBe(1);
  }

  async removeParity({ stripe, intermediary }: ParityEntry): Promise<void> {
    const key = parityKey(this.seal.scope, stripe);
    expect(await this.servers[intermediary!]!.admin.del(key)).toBe(1);
  }

  /** Gathers all of it, by those intermediaries that are given, and compares it. */
  async expectEqual(
    intermediaries: readonly (Intermediary | undefined)[] = this.intermediaries,
    label = '',
  ): Promise<number> {
    using there = new StagedGuest(this.guest.pages);
    await using gather = await startGather(there, this, intermediaries);
    const facts = await gather.done();
    expect(facts.pages, label).toBe(this.guest.pages);
    expect(Buffer.compare(there.bytes, this.guest.bytes), label).toBe(0);
    return facts.mendedExtents;
  }

  /** Checks that whatever belongs to a stripe lies at an intermediary of its own. */
  expectStripesApart(label = ''): void {
    for (const { stripe, intermediary, members } of this.parities) {
      const extents = this.extents.filter((extent) => extent.stripe === stripe);
      expect(extents.map(({ number }) => number).sort(), label).toEqual([...members].sort());
      const places = extents.map((extent) => extent.intermediary);
      if (intermediary !== undefined) places.push(intermediary);
      expect(new Set(places).size, label).toBe(places.length);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.scatter[Symbol.asyncDispose]();
    for (const each of [...this.intermediaries, ...this.servers]) await each[Symbol.asyncDispose]();
    this.guest[Symbol.dispose]();
  }
}

function countPages(lost: readonly LostPages[]): number {
  return lost.flatMap(({ runs }) => runs).reduce((sum, { count }) => sum + count, 0);
}

const fates: Record<string, (server: RedisServer) => Promise<unknown>> = {
  killed: (server) => server.kill(),
  'restarted empty': (server) => server.kill().then(() => server.restart()),
  emptied: (server) => server.admin.flushall(),
};

for (const [fate, happen] of Object.entries(fates)) {
  test(`one of three ${fate} at any moment, with parity: memory is equal, ${SEEDS} seeds`, {
    timeout: 10_000 * SEEDS,
  }, async () => {
    let mended = 0;
    for (let seed = 0; seed < SEEDS; seed++) {
      const random = createPrng(seed);
      const servers = await startServers(3);
      const victim = integerBelow(random, 3);
      const steps = integerBelow(random, 110);
      let happened: Promise<unknown> | undefined;
      const strike = (count: number): void => {
        if (count >= steps) happened ??= happen(servers[victim]!);
      };
      await using copy = await LastCopy.open(servers, {
        hasParity: true,
        seed,
        afterEntry: strike,
      });
      strike(0);
      await copy.scatterOnce();
      await copy.scatter.drain();
      strike(steps);
      expect(await copy.scatter.verify(), `seed ${seed}`).toBe(true);
      expect(copy.scatter.takeLostPages(), `seed ${seed}`).toEqual([]);
      expect(copy.scatter.facts().voidExtents, `seed ${seed}`).toBe(0);
      expect(copy.scatter.manifest.pages, `seed ${seed}`).toBe(PAGES);
      copy.expectStripesApart(`seed ${seed}`);
      await happened;
      const reached = copy.intermediaries.map((each, index) =>
        seed % 2 === 1 && index === victim ? undefined : each,
      );
      mended += await copy.expectEqual(reached, `seed ${seed}`);
    }
    expect(mended).toBeGreaterThan(0);
  });
}

test('one of three killed, without parity: it ends as soon as that is known', async () => {
  const servers = await startServers(3);
  await using copy = await LastCopy.open(servers, {
    afterEntry: (count) => {
      if (count === 30) void servers[1]!.kill();
    },
  });
  const ended = copy.scatterOnce().then(() => copy.scatter.verify());
  const message = expect.stringContaining(servers[1]!.address.text);
  await expect(ended).rejects.toMatchObject({ code: 'ERR_STAGING_LOST', message });
  expect(copy.scatter.facts().lost).toEqual([servers[1]!.address.text]);
  expect(copy.voids).toEqual([]);
});

test.each([false, true])(
  'dead before it held anything: all goes elsewhere, parity %s',
  async (hasParity) => {
    const servers = await startServers(3);
    await using copy = await LastCopy.open(servers, { hasParity });
    await servers[0]!.kill();
    await copy.scatterOnce();
    expect(await copy.scatter.verify()).toBe(true);
    expect(copy.scatter.takeLostPages()).toEqual([]);
    expect(copy.scatter.facts()).toMatchObject({
      voidExtents: 0,
      lost: [servers[0]!.address.text],
    });
    expect([...copy.scatter.manifest.extentsAt(0)]).toEqual([]);
    copy.expectStripesApart();
    expect(await copy.expectEqual()).toBe(0);
  },
);

test.each([false, true])(
  'full: what it does not take goes elsewhere, parity %s',
  async (hasParity) => {
    const small = await RedisServer.start();
    const servers = [small, ...(await startServers(2))];
    await using copy = await LastCopy.open(servers, { hasParity });
    // It gets less room, after it was asked how much it has.
    const usedBytes = Number(/used_memory:(\d+)/.exec(await small.admin.info('memory'))![1]);
    await small.admin.config('SET', 'maxmemory', usedBytes + MiB);
    await copy.scatterOnce();
    expect(await copy.scatter.verify()).toBe(true);
    expect(copy.scatter.facts()).toMatchObject({ voidExtents: 0, lost: [] });
    expect(copy.extents.filter(({ intermediary }) => intermediary === 0).length).toBeLessThan(20);
    copy.expectStripesApart();
    expect(await copy.expectEqual()).toBe(0);
  },
);

test.each([
  [false, 'ERR_STAGING_LOST'],
  [true, 'ERR_STAGING_EXHAUSTED'],
])('when none is left it ends, parity %s: %s', async (hasParity, code) => {
  const servers = await startServers(3);
  await using copy = await LastCopy.open(servers, {
    hasParity,
    afterEntry: (count) => {
      if (count === 20) for (const server of servers) void server.kill();
    },
  });
  const ended = copy.scatterOnce().then(() => copy.scatter.verify());
  await expect(ended).rejects.toMatchObject({ code });
});

test('two of three killed, with parity: what both held is lost, and no more', async () => {
  const servers = await startServers(3);
  await using copy = await LastCopy.open(servers, { hasParity: true });
  await copy.scatterOnce();
  await copy.scatter.drain();
  for (const server of servers.slice(0, 2)) await server.kill();
  expect(await copy.scatter.verify()).toBe(false);
  const isLost = (extent: ExtentEntry): boolean => {
    const stripe = copy.parities.find(({ stripe }) => stripe === extent.stripe)!;
    return extent.intermediary < 2 && (stripe.intermediary !== 2 || stripe.members.length > 1);
  };
  const lost = copy.extents.filter(isLost);
  expect(copy.voids.length).toBe(lost.length);
  expect(countPages(copy.scatter.takeLostPages())).toBe(countPages(lost));
  expect(copy.scatter.manifest.pages).toBe(PAGES - countPages(lost));
});

test('a parity is put at another intermediary if one does not take it', async () => {
  const servers = await startServers(3);
  // One extent: its parity would be at the first intermediary.
  await using copy = await LastCopy.open(servers, { hasParity: true, pages: 10 });
  await servers[0]!.kill();
  await copy.scatterOnce();
  expect(await copy.scatter.verify()).toBe(true);
  expect(copy.extents).toMatchObject([{ intermediary: 1 }]);
  expect(copy.parities).toMatchObject([{ intermediary: 2, members: [0] }]);
  expect(copy.scatter.facts().unprotectedExtents).toBe(0);
  await servers[1]!.kill();
  expect(await copy.scatter.verify()).toBe(true);
  expect(await copy.expectEqual()).toBe(1);
});

test('what was put elsewhere has a parity too, though its stripe is not full', async () => {
  const servers = await startServers(4);
  // One extent: it would be at the second intermediary.
  await using copy = await LastCopy.open(servers, { hasParity: true, pages: 10 });
  await servers[1]!.kill();
  await copy.scatterOnce();
  expect(await copy.scatter.verify()).toBe(true);
  copy.expectStripesApart();
  expect(copy.parities).toMatchObject([{ stripe: 1, members: [0] }]);
  expect(copy.scatter.facts().unprotectedExtents).toBe(0);
});

test('a parity that is gone costs no page until another of its stripe is gone', async () => {
  const servers = await startServers(3);
  await using copy = await LastCopy.open(servers, { hasParity: true });
  await copy.scatterOnce();
  await copy.scatter.drain();
  const parity = copy.parities[3]!;
  await copy.removeParity(parity);
  expect(await copy.scatter.verify()).toBe(true);
  expect(copy.scatter.facts().unprotectedExtents).toBe(parity.members.length);
  const [number] = parity.members;
  await copy.remove(number!);
  expect(await copy.scatter.verify()).toBe(false);
  expect(copy.voids).toEqual([number]);
  const { runs } = copy.extents.find((extent) => extent.number === number)!;
  expect(copy.scatter.takeLostPages()).toEqual([{ block: 0, runs }]);
});

test('a missing extent is mended from its stripe, two of a stripe are lost', async () => {
  const servers = await startServers(3);
  await using copy = await LastCopy.open(servers, { hasParity: true });
  await copy.scatterOnce();
  await copy.scatter.drain();
  const whole = copy.parities.filter(({ members }) => members.length === 2);
  await copy.remove(whole[0]!.members[0]!);
  await copy.remove(whole[1]!.members[1]!);
  expect(await copy.scatter.verify()).toBe(true);
  expect(copy.scatter.facts().unprotectedExtents).toBe(4);
  await copy.remove(whole[1]!.members[0]!);
  expect(await copy.scatter.verify()).toBe(false);
  expect(copy.voids).toEqual([...whole[1]!.members].sort((one, other) => one - other));
  const lost = copy.extents.filter(({ number }) => whole[1]!.members.includes(number));
  expect(countPages(copy.scatter.takeLostPages())).toBe(countPages(lost));
});

test('a missing extent without parity is lost', async () => {
  const servers = await startServers(2);
  await using copy = await LastCopy.open(servers);
  await copy.scatterOnce();
  await copy.scatter.drain();
  await copy.remove(5);
  expect(await copy.scatter.verify()).toBe(false);
  expect(copy.voids).toEqual([5]);
});

test('renewal by the clock makes nothing void that can be mended', async () => {
  const servers = await startServers(3);
  await using copy = await LastCopy.open(servers, { hasParity: true, ttlMs: 3000 });
  await copy.scatterOnce();
  await copy.scatter.drain();
  await copy.remove(copy.parities[0]!.members[0]!);
  const seen = async () => copy.scatter.facts().unprotectedExtents > 0 || undefined;
  await waitUntil('renewal to find it missing', seen, { timeoutMs: 10_000 });
  expect(copy.voids).toEqual([]);
  expect(await copy.scatter.verify()).toBe(true);
  expect(await copy.expectEqual()).toBe(1);
});

test('what is to be mended waits for whoever is away for a moment only', async () => {
  const servers = await startServers(3);
  await using copy = await LastCopy.open(servers, { hasParity: true });
  await copy.scatterOnce();
  await servers[1]!.kill();
  expect(await copy.scatter.verify()).toBe(true);
  let failures = 3;
  const away = copy.intermediaries[2]!;
  const get = away.get.bind(away);
  away.get = async (key, way) => {
    if (failures-- > 0) throw new StagingError('ERR_STAGING_LOST', 'Cannot reach it');
    return await get(key, way);
  };
  const beganMs = performance.now();
  const [first, , third] = copy.intermediaries;
  expect(await copy.expectEqual([first, undefined, third])).toBeGreaterThan(0);
  // Nobody waits as long as a gather is patient: a minute.
  expect(performance.now() - beganMs).toBeLessThan(10_000);
});

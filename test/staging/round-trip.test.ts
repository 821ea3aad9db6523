import { expect, test } from 'vitest';
import { startServers } from '../support/redis.ts';
import { openAll, StagedGuest, scatterGuest, startGather } from './staged-guest.ts';

const PAGES = 6000;

const ways = [
  { count: 1, codec: 'none', hasParity: false },
  { count: 2, codec: 'lz4', hasParity: false },
  { count: 3, codec: 'zstd', hasParity: false },
  { count: 2, codec: 'none', hasParity: true },
  { count: 3, codec: 'lz4', hasParity: true },
] as const;

test.each(ways)('memory arrives as it was and nothing is left: %j', async ({ count, ...way }) => {
  const servers = await startServers(count);
  using guest = new StagedGuest(PAGES, 41);
  using there = new StagedGuest(PAGES);
  const intermediaries = await openAll(servers);
  const scattered = await scatterGuest(guest, intermediaries, way);
  const sizes = await Promise.all(servers.map(({ admin }) => admin.dbsize()));
  const { extents, unprotectedExtents } = scattered.scatter.facts();
  expect(unprotectedExtents).toBe(0);
  expect(Math.min(...sizes)).toBeGreaterThan(0);
  const parities = scattered.entries.filter(({ kind }) => kind === 'parity').length;
  expect(sizes.reduce((sum, size) => sum + size)).toBe(extents + parities);
  expect(parities).toBe(way.hasParity ? Math.ceil(extents / (count - 1)) : 0);

  await using gather = await startGather(there, scattered, intermediaries);
  const facts = await gather.done();
  expect(facts).toMatchObject({ extents, pages: PAGES, badExtents: 0, mendedExtents: 0 });
  expect(Buffer.compare(there.bytes, guest.bytes)).toBe(0);
  expect(await Promise.all(servers.map(({ admin }) => admin.dbsize()))).toEqual(
    servers.map(() => 0),
  );
  for (const each of [...intermediaries, ...servers]) await each[Symbol.asyncDispose]();
});

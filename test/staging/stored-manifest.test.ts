import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { ExtentSeal } from '../../src/staging/extent.ts';
import { loadManifest, storeManifest } from '../../src/staging/stored-manifest.ts';
import { startServers } from '../support/redis.ts';
import { openAll, StagedGuest, scatterGuest, startGather } from './staged-guest.ts';

const PAGES = 3000;
const scope = { vm: 'guest', attempt: '0123456789abcdef'.repeat(2) };

test('a guest is parked, an intermediary vanishes, and the key alone brings it back', async () => {
  const servers = await startServers(3);
  using guest = new StagedGuest(PAGES, 21);
  using there = new StagedGuest(PAGES);
  const intermediaries = await openAll(servers);
  const key = randomBytes(32);
  const seal = new ExtentSeal(key, scope);
  const { scatter } = await scatterGuest(guest, intermediaries, { seal, hasParity: true });
  const where = { seal, intermediaries };
  const { layout } = guest.memory;
  const keys = await storeManifest({ layout, entries: scatter.entries() }, where);
  expect(keys.length).toBeGreaterThan(1);
  await servers[0]!.kill();

  const later = new ExtentSeal(key, scope);
  const manifest = await loadManifest({ seal: later, intermediaries });
  expect(manifest.layout.blocks).toEqual(layout.blocks);
  const told = { seal: later, entries: manifest.entries };
  await using gather = await startGather(there, told, intermediaries);
  const facts = await gather.done();
  expect(facts.pages).toBe(PAGES);
  expect(facts.mendedExtents).toBeGreaterThan(0);
  expect(Buffer.compare(there.bytes, guest.bytes)).toBe(0);
  for (const each of [...intermediaries, ...servers]) await each[Symbol.asyncDispose]();
});

test('a manifest of which anything is changed or missing everywhere is refused', async () => {
  const servers = await startServers(2);
  using guest = new StagedGuest(PAGES, 22);
  const intermediaries = await openAll(servers);
  const seal = new ExtentSeal(randomBytes(32), scope);
  const where = { seal, intermediaries };
  const { scatter } = await scatterGuest(guest, intermediaries, { seal });
  const { layout } = guest.memory;
  const keys = await storeManifest({ layout, entries: scatter.entries() }, where);
  const [one, other] = keys;
  const entries = [...scatter.entries()];
  const values = await Promise.all(keys.map((key) => servers[0]!.admin.getBuffer(key)));
  const both = async (act: (server: (typeof servers)[number]) => Promise<unknown>) => {
    for (const server of servers) await act(server);
  };
  const restore = () =>
    both(async ({ admin }) => {
      for (const [at, key] of keys.entries()) await admin.set(key, values[at]!);
    });

  await servers[0]!.admin.del(one!);
  await servers[1]!.admin.del(other!);
  expect((await loadManifest(where)).entries).toEqual(entries);

  const changes = [
    () => both(({ admin }) => admin.del(other!)),
    () => both(({ admin }) => admin.set(one!, values[1]!)),
    () => both(({ admin }) => admin.setrange(other!, 30, Buffer.from([values[1]![30]! ^ 1]))),
    () => both(({ admin }) => admin.set(other!, values[1]!.subarray(0, 20))),
  ];
  for (const change of changes) {
    await restore();
    expect((await loadManifest(where)).entries).toEqual(entries);
    await change();
    await expect(loadManifest(where)).rejects.toMatchObject({ code: 'ERR_MANIFEST_MISSING' });
  }
  for (const each of [...intermediaries, ...servers]) await each[Symbol.asyncDispose]();
});

test('an extent that holds fewer pages than it was said to is refused', async () => {
  const servers = await startServers(1);
  using guest = new StagedGuest(PAGES, 23);
  using there = new StagedGuest(PAGES);
  const intermediaries = await openAll(servers);
  guest.bitmap.clear(1000);
  const { seal, entries } = await scatterGuest(guest, intermediaries);
  const lies = entries.map((entry) => {
    if (entry.kind !== 'extent') return entry;
    const next = entry.runs.findIndex(({ first, count }) => first + count === 1000);
    return next < 0 ? entry : { ...entry, runs: entry.runs.with(next, longer(entry.runs[next]!)) };
  });
  expect(lies).not.toEqual(entries);
  await using gather = await startGather(there, { seal, entries: lies }, intermediaries);
  await expect(gather.done()).rejects.toMatchObject({ code: 'ERR_EXTENT_PAGES' });
  for (const each of [...intermediaries, ...servers]) await each[Symbol.asyncDispose]();
});

function longer({ first, count }: { first: number; count: number }) {
  return { first, count: count + 1 };
}

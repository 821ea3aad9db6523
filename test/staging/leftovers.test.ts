import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { ExtentSeal } from '../../src/staging/extent.ts';
import { removeStaged, stagedAttempts } from '../../src/staging/leftovers.ts';
import { loadStreamPart, StoredStreamWriter } from '../../src/staging/stored-stream.ts';
import { startServers } from '../support/redis.ts';
import { openAll } from './staged-guest.ts';

function sealOf(digit: string): ExtentSeal {
  return new ExtentSeal(randomBytes(32), { vm: 'guest', attempt: digit.repeat(32) });
}

test('a stream comes back part by part, from whichever intermediary is left', async () => {
  const servers = await startServers(2);
  const intermediaries = await openAll(servers);
  const where = { seal: sealOf('a'), intermediaries };
  const writer = new StoredStreamWriter(where);
  const bytes = randomBytes(200_000);
  for (let at = 0; at < bytes.length; at += 7001) await writer.add(bytes.subarray(at, at + 7001));
  await writer.flush();
  expect(writer.parts).toBe(4);
  await writer.flush();
  expect(writer.parts).toBe(4);
  await servers[0]!.kill();
  const parts: Uint8Array[] = [];
  for (let part = 0; part < 4; part++) parts.push(await loadStreamPart(part, where));
  expect(Buffer.compare(Buffer.concat(parts), bytes)).toBe(0);
  const missing = loadStreamPart(4, where);
  await expect(missing).rejects.toMatchObject({ code: 'ERR_MANIFEST_MISSING' });
  const other = loadStreamPart(0, { ...where, seal: sealOf('a') });
  await expect(other).rejects.toMatchObject({ code: 'ERR_MANIFEST_MISSING' });
  for (const each of [...intermediaries, ...servers]) await each[Symbol.asyncDispose]();
});

test('what is left of attempts is listed and removed, and nothing else', async () => {
  const servers = await startServers(2);
  const intermediaries = await openAll(servers);
  for (const digit of ['a', 'b']) {
    const writer = new StoredStreamWriter({ seal: sealOf(digit), intermediaries });
    await writer.add(randomBytes(70_000));
    await writer.flush();
  }
  await servers[0]!.admin.set('pl:other', 'somebody else');
  const found = await stagedAttempts(intermediaries);
  expect(found.map(({ name }) => name[0]).sort()).toEqual(['a', 'b']);
  expect(found.map(({ keys }) => keys)).toEqual([4, 4]);
  expect(await removeStaged(intermediaries, 'a'.repeat(32))).toBe(4);
  expect(await removeStaged(intermediaries, 'a'.repeat(32))).toBe(0);
  expect((await stagedAttempts(intermediaries)).map(({ name }) => name[0])).toEqual(['b']);
  expect(await servers[0]!.admin.get('pl:other')).toBe('somebody else');
  for (const each of [...intermediaries, ...servers]) await each[Symbol.asyncDispose]();
});

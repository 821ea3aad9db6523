// Requires: redis-server.
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { newStage } from '../../src/migration/page-stager.ts';
import { unparkGuest } from '../../src/migration/unpark.ts';
import { ExtentSeal } from '../../src/staging/extent.ts';
import { storeManifest } from '../../src/staging/stored-manifest.ts';
import { QemuChannel } from '../../src/stream/endpoint.ts';
import { openAll } from '../staging/staged-guest.ts';
import { RedisServer } from '../support/redis.ts';

const LAYOUT = {
  ...{ pageBits: 12, hasFooter: true, sectionId: 2 },
  blocks: [{ name: 'ram', usedBytes: 4096 }],
};

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'pagelane-unpark-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** What becomes of a guest that is gathered by a QEMU that `behave`s. */
async function unpark(isRecovery: boolean, behave: (qemu: Socket) => void): Promise<unknown> {
  await using server = await RedisServer.start();
  const intermediaries = await openAll([server]);
  const ticket = newStage({ intermediaries });
  const seal = new ExtentSeal(ticket.key, ticket.scope);
  await storeManifest({ layout: LAYOUT, entries: [] }, { seal, intermediaries });
  for (const each of intermediaries) await each[Symbol.asyncDispose]();
  const path = join(folder, 'qemu');
  await using qemu = createServer(behave);
  await new Promise<void>((resolve) => qemu.listen(path, resolve));
  const openChannel = () => QemuChannel.connect({ kind: 'unix', path }, { timeoutMs: 5000 });
  const done = unparkGuest(ticket, { openChannel, isRecovery, answerTimeoutMs: 50 });
  return await done.catch((error: unknown) => error);
}

test('a paused QEMU that does not say what it has is not waited for, and stays paused', async () => {
  const error = await unpark(true, (qemu) => qemu.resume());
  expect(error).toMatchObject({ code: 'ERR_POSTCOPY_PAUSED' });
  expect(error).toMatchObject({ message: expect.stringContaining('did not say what it has') });
});

test.each([
  [true, 'ERR_POSTCOPY_PAUSED'],
  [false, 'ERR_QEMU_CLOSED'],
])('a QEMU that goes: to be recovered %s, so %s', async (isRecovery, code) => {
  const error = await unpark(isRecovery, (qemu) => qemu.destroy());
  expect(error).toMatchObject({ code, message: expect.stringContaining('closed the channel') });
});

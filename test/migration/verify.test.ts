import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { LoadedMemory } from '../../src/page/loaded-memory.ts';
import { shut } from '../support/fake-qemu.ts';
import { waitUntil } from '../support/lab/processes.ts';
import { PAGE_BYTES, StreamBuilder } from '../support/qemu-stream.ts';
import { smallMemory, smallStream } from '../support/small-stream.ts';
import { BOUND_MS, openEnds, openRelay } from './support.ts';

const PONG = Uint8Array.of(0, 2, 0, 4, 0, 0, 0, 1);
const VERIFIED = { pages: 64, differing: 0, unverified: 0 };

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'pagelane-verify-'));
  path = join(folder, 'memory');
  writeFileSync(path, smallMemory());
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

/** A migration whose memory is to be verified, with QEMU at both ends, that has been carried. */
async function carried(stream = smallStream(), block = 'pc.ram') {
  const parts = await openRelay({}, { verify: [{ block, path }] });
  parts.sourceQemu.write(stream);
  await parts.destinationQemu.untilBytes(stream.length, BOUND_MS);
  return parts;
}

function damage(page: number): void {
  const bytes = smallMemory();
  bytes[(page + 1) * PAGE_BYTES - 1]! ^= 1;
  bytes[(page + 5) * PAGE_BYTES]! ^= 1;
  writeFileSync(path, bytes);
}

describe('with a return path', () => {
  test('the success of QEMU goes to the source when memory is verified', async () => {
    await using parts = await carried();
    const { source, destination, sourceQemu, destinationQemu } = parts;
    destinationQemu.write(PONG);
    const heard = (count: number) => () => sourceQemu.received().length === count;
    await waitUntil('what is no success', heard(8), { timeoutMs: BOUND_MS });
    destinationQemu.write(shut(0).subarray(0, 5));
    await waitUntil('a part of it', heard(13), { timeoutMs: BOUND_MS });
    destinationQemu.write(Uint8Array.of(...shut(0).subarray(5), ...PONG));
    destinationQemu.close();
    await waitUntil('all of it', heard(24), { timeoutMs: BOUND_MS });
    expect([...sourceQemu.received()]).toEqual([...PONG, ...shut(0), ...PONG]);
    sourceQemu.close();
    const received = await destination.result;
    expect(received.error).toBeUndefined();
    expect(received).toMatchObject({ outcome: 'completed', verified: VERIFIED, fallbacks: [] });
    const sent = await source.result;
    expect(sent).toMatchObject({ outcome: 'completed', guest: 'destination' });
    expect(sent.verified).toBeUndefined();
  });

  test('where a page differs the source does not hear of success, and stays stopped', async () => {
    damage(17);
    await using parts = await carried();
    const { source, destination, sourceQemu, destinationQemu } = parts;
    destinationQemu.write(shut(0));
    destinationQemu.close();
    const text =
      '2 of 64 pages in the memory of the destination QEMU differ from what was decoded, ' +
      'first page 17 of block "pc.ram": throw its guest away';
    for (const [end, message] of [
      [source, `Destination: ${text}`],
      [destination, text],
    ] as const) {
      expect(await end.result).toMatchObject({
        outcome: 'failed',
        guest: 'unknown',
        error: { code: 'ERR_VERIFY', message, phase: 'switchover' },
      });
    }
    expect(sourceQemu.received().length).toBe(0);
    expect(parts.channel.isClosed).toBe(false);
    const { verified } = await destination.result;
    expect(verified).toEqual({ ...VERIFIED, differing: 2 });
  });

  test.each([false, true])(
    'of a guest that may move by post-copy, and does not; damaged: %s',
    async (isDamaged) => {
      if (isDamaged) damage(17);
      await using parts = await carried(smallStream({ mayPostcopy: true }));
      parts.destinationQemu.write(PONG);
      const heard = () => parts.sourceQemu.received().length;
      await waitUntil('what is no success', () => heard() === 8, { timeoutMs: BOUND_MS });
      parts.destinationQemu.write(shut(0));
      parts.destinationQemu.close();
      if (isDamaged) {
        expect((await parts.destination.result).error!.code).toBe('ERR_VERIFY');
        expect(heard()).toBe(8);
        return;
      }
      await waitUntil('its success', () => heard() === 16, { timeoutMs: BOUND_MS });
      parts.sourceQemu.close();
      const received = await parts.destination.result;
      expect(received).toMatchObject({ outcome: 'completed', verified: VERIFIED, fallbacks: [] });
      expect(await parts.source.result).toMatchObject({ outcome: 'completed', fallbacks: [] });
    },
  );

  test('a QEMU that failed is not verified', async () => {
    damage(1);
    await using parts = await carried();
    parts.destinationQemu.write(shut(1));
    await waitUntil('its word', () => parts.sourceQemu.received().length === 8, {
      timeoutMs: BOUND_MS,
    });
    parts.destinationQemu.close();
    const { guest, error, verified } = await parts.destination.result;
    expect([guest, error!.code, verified]).toEqual(['source', 'ERR_QEMU_CLOSED', undefined]);
  });

  test('words that cannot be followed are not passed on', async () => {
    await using parts = await carried();
    parts.destinationQemu.write(Uint8Array.of(0, 2, 255, 255));
    const { error } = await parts.destination.result;
    expect(error).toMatchObject({ code: 'ERR_VERIFY_MEMORY' });
    expect(parts.sourceQemu.received().length).toBe(0);
  });

  test('a file that became shorter', async () => {
    await using parts = await carried();
    truncateSync(path, 64 * PAGE_BYTES - 1);
    parts.destinationQemu.write(shut(0));
    const { guest, error } = await parts.destination.result;
    expect([guest, error!.code]).toEqual(['unknown', 'ERR_VERIFY_MEMORY']);
    expect(error!.message).toContain('has 262143 bytes, and block "pc.ram" 262144');
  });
});

describe('without a return path', () => {
  test('memory is verified before the source hears that all is well', async () => {
    await using parts = await carried(smallStream({ hasReturnPath: false }));
    parts.sourceQemu.close();
    const waits = () => parts.destination.progress().waitsFor === 'QEMU to load the last state';
    await waitUntil('the end', waits, { timeoutMs: BOUND_MS });
    parts.destinationQemu.close();
    const received = await parts.destination.result;
    expect(received.error).toBeUndefined();
    expect(received).toMatchObject({ outcome: 'completed', verified: VERIFIED });
    expect((await parts.source.result).outcome).toBe('completed');
  });

  test('where a page differs nobody may start the guest', async () => {
    damage(0);
    await using parts = await carried(smallStream({ hasReturnPath: false }));
    parts.sourceQemu.close();
    parts.destinationQemu.close();
    for (const result of [await parts.source.result, await parts.destination.result]) {
      expect(result).toMatchObject({ guest: 'unknown', error: { code: 'ERR_VERIFY' } });
    }
  });
});

test('a plain stream is verified when QEMU has closed', async () => {
  await using ends = await openEnds({}, { verify: [{ block: 'pc.ram', path }] });
  const stream = smallStream();
  ends.source.write(stream);
  let received = 0;
  ends.destination.on('data', (chunk: Uint8Array) => {
    received += chunk.length;
    if (received === stream.length) ends.destination.end(shut(0));
  });
  ends.source.on('data', () => ends.source.end());
  expect(await ends.destination.result).toMatchObject({ verified: VERIFIED });
  expect(await ends.source.result).toMatchObject({ outcome: 'completed' });
});

describe('memory that cannot be verified ends the migration before its first page', () => {
  test.each([
    ['no file', () => rmSync(path), /"\/.*memory" cannot be opened: ENOENT/],
    [
      'a folder',
      () => {
        rmSync(path);
        mkdirSync(path);
      },
      /"\/.*memory" is no regular file/,
    ],
    ['a small file', () => truncateSync(path, 9), /has 9 bytes, and block "pc.ram" 262144/],
  ] as const)('%s', async (_, spoil, message) => {
    spoil();
    await using parts = await openRelay({}, { verify: [{ block: 'pc.ram', path }] });
    parts.sourceQemu.write(smallStream());
    const result = await parts.destination.result;
    expect(result).toMatchObject({ guest: 'source', error: { code: 'ERR_VERIFY_MEMORY' } });
    expect(result.error!.message).toMatch(message);
    expect(result.pages.raw).toBe(0);
    await parts.sourceQemu.untilClosed(BOUND_MS);
  });

  test('another block', async () => {
    await using parts = await openRelay({}, { verify: [{ block: 'ram', path }] });
    parts.sourceQemu.write(smallStream());
    const { error } = await parts.destination.result;
    const why = 'QEMU has no RAM block "ram"; it has "pc.ram"';
    expect(error!.message).toBe(`Cannot verify memory: ${why}`);
  });
});

describe('a stream whose pages are not all seen', () => {
  const begun = (): StreamBuilder => {
    const builder = new StreamBuilder({ blocks: [{ name: 'pc.ram', pages: 64 }] }).header();
    return builder.command(1).ramStart().partBegin().page(0, 1, { kind: 'zero' }).partEnd();
  };

  test('is refused before QEMU gets the rest', async () => {
    await using parts = await openRelay({}, { verify: [{ block: 'pc.ram', path }] });
    parts.sourceQemu.write(begun().raw(new Uint8Array(5000).fill(0x55)).bytes());
    const result = await parts.destination.result;
    expect(result).toMatchObject({ guest: 'source', error: { code: 'ERR_VERIFY_MEMORY' } });
  });

  test('goes on in post-copy, where the guest is no longer whole at the source', async () => {
    await using parts = await carried(begun().command(4).raw(new Uint8Array(5000)).bytes());
    parts.destinationQemu.write(shut(0));
    await waitUntil('its word', () => parts.sourceQemu.received().length === 8, {
      timeoutMs: BOUND_MS,
    });
    parts.sourceQemu.close();
    const { outcome, verified, fallbacks } = await parts.destination.result;
    expect([outcome, verified]).toEqual(['completed', undefined]);
    expect(fallbacks).toContain('memory is not verified: post-copy began');
  });
});

test('only what was decoded is compared, and the rest counted', async () => {
  const blocks = [
    { name: 'a', usedBytes: 3 * PAGE_BYTES },
    { name: 'b', usedBytes: 64 * PAGE_BYTES },
  ];
  const layout = { pageBits: 12, hasFooter: true, sectionId: 2, blocks };
  const loaded = new LoadedMemory(layout, { memory: [{ block: 'b', path }], threads: 3 });
  expect(await loaded.verify()).toEqual({ pages: 0, differing: 0, unverified: 67 });
});

// Requires: redis-server.
import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { openIntermediaries } from '../../src/index.ts';
import { pingCommand } from '../../src/migration/package.ts';
import { PING_PAGES, pong } from '../../src/migration/return-message.ts';
import { encodePageRequest } from '../../src/stream/page-request.ts';
import { shut } from '../support/fake-qemu.ts';
import { waitUntil } from '../support/lab/processes.ts';
import { PAGE_BYTES, postcopyAdvice, type StreamBuilder } from '../support/qemu-stream.ts';
import { RedisServer } from '../support/redis.ts';
import {
  addSwitchOver,
  beginStream,
  contentOf,
  END,
  LOADED,
  request,
  until,
  writerOf,
} from './postcopy-support.ts';
import { BOUND_MS, openRelay } from './support.ts';

/*
 * Both ends of a post-copy that goes by way of an intermediary, with QEMUs that say what a test
 * lets them say.
 */

/** QEMU's stream as far as the package, in one builder that goes on. */
function switchedOver(): StreamBuilder {
  const builder = beginStream().command(3, postcopyAdvice(PAGE_BYTES)).ramStart();
  return addSwitchOver(builder.partBegin().page(0, 0, { kind: 'zero' }).partEnd());
}

/** A migration that has switched: what QEMU wrote is at the destination, which loads it. */
async function switchOver({ isStaged = true, loads = true } = {}) {
  const server = await RedisServer.start();
  const intermediaries = isStaged ? await openIntermediaries([server.address]) : [];
  const parts = await openRelay(isStaged ? { stage: { intermediaries } } : {});
  const { sourceQemu, destinationQemu } = parts;
  const builder = switchedOver();
  const writer = writerOf(builder, sourceQemu);
  writer.send();
  const switchedBytes = writer.sentBytes;
  await destinationQemu.untilBytes(switchedBytes, BOUND_MS);
  if (loads) destinationQemu.write(LOADED);
  const heard = () => Buffer.from(sourceQemu.received());
  const given = () => Buffer.from(destinationQemu.received());
  if (loads) await until('the sign of life', () => has(heard(), LOADED));
  const places = { intermediaries, switchedBytes, heard, given };
  const dispose = async (): Promise<void> => {
    await parts[Symbol.asyncDispose]();
    for (const each of intermediaries) await each[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
  };
  return {
    ...parts,
    ...places,
    server,
    builder,
    send: writer.send,
    [Symbol.asyncDispose]: dispose,
  };
}

/** Whether bytes are in others. */
function has(bytes: Buffer, wanted: Uint8Array): boolean {
  return bytes.includes(Buffer.from(wanted));
}

test('a page that is asked for before it is staged is asked of the source, and comes once', async () => {
  await using parts = await switchOver();
  const { source, destination, destinationQemu, builder, send, heard, given } = parts;
  destinationQemu.write(request(5));
  await until('the request at the source QEMU', () => has(heard(), request(5)));
  expect(given().length).toBe(parts.switchedBytes);
  builder.partBegin().page(0, 5, { kind: 'page', bytes: contentOf(5) });
  send();
  await until('the page', () => has(given(), contentOf(5)));

  // What is staged is answered here: the source hears nothing of it.
  for (let page = 6; page < 500; page++) {
    builder.page(0, page, { kind: 'page', bytes: contentOf(page % 200) });
  }
  builder.partEnd().partBegin(3).partEnd().raw([0]);
  send();
  await until('the source QEMU to be let go', () => has(heard(), shut(0)));
  expect(await source.result).toMatchObject({ outcome: 'completed', guest: 'destination' });
  const heardThen = heard();
  destinationQemu.write(request(400));
  await until('the end of the stream', () => given().subarray(-END.length).equals(END));
  expect(heard()).toEqual(heardThen);
  expect(recordsOf(given().subarray(parts.switchedBytes, -END.length))).toEqual(
    Array.from({ length: 495 }, (_, index) => index + 5),
  );
  destinationQemu.write(shut(0));
  destinationQemu.close();
  const result = await destination.result;
  expect(result).toMatchObject({ outcome: 'completed', guest: 'destination' });
  expect(result.gathered).toMatchObject({ pages: 495, badExtents: 0 });
  expect(await parts.server.admin.dbsize()).toBe(0);
});

test('what an intermediary has no room for goes straight, and QEMU is asked whether it has it', async () => {
  await using parts = await switchOver();
  const { source, destination, destinationQemu, builder, send, heard, given } = parts;
  parts.intermediaries[0]!.setLimit(500_000);
  builder.partBegin();
  const noise = randomBytes(500 * PAGE_BYTES);
  for (let page = 0; page < 500; page++) {
    const bytes = noise.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
    builder.page(0, page, { kind: 'page', bytes });
  }
  builder.partEnd().partBegin(3).partEnd().raw([0]);
  send();
  const question = pingCommand(PING_PAGES);
  await until('the question', () => has(given(), question));
  destinationQemu.write(request(7));
  destinationQemu.write(pong(5));
  await until('what is not for us', () => has(heard(), pong(5)));
  expect(has(heard(), shut(0))).toBe(false);
  destinationQemu.write(pong(PING_PAGES));
  await until('the source QEMU to be let go', () => has(heard(), shut(0)));
  expect(has(heard(), pong(PING_PAGES))).toBe(false);
  const { staged } = await source.result;
  expect(staged!.directPages).toBeGreaterThan(0);
  await until('the end of the stream', () => given().subarray(-END.length).equals(END));
  const written = given().subarray(parts.switchedBytes, -END.length);
  expect(recordsOf(written)).toEqual(Array.from({ length: 500 }, (_, page) => page));
  destinationQemu.write(shut(0));
  destinationQemu.close();
  const { gathered, outcome } = await destination.result;
  const { directPages } = staged!;
  expect(outcome).toBe('completed');
  expect(gathered).toMatchObject({ directPages, pages: 500 - directPages });
});

test('the source is let go only after the package is loaded', async () => {
  await using parts = await switchOver({ loads: false });
  const { source, destination, destinationQemu, builder, send, heard, given } = parts;
  builder
    .partBegin()
    .page(0, 3, { kind: 'page', bytes: contentOf(3) })
    .partEnd();
  builder.partBegin(3).partEnd().raw([0]);
  send();
  await until('the page', () => has(given(), contentOf(3)));
  destinationQemu.write(pong(PING_PAGES));
  destinationQemu.write(request(3));
  destinationQemu.write(pong(7));
  await until('what is not ours', () => has(heard(), pong(7)));
  expect(has(heard(), shut(0))).toBe(false);
  destinationQemu.write(LOADED);
  await until('the source QEMU to be let go', () => has(heard(), shut(0)));
  expect(has(heard(), LOADED)).toBe(true);
  expect(await source.result).toMatchObject({ outcome: 'completed', guest: 'destination' });
  destinationQemu.write(shut(0));
  destinationQemu.close();
  expect(await destination.result).toMatchObject({ outcome: 'completed', guest: 'destination' });
});

test('without intermediaries pages go straight, each once, compressed', async () => {
  await using parts = await switchOver({ isStaged: false });
  const { source, destination, destinationQemu, builder, send, heard, given } = parts;
  destinationQemu.write(request(450));
  await until('the request', () => has(heard(), request(450)));
  builder
    .partBegin()
    .page(0, 450, { kind: 'page', bytes: contentOf(200) })
    .partEnd();
  send();
  await until('the page', () => has(given(), contentOf(200)));
  builder.partBegin();
  for (let page = 0; page < 450; page++) {
    builder.page(0, page, { kind: 'page', bytes: contentOf(page % 150) });
  }
  builder.page(1, 2, { kind: 'zero' }).partEnd().partBegin(3).partEnd().raw([0]);
  send();
  await until('the end of the stream', () => given().subarray(-END.length).equals(END));
  // The source has all of it until QEMU says that it has loaded everything.
  expect(has(heard(), shut(0))).toBe(false);
  destinationQemu.write(shut(0));
  await until('its word', () => has(heard(), shut(0)));
  parts.sourceQemu.close();
  destinationQemu.close();
  const sent = await source.result;
  expect(sent).toMatchObject({ outcome: 'completed', guest: 'destination', fallbacks: [] });
  expect(sent.staged).toBeUndefined();
  expect(sent.digest.equal).toBe(true);
  expect(sent.wireBytes).toBeLessThan(sent.streamBytes / 5);
  const { outcome, gathered } = await destination.result;
  expect(outcome).toBe('completed');
  expect(gathered).toMatchObject({ directPages: 452, pages: 0, sourceRequests: { count: 1 } });
  const pages = [...Array.from({ length: 451 }, (_, page) => page), 2].sort((a, b) => a - b);
  expect(recordsOf(given().subarray(parts.switchedBytes, -END.length))).toEqual(pages);
});

/** Pages of the records in RAM sections, ascending; each as often as it comes. */
function recordsOf(bytes: Buffer): number[] {
  const pages: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    if (bytes[at] === 2 && bytes.readUInt32BE(at + 1) === 2) at += 5;
    else if (bytes[at] === 0x7e) at += 5;
    else if (bytes[at] === 8) at += 5 + bytes.readUInt16BE(at + 3);
    else {
      const header = bytes.readBigUInt64BE(at);
      at += 8;
      if ((header & 0x10n) !== 0n) continue;
      if ((header & 0x20n) === 0n) at += 1 + bytes[at]!;
      at += (header & 2n) === 0n ? PAGE_BYTES : 1;
      pages.push(Number(header >> 12n));
    }
  }
  return pages.sort((one, other) => one - other);
}

test('success of the destination QEMU is not told before all is with intermediaries', async () => {
  await using parts = await switchOver();
  const { destinationQemu, heard } = parts;
  destinationQemu.write(shut(0));
  destinationQemu.write(request(7));
  await until('what came behind it', () => has(heard(), request(7)));
  expect(has(heard(), shut(0))).toBe(false);
});

test.each([
  ['a block that there is not', request(1, 'nothing')],
  ['a page behind the end of its block', request(600)],
  ['part of a page', encodePageRequest({ block: 'pc.ram', offsetBytes: 100, lengthBytes: 4096 })],
  ['nothing', encodePageRequest({ block: 'pc.ram', offsetBytes: 0, lengthBytes: 0 })],
  ['a page without a block, first of all', Uint8Array.of(0, 4, 0, 12, ...new Uint8Array(12))],
  ['what is malformed', Uint8Array.of(0, 3, 0, 2, 0, 0)],
])('a destination QEMU that asks for %s pauses the post-copy', async (_, bytes) => {
  await using parts = await switchOver();
  const { source, destination, destinationQemu } = parts;
  destinationQemu.write(bytes);
  const paused = { outcome: 'failed', error: { code: 'ERR_POSTCOPY_PAUSED' } };
  expect(await destination.result).toMatchObject({ ...paused, guest: 'destination' });
  const sent = await source.result;
  expect(sent).toMatchObject(paused);
  expect(sent.guest).not.toBe('source');
  await destinationQemu.untilClosed(BOUND_MS);
});

test('a batch that is wrong pauses the post-copy', async () => {
  await using parts = await switchOver({ isStaged: false });
  const { source, destination, builder, send } = parts;
  builder.partBegin().page(0, 3, { kind: 'page', bytes: contentOf(3) });
  // Each page comes once.
  for (let page = 0; page < 300; page++) builder.page(0, 3, { kind: 'zero' });
  builder.partEnd();
  send();
  const received = await destination.result;
  expect(received).toMatchObject({ error: { code: 'ERR_POSTCOPY_PAUSED' }, guest: 'destination' });
  expect(received.error!.message).toContain('page 3 is');
  expect(await source.result).toMatchObject({ error: { code: 'ERR_POSTCOPY_PAUSED' } });
});

test('huge pages go straight to the destination, and that is said', async () => {
  await using server = await RedisServer.start();
  const intermediaries = await openIntermediaries([server.address]);
  await using parts = await openRelay({ stage: { intermediaries } });
  const { source, destinationQemu, sourceQemu } = parts;
  const builder = beginStream();
  builder
    .command(3, postcopyAdvice(2 * 1024 * 1024))
    .ramStart()
    .partBegin();
  const bytes = builder.bytes();
  sourceQemu.write(bytes);
  await waitUntil('the stream', () => destinationQemu.received().length >= bytes.length - 10, {
    timeoutMs: BOUND_MS,
  });
  source.destroy();
  const { fallbacks } = await source.result;
  expect(fallbacks.join()).toContain('not staged: the host has larger pages than the guest');
  expect(await server.admin.dbsize()).toBe(0);
  for (const each of intermediaries) await each[Symbol.asyncDispose]();
});

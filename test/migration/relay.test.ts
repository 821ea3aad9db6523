import { describe, expect, test } from 'vitest';
import { PagelaneError } from '../../src/index.ts';
import { shut } from '../support/fake-qemu.ts';
import { waitUntil } from '../support/lab/processes.ts';
import { StreamBuilder } from '../support/qemu-stream.ts';
import { smallStream, unfinishedStream } from '../support/small-stream.ts';
import { BOUND_MS, openEnds, openRelay } from './support.ts';

const PONG = Uint8Array.of(0, 2, 0, 4, 0, 0, 0, 1);
const LOST = new PagelaneError('ERR_TEST', 'the session was lost');

test('a whole migration: stream, return path, results of both ends', async () => {
  await using parts = await openRelay({ name: 'vm1', codec: 'lz4', storeBytes: 0 });
  const { source, destination, sourceQemu, destinationQemu } = parts;
  const stream = smallStream();
  sourceQemu.write(stream);
  await destinationQemu.untilBytes(stream.length, BOUND_MS);
  destinationQemu.write(PONG);
  destinationQemu.write(shut(0));
  await waitUntil('the return path', () => sourceQemu.received().length === 16, {
    timeoutMs: BOUND_MS,
  });
  sourceQemu.close();
  const [sent, received] = [await source.result, await destination.result];
  expect(Buffer.compare(destinationQemu.received(), stream)).toBe(0);
  expect([...sourceQemu.received()]).toEqual([...PONG, ...shut(0)]);
  expect(sent).toMatchObject({
    side: 'source',
    outcome: 'completed',
    guest: 'destination',
    rounds: 2,
    pages: { zero: 0, fill: 0, raw: 128, same: 0, delta: 0, foreign: 0 },
    streamBytes: stream.length,
    memoryBytes: 64 * 4096,
    fallbacks: [],
    store: { bytes: 0, savedBytes: 0 },
    resent: { pages: 0, wireBytes: 0 },
    effective: { codec: 'lz4', threads: 2, storeBytes: 0 },
  });
  expect(sent.downtimeMs.switchover).toBeGreaterThanOrEqual(0);
  expect(received).toMatchObject({ side: 'destination', outcome: 'completed', name: 'vm1' });
  expect(received.session).toBe(sent.session);
  expect(received.digest).toEqual(sent.digest);
  expect(sent.digest.equal).toBe(true);
  expect([sent.error, received.error]).toEqual([undefined, undefined]);
  expect(sent.codecs['lz4']).toEqual(received.codecs['lz4']);
  expect(sent.codecs['lz4']!.pageBytes).toBe(128 * 4096);
  await destinationQemu.untilClosed(BOUND_MS);
});

test('QEMU is not connected to before there are bytes for it', async () => {
  await using ends = await openEnds();
  let isAsked = false;
  const ask = new Promise<void>((resolve) => {
    ends.destination.relayWhenNeeded(() => {
      isAsked = true;
      resolve();
      return Promise.reject(LOST);
    });
  });
  await new Promise((resolve) => setImmediate(resolve));
  expect(isAsked).toBe(false);
  expect(ends.destination.progress().waitsFor).toBe('the first bytes from the source');
  ends.source.write(unfinishedStream());
  await ask;
  const result = await ends.destination.result;
  expect(result).toMatchObject({ outcome: 'failed', guest: 'source' });
  expect(await ends.source.result).toMatchObject({
    guest: 'source',
    error: { code: 'ERR_TEST', message: 'Destination: the session was lost' },
  });
});

test('a source that fails before QEMU is relayed closes the channel of QEMU', async () => {
  await using first = await openRelay();
  await using ends = await openEnds();
  ends.sourceSession.fail(LOST);
  await ends.source.result;
  const { sourceQemu, channel } = first;
  // The channel is another migration's: what counts is that it is closed, not read.
  ends.source.relay(channel);
  await sourceQemu.untilClosed(BOUND_MS);
});

/** Ends the session when the destination has the first `bytes` of a small stream. */
async function loseAfter(
  stream: Uint8Array,
  { says = [], closes = false }: { says?: readonly Uint8Array[]; closes?: boolean } = {},
) {
  const parts = await openRelay();
  const { source, sourceQemu, destinationQemu } = parts;
  sourceQemu.write(stream);
  await destinationQemu.untilBytes(stream.length, BOUND_MS);
  for (const bytes of says) destinationQemu.write(bytes);
  const wanted = says.reduce((sum, bytes) => sum + bytes.length, 0);
  await waitUntil('the return path', () => sourceQemu.received().length === wanted, {
    timeoutMs: BOUND_MS,
  });
  if (closes) {
    sourceQemu.close();
    const waits = () => source.progress().waitsFor === 'the destination to confirm';
    await waitUntil('the end of the stream', waits, { timeoutMs: BOUND_MS });
  }
  parts.destinationSession.fail(LOST);
  return { parts, sent: await source.result, received: await parts.destination.result };
}

test('lost in RAM: the guest is at the source, and both QEMUs see their channel close', async () => {
  const { parts, sent, received } = await loseAfter(unfinishedStream());
  await using _ = parts;
  expect(sent).toMatchObject({ outcome: 'failed', guest: 'source', error: { code: 'ERR_TEST' } });
  expect(received).toMatchObject({ outcome: 'failed', guest: 'source' });
  await parts.sourceQemu.untilClosed(BOUND_MS);
  await parts.destinationQemu.untilClosed(BOUND_MS);
});

test('lost in device state with a return path: unknown, and the source QEMU stays', async () => {
  const { parts, sent, received } = await loseAfter(smallStream(), { says: [PONG] });
  await using _ = parts;
  expect([sent.guest, received.guest]).toEqual(['unknown', 'unknown']);
  expect(parts.sourceQemu.isClosed()).toBe(false);
});

test('lost after the word of the destination: completed, with a note', async () => {
  const { parts, sent, received } = await loseAfter(smallStream(), { says: [shut(0)] });
  await using _ = parts;
  for (const result of [sent, received]) {
    expect(result).toMatchObject({ outcome: 'completed', guest: 'destination' });
    expect(result.fallbacks.join()).toContain('before the last digest could be compared');
  }
});

test('lost after the destination said that it failed: at the source', async () => {
  const { parts, sent, received } = await loseAfter(smallStream(), { says: [shut(1)] });
  await using _ = parts;
  expect([sent.guest, received.guest]).toEqual(['source', 'source']);
  await parts.sourceQemu.untilClosed(BOUND_MS);
});

test('lost in device state without a return path: QEMU still writes, at the source', async () => {
  const stream = smallStream({ hasReturnPath: false }).slice(0, -1);
  const { parts, sent } = await loseAfter(stream);
  await using _ = parts;
  expect(sent).toMatchObject({ outcome: 'failed', guest: 'source' });
});

test('lost when QEMU has closed, without a return path: unknown', async () => {
  const { parts, sent } = await loseAfter(smallStream({ hasReturnPath: false }), { closes: true });
  await using _ = parts;
  expect(sent).toMatchObject({ outcome: 'failed', guest: 'unknown' });
  expect(sent.fallbacks.join()).toContain('no return path');
});

test('lost before the last device state went, QEMU having closed: at the source, which stopped', async () => {
  await using parts = await openRelay();
  const { source, sourceQemu, sourceSession, destinationSession } = parts;
  // Next to nothing goes: what comes last is held back.
  sourceSession.setMaxBandwidth(1);
  sourceQemu.write(smallStream({ hasReturnPath: false }));
  sourceQemu.close();
  const hasClosed = () => source.progress().phase === 'switchover' && parts.channel.isClosed;
  await waitUntil('QEMU to have closed', hasClosed, { timeoutMs: BOUND_MS });
  destinationSession.fail(LOST);
  const { error, guest } = await source.result;
  expect([error!.code, guest]).toEqual(['ERR_TEST', 'source']);
  expect(error!.message).toMatch(/; the source QEMU has stopped: "cont" there$/);
});

/** A post-copy from its first page to some of its packaged state. */
function postcopyStream(): Uint8Array {
  const builder = new StreamBuilder({ blocks: [{ name: 'pc.ram', pages: 4 }] }).header();
  builder.command(1).ramStart().partBegin().page(0, 1, { kind: 'zero' }).partEnd();
  return builder.command(4).raw(new Uint8Array(5000)).bytes();
}

/** What a recovered post-copy begins with: it asks for a bitmap. */
function recoveredStream(): Uint8Array {
  return new StreamBuilder({ blocks: [] }).command(10, [6, ...Buffer.from('pc.ram')]).bytes();
}

test.each([
  { what: 'post-copy', stream: postcopyStream() },
  { what: 'a recovered post-copy', stream: recoveredStream() },
])('lost in $what: paused, and the guest is at the destination', async ({ stream }) => {
  const { parts, sent } = await loseAfter(stream);
  await using _ = parts;
  expect(sent).toMatchObject({
    outcome: 'failed',
    guest: 'destination',
    error: {
      code: 'ERR_POSTCOPY_PAUSED',
      message: expect.stringContaining('the session was lost'),
    },
  });
});

test('the source QEMU goes in post-copy: paused, and the guest is at the destination', async () => {
  await using parts = await openRelay();
  const { source, destination, sourceQemu, destinationQemu } = parts;
  sourceQemu.write(postcopyStream());
  await destinationQemu.untilBytes(postcopyStream().length, BOUND_MS);
  sourceQemu.close();
  for (const result of [await source.result, await destination.result]) {
    expect(result).toMatchObject({ guest: 'destination', error: { code: 'ERR_POSTCOPY_PAUSED' } });
  }
});

test('a recovered post-copy ends with the word of the destination', async () => {
  await using parts = await openRelay();
  const { source, destination, sourceQemu, destinationQemu } = parts;
  sourceQemu.write(recoveredStream());
  await destinationQemu.untilBytes(recoveredStream().length, BOUND_MS);
  // A bitmap, whose bits its length does not count, and then the word.
  const head = [0, 5, 0, 7, 6, ...Buffer.from('pc.ram'), 0, 0, 0, 0, 0, 0, 0, 8];
  const words = Uint8Array.of(...head, ...new Uint8Array(16).fill(255), ...shut(0));
  destinationQemu.write(words);
  await waitUntil('the return path', () => sourceQemu.received().length === words.length, {
    timeoutMs: BOUND_MS,
  });
  sourceQemu.close();
  destinationQemu.close();
  for (const result of [await source.result, await destination.result]) {
    expect(result).toMatchObject({ guest: 'destination', outcome: 'completed' });
  }
});

test('the destination QEMU goes without a word: at the source, at both ends', async () => {
  await using parts = await openRelay();
  const { source, destination, sourceQemu, destinationQemu } = parts;
  const stream = smallStream();
  sourceQemu.write(stream);
  await destinationQemu.untilBytes(stream.length, BOUND_MS);
  destinationQemu.write(PONG);
  await waitUntil('the return path', () => sourceQemu.received().length > 0, {
    timeoutMs: BOUND_MS,
  });
  destinationQemu.close();
  for (const result of [await source.result, await destination.result]) {
    expect(result).toMatchObject({ guest: 'source', error: { code: 'ERR_QEMU_CLOSED' } });
  }
  await sourceQemu.untilClosed(BOUND_MS);
});

test('the destination is given up in switchover: the source does not claim the guest', async () => {
  await using parts = await openRelay();
  const { source, destination, sourceQemu, destinationQemu } = parts;
  const stream = smallStream();
  sourceQemu.write(stream);
  await destinationQemu.untilBytes(stream.length, BOUND_MS);
  destinationQemu.write(PONG);
  await waitUntil('the return path', () => sourceQemu.received().length > 0, {
    timeoutMs: BOUND_MS,
  });
  destination.destroy();
  expect(await destination.result).toMatchObject({ guest: 'unknown' });
  expect(await source.result).toMatchObject({ guest: 'unknown', error: { code: 'ERR_DESTROYED' } });
  expect(sourceQemu.isClosed()).toBe(false);
});

test('without a return path a destination that fails late says what to do at the source', async () => {
  await using parts = await openRelay();
  const { source, destination, sourceQemu, destinationQemu } = parts;
  const stream = smallStream({ hasReturnPath: false });
  sourceQemu.write(stream);
  sourceQemu.close();
  await destinationQemu.untilBytes(stream.length, BOUND_MS);
  destination.destroy();
  const { error, guest } = await source.result;
  expect(guest).toBe('source');
  expect(error!.message).toMatch(/^Destination: .*; the source QEMU has stopped: "cont" there$/);
});

describe('a stream of which nothing is known, cut anywhere, is not taken for a whole one', () => {
  const strange = (command: number): StreamBuilder =>
    new StreamBuilder({ blocks: [{ name: 'pc.ram', pages: 4 }] })
      .header()
      .command(command)
      .section(1, 7, 'vfio', 1)
      .raw(new Uint8Array(9000));

  test.each([
    { what: 'without a return path: at the source', command: 2, guest: 'source' },
    { what: 'with one: unknown', command: 1, guest: 'unknown' },
  ])('$what', async ({ command, guest }) => {
    await using parts = await openRelay();
    const { source, sourceQemu, destinationQemu } = parts;
    const stream = strange(command).bytes();
    sourceQemu.write(stream);
    await destinationQemu.untilBytes(stream.length, BOUND_MS);
    sourceQemu.close();
    expect(await source.result).toMatchObject({ guest, error: { code: 'ERR_STREAM_TRUNCATED' } });
  });

  test('and the whole one is', async () => {
    await using parts = await openRelay();
    const { source, sourceQemu, destinationQemu } = parts;
    const stream = strange(2).tail(new Uint8Array(100)).bytes();
    sourceQemu.write(stream);
    sourceQemu.close();
    await destinationQemu.untilBytes(stream.length, BOUND_MS);
    destinationQemu.close();
    expect(await source.result).toMatchObject({ outcome: 'completed', guest: 'destination' });
  });
});

test('what is cut between two reads is put together, both ways', async () => {
  await using parts = await openRelay();
  const { source, destination, sourceQemu, destinationQemu } = parts;
  const stream = smallStream();
  const streamed = (count: number) => () => source.progress().streamBytes >= count;
  sourceQemu.write(stream.subarray(0, 6));
  await waitUntil('a part of the header', streamed(6), { timeoutMs: BOUND_MS });
  sourceQemu.write(stream.subarray(6));
  await destinationQemu.untilBytes(stream.length, BOUND_MS);
  const word = shut(0);
  destinationQemu.write(word.subarray(0, 5));
  const heard = (count: number) => () => sourceQemu.received().length === count;
  await waitUntil('a part of the word', heard(5), { timeoutMs: BOUND_MS });
  destinationQemu.write(word.subarray(5));
  await waitUntil('the word', heard(8), { timeoutMs: BOUND_MS });
  destinationQemu.close();
  sourceQemu.close();
  for (const result of [await source.result, await destination.result]) {
    expect(result).toMatchObject({ guest: 'destination', outcome: 'completed' });
  }
});

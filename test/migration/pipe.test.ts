import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { PassThrough, Readable, Writable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { expect, test } from 'vitest';
import { MigrationError } from '../../src/index.ts';
import { shut } from '../support/fake-qemu.ts';
import { waitUntil, within } from '../support/lab/processes.ts';
import { createPrng } from '../support/prng.ts';
import {
  loadStream,
  PAGE_BYTES,
  randomBytes,
  randomStream,
  StreamBuilder,
} from '../support/qemu-stream.ts';
import { smallStream, unfinishedStream } from '../support/small-stream.ts';
import { BOUND_MS, openEnds } from './support.ts';

/** A connected pair of sockets, as a test's QEMU and ours. */
async function socketPair({ allowHalfOpen = true } = {}) {
  const server = createServer({ allowHalfOpen }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  const qemu = connect(port, '127.0.0.1');
  const [ours] = (await once(server, 'connection')) as [Socket];
  server.close();
  qemu.on('error', () => {});
  ours.on('error', () => {});
  return {
    qemu,
    ours,
    [Symbol.dispose]: () => {
      qemu.destroy();
      ours.destroy();
    },
  };
}

test('written at the source, read at the destination: the same bytes', async () => {
  await using ends = await openEnds({ name: 'vm1' });
  const stream = smallStream({ hasReturnPath: false });
  const arrived = buffer(ends.destination);
  ends.source.resume();
  await pipeline(Readable.from([stream.slice(0, 1000), stream.slice(1000)]), ends.source);
  expect(Buffer.compare(await arrived, stream)).toBe(0);
  const [sent, received] = [await ends.source.result, await ends.destination.result];
  for (const result of [sent, received]) {
    expect(result).toMatchObject({ outcome: 'completed', guest: 'destination', name: 'vm1' });
    expect(result.digest).toMatchObject({ equal: true, sent: sent.digest.sent });
  }
});

test.each([1, 2, 3, 4])(
  'over four connections QEMU loads the same memory, seed %i',
  async (seed) => {
    await using ends = await openEnds(
      { codec: seed % 2 === 0 ? 'zstd' : 'auto' },
      { pathCount: 4 },
    );
    const random = createPrng(seed);
    const full = randomStream(random);
    // No return path here: without command 1 the end of the stream decides.
    const stream = full.with(Buffer.from(full).indexOf(Uint8Array.of(8, 0, 1, 0, 0)) + 2, 2);
    const arrived = buffer(ends.destination);
    ends.source.resume();
    const chunks = cut(stream, random);
    await pipeline(Readable.from(chunks), ends.source);
    const [expected, loaded] = [loadStream(stream), loadStream(new Uint8Array(await arrived))];
    expect(loaded.pages).toEqual(expected.pages);
    expect(Buffer.compare(loaded.tail, expected.tail)).toBe(0);
  },
);

function* cut(bytes: Uint8Array, random: () => number): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; ) {
    const end = at + 1 + Math.floor(random() * 30_000);
    yield bytes.slice(at, end);
    at = end;
  }
}

test.each([true, false])('sockets on both sides, half open %s', async (allowHalfOpen) => {
  await using ends = await openEnds();
  using left = await socketPair({ allowHalfOpen });
  using right = await socketPair({ allowHalfOpen });
  const joined = [
    pipeline(left.ours, ends.source, left.ours),
    pipeline(right.ours, ends.destination, right.ours),
  ];
  const settled = Promise.allSettled(joined);
  const stream = smallStream();
  const arrived: Buffer[] = [];
  right.qemu.on('data', (bytes) => arrived.push(bytes));
  left.qemu.write(stream);
  await waitUntil('the stream', () => Buffer.concat(arrived).length >= stream.length, {
    timeoutMs: BOUND_MS,
  });
  right.qemu.write(shut(0));
  const [word] = (await once(left.qemu, 'data')) as [Buffer];
  expect(Buffer.compare(word, shut(0))).toBe(0);
  left.qemu.end();
  right.qemu.end();
  expect(await ends.source.result).toMatchObject({ outcome: 'completed', guest: 'destination' });
  expect(await ends.destination.result).toMatchObject({ outcome: 'completed' });
  expect(Buffer.compare(Buffer.concat(arrived), stream)).toBe(0);
  await within(settled, BOUND_MS, 'both pipelines to end');
});

test('a reader with pauses gets all of a stream that is larger than every buffer', async () => {
  await using ends = await openEnds({ codec: 'none' });
  const pages = 4096;
  const builder = new StreamBuilder({ blocks: [{ name: 'pc.ram', pages }] }).header().ramStart();
  builder.partBegin(3);
  const noise = randomBytes(createPrng(5), PAGE_BYTES);
  for (let page = 0; page < pages; page++) {
    builder.page(0, page, { kind: 'page', bytes: noise.with(0, 1 + (page % 200)) });
  }
  const stream = builder.partEnd().tail(noise).bytes();
  let count = 0;
  const slow = new Writable({
    highWaterMark: 1,
    write(chunk: Uint8Array, _encoding, done) {
      count += chunk.length;
      setImmediate(done);
    },
  });
  ends.source.resume().end(stream);
  await within(pipeline(ends.destination, slow), BOUND_MS, 'the stream to end');
  expect(count).toBe(stream.length);
  expect(await ends.destination.result).toMatchObject({ outcome: 'completed' });
  expect((await ends.source.result).digest.equal).toBe(true);
});

test('a migration that fails destroys the stream, and pipeline closes both QEMUs', async () => {
  await using ends = await openEnds();
  using left = await socketPair();
  using right = await socketPair();
  const atSource = pipeline(left.ours, ends.source, left.ours);
  const atDestination = pipeline(right.ours, ends.destination, right.ours);
  atDestination.catch(() => {});
  left.qemu.write(unfinishedStream());
  await once(right.qemu, 'data');
  ends.destination.destroy();
  const error = await atSource.catch((cause: unknown) => cause);
  expect(error).toBeInstanceOf(MigrationError);
  expect(error).toMatchObject({ code: 'ERR_DESTROYED', guest: 'source', side: 'source' });
  for (const qemu of [left.qemu, right.qemu]) {
    await waitUntil('the sockets of QEMU to close', () => qemu.resume().closed, {
      timeoutMs: BOUND_MS,
    });
  }
});

test('after a failure nothing is taken: a QEMU must not believe that it arrived', async () => {
  await using ends = await openEnds();
  ends.destinationSession.fail(new MigrationError('ERR_TEST', 'gone', WHERE));
  expect(await ends.source.result).toMatchObject({ outcome: 'failed', guest: 'source' });
  const taken = new Promise<Error | null | undefined>((resolve) => {
    ends.source.write(smallStream(), (error) => resolve(error));
  });
  expect(await taken).toMatchObject({ code: 'ERR_TEST' });
  await waitUntil('the stream to be destroyed', () => ends.source.destroyed, {
    timeoutMs: BOUND_MS,
  });
});

const WHERE = { guest: 'source', side: 'destination', phase: 'precopy' } as const;

test('where the guest is unknown, QEMU keeps its socket', async () => {
  await using ends = await openEnds();
  using left = await socketPair();
  left.ours.pipe(ends.source).pipe(left.ours);
  const sink = new PassThrough();
  ends.destination.pipe(sink).resume();
  left.qemu.write(smallStream());
  await waitUntil('switchover', () => ends.destination.progress().phase === 'switchover', {
    timeoutMs: BOUND_MS,
  });
  ends.destinationSession.fail(new MigrationError('ERR_TEST', 'gone', WHERE));
  expect(await ends.source.result).toMatchObject({ outcome: 'failed', guest: 'unknown' });
  left.qemu.write(new Uint8Array(1000));
  await waitUntil('QEMU to be rid of its bytes', () => left.qemu.bytesWritten > 1000, {
    timeoutMs: BOUND_MS,
  });
  expect(ends.source.destroyed).toBe(false);
  expect([left.ours.destroyed, left.ours.writableEnded]).toEqual([false, false]);
});

test('a slow reader holds the source back: little is kept in between', async () => {
  await using ends = await openEnds({ codec: 'none' });
  const pages = 40_000;
  let written = 0;
  const chunk = unfinishedStream({ hasReturnPath: false });
  const source = ends.source;
  source.write(chunk);
  // Bytes that are never read at the destination fill every queue, and then nothing moves.
  const random = createPrng(1);
  const noise = Uint8Array.from({ length: 64 * 1024 }, () => random() * 256);
  const verbatim = Uint8Array.of(4, 0, 0, 0, 9, 1, 120, 0, 0, 0, 0, 0, 0, 0, 1);
  source.write(verbatim);
  const write = (): void => {
    if (written >= pages * 4096) return;
    source.write(noise, () => {
      written += noise.length;
      write();
    });
  };
  write();
  let before = -1;
  await waitUntil(
    'the source to be held back',
    async () => {
      await new Promise((resolve) => setTimeout(resolve, 300));
      const isStill = written === before;
      before = written;
      return isStill && written > 0;
    },
    { timeoutMs: BOUND_MS },
  );
  expect(written).toBeLessThan(96 * 1024 * 1024);
  source.destroy();
  await source.result;
});

import net from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import { type PagelaneError, ProtocolError } from '../../src/errors.ts';
import { encodeFrame } from '../../src/frame/encode.ts';
import { encodeHeader, FrameType } from '../../src/frame/header.ts';
import { HEADER_BYTES } from '../../src/frame/limits.ts';
import { formatEnd, SocketLink } from '../../src/path/connection.ts';
import { dial } from '../../src/path/dial.ts';
import { READ_BYTES } from '../../src/path/limits.ts';
import type { LinkHandlers } from '../../src/path/link.ts';
import { LinkListener } from '../../src/path/listen.ts';
import { createPrng, exactRandomBytes } from '../support/prng.ts';

const CLOSERS: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of CLOSERS.splice(0)) await close();
});

/** Handlers that collect, and wait. */
class Collector implements LinkHandlers {
  readonly frames: { type: number; payload: Uint8Array }[] = [];
  readonly faults: PagelaneError[] = [];
  turns = 0;
  closed: Promise<PagelaneError | undefined>;
  #close!: (error: PagelaneError | undefined) => void;
  #until: (() => boolean) | undefined;
  #resolve: (() => void) | undefined;

  constructor() {
    this.closed = new Promise((resolve) => {
      this.#close = resolve;
    });
  }

  allocate(bytes: number): Uint8Array {
    return new Uint8Array(bytes);
  }

  onFrame({ type }: { type: number }, payload: Uint8Array): void {
    this.frames.push({ type, payload });
  }

  onTurn(): void {
    this.turns++;
    if (this.#until?.() === true) this.#resolve?.();
  }

  onWritable(): void {}

  onFault(error: PagelaneError): void {
    this.faults.push(error);
    this.onTurn();
  }

  onClosed(error: PagelaneError | undefined): void {
    this.#close(error);
  }

  until(isDone: () => boolean): Promise<void> {
    if (isDone()) return Promise.resolve();
    this.#until = isDone;
    return new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }
}

/** Two links over loopback, in the session stage. */
async function pair(): Promise<{ near: SocketLink; far: SocketLink; at: [Collector, Collector] }> {
  const security = { kind: 'none' } as const;
  const arrived = new Promise<SocketLink>((resolve) => {
    const opening = LinkListener.open({
      host: '127.0.0.1',
      port: 0,
      security,
      clock: systemClock,
      handshakeTimeoutMs: 5000,
      onArrival: ({ link, finish }) => {
        finish();
        resolve(link);
      },
      onRefused: () => {},
    });
    opening.then((listener) => {
      CLOSERS.push(() => listener.close());
      const address = { host: '127.0.0.1', port: listener.port };
      return dial(address, { security, clock: systemClock, timeoutMs: 5000 }).then(({ link }) =>
        dialled(link),
      );
    });
  });
  let dialled!: (link: SocketLink) => void;
  const near = await new Promise<SocketLink>((resolve) => {
    dialled = resolve;
  });
  const far = await arrived;
  const at: [Collector, Collector] = [new Collector(), new Collector()];
  for (const [index, link] of [near, far].entries()) {
    link.stage = 'session';
    link.handlers = at[index]!;
    CLOSERS.push(() => link.destroy());
  }
  return { near, far, at };
}

function data(payload: Uint8Array): Uint8Array {
  const frame = new Uint8Array(HEADER_BYTES + payload.length);
  const { length } = payload;
  encodeHeader(frame, 0, {
    type: FrameType.Data,
    flags: 0,
    lane: 0,
    length,
    sequence: 0,
    epoch: 0,
  });
  frame.set(payload, HEADER_BYTES);
  return frame;
}

describe('SocketLink', () => {
  test('knows its ends', async () => {
    const { near, far } = await pair();
    expect(near.local).toBe(far.remote);
    expect(near.remote).toBe(far.local);
    expect(near.local).toMatch(/^127\.0\.0\.1:\d+$/);
  });

  test('carries frames of every size both ways', async () => {
    const { near, far, at } = await pair();
    const random = createPrng(1);
    const sizes = [0, 1, 1000, READ_BYTES - 32, READ_BYTES, 2 * READ_BYTES, 2 << 20, 31];
    const payloads = sizes.map((size) => exactRandomBytes(random, size));
    for (const payload of payloads) {
      near.send(data(payload));
      far.send(data(payload));
    }
    for (const one of at) {
      await one.until(() => one.frames.length === payloads.length);
      for (const [index, payload] of payloads.entries()) {
        expect(Buffer.compare(one.frames[index]!.payload, payload)).toBe(0);
      }
    }
    const bytes = sizes.reduce((sum, size) => sum + size + HEADER_BYTES, 0);
    expect(far.receivedBytes).toBe(bytes);
  });

  test('has fewer turns than frames, and wakes once', async () => {
    const { near, at } = await pair();
    for (let count = 0; count < 1000; count++) near.send(encodeFrame(FrameType.Ping));
    await at[1].until(() => at[1].frames.length === 1000);
    expect(at[1].turns).toBeLessThan(500);
    const before = at[0].turns;
    near.wake();
    near.wake();
    await at[0].until(() => at[0].turns > before);
    expect(at[0].turns).toBe(before + 1);
  });

  test('counts what waits in this process', async () => {
    const { near, at } = await pair();
    expect(near.pendingBytes).toBe(0);
    const frame = data(new Uint8Array(2 << 20));
    for (let count = 0; count < 20; count++) near.send(frame);
    expect(near.pendingBytes).toBeGreaterThan(0);
    await at[1].until(() => at[1].frames.length === 20);
    await at[0].until(() => near.pendingBytes === 0 || at[0].turns > 0);
  });

  test('ends cleanly: what was sent arrives, and neither side sees an error', async () => {
    const { near, far, at } = await pair();
    near.send(encodeFrame(FrameType.Ping, { sequence: 1 }));
    near.end();
    near.send(encodeFrame(FrameType.Ping, { sequence: 2 }));
    await at[1].until(() => at[1].frames.length === 1);
    far.end();
    expect(await at[0].closed).toBeUndefined();
    expect(at[1].frames.length).toBe(1);
  });

  test('takes an end that was not announced for a loss', async () => {
    const { near, at } = await pair();
    near.end();
    expect(await at[1].closed).toMatchObject({ code: 'ERR_PATH_LOST' });
  });

  test('takes a destroyed connection for a loss, in mid-frame too', async () => {
    const { near, at } = await pair();
    near.send(data(new Uint8Array(2 << 20)).subarray(0, 100_000));
    setTimeout(() => near.destroy(), 20);
    expect(await at[1].closed).toMatchObject({ code: 'ERR_PATH_LOST' });
    expect(await at[0].closed).toBeUndefined();
    expect(at[1].frames).toEqual([]);
  });

  test('tells handlers that come late that it is gone', async () => {
    const { near, far, at } = await pair();
    near.destroy();
    await at[1].closed;
    const late = new Collector();
    far.handlers = late;
    expect(await late.closed).toMatchObject({ code: 'ERR_PATH_LOST' });
  });

  test('reports rubbish once, drops what follows, and can still answer', async () => {
    const { near, far, at } = await pair();
    near.send(new Uint8Array(500).fill(0x41));
    near.send(encodeFrame(FrameType.Ping));
    await at[1].until(() => at[1].faults.length > 0);
    expect(at[1].faults[0]).toBeInstanceOf(ProtocolError);
    expect(at[1].faults[0]!.code).toBe('ERR_FRAME_CHECK');
    far.send(encodeFrame(FrameType.Pong));
    await at[0].until(() => at[0].frames.length === 1);
    expect(at[1].faults.length).toBe(1);
    expect(at[1].frames).toEqual([]);
  });
});

test('SocketLink knows a TLS handshake that it did not expect', async () => {
  const collector = new Collector();
  const server = net.createServer((socket) => {
    const link = new SocketLink();
    link.handlers = collector;
    link.attach(socket, { hasReadOptions: false });
    CLOSERS.push(() => link.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  CLOSERS.push(() => server.close());
  const { port } = server.address() as net.AddressInfo;
  const socket = net.connect({ host: '127.0.0.1', port });
  CLOSERS.push(() => socket.destroy());
  socket.write(new Uint8Array([0x16, 0x03, 0x01, 0x02, 0x00]));
  await collector.until(() => collector.faults.length > 0);
  expect(collector.faults[0]).toMatchObject({ code: 'ERR_PATH_SECURITY' });
});

test.each([
  ['::ffff:10.0.0.1', 5, '10.0.0.1:5'],
  ['fe80::1', 5, '[fe80::1]:5'],
  [undefined, undefined, '?:0'],
])('formatEnd(%s, %s) is %s', (host, port, text) => {
  expect(formatEnd(host, port)).toBe(text);
});

import { once } from 'node:events';
import net from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import { type PagelaneError, PathError } from '../../src/errors.ts';
import { dial } from '../../src/path/dial.ts';
import {
  CONNECTIONS_MAX,
  HANDSHAKES_MAX,
  REFUSALS_SPAN_MS,
  REFUSALS_TOLD_MAX,
} from '../../src/path/limits.ts';
import { type Arrival, LinkListener } from '../../src/path/listen.ts';
import type { Security } from '../../src/path/secure.ts';
import { waitUntil } from '../support/lab/processes.ts';

const KEY: Security = { kind: 'key', key: new Uint8Array(32).fill(1) };
const NONE: Security = { kind: 'none' };
const CLOSERS: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of CLOSERS.splice(0)) await close();
});

interface Opened {
  readonly listener: LinkListener;
  readonly arrivals: Arrival[];
  readonly refusals: PagelaneError[];
}

async function open(
  security: Security,
  handshakeTimeoutMs: number,
  host = '127.0.0.1',
): Promise<Opened> {
  const arrivals: Arrival[] = [];
  const refusals: PagelaneError[] = [];
  const listener = await LinkListener.open({
    host,
    port: 0,
    security,
    clock: systemClock,
    handshakeTimeoutMs,
    onArrival: (arrival) => arrivals.push(arrival),
    onRefused: (error) => refusals.push(error),
  });
  CLOSERS.push(() => listener.close());
  return { listener, arrivals, refusals };
}

function connect(port: number, from: Partial<net.TcpNetConnectOpts> = {}): net.Socket {
  const socket = net.connect({ host: '127.0.0.1', port, ...from });
  socket.on('error', () => {});
  socket.resume();
  CLOSERS.push(() => socket.destroy());
  return socket;
}

const closed = (socket: net.Socket): Promise<void> =>
  new Promise((resolve) => {
    if (socket.closed) resolve();
    else socket.on('close', () => resolve());
  });

/** Waits a turn of the event loop at a time: for what happens many times over. */
async function turnsUntil(isDone: () => boolean): Promise<void> {
  while (!isDone()) await new Promise((resolve) => setImmediate(resolve));
}

describe.each([
  ['clear', NONE],
  ['TLS', KEY],
])('LinkListener, %s', (_name, security) => {
  test('drops who says nothing, and forgets them all', async () => {
    const { listener, refusals } = await open(security, 100);
    await Promise.all(Array.from({ length: 50 }, () => closed(connect(listener.port))));
    expect(listener.attemptCount).toBe(0);
    expect(new Set(refusals.map(({ code }) => code))).toEqual(new Set(['ERR_PATH_TIMEOUT']));
    expect(refusals.length).toBe(50);
  });

  test('lets a newcomer in, and the oldest go for it', async () => {
    const { listener, refusals } = await open(security, 10_000);
    const sockets: net.Socket[] = [];
    for (let count = 0; count < HANDSHAKES_MAX + 6; count++) {
      sockets.push(connect(listener.port));
      await once(sockets.at(-1)!, 'connect');
    }
    await Promise.all(sockets.slice(0, 6).map(closed));
    expect(refusals.map(({ code }) => code)).toEqual(Array(6).fill('ERR_PATH_BUSY'));
    expect(listener.attemptCount).toBe(HANDSHAKES_MAX);
    expect(sockets.slice(6).map(({ closed: isClosed }) => isClosed)).not.toContain(true);
  });

  test('is on time with each of two that have one address and port', async () => {
    const { listener, refusals } = await open(security, 200, '0.0.0.0');
    const probe = await open(NONE, 200);
    const from = { localAddress: '127.0.0.1', localPort: probe.listener.port };
    await probe.listener.close();
    const first = connect(listener.port, from);
    await once(first, 'connect');
    const second = connect(listener.port, { ...from, host: '127.0.0.2' });
    await once(second, 'connect');
    await waitUntil('both to arrive', () => listener.attemptCount === 2, { timeoutMs: 5000 });
    await Promise.all([first, second].map(closed));
    expect(refusals.map(({ code }) => code)).toEqual(Array(2).fill('ERR_PATH_TIMEOUT'));
    expect(listener.attemptCount).toBe(0);
  });

  test('tells of the first of many, and how many others there were', async () => {
    const { listener, refusals } = await open(security, 100);
    const count = REFUSALS_TOLD_MAX + 100;
    await Promise.all(Array.from({ length: count }, () => closed(connect(listener.port))));
    expect(listener.refusedCount).toBe(count);
    expect(refusals.length).toBe(REFUSALS_TOLD_MAX);
    const untold = (): string | undefined =>
      refusals.find(({ code }) => code === 'ERR_REFUSED_MORE')?.message;
    const message = await waitUntil('the sum', untold, { timeoutMs: 5000 });
    expect(message).toBe(`Refused 100 further connections within ${REFUSALS_SPAN_MS} ms`);
  });

  test('notices who goes away', async () => {
    const { listener, refusals } = await open(security, 10_000);
    const socket = connect(listener.port);
    await new Promise((resolve) => socket.on('connect', resolve));
    socket.resetAndDestroy();
    while (refusals.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    expect(listener.attemptCount).toBe(0);
    expect(refusals[0]!.code).toBe('ERR_PATH_LOST');
  });

  test('stops listening, and drops who has not been welcomed', async () => {
    const { listener } = await open(security, 10_000);
    const socket = connect(listener.port);
    await new Promise((resolve) => socket.on('connect', resolve));
    while (listener.attemptCount === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    const { port } = listener;
    const gone = closed(socket);
    await listener.close();
    await gone;
    const again = await LinkListener.open({
      host: '127.0.0.1',
      port,
      security,
      clock: systemClock,
      handshakeTimeoutMs: 100,
      onArrival: () => {},
      onRefused: () => {},
    });
    await again.close();
  });
});

describe('LinkListener', () => {
  test('hands over who speaks, and lets who was welcomed stay', async () => {
    const { listener, arrivals, refusals } = await open(NONE, 50);
    const socket = connect(listener.port);
    await new Promise((resolve) => socket.on('connect', resolve));
    while (arrivals.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    arrivals[0]!.finish();
    await new Promise((resolve) => setTimeout(resolve, 150));
    expect(refusals).toEqual([]);
    expect(socket.closed).toBe(false);
    arrivals[0]!.link.destroy();
    await closed(socket);
    expect(refusals).toEqual([]);
  });

  test('drops who does not speak TLS, at once', async () => {
    const { listener, refusals } = await open(KEY, 10_000);
    const socket = connect(listener.port);
    socket.write('GET / HTTP/1.1\r\nHost: example\r\n\r\n');
    await closed(socket);
    expect(refusals[0]).toMatchObject({ code: 'ERR_PATH_SECURITY' });
    expect(listener.attemptCount).toBe(0);
  });

  test.each([
    ['say nothing', []],
    ['pretend to speak TLS', [0x16, 3, 1, 2, 0]],
  ])('lets in who has the key, among thousands who %s', async (_what, bytes) => {
    const { listener, arrivals } = await open(KEY, 10_000);
    let isOver = false;
    const flood = async (): Promise<void> => {
      while (!isOver) {
        // The listener closes each of them, soon.
        const socket = net.connect({ host: '127.0.0.1', port: listener.port });
        socket.on('error', () => {}).resume();
        socket.write(Uint8Array.from(bytes));
        await once(socket, 'connect');
      }
    };
    const floods = Array.from({ length: 8 }, flood);
    await waitUntil('the flood', () => listener.refusedCount > 1000, { timeoutMs: 50_000 });
    const address = { host: '127.0.0.1', port: listener.port };
    const options = { security: KEY, clock: systemClock, timeoutMs: 50_000 };
    const links = await Promise.all(Array.from({ length: 16 }, () => dial(address, options)));
    await waitUntil('sixteen arrivals', () => arrivals.length === 16, { timeoutMs: 50_000 });
    for (const arrival of arrivals) arrival.finish();
    const { refusedCount } = listener;
    const isMore = (): boolean => listener.refusedCount > refusedCount + 1000;
    await waitUntil('more of the flood', isMore, { timeoutMs: 50_000 });
    expect(listener.welcomedCount).toBe(16);
    isOver = true;
    await Promise.all(floods);
    for (const { link } of links) link.destroy();
  });

  test('lets in whose bytes come one by one', async () => {
    const { listener, arrivals } = await open(KEY, 10_000);
    const server = net.createServer({ noDelay: true }, (near) => {
      const far = connect(listener.port).setNoDelay(true);
      const send = async (bytes: Uint8Array): Promise<void> => {
        near.pause();
        for (const byte of bytes) {
          far.write(Uint8Array.of(byte));
          await new Promise((resolve) => setImmediate(resolve));
        }
        near.resume();
      };
      near.on('data', send).on('error', () => {});
      far.on('data', (bytes) => near.write(bytes));
    });
    await once(server.listen(0, '127.0.0.1'), 'listening');
    CLOSERS.push(() => server.close());
    const { port } = server.address() as net.AddressInfo;
    const options = { security: KEY, clock: systemClock, timeoutMs: 10_000 };
    const { link, exporter } = await dial({ host: '127.0.0.1', port }, options);
    await turnsUntil(() => arrivals.length === 1);
    expect(arrivals[0]!.exporter).toEqual(exporter);
    link.destroy();
  });

  test('has room for as many as its limit, and again when they are gone', async () => {
    const { listener, arrivals } = await open(NONE, 10_000);
    const sockets: net.Socket[] = [];
    for (let count = 0; count < CONNECTIONS_MAX; count++) {
      expect(listener.hasRoom).toBe(true);
      sockets.push(connect(listener.port));
      await turnsUntil(() => arrivals.length > count);
      arrivals[count]!.finish();
    }
    expect(listener.hasRoom).toBe(false);
    sockets[0]!.destroy();
    await waitUntil('room', () => listener.hasRoom, { timeoutMs: 5000 });
    expect(listener.welcomedCount).toBe(CONNECTIONS_MAX - 1);
  });

  test('counts who was refused until the connection is closed, and lets it go first', async () => {
    const { listener, arrivals, refusals } = await open(NONE, 10_000);
    const sockets: net.Socket[] = [];
    const add = async (): Promise<void> => {
      const { length } = arrivals;
      sockets.push(connect(listener.port));
      await turnsUntil(() => arrivals.length > length);
    };
    while (sockets.length < HANDSHAKES_MAX) await add();
    for (const index of [100, 50]) arrivals[index]!.finish(new PathError('ERR_TEST', '', ''));
    expect(listener.attemptCount).toBe(HANDSHAKES_MAX);
    await add();
    await closed(sockets[50]!);
    await add();
    await closed(sockets[100]!);
    expect(refusals.map(({ code }) => code)).toEqual(['ERR_TEST', 'ERR_TEST']);
    expect(listener.attemptCount).toBe(HANDSHAKES_MAX);
  });

  test('says why it cannot listen', async () => {
    const { listener } = await open(NONE, 1000);
    const options = {
      host: '127.0.0.1',
      port: listener.port,
      security: NONE,
      clock: systemClock,
      handshakeTimeoutMs: 1000,
      onArrival: () => {},
      onRefused: () => {},
    };
    await expect(LinkListener.open(options)).rejects.toMatchObject({
      code: 'ERR_PATH_LISTEN',
      message: `Cannot listen on 127.0.0.1:${listener.port}: the address is in use`,
    });
    await expect(LinkListener.open({ ...options, host: '192.0.2.1' })).rejects.toMatchObject({
      code: 'ERR_PATH_LISTEN',
    });
  });
});

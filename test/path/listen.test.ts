import net from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import type { PagelaneError } from '../../src/errors.ts';
import { HANDSHAKES_MAX } from '../../src/path/limits.ts';
import { type Arrival, LinkListener } from '../../src/path/listen.ts';
import type { Security } from '../../src/path/secure.ts';

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

async function open(security: Security, handshakeTimeoutMs: number): Promise<Opened> {
  const arrivals: Arrival[] = [];
  const refusals: PagelaneError[] = [];
  const listener = await LinkListener.open({
    host: '127.0.0.1',
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

function connect(port: number): net.Socket {
  const socket = net.connect({ host: '127.0.0.1', port });
  socket.on('error', () => {});
  socket.resume();
  CLOSERS.push(() => socket.destroy());
  return socket;
}

const closed = (socket: net.Socket): Promise<void> =>
  new Promise((resolve) => socket.on('close', () => resolve()));

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

  test('lets in no more at once than the limit', async () => {
    const { listener, refusals } = await open(security, 10_000);
    const sockets = Array.from({ length: HANDSHAKES_MAX + 6 }, () => connect(listener.port));
    await Promise.race(sockets.map(closed));
    while (refusals.length < 6) await new Promise((resolve) => setTimeout(resolve, 5));
    expect(refusals.map(({ code }) => code)).toEqual(Array(6).fill('ERR_PATH_BUSY'));
    expect(listener.attemptCount).toBe(HANDSHAKES_MAX);
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

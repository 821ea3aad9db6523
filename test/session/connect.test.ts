import net from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { PathError, ProtocolError, RemoteError } from '../../src/errors.ts';
import { encodeFrame } from '../../src/frame/encode.ts';
import { FrameType } from '../../src/frame/header.ts';
import { encodeChallenge, encodeProof } from '../../src/frame/hello.ts';
import { PATHS_MAX } from '../../src/frame/limits.ts';
import { type ConnectOptions, connectSession, mostTelling } from '../../src/session/connect.ts';
import { listenForSessions } from '../../src/session/listener.ts';
import type { Session } from '../../src/session/session.ts';
import { waitUntil, within } from '../support/lab/processes.ts';
import { createPrng, exactRandomBytes } from '../support/prng.ts';

const NONE = { kind: 'none' } as const;
const TIMEOUT_MS = 20_000;
const CLOSERS: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of CLOSERS.splice(0).reverse()) await close();
});

async function listen(options: object = {}): Promise<{ port: number; host: string }> {
  const listening = { host: '127.0.0.1', port: 0, security: NONE, ...options };
  const listener = await listenForSessions(listening);
  CLOSERS.push(() => listener.close());
  return { host: '127.0.0.1', port: listener.port };
}

/** A server that is no pagelane; it knows its sockets. */
async function stranger(onSocket: (socket: net.Socket) => void = () => {}) {
  const sockets: net.Socket[] = [];
  const server = net.createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => {});
    onSocket(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  CLOSERS.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const { port } = server.address() as net.AddressInfo;
  return { address: { host: '127.0.0.1', port }, sockets };
}

async function connect(options: Partial<ConnectOptions>): Promise<Session> {
  const session = await connectSession({ security: NONE, paths: [], ...options });
  CLOSERS.push(() => session.close());
  return session;
}

const openPaths = (session: Session): number =>
  session.pathReports().filter(({ state }) => state === 'open').length;

async function closedPort(): Promise<number> {
  const { address } = await stranger();
  await CLOSERS.pop()!();
  return address.port;
}

describe('connectSession()', () => {
  test.each([1, 2, PATHS_MAX])(
    'opens a session with %i paths, without a warning',
    async (count) => {
      const warnings: unknown[] = [];
      const onWarning = (warning: Error): unknown => warnings.push(warning.message);
      process.on('warning', onWarning);
      CLOSERS.push(() => process.off('warning', onWarning));
      const address = await listen();
      const paths = Array.from({ length: count }, () => address);
      const session = await connect({ paths, requireAllPaths: true });
      expect(openPaths(session)).toBe(count);
      expect(warnings).toEqual([]);
    },
  );

  test.each([0, PATHS_MAX + 1])('does not take %i paths', async (count) => {
    const paths = Array.from({ length: count }, () => ({ host: '127.0.0.1', port: 1 }));
    await expect(connect({ paths })).rejects.toThrow(RangeError);
  });

  test.each([
    ['a window too small', { windowBytes: 65535 }],
    ['a window too large', { windowBytes: 2 ** 30 + 1 }],
    ['a window that is no integer', { windowBytes: 70000.5 }],
    ['no time', { handshakeTimeoutMs: 0 }],
    ['a time that is no number', { handshakeTimeoutMs: Number.NaN }],
    ['a short key', { security: { kind: 'key', key: new Uint8Array(31) } as const }],
  ])('does not take %s', async (_what, options) => {
    const paths = [{ host: '127.0.0.1', port: 1 }];
    await expect(connect({ paths, ...options })).rejects.toThrow(RangeError);
    const address = { host: '127.0.0.1', port: 0, security: NONE };
    await expect(listenForSessions({ ...address, ...options })).rejects.toThrow(RangeError);
  });

  test('has a session as soon as one path is open, and tells of those that fail', async () => {
    const [good, bad] = [await listen(), { host: '127.0.0.1', port: await closedPort() }];
    const session = await connect({ paths: [bad, good, bad] });
    const failed: string[] = [];
    for await (const event of session.events()) {
      if (event.type === 'pathFailed') failed.push(event.code);
      if (failed.length === 2) break;
    }
    expect(failed).toEqual(['ERR_PATH_REFUSED', 'ERR_PATH_REFUSED']);
    expect(openPaths(session)).toBe(1);
  });

  test('opens it over another path when the one that tried first is cut', async () => {
    const address = await listen();
    const { address: cut } = await stranger((socket) => socket.destroy());
    const session = await connect({ paths: [cut, cut, address] });
    expect(openPaths(session)).toBe(1);
  });

  test('gives up, all paths being wanted, when one fails: no path stays', async () => {
    const address = await listen();
    const bad = { host: '127.0.0.1', port: await closedPort() };
    const connecting = connect({ paths: [address, bad], requireAllPaths: true });
    await expect(connecting).rejects.toMatchObject({ code: 'ERR_PATH_REFUSED' });
  });

  test('adds paths later, as long as there is room', async () => {
    const address = await listen();
    const session = await connect({ paths: [address] });
    for (let count = 1; count < PATHS_MAX; count++) await session.addPath(address);
    expect(openPaths(session)).toBe(PATHS_MAX);
    await expect(session.addPath(address)).rejects.toMatchObject({
      name: 'RemoteError',
      code: 'ERR_SESSION_PATHS',
    });
    const bad = { host: '127.0.0.1', port: await closedPort() };
    await expect(session.addPath(bad)).rejects.toMatchObject({ code: 'ERR_PATH_REFUSED' });
    expect(openPaths(session)).toBe(PATHS_MAX);
    await session.close();
    await expect(session.addPath(address)).rejects.toMatchObject({ code: 'ERR_SESSION_CLOSED' });
  });
});

describe('connectSession() with a server that is not ours', () => {
  const random = createPrng(1);
  const nonce = exactRandomBytes(random, 32);
  const wrongWelcome = encodeProof({ mac: new Uint8Array(32), windowBytes: 65536 });
  const otherVersion = encodeChallenge({ version: 2, nonce });
  const challenge = encodeFrame(FrameType.Challenge, {
    payload: encodeChallenge({ version: 1, nonce }),
  });

  test.each([
    ['noise', [exactRandomBytes(random, 64)], 'ERR_FRAME_CHECK'],
    ['text', [Buffer.from('220 mail.example ESMTP service ready\r\n')], 'ERR_FRAME_CHECK'],
    [
      'a version not asked for',
      [encodeFrame(0x02, { payload: otherVersion })],
      'ERR_PROTOCOL_VERSION',
    ],
    ['a Welcome at once', [encodeFrame(0x04, { payload: wrongWelcome })], 'ERR_HANDSHAKE'],
    ['a wrong proof', [challenge, encodeFrame(0x04, { payload: wrongWelcome })], 'ERR_HANDSHAKE'],
    ['a second Challenge', [challenge, challenge], 'ERR_HANDSHAKE'],
    ['a frame of the session', [challenge, encodeFrame(FrameType.Ping)], 'ERR_FRAME_TYPE'],
    ['a Refuse that says nothing', [encodeFrame(FrameType.Refuse)], 'ERR_FRAME_REASON'],
  ])('that sends %s, fails as its fault', async (_what, parts, code) => {
    const { address } = await stranger((socket) => {
      for (const part of parts) socket.write(part);
    });
    await expect(connect({ paths: [address] })).rejects.toMatchObject({
      name: 'ProtocolError',
      code,
    });
  });

  test('that closes at once, fails as if it expected TLS', async () => {
    const { address } = await stranger((socket) => socket.end());
    await expect(connect({ paths: [address] })).rejects.toMatchObject({
      code: 'ERR_PATH_SECURITY',
      message: expect.stringContaining('does the other side expect TLS?'),
    });
  });

  test('that closes half way, is lost', async () => {
    const { address } = await stranger((socket) => socket.end(challenge));
    await expect(connect({ paths: [address] })).rejects.toMatchObject({ code: 'ERR_PATH_LOST' });
  });

  test('that is mute, names what it waited for', async () => {
    const { address } = await stranger();
    const { port } = address;
    await expect(connect({ paths: [address], handshakeTimeoutMs: 50 })).rejects.toMatchObject({
      code: 'ERR_PATH_TIMEOUT',
      message: `Cannot open path to 127.0.0.1:${port}: no Challenge after 50 ms`,
    });
  });
});

describe('connectSession() and its signal', () => {
  const reason = new Error('enough');

  test('aborted before: nothing is tried', async () => {
    const { address, sockets } = await stranger();
    const signal = AbortSignal.abort(reason);
    await expect(connect({ paths: [address], signal })).rejects.toBe(reason);
    expect(sockets).toEqual([]);
  });

  test.each([false, true])('aborted while paths open, all wanted: %s', async (requireAllPaths) => {
    const { address, sockets } = await stranger();
    const controller = new AbortController();
    const paths = Array.from({ length: 4 }, () => address);
    const connecting = connect({ paths, requireAllPaths, signal: controller.signal });
    connecting.catch(() => {});
    await waitUntil('the connections to be up', () => sockets.length === 4, {
      timeoutMs: TIMEOUT_MS,
    });
    const closed = sockets.map(
      (socket) => new Promise<void>((resolve) => socket.resume().once('close', () => resolve())),
    );
    controller.abort(reason);
    await expect(connecting).rejects.toBe(reason);
    // None of them is left behind: the one that said Hello, and those that waited for it.
    await within(Promise.all(closed), TIMEOUT_MS, 'every connection to be closed');
  });

  test('aborted afterwards: the session goes on', async () => {
    const address = await listen();
    const controller = new AbortController();
    const session = await connect({ paths: [address], signal: controller.signal });
    controller.abort(reason);
    await session.addPath(address);
    expect(openPaths(session)).toBe(2);
  });

  test('a listener: before, and while it listens', async () => {
    const address = { host: '127.0.0.1', port: 0, security: NONE };
    const aborted = listenForSessions({ ...address, signal: AbortSignal.abort(reason) });
    await expect(aborted).rejects.toBe(reason);
    const controller = new AbortController();
    const listener = await listenForSessions({ ...address, signal: controller.signal });
    CLOSERS.push(() => listener.close());
    const { port } = listener;
    const accepting = expect(listener.accept()).rejects.toBe(reason);
    controller.abort(reason);
    await accepting;
    const paths = [{ host: '127.0.0.1', port }];
    await expect(connect({ paths })).rejects.toMatchObject({ code: 'ERR_PATH_REFUSED' });
  });

  test('accept(): a signal of its own, and what close() does to it', async () => {
    const listener = await listenForSessions({ host: '127.0.0.1', port: 0, security: NONE });
    CLOSERS.push(() => listener.close());
    const controller = new AbortController();
    const accepting = expect(listener.accept({ signal: controller.signal })).rejects.toBe(reason);
    controller.abort(reason);
    await accepting;
    const waiting = expect(listener.accept()).rejects.toMatchObject({
      code: 'ERR_LISTENER_CLOSED',
    });
    await listener.close();
    await listener.close();
    await waiting;
    await expect(listener.accept()).rejects.toMatchObject({ code: 'ERR_LISTENER_CLOSED' });
  });
});

test('a listener that closes ends sessions that nobody accepted, and no others', async () => {
  const listener = await listenForSessions({ host: '127.0.0.1', port: 0, security: NONE });
  CLOSERS.push(() => listener.close());
  const paths = [{ host: '127.0.0.1', port: listener.port }];
  const taken = await connect({ paths });
  const accepted = await listener.accept();
  CLOSERS.push(() => accepted.close());
  const left = await connect({ paths });
  await listener.close();
  const error = await within(left.ended, TIMEOUT_MS, 'the session left over to end');
  expect(error).toMatchObject({ name: 'RemoteError', code: 'ERR_LISTENER_CLOSED' });
  expect(openPaths(taken)).toBe(1);
  const address = paths[0]!;
  await expect(taken.addPath(address)).rejects.toMatchObject({ code: 'ERR_PATH_REFUSED' });
});

test('mostTelling() prefers what is ours, then the peer’s words, then the network', () => {
  const network = ['ERR_PATH_TIMEOUT', 'ERR_PATH_REFUSED', 'ERR_PATH_SECURITY'].map(
    (code) => new PathError(code, '', ''),
  );
  expect(mostTelling(network)).toBe(network[2]);
  expect(mostTelling(network.slice(0, 2))).toBe(network[1]);
  const remote = new RemoteError('ERR_X', '', 'destination');
  const protocol = new ProtocolError('ERR_X', '');
  expect(mostTelling([...network, protocol])).toBe(protocol);
  expect(mostTelling([...network, protocol, remote])).toBe(remote);
  const bug = new TypeError('a fault of ours');
  expect(mostTelling([...network, protocol, remote, bug])).toBe(bug);
});

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readlinkSync } from 'node:fs';
import net from 'node:net';
import tls from 'node:tls';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { codeOf } from '../../src/errors.ts';
import { encodeFrame } from '../../src/frame/encode.ts';
import { FrameType } from '../../src/frame/header.ts';
import type { Security } from '../../src/path/secure.ts';
import { connectSession } from '../../src/session/connect.ts';
import { type Listener, listenForSessions } from '../../src/session/listener.ts';
import type { Session } from '../../src/session/session.ts';
import { waitUntil, within } from '../support/lab/processes.ts';
import { collect, sendFilled } from './support.ts';

/* Chosen by us */
const TIMEOUT_MS = 20_000;
const HANDSHAKE_MS = 1000;

/** Bytes of a TLS record with an alert in clear. */
const ALERT_BYTES = 7;

const KEY = randomBytes(32);
const SECURE: Security = { kind: 'key', key: KEY };
const NONE: Security = { kind: 'none' };
const SUITES = 'TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256';

const CLOSERS: (() => unknown)[] = [];
let listener: Listener;
let refusals: string[];
let strangers: Session[];
let honest: { client: Session; server: Session };
let socketsBefore: number;

/** Sockets of this process, as the kernel counts them. */
function socketCount(): number {
  let count = 0;
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      if (readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:')) count++;
    } catch {
      // It was closed between the two calls.
    }
  }
  return count;
}

/** A listener with a session of two paths on it, which nothing may disturb. */
async function listen(security: Security): Promise<void> {
  const common = { security, handshakeTimeoutMs: HANDSHAKE_MS };
  listener = await listenForSessions({ host: '127.0.0.1', port: 0, ...common });
  refusals = [];
  strangers = [];
  listener.onRefused = ({ code }) => refusals.push(code);
  const paths = [1, 2].map(() => ({ host: '127.0.0.1', port: listener.port }));
  const client = await connectSession({ ...common, paths, requireAllPaths: true });
  honest = { client, server: await listener.accept() };
  const take = (session: Session): void => {
    strangers.push(session);
    listener.accept().then(take, () => {});
  };
  listener.accept().then(take, () => {});
  socketsBefore = socketCount();
}

/** What an attempt came to, as its client sees it. */
interface Outcome {
  /** Whether TLS was set up, as far as the client knows. */
  isSecure: boolean;
  readonly receivedBytes: number;
  readonly code: string;
}

/** Follows a client's socket to its end. */
async function outcomeOf(socket: net.Socket): Promise<Outcome> {
  let isSecure = false;
  let receivedBytes = 0;
  let code = '';
  socket.on('secureConnect', () => {
    isSecure = true;
  });
  socket.on('data', (bytes) => {
    receivedBytes += bytes.length;
  });
  socket.on('error', (error) => {
    code ||= codeOf(error);
  });
  CLOSERS.push(() => socket.destroy());
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  await within(closed, TIMEOUT_MS, 'the connection to be closed');
  return { isSecure, receivedBytes, code };
}

function dialTls(options: tls.ConnectionOptions): tls.TLSSocket {
  return tls.connect({ host: '127.0.0.1', port: listener.port, ...options });
}

/** Options of a client that is right, but for `changes`. */
function keyed(changes: tls.ConnectionOptions = {}, key: Uint8Array = KEY): tls.ConnectionOptions {
  return {
    minVersion: 'TLSv1.3',
    ciphers: SUITES,
    ca: [],
    pskCallback: () => ({ psk: key, identity: 'pagelane' }),
    checkServerIdentity: () => undefined,
    ...changes,
  };
}

function dialPlain(...parts: readonly Uint8Array[]): net.Socket {
  const socket = net.connect({ host: '127.0.0.1', port: listener.port });
  socket.on('connect', () => {
    for (const part of parts) socket.write(part);
  });
  return socket;
}

/** Dials with TLS, and does something once it is set up. */
function dialKeyed(act: (socket: tls.TLSSocket) => void): tls.TLSSocket {
  const socket = dialTls(keyed());
  socket.on('secureConnect', () => act(socket));
  return socket;
}

/** What a client's TLS would say first. */
async function clientHello(): Promise<Uint8Array> {
  const server = net.createServer();
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as net.AddressInfo;
  const client = tls.connect({ host: '127.0.0.1', port, ...keyed() });
  client.on('error', () => {});
  const [socket] = (await once(server, 'connection')) as [net.Socket];
  const [bytes] = (await once(socket, 'data')) as [Uint8Array];
  for (const one of [client, socket]) one.destroy();
  await once(server.close(), 'close');
  return new Uint8Array(bytes);
}

/** The refusal was told once, nobody came in, no socket is left, and nobody else has noticed. */
async function expectRefused(codes: readonly string[]): Promise<void> {
  await waitUntil('the listener to notice', () => refusals.length >= codes.length, {
    timeoutMs: TIMEOUT_MS,
  });
  expect(refusals).toEqual(codes);
  expect(strangers).toEqual([]);
  await waitUntil('the sockets to be closed', () => socketCount() === socketsBefore, {
    timeoutMs: TIMEOUT_MS,
  });
  await expectUnharmed();
}

async function expectUnharmed(): Promise<void> {
  const { client, server } = honest;
  sendFilled(client.openLane(), 1000, { value: 5 });
  const arriving = within(server.acceptLane(), TIMEOUT_MS, 'a lane of the honest session');
  const messages = collect(await arriving);
  await waitUntil('its message', () => messages.length === 1, { timeoutMs: TIMEOUT_MS });
  expect(messages[0]!.payload).toEqual(new Uint8Array(1000).fill(5));
  for (const session of [client, server]) {
    expect(session.pathReports().map(({ state }) => state)).toEqual(['open', 'open']);
  }
}

afterEach(async () => {
  for (const close of CLOSERS.splice(0)) await close();
  await Promise.all([honest.client.close(), honest.server.close()]);
  await listener.close();
});

/** Clients that must not come in: what they do, what they may be told, and what we note. */
type Case = readonly [string, () => net.Socket | Promise<net.Socket>, RegExp, string];

const RUBBISH = encodeFrame(FrameType.Ping);

describe('With a key, a listener turns away', () => {
  beforeEach(() => listen(SECURE));

  const silent: readonly Case[] = [
    ['who never says anything', () => dialPlain(), /^$/, 'ERR_PATH_TIMEOUT'],
    ['who sends a byte of TLS', () => dialPlain(Uint8Array.of(0x16)), /^$/, 'ERR_PATH_TIMEOUT'],
    [
      'who stops within its ClientHello',
      async () => dialPlain((await clientHello()).subarray(0, 100)),
      /^$/,
      'ERR_PATH_TIMEOUT',
    ],
    [
      'who stops after its ClientHello',
      async () => dialPlain(await clientHello()),
      /^$/,
      'ERR_PATH_TIMEOUT',
    ],
    ['who has the key and says nothing', () => dialKeyed(() => {}), /^$/, 'ERR_PATH_TIMEOUT'],
    [
      'who has the key and stops within a frame',
      () => dialKeyed((socket) => socket.write(RUBBISH.subarray(0, 31))),
      /^$/,
      'ERR_PATH_TIMEOUT',
    ],
  ];
  test.each(silent)('%s', async (_what, dial, told, noted) => {
    const { code } = await outcomeOf(await dial());
    expect(code).toMatch(told);
    await expectRefused([noted]);
  });

  const wrong: readonly Case[] = [
    [
      'TLS 1.2 only',
      () => dialTls(keyed({ minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2', ciphers: 'PSK' })),
      /PROTOCOL_VERSION/,
      'ERR_PATH_SECURITY',
    ],
    [
      'TLS 1.2 with a certificate suite',
      () => dialTls({ minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2', rejectUnauthorized: false }),
      /PROTOCOL_VERSION/,
      'ERR_PATH_SECURITY',
    ],
    [
      'another cipher suite',
      () => dialTls(keyed({ ciphers: 'TLS_AES_256_GCM_SHA384' })),
      /HANDSHAKE_FAILURE|ILLEGAL_PARAMETER/,
      'ERR_PATH_SECURITY',
    ],
    [
      'no key offered',
      () => dialTls({ minVersion: 'TLSv1.3', ciphers: SUITES, rejectUnauthorized: false }),
      /HANDSHAKE_FAILURE|ILLEGAL_PARAMETER/,
      'ERR_PATH_SECURITY',
    ],
    [
      'another key',
      () => dialTls(keyed({}, randomBytes(32))),
      /ILLEGAL_PARAMETER|DECRYPT/,
      'ERR_PATH_SECURITY',
    ],
    [
      'the right key under another name',
      () => dialTls(keyed({ pskCallback: () => ({ psk: KEY, identity: 'other' }) })),
      /ILLEGAL_PARAMETER|DECRYPT/,
      'ERR_PATH_SECURITY',
    ],
    ['HTTP', () => dialPlain(Buffer.from('GET / HTTP/1.1\r\n\r\n')), /^$/, 'ERR_PATH_SECURITY'],
    ['our own frames in clear', () => dialPlain(RUBBISH), /^$/, 'ERR_PATH_SECURITY'],
    [
      'an alert as its first record',
      () => dialPlain(Uint8Array.of(0x15, 3, 3, 0, 2, 2, 40)),
      /^$/,
      'ERR_PATH_SECURITY',
    ],
    [
      'a record longer than may be',
      () => dialPlain(Uint8Array.of(0x16, 3, 1, 0xff, 0xff, 1, 0, 0xff, 0xfa)),
      /^$/,
      'ERR_PATH_SECURITY',
    ],
    [
      'a whole record that is no ClientHello, and then waits',
      () => dialPlain(Uint8Array.of(0x16, 3, 1, 0, 4, 9, 9, 9, 9)),
      /^$/,
      'ERR_PATH_SECURITY',
    ],
    [
      'a ClientHello that is cut by the end',
      async () => {
        const bytes = await clientHello();
        const socket = dialPlain();
        socket.on('connect', () => socket.end(bytes.subarray(0, 100)));
        return socket;
      },
      /^$/,
      'ERR_PATH_LOST',
    ],
    [
      'the key, and then rubbish',
      () => dialKeyed((socket) => socket.write(randomBytes(64))),
      /^$/,
      'ERR_FRAME_CHECK',
    ],
    [
      'the key, and then a frame of a session',
      () => dialKeyed((socket) => socket.write(RUBBISH)),
      /^$/,
      'ERR_FRAME_TYPE',
    ],
  ];
  test.each(wrong)('%s', async (_what, dial, told, noted) => {
    const { code, isSecure, receivedBytes } = await outcomeOf(await dial());
    expect(code).toMatch(told);
    // An alert at most; who is let into TLS is told why inside.
    if (noted === 'ERR_PATH_SECURITY') {
      expect(isSecure).toBe(false);
      expect(receivedBytes).toBeLessThanOrEqual(ALERT_BYTES);
    }
    await expectRefused([noted]);
  });

  test('a recorded connection, byte for byte', async () => {
    const recorded: Uint8Array[] = [];
    const relay = net.createServer((near) => {
      const far = net.connect({ host: '127.0.0.1', port: listener.port });
      near.on('data', (bytes) => {
        recorded.push(new Uint8Array(bytes));
        far.write(bytes);
      });
      far.pipe(near);
      near.on('close', () => far.destroy());
      for (const one of [near, far]) one.on('error', () => {});
    });
    await once(relay.listen(0, '127.0.0.1'), 'listening');
    const { port } = relay.address() as net.AddressInfo;
    const paths = [{ host: '127.0.0.1', port }];
    const session = await connectSession({ security: SECURE, paths });
    const accepted = await waitUntil('the session', () => strangers.pop(), {
      timeoutMs: TIMEOUT_MS,
    });
    await session.close();
    await accepted.close();
    await once(relay.close(), 'close');
    const { receivedBytes } = await outcomeOf(dialPlain(...recorded));
    // The server's first flight, which is the same for everybody, and not a byte of a session.
    expect(receivedBytes).toBeLessThan(1000);
    await expectRefused(['ERR_PATH_SECURITY']);
  });

  test('fifty who say nothing, and leaves no socket', async () => {
    await Promise.all(Array.from({ length: 50 }, () => outcomeOf(dialPlain())));
    await expectRefused(Array(50).fill('ERR_PATH_TIMEOUT'));
  });
});

test('With a key, a listener takes nobody back who has no key any more', async () => {
  await listen(SECURE);
  let session: Buffer | undefined;
  const first = dialTls(keyed());
  first.on('session', (ticket) => {
    session = ticket;
    first.destroy();
  });
  await outcomeOf(first);
  expect(session).toBeDefined();
  const { pskCallback: _none, ...keyless } = keyed({ session, rejectUnauthorized: false });
  const { isSecure, code } = await outcomeOf(dialTls(keyless));
  expect(isSecure).toBe(false);
  expect(code).toMatch(/HANDSHAKE_FAILURE/);
  await expectRefused(['ERR_PATH_LOST', 'ERR_PATH_SECURITY']);
});

describe('Without TLS, a listener turns away', () => {
  beforeEach(() => listen(NONE));

  test('who speaks TLS', async () => {
    const { isSecure } = await outcomeOf(dialTls(keyed()));
    expect(isSecure).toBe(false);
    await expectRefused(['ERR_PATH_SECURITY']);
  });

  test.each([
    ['who never says anything', [], 'ERR_PATH_TIMEOUT'],
    ['who stops within a frame', [RUBBISH.subarray(0, 10)], 'ERR_PATH_TIMEOUT'],
    ['HTTP', [Buffer.from('GET / HTTP/1.1\r\nHost: example.com\r\n\r\n')], 'ERR_FRAME_CHECK'],
  ])('%s', async (_what, parts, noted) => {
    await outcomeOf(dialPlain(...parts));
    await expectRefused([noted]);
  });
});

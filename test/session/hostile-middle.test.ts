import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';
import tls from 'node:tls';
import { afterEach, describe, expect, test } from 'vitest';
import { codeOf } from '../../src/errors.ts';
import type { Security } from '../../src/path/secure.ts';
import { connectSession } from '../../src/session/connect.ts';
import type { SessionEvent } from '../../src/session/events.ts';
import { type Listener, listenForSessions } from '../../src/session/listener.ts';
import type { Session } from '../../src/session/session.ts';
import { waitUntil, within } from '../support/lab/processes.ts';
import { collect, sendFilled } from './support.ts';

/* Chosen by us */
const TIMEOUT_MS = 20_000;

const KEY = randomBytes(32);
const SECURE: Security = { kind: 'key', key: KEY };
const HOST = '127.0.0.1';

const CLOSERS: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of CLOSERS.splice(0).reverse()) await close();
});

async function listen(): Promise<Listener> {
  const listener = await listenForSessions({ host: HOST, port: 0, security: SECURE });
  CLOSERS.push(() => listener.close());
  return listener;
}

async function portOf(server: net.Server): Promise<number> {
  await once(server.listen(0, HOST), 'listening');
  const sockets = new Set<net.Socket>();
  server.on('connection', (socket) => sockets.add(socket));
  CLOSERS.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as net.AddressInfo).port;
}

/** Passes on what comes from one to the other, and its end. */
function pass(from: net.Socket, to: net.Socket, change = (bytes: Uint8Array) => bytes): void {
  from.on('error', () => {});
  from.on('close', () => to.destroy());
  from.on('data', (bytes: Uint8Array) => to.write(change(bytes)));
}

type Direction = 'to the server' | 'to the client';

/** Somebody on the wire, who changes a byte of what goes by when told to. */
class Meddler {
  port = 0;
  #armed: { readonly direction: Direction; readonly at: number } | undefined;

  static async open(to: number): Promise<Meddler> {
    const meddler = new Meddler();
    const server = net.createServer((near) => {
      const far = net.connect({ port: to, host: HOST });
      pass(near, far, (bytes) => meddler.#change('to the server', bytes));
      pass(far, near, (bytes) => meddler.#change('to the client', bytes));
    });
    meddler.port = await portOf(server);
    return meddler;
  }

  /** Flips a bit of the next bytes; a place below 0 counts from their end. */
  arm(direction: Direction, at: number): void {
    this.#armed = { direction, at };
  }

  #change(direction: Direction, bytes: Uint8Array): Uint8Array {
    const armed = this.#armed;
    if (armed?.direction !== direction) return bytes;
    const at = armed.at < 0 ? bytes.length + armed.at : armed.at;
    if (at >= bytes.length) return bytes;
    this.#armed = undefined;
    return bytes.map((byte, index) => (index === at ? byte ^ 0x04 : byte));
  }
}

function follow(session: Session): SessionEvent[] {
  const events: SessionEvent[] = [];
  const read = async (): Promise<void> => {
    for await (const event of session.events()) events.push(event);
  };
  read();
  return events;
}

const openPaths = (session: Session): number =>
  session.pathReports().filter(({ state }) => state === 'open').length;

describe('A byte that is changed on the wire', () => {
  /** Of a TLS record: type, version, length; what is sealed; the end of its tag. */
  const places = [0, 2, 4, 12, -1];

  test.each<Direction>(['to the server', 'to the client'])(
    'costs the path, and nothing else: %s',
    async (direction) => {
      const listener = await listen();
      const meddler = await Meddler.open(listener.port);
      const paths = [listener.port, meddler.port].map((port) => ({ host: HOST, port }));
      const client = await connectSession({ security: SECURE, paths, requireAllPaths: true });
      const server = await listener.accept();
      CLOSERS.push(() => Promise.all([client.close(), server.close()]));
      const [from, to] = direction === 'to the server' ? [client, server] : [server, client];
      const events = follow(to);
      const lane = from.openLane();
      let sent = 0;
      let received = 0;
      const losses = (): string[] =>
        events.flatMap((event) => (event.type === 'pathLost' ? [event.code] : []));
      const send = (): void => {
        sendFilled(lane, 5000, { value: sent++ % 256, isOrdered: true });
      };
      send();
      (await within(to.acceptLane(), TIMEOUT_MS, 'the lane')).onMessage = ({ payload }) => {
        expect(Buffer.from(payload).equals(Buffer.alloc(5000, received % 256))).toBe(true);
        received++;
      };
      for (const [index, at] of places.entries()) {
        meddler.arm(direction, at);
        await waitUntil(
          `the loss of the path after byte ${at}`,
          () => {
            send();
            return losses().length > index;
          },
          { timeoutMs: TIMEOUT_MS },
        );
        // It is dialled again, and the one in the middle lets it pass.
        await waitUntil('both paths', () => openPaths(from) === 2 && openPaths(to) === 2, {
          timeoutMs: TIMEOUT_MS,
        });
      }
      for (const code of losses()) expect(code).toMatch(/^ERR_PATH_(SECURITY|LOST)$/);
      expect(losses()).toContain('ERR_PATH_SECURITY');
      await waitUntil('every message', () => received === sent, { timeoutMs: TIMEOUT_MS });
    },
  );
});

/** Somebody who has the key, ends both TLS connections, and passes every byte on. */
async function openBetween(to: number): Promise<number> {
  const common = { minVersion: 'TLSv1.3', ciphers: 'TLS_AES_128_GCM_SHA256' } as const;
  const server = tls.createServer({ ...common, pskCallback: () => KEY }, (near) => {
    const pskCallback = () => ({ psk: KEY, identity: 'pagelane' });
    const unchecked = { ca: [], pskCallback, checkServerIdentity: () => undefined };
    const far = tls.connect({ host: HOST, port: to, ...common, ...unchecked });
    pass(near, far);
    pass(far, near);
  });
  return await portOf(server);
}

describe('Who has the key and sits between two others', () => {
  test('cannot open their session', async () => {
    const listener = await listen();
    const refusals: string[] = [];
    listener.onRefused = ({ code }) => refusals.push(code);
    const paths = [{ host: HOST, port: await openBetween(listener.port) }];
    const connecting = connectSession({ security: SECURE, paths });
    await expect(connecting).rejects.toMatchObject({ name: 'RemoteError', code: 'ERR_HANDSHAKE' });
    expect(refusals).toEqual(['ERR_HANDSHAKE']);
  });

  test('cannot join their session, which goes on', async () => {
    const listener = await listen();
    const refusals: string[] = [];
    listener.onRefused = ({ code }) => refusals.push(code);
    const paths = [{ host: HOST, port: listener.port }];
    const client = await connectSession({ security: SECURE, paths });
    const server = await listener.accept();
    CLOSERS.push(() => Promise.all([client.close(), server.close()]));
    const between = { host: HOST, port: await openBetween(listener.port) };
    const codes: string[] = [];
    for (let tries = 0; tries < 5; tries++) {
      await client.addPath(between).catch((error) => codes.push(codeOf(error)));
    }
    const wrong = Array(3).fill('ERR_HANDSHAKE');
    expect(codes).toEqual([...wrong, 'ERR_SESSION_JOINS', 'ERR_SESSION_JOINS']);
    expect(refusals).toEqual(codes);
    expect([openPaths(client), openPaths(server)]).toEqual([1, 1]);
    sendFilled(client.openLane(), 1000, { value: 3 });
    const messages = collect(await within(server.acceptLane(), TIMEOUT_MS, 'a lane'));
    await waitUntil('the message', () => messages.length === 1, { timeoutMs: TIMEOUT_MS });
    expect(messages[0]!.payload).toEqual(new Uint8Array(1000).fill(3));
  });
});

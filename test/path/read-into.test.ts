import tls, { type TLSSocket } from 'node:tls';
import { expect, onTestFinished, test } from 'vitest';
import { SocketLink } from '../../src/path/connection.ts';
import { type AcceptedSocket, readInto, takeSocket } from '../../src/path/read-into.ts';
import { clientTls, type Security, serverTls } from '../../src/path/secure.ts';

const KEY: Security = { kind: 'key', key: new Uint8Array(32).fill(1) };

/** A TLS connection on loopback: what the server accepted, and the client's end. */
async function connectTls(): Promise<{ accepted: TLSSocket; client: TLSSocket }> {
  const server = tls.createServer({ ...(await serverTls(KEY)), pauseOnConnect: true });
  onTestFinished(() => void server.close());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const accepted = new Promise<TLSSocket>((resolve) => server.on('secureConnection', resolve));
  const client = tls.connect({ host: '127.0.0.1', port, ...(await clientTls(KEY)) });
  onTestFinished(() => void client.destroy());
  return { accepted: await accepted, client };
}

test('a TLS socket reads into the buffer of its link, on every Node that is supported', async () => {
  const { accepted, client } = await connectTls();
  onTestFinished(() => void accepted.destroy());
  const buffer = Buffer.alloc(64 * 1024);
  const seen: Buffer[] = [];
  const link = {
    readOptions: {
      buffer: () => buffer,
      callback: (bytes: number, filled: Uint8Array) => {
        expect(filled).toBe(buffer);
        seen.push(Buffer.from(filled.subarray(0, bytes)));
        return true;
      },
    },
  } as unknown as SocketLink;
  accepted.on('data', () => expect.unreachable('data went round the buffer'));
  expect(readInto(accepted, link)).toEqual({ taken: accepted, hasReadOptions: true });
  accepted.resume();
  const sent = Buffer.from(Array.from({ length: 300_000 }, (_, index) => index % 251));
  const ended = new Promise((resolve) => accepted.on('end', resolve));
  client.end(sent);
  await ended;
  expect(Buffer.compare(Buffer.concat(seen), sent)).toBe(0);
});

test.each([
  ['TLS', readInto],
  ['plain', takeSocket],
])('a %s socket without its handle is used as it is', (_name, take) => {
  const socket = { _handle: null, readableLength: 0 } as unknown as TLSSocket;
  const { taken, hasReadOptions }: AcceptedSocket = take(socket, new SocketLink());
  expect(taken).toBe(socket);
  expect(hasReadOptions).toBe(false);
});

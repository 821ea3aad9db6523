import net from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import { type DialOptions, dial } from '../../src/path/dial.ts';

const OPTIONS: DialOptions = { security: { kind: 'none' }, timeoutMs: 5000, clock: systemClock };
const SECURE: DialOptions = { ...OPTIONS, security: { kind: 'key', key: new Uint8Array(32) } };
const CLOSERS: (() => unknown)[] = [];

afterEach(() => {
  for (const close of CLOSERS.splice(0)) close();
});

async function server(onSocket: (socket: net.Socket) => void): Promise<number> {
  const listening = net.createServer((socket) => {
    socket.on('error', () => {});
    CLOSERS.push(() => socket.destroy());
    onSocket(socket);
  });
  await new Promise<void>((resolve) => listening.listen(0, '127.0.0.1', resolve));
  CLOSERS.push(() => listening.close());
  return (listening.address() as net.AddressInfo).port;
}

async function freePort(): Promise<number> {
  const port = await server(() => {});
  await CLOSERS.pop()!();
  return port;
}

describe('dial()', () => {
  test('gives a link, from the local address that was asked for', async () => {
    const port = await server(() => {});
    const address = { host: '127.0.0.1', port, local: '127.0.0.2' };
    const { link, exporter } = await dial(address, OPTIONS);
    expect(link.local).toMatch(/^127\.0\.0\.2:/);
    expect(exporter).toEqual(new Uint8Array(32));
    link.destroy();
  });

  test('finds a name that has several addresses', async () => {
    const port = await server(() => {});
    const { link } = await dial({ host: 'localhost', port }, OPTIONS);
    expect(link.remote).toBe(`127.0.0.1:${port}`);
    link.destroy();
  });

  test('says that nobody listens', async () => {
    const port = await freePort();
    for (const options of [OPTIONS, SECURE]) {
      await expect(dial({ host: '127.0.0.1', port }, options)).rejects.toMatchObject({
        code: 'ERR_PATH_REFUSED',
        address: `127.0.0.1:${port}`,
        message: `Cannot open path to 127.0.0.1:${port}: nobody listens there (ECONNREFUSED)`,
      });
    }
  });

  test('says that a local address is not ours', async () => {
    const address = { host: '127.0.0.1', port: 1, local: '192.0.2.77' };
    await expect(dial(address, OPTIONS)).rejects.toMatchObject({
      code: 'ERR_PATH_UNREACHABLE',
      message: expect.stringContaining('from 192.0.2.77: this host has no such local address'),
    });
  });

  test('says that a name is not known', async () => {
    const address = { host: 'no-such-host.invalid', port: 1 };
    await expect(dial(address, OPTIONS)).rejects.toMatchObject({ code: 'ERR_PATH_NAME' });
  });

  test('names what it waited for', async () => {
    const port = await server(() => {});
    const address = { host: '127.0.0.1', port };
    await expect(dial(address, { ...SECURE, timeoutMs: 50 })).rejects.toMatchObject({
      code: 'ERR_PATH_TIMEOUT',
      message: `Cannot open path to 127.0.0.1:${port}: no TLS handshake after 50 ms`,
    });
  });

  test('says that the server does not speak TLS', async () => {
    const port = await server((socket) => socket.write('220 mail.example ESMTP\r\n'));
    await expect(dial({ host: '127.0.0.1', port }, SECURE)).rejects.toMatchObject({
      code: 'ERR_PATH_SECURITY',
      message: expect.stringContaining('does not speak TLS'),
    });
  });

  test('says that the TLS handshake was cut', async () => {
    const port = await server((socket) => socket.destroy());
    await expect(dial({ host: '127.0.0.1', port }, SECURE)).rejects.toMatchObject({
      code: 'ERR_PATH_SECURITY',
      message: expect.stringContaining('closed in the TLS handshake'),
    });
  });

  test('rejects with the reason of its signal, before and during', async () => {
    const port = await server(() => {});
    const address = { host: '127.0.0.1', port };
    const reason = new Error('enough');
    const signal = AbortSignal.abort(reason);
    await expect(dial(address, { ...SECURE, signal })).rejects.toBe(reason);
    const controller = new AbortController();
    const dialling = dial(address, { ...SECURE, signal: controller.signal });
    setTimeout(() => controller.abort(reason), 20);
    await expect(dialling).rejects.toBe(reason);
  });
});

import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { QemuChannel, QemuListener } from '../../src/stream/endpoint.ts';
import { waitUntil } from '../support/lab/processes.ts';

const BOUND_MS = 10_000;

let folder: string;
let open: { destroy(): unknown }[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'pagelane-endpoint-'));
  open = [];
});
afterEach(() => {
  for (const each of open) each.destroy();
  rmSync(folder, { recursive: true, force: true });
});

const unix = (name = 'socket') => ({ kind: 'unix', path: join(folder, name) }) as const;

/** QEMU at a socket of ours, and the channel that was made of it. */
async function accepted(): Promise<{ qemu: Socket; channel: QemuChannel; listener: QemuListener }> {
  const listener = await QemuListener.listen(unix());
  const qemu = connect({ path: unix().path });
  qemu.on('error', () => {});
  const channel = await listener.accept({ timeoutMs: BOUND_MS });
  open.push(qemu, channel, { destroy: () => listener.close() });
  return { qemu, channel, listener };
}

describe('QemuListener', () => {
  test.each(['before it is read', 'after'])(
    'gives the first connection, which others join %s',
    async (when) => {
      const { channel, listener } = await accepted();
      expect(channel.address).toBe(`unix:${unix().path}`);
      const joined: QemuChannel[] = [];
      const start = (): void =>
        channel.start({
          chunk: (_, done) => done(),
          end: () => {},
          join: (other) => joined.push(other),
        });
      if (when === 'after') start();
      const others = [connect({ path: unix().path }), connect({ path: unix().path })];
      open.push(...others);
      for (const other of others)
        await new Promise<void>((done) => other.write('hello', () => done()));
      if (when !== 'after') start();
      await waitUntil('both to join', () => joined.length === 2, { timeoutMs: BOUND_MS });
      const chunks: string[] = [];
      joined[0]!.start({
        chunk: (bytes, done) => {
          chunks.push(Buffer.from(bytes).toString());
          done();
        },
        end: () => {},
      });
      await waitUntil('what the second says', () => chunks.length > 0, { timeoutMs: BOUND_MS });
      expect(chunks).toEqual(['hello']);
      // They stay until QEMU closes them, and what it still sends is taken.
      let isClosed = false;
      const closed = listener.close().then(() => {
        isClosed = true;
      });
      channel.destroy();
      others[0]!.destroy();
      await new Promise<void>((done) => others[1]!.write(Buffer.alloc(4 << 20), () => done()));
      expect(isClosed).toBe(false);
      others[1]!.destroy();
      await closed;
    },
  );

  test('its socket is its owner’s only, and gone after close()', async () => {
    const listener = await QemuListener.listen(unix());
    expect(statSync(unix().path).mode & 0o777).toBe(0o600);
    listener.close();
    await waitUntil(
      'the socket to go',
      () => statSync(unix().path, { throwIfNoEntry: false }) === undefined,
      { timeoutMs: BOUND_MS },
    );
  });

  test('listens on TCP, and says that a port is taken', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    const where = { kind: 'tcp', host: '127.0.0.1', port } as const;
    await expect(QemuListener.listen(where)).rejects.toMatchObject({
      code: 'ERR_QEMU_LISTEN',
      endpoint: `tcp:127.0.0.1:${port}`,
      message: expect.stringContaining('EADDRINUSE'),
    });
    server.close();
    await once(server, 'close');
    const listener = await QemuListener.listen(where);
    open.push({ destroy: () => listener.close() });
    const qemu = connect(port, '127.0.0.1');
    open.push(qemu, await listener.accept({ timeoutMs: BOUND_MS }));
  });

  test.each([{ kind: 'stdio' }, { kind: 'null' }] as const)('cannot be at $kind', async (where) => {
    await expect(QemuListener.listen(where)).rejects.toThrow(TypeError);
  });

  test('leaves a file alone that is no socket', async () => {
    writeFileSync(unix().path, '');
    await expect(QemuListener.listen(unix())).rejects.toMatchObject({ code: 'ERR_QEMU_LISTEN' });
  });

  test('says that its folder is missing', async () => {
    await expect(QemuListener.listen(unix('no/socket'))).rejects.toMatchObject({
      code: 'ERR_QEMU_LISTEN',
      message: expect.stringMatching(/Cannot listen on unix:.*: /),
    });
  });

  test('accept() ends with its time, and with its signal', async () => {
    const listener = await QemuListener.listen(unix());
    open.push({ destroy: () => listener.close() });
    await expect(listener.accept({ timeoutMs: 5 })).rejects.toMatchObject({
      code: 'ERR_QEMU_TIMEOUT',
      message: `QEMU did not connect to unix:${unix().path} within 5 ms`,
    });
    const reason = new Error('enough');
    const controller = new AbortController();
    const waiting = listener.accept({ timeoutMs: BOUND_MS, signal: controller.signal });
    controller.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    await expect(
      listener.accept({ timeoutMs: BOUND_MS, signal: AbortSignal.abort(reason) }),
    ).rejects.toBe(reason);
  });
});

describe('QemuChannel', () => {
  test('gives chunks one at a time: the next comes when one is done', async () => {
    const { qemu, channel } = await accepted();
    const chunks: { bytes: string; done: () => void }[] = [];
    let ends = 0;
    channel.start({
      chunk: (bytes, done) => chunks.push({ bytes: Buffer.from(bytes).toString(), done }),
      end: () => ends++,
    });
    qemu.write('one');
    await waitUntil('a chunk', () => chunks.length === 1, { timeoutMs: BOUND_MS });
    qemu.end('two');
    await waitUntil('QEMU to be rid of it', () => qemu.writableFinished, { timeoutMs: BOUND_MS });
    expect([chunks.length, ends]).toEqual([1, 0]);
    chunks[0]!.done();
    await waitUntil('the next chunk', () => chunks.length === 2, { timeoutMs: BOUND_MS });
    expect(chunks.map(({ bytes }) => bytes)).toEqual(['one', 'two']);
    expect(ends).toBe(0);
    chunks[1]!.done();
    await waitUntil('the end', () => ends > 0, { timeoutMs: BOUND_MS });
    expect(await channel.closed).toBeUndefined();
    expect([channel.isClosed, ends]).toEqual([true, 1]);
  });

  test('end() closes when all is written, destroy() at once', async () => {
    const { qemu, channel } = await accepted();
    const bytes = new Uint8Array(4 * 1024 * 1024).fill(7);
    let count = 0;
    qemu.on('data', (chunk) => {
      count += chunk.length;
    });
    channel.start({ chunk: (_bytes, done) => done(), end: () => {} });
    let isWritten = false;
    channel.write(bytes, () => {
      isWritten = true;
    });
    channel.end();
    await once(qemu, 'close');
    expect([count, isWritten]).toEqual([bytes.length, true]);
    expect(channel.isClosed).toBe(true);
  });

  test('a QEMU that goes in mid-write: each write is done, and `closed` says why', async () => {
    const { qemu, channel } = await accepted();
    channel.start({ chunk: (_bytes, done) => done(), end: () => {} });
    let done = 0;
    for (let count = 0; count < 8; count++) channel.write(new Uint8Array(1 << 20), () => done++);
    qemu.destroy();
    const error = await channel.closed;
    expect(error).toMatchObject({ code: 'ERR_QEMU_CLOSED', endpoint: `unix:${unix().path}` });
    expect(error!.message).toMatch(/^Migration channel unix:.* broke: /);
    await waitUntil('each write to be done', () => done === 8, { timeoutMs: BOUND_MS });
    channel.write(new Uint8Array(1), () => done++);
    await waitUntil('a late write to be done', () => done === 9, { timeoutMs: BOUND_MS });
  });

  test('connect() says that nobody listens', async () => {
    await expect(QemuChannel.connect(unix(), { timeoutMs: BOUND_MS })).rejects.toMatchObject({
      code: 'ERR_QEMU_CONNECT',
      message: expect.stringMatching(/ENOENT.*; is it started with -incoming\?$/),
    });
  });

  test('connect() rejects with the reason of its signal', async () => {
    const reason = new Error('enough');
    const signal = AbortSignal.abort(reason);
    await expect(QemuChannel.connect(unix(), { timeoutMs: BOUND_MS, signal })).rejects.toBe(reason);
  });

  test('connect() reaches a QEMU that listens, both ways', async () => {
    const server = createServer((socket) => socket.pipe(socket)).listen(unix().path);
    await once(server, 'listening');
    open.push({ destroy: () => server.close() });
    const channel = await QemuChannel.connect(unix(), { timeoutMs: BOUND_MS });
    open.push(channel);
    const echoed: Buffer[] = [];
    channel.start({
      chunk: (bytes, done) => {
        echoed.push(Buffer.from(bytes));
        done();
      },
      end: () => {},
    });
    channel.write(Buffer.from('hello'), () => {});
    await waitUntil('the echo', () => Buffer.concat(echoed).toString() === 'hello', {
      timeoutMs: BOUND_MS,
    });
  });

  test('refuseMore(): what QEMU has written comes, it can write no more, and can be told', async () => {
    const { qemu, channel } = await accepted();
    const told: Buffer[] = [];
    qemu.on('data', (bytes: Buffer) => told.push(bytes));
    qemu.write('the last');
    await waitUntil('it to be written', () => qemu.writableLength === 0, { timeoutMs: BOUND_MS });
    expect(channel.refuseMore()).toBe(true);
    const read: string[] = [];
    let ends = 0;
    channel.start({
      chunk: (bytes, done) => {
        read.push(Buffer.from(bytes).toString());
        done();
      },
      end: () => ends++,
    });
    await waitUntil('the end', () => ends === 1, { timeoutMs: BOUND_MS });
    expect(read).toEqual(['the last']);
    channel.write(Buffer.from('done'), () => {});
    await waitUntil('the word', () => Buffer.concat(told).toString() === 'done', {
      timeoutMs: BOUND_MS,
    });
    const failed = new Promise((resolve) => qemu.write('more', resolve));
    expect(await failed).toMatchObject({ code: 'EPIPE' });
  });

  test('refuseMore() does nothing where the peer would not notice: TCP, or no socket', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    const accepted = once(server, 'connection');
    const where = { kind: 'tcp', host: '127.0.0.1', port } as const;
    const channel = await QemuChannel.connect(where, { timeoutMs: BOUND_MS });
    const [qemu] = (await accepted) as [Socket];
    open.push(qemu, channel, { destroy: () => server.close() });
    expect(channel.refuseMore()).toBe(false);
    expect((await QemuChannel.connect({ kind: 'null' }, { timeoutMs: 1 })).refuseMore()).toBe(
      false,
    );
    channel.start({ chunk: (_bytes, done) => done(), end: () => {} });
    const written = new Promise((resolve) => qemu.write('more', resolve));
    expect(await written).toBeFalsy();
  });

  test('null: takes everything and says nothing', async () => {
    const channel = await QemuChannel.connect({ kind: 'null' }, { timeoutMs: BOUND_MS });
    expect(channel.isNull).toBe(true);
    let ends = 0;
    channel.start({ chunk: () => {}, end: () => ends++ });
    await new Promise<void>((resolve) => channel.write(new Uint8Array(1e6), resolve));
    expect(ends).toBe(0);
    channel.end();
    expect(await channel.closed).toBeUndefined();
    await waitUntil('the end', () => ends === 1, { timeoutMs: BOUND_MS });
  });
});

import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { askSession, findSessions } from '../../src/control/client.ts';
import { ANSWER_BYTES_MAX, CHANGE_TIMEOUT_MS, LINE_TIMEOUT_MS } from '../../src/control/limits.ts';
import { encodeReport } from '../../src/control/report.ts';
import { ControlServer } from '../../src/control/server.ts';
import { waitUntil } from '../support/lab/processes.ts';
import { FakeSession, Folder, ID, leaveSocket, ManualClock, sessionReport } from './support.ts';

/* Chosen by us */
const BOUND_MS = 10_000;

/** Processes that answer as they like. */
class Place implements AsyncDisposable {
  readonly folder = new Folder();
  readonly environment = this.folder.environment;
  readonly directory = this.environment['PAGELANE_CONTROL_DIR']!;
  readonly #servers: Server[] = [];
  readonly #controls: ControlServer[] = [];

  constructor() {
    mkdirSync(this.directory, { mode: 0o700 });
  }

  path(id = ID): string {
    return join(this.directory, `${id}-source.sock`);
  }

  async listen(onConnection: (socket: Socket) => void, id = ID): Promise<string> {
    const server = createServer(onConnection);
    this.#servers.push(server);
    await new Promise<void>((resolve) => server.listen(this.path(id), resolve));
    return this.path(id);
  }

  async control(id: string, name: string): Promise<FakeSession> {
    const session = new FakeSession(id);
    const state = () => ({ name, side: 'source', phase: 'precopy', elapsedMs: 1 }) as const;
    const { environment } = this;
    this.#controls.push(await ControlServer.listen({ session, state, environment }));
    return session;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers) server.close();
    for (const control of this.#controls) await control.close();
    this.folder[Symbol.dispose]();
  }
}

describe('findSessions()', () => {
  test('is empty where no process ever was', async () => {
    using folder = new Folder();
    expect(await findSessions(folder.environment)).toEqual({ sessions: [], failures: [] });
    expect(readdirSync(folder.path)).toEqual([]);
  });

  test('tells every session, and why one could not be asked', async () => {
    await using place = new Place();
    await place.control('b'.repeat(32), 'vm2');
    await place.control('a'.repeat(32), 'vm1');
    await place.listen((socket) => socket.end('nonsense\n'), 'c'.repeat(32));
    const { sessions, failures } = await findSessions(place.environment);
    expect(sessions.map(({ report }) => report.name)).toEqual(['vm1', 'vm2']);
    expect(sessions[0]!.socket).toBe(place.path('a'.repeat(32)));
    expect(failures).toMatchObject([{ code: 'ERR_CONTROL_ANSWER' }]);
  });

  test('removes sockets that no process has any more', async () => {
    await using place = new Place();
    const path = place.path();
    await leaveSocket(path);
    expect(existsSync(path)).toBe(true);
    expect(await findSessions(place.environment)).toEqual({ sessions: [], failures: [] });
    expect(existsSync(path)).toBe(false);
  });

  test('a folder with the name of a socket is told, and left', async () => {
    await using place = new Place();
    mkdirSync(place.path());
    const { failures } = await findSessions(place.environment);
    expect(failures).toMatchObject([{ code: 'ERR_CONTROL_CLOSED' }]);
    expect(existsSync(place.path())).toBe(true);
  });

  test('asks any number of processes', async () => {
    await using place = new Place();
    const ids = Array.from({ length: 70 }, (_, index) => String(index).padStart(32, '0'));
    for (const id of ids) {
      await place.listen((socket) => socket.end(encodeReport(sessionReport({ id }))), id);
    }
    const { sessions } = await findSessions(place.environment);
    expect(sessions.map(({ report }) => report.id)).toEqual(ids);
  });
});

describe('askSession()', () => {
  test('asks, and returns how the session is then', async () => {
    await using place = new Place();
    const session = await place.control(ID, 'vm1');
    const request = { verb: 'setMaxBandwidth', bytesPerSecond: 5, path: 1 } as const;
    const { paths } = await askSession(place.path(), request);
    expect(paths[1]).toMatchObject({ id: 1, maxBytesPerSecond: 5 });
    expect(session.log).toEqual(['setPathMaxBandwidth 1 5']);
  });

  test('throws what the process says', async () => {
    await using place = new Place();
    await place.control(ID, 'vm1');
    await expect(askSession(place.path(), { verb: 'removePath', path: 9 })).rejects.toMatchObject({
      code: 'ERR_CONTROL_PATH',
      message: 'No path 9 is open; those that are: 0, 1',
    });
  });

  test('says that the process is gone', async () => {
    await using place = new Place();
    const gone = {
      code: 'ERR_CONTROL_CLOSED',
      message: expect.stringMatching(/No process listens/),
    };
    await expect(askSession(place.path(), { verb: 'report' })).rejects.toMatchObject(gone);
    await leaveSocket(place.path());
    await expect(askSession(place.path(), { verb: 'report' })).rejects.toMatchObject(gone);
  });

  test.each([
    ['nothing', (socket: Socket) => socket.end(), 'ERR_CONTROL_CLOSED', /closed before an answer/],
    [
      'a break',
      (socket: Socket) => socket.destroy(),
      'ERR_CONTROL_CLOSED',
      /before an answer from/,
    ],
    ['half', (socket: Socket) => socket.end('{"v":1'), 'ERR_CONTROL_CLOSED', /before an answer/],
    ['another version', (socket: Socket) => socket.end('{"v":2}\n'), 'ERR_CONTROL_ANSWER', /is 2/],
    [
      'too much',
      (socket: Socket) => {
        socket.on('error', () => {});
        socket.end('x'.repeat(ANSWER_BYTES_MAX));
      },
      'ERR_CONTROL_ANSWER',
      /longer than 262144 bytes/,
    ],
  ])('a process that answers %s', async (_, onConnection, code, says) => {
    await using place = new Place();
    const path = await place.listen(onConnection);
    await expect(askSession(path, { verb: 'report' })).rejects.toMatchObject({
      code,
      message: expect.stringMatching(says),
    });
  });

  test.each([
    [{ verb: 'report' }, LINE_TIMEOUT_MS],
    [{ verb: 'setMaxBandwidth', bytesPerSecond: 1, path: undefined }, LINE_TIMEOUT_MS],
    [{ verb: 'removePath', path: 1 }, LINE_TIMEOUT_MS + CHANGE_TIMEOUT_MS],
    [{ verb: 'addPath', address: { host: 'h', port: 1 } }, LINE_TIMEOUT_MS + CHANGE_TIMEOUT_MS],
  ] as const)('a process that is silent after %j', async (request, timeoutMs) => {
    await using place = new Place();
    const sockets: Socket[] = [];
    const path = await place.listen((socket) => sockets.push(socket.resume()));
    const clock = new ManualClock();
    const asked = askSession(path, request, { clock });
    asked.catch(() => {});
    await waitUntil('the request', () => clock.count === 1, { timeoutMs: BOUND_MS });
    clock.pass(timeoutMs - 1);
    expect(clock.count).toBe(1);
    clock.pass(1);
    await expect(asked).rejects.toMatchObject({
      code: 'ERR_CONTROL_TIMEOUT',
      message: `Waited ${timeoutMs} ms for an answer from ${path}`,
    });
    for (const socket of sockets) socket.destroy();
  });

  test('a file that is no socket is as good as none', async () => {
    await using place = new Place();
    writeFileSync(place.path(), '');
    await expect(askSession(place.path(), { verb: 'report' })).rejects.toMatchObject({
      code: 'ERR_CONTROL_CLOSED',
    });
  });
});

import { existsSync, mkdirSync, readdirSync, statSync, symlinkSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  CHANGE_TIMEOUT_MS,
  CONNECTIONS_MAX,
  LINE_TIMEOUT_MS,
  REQUEST_BYTES_MAX,
} from '../../src/control/limits.ts';
import type { SessionState } from '../../src/control/report.ts';
import { ControlServer } from '../../src/control/server.ts';
import { PathError } from '../../src/errors.ts';
import { waitUntil } from '../support/lab/processes.ts';
import {
  exchangeRaw,
  FakeSession,
  Folder,
  ID,
  leaveSocket,
  ManualClock,
  pathReport,
} from './support.ts';

/* Chosen by us */
const BOUND_MS = 10_000;

const STATE: SessionState = { name: 'vm1', side: 'source', phase: 'precopy', elapsedMs: 1500 };

/** A server in a folder of its own, on a clock that is told the time. */
class Control implements AsyncDisposable {
  readonly folder = new Folder();
  readonly session = new FakeSession();
  readonly clock = new ManualClock();
  server!: ControlServer;

  static async listen(state: Partial<SessionState> = {}): Promise<Control> {
    const control = new Control();
    const { session, clock, folder } = control;
    const { environment } = folder;
    const options = {
      ...{ session, state: () => ({ ...STATE, ...state }), environment, clock },
      setStageBandwidth: (bytesPerSecond?: number, intermediary?: number) =>
        void session.log.push(`setStageBandwidth ${bytesPerSecond} ${intermediary}`),
    };
    control.server = await ControlServer.listen(options);
    return control;
  }

  /** The answer to a request. */
  async ask(request: object): Promise<Record<string, unknown>> {
    return JSON.parse(await exchangeRaw(this.server.path, `${JSON.stringify(request)}\n`));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.close();
    this.folder[Symbol.dispose]();
  }
}

const failure = (code: string, says: RegExp) => ({
  v: 1,
  error: { code, message: expect.stringMatching(says) },
});

async function until(what: string, isDone: () => boolean): Promise<void> {
  await waitUntil(what, isDone, { timeoutMs: BOUND_MS });
}

/** A connection that says nothing. */
function connectOnly(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path });
    socket.once('connect', () => resolve(socket)).once('error', reject);
  });
}

describe('the socket', () => {
  test.each([0, 0o022, 0o777])("is its owner's only, with umask %i", async (mask) => {
    const before = process.umask(mask);
    try {
      await using control = await Control.listen();
      const { path } = control.server;
      expect(statSync(path).mode & 0o777).toBe(0o600);
      expect(statSync(path).isSocket()).toBe(true);
      expect(statSync(join(path, '..')).mode & 0o777).toBe(0o700);
      expect(path.endsWith(`/${ID}-source.sock`)).toBe(true);
      expect(readdirSync(join(path, '..'))).toEqual([`${ID}-source.sock`]);
    } finally {
      process.umask(before);
    }
  });

  test('is removed at the end, and a second end does nothing', async () => {
    await using control = await Control.listen();
    await control.server.close();
    expect(existsSync(control.server.path)).toBe(false);
    await control.server.close();
  });

  test('takes the place of one that nobody listens on', async () => {
    using folder = new Folder();
    const { environment } = folder;
    const directory = environment['PAGELANE_CONTROL_DIR']!;
    mkdirSync(directory, { mode: 0o700 });
    await leaveSocket(join(directory, `${ID}-source.sock`));
    const session = new FakeSession();
    const server = await ControlServer.listen({ session, state: () => STATE, environment });
    const answer = await exchangeRaw(server.path, '{"v":1,"verb":"report"}\n');
    expect(JSON.parse(answer)).toMatchObject({ session: { id: ID } });
    await server.close();
  });

  test('does not take the place of one that somebody listens on', async () => {
    await using control = await Control.listen();
    const { session, folder } = control;
    const { environment } = folder;
    await expect(
      ControlServer.listen({ session, state: () => STATE, environment }),
    ).rejects.toMatchObject({ code: 'ERR_CONTROL_LISTEN' });
    expect(await control.ask({ v: 1, verb: 'report' })).toMatchObject({ session: { id: ID } });
  });

  test('is not made in a directory that is a link', async () => {
    using folder = new Folder();
    const { environment } = folder;
    symlinkSync(folder.path, environment['PAGELANE_CONTROL_DIR']!);
    const session = new FakeSession();
    await expect(
      ControlServer.listen({ session, state: () => STATE, environment }),
    ).rejects.toMatchObject({ code: 'ERR_CONTROL_DIR' });
    expect(readdirSync(folder.path)).toEqual(['sockets']);
  });
});

describe('requests', () => {
  test('report tells the session, its migration and its paths', async () => {
    await using control = await Control.listen({ phase: 'switchover' });
    expect(await control.ask({ v: 1, verb: 'report' })).toEqual({
      v: 1,
      session: {
        ...{ id: ID, name: 'vm1', side: 'source', phase: 'switchover', elapsedMs: 1500 },
        paths: JSON.parse(JSON.stringify(control.session.paths)),
      },
    });
    expect(control.session.log).toEqual([]);
  });

  test('each does what it says, and answers how it is then', async () => {
    await using control = await Control.listen();
    const address = { host: '10.3.0.2', port: 7700, local: '10.3.0.1', maxBytesPerSecond: 9 };
    const added = await control.ask({ v: 1, verb: 'addPath', address });
    expect(added).toMatchObject({ session: { paths: [{}, {}, { remote: '10.3.0.2:7700' }] } });
    const set = { v: 1, verb: 'setMaxBandwidth' };
    const limited = await control.ask({ ...set, bytesPerSecond: 500, path: 1 });
    expect(limited).toMatchObject({ session: { paths: [{}, { maxBytesPerSecond: 500 }, {}] } });
    await control.ask({ ...set, bytesPerSecond: null, path: 1 });
    await control.ask({ ...set, bytesPerSecond: 700 });
    await control.ask({ ...set, bytesPerSecond: null });
    const stage = { v: 1, verb: 'setStageBandwidth' };
    await control.ask({ ...stage, bytesPerSecond: 900, intermediary: 1 });
    await control.ask({ ...stage, bytesPerSecond: null });
    const removed = await control.ask({ v: 1, verb: 'removePath', path: 0 });
    expect(removed).toMatchObject({ session: { paths: [{ state: 'closed' }, {}, {}] } });
    expect(control.session.log).toEqual([
      `addPath ${JSON.stringify({ host: '10.3.0.2', port: 7700, local: '10.3.0.1', maxBytesPerSecond: 9 })}`,
      'setPathMaxBandwidth 1 500',
      'setPathMaxBandwidth 1 undefined',
      'setMaxBandwidth 700',
      'setMaxBandwidth undefined',
      'setStageBandwidth 900 1',
      'setStageBandwidth undefined undefined',
      'removePath 0',
    ]);
  });

  test.each([
    { verb: 'removePath', path: 2 },
    { verb: 'removePath', path: 7 },
    { verb: 'setMaxBandwidth', bytesPerSecond: 1, path: 2 },
  ])('a path that is not open is left alone: %j', async (request) => {
    await using control = await Control.listen();
    control.session.paths.push(pathReport({ id: 2, state: 'lost' }));
    const says = /No path \d is open; those that are: 0, 1$/;
    expect(await control.ask({ v: 1, ...request })).toEqual(failure('ERR_CONTROL_PATH', says));
    expect(control.session.log).toEqual([]);
  });

  test('the destination opens no path', async () => {
    await using control = await Control.listen({ side: 'destination' });
    expect(control.server.path.endsWith(`/${ID}-destination.sock`)).toBe(true);
    const request = { v: 1, verb: 'addPath', address: { host: 'h', port: 1 } };
    const says = /Cannot add path to h:1: only the source opens paths/;
    expect(await control.ask(request)).toEqual(failure('ERR_CONTROL_SIDE', says));
  });

  test.each([
    [new PathError('ERR_PATH_REFUSED', 'nobody there', 'h:1'), 'ERR_PATH_REFUSED', /nobody there/],
    [new RangeError('the only one'), 'ERR_CONTROL_PATH', /the only one/],
    [new Error('strange'), 'ERR_INTERNAL', /strange/],
    ['a text', 'ERR_INTERNAL', /a text/],
  ])('what the session throws is told: %s', async (error, code, says) => {
    await using control = await Control.listen();
    control.session.until = Promise.reject(error);
    control.session.until.catch(() => {});
    const request = { v: 1, verb: 'addPath', address: { host: 'h', port: 1 } };
    expect(await control.ask(request)).toEqual(failure(code, says));
  });

  test('a peer that goes away has its request done, and disturbs nobody', async () => {
    await using control = await Control.listen();
    let done!: () => void;
    control.session.until = new Promise((resolve) => {
      done = resolve;
    });
    const socket = await connectOnly(control.server.path);
    socket.write('{"v":1,"verb":"removePath","path":0}\n');
    await until('the request to come', () => control.session.log.length > 0);
    socket.destroy();
    done();
    await until('path 0 to close', () => control.session.paths[0]!.state === 'closed');
    expect(await control.ask({ v: 1, verb: 'report' })).toMatchObject({ session: { id: ID } });
  });
});

describe('what is no request', () => {
  const REPORT = '{"v":1,"verb":"report"}';

  test('a line may come in pieces, and its sender may be done with writing', async () => {
    await using control = await Control.listen();
    const socket = await connectOnly(control.server.path);
    let text = '';
    socket.setEncoding('utf8').on('data', (chunk) => {
      text += chunk;
    });
    for (const character of `${REPORT}\n`) {
      await new Promise<void>((resolve) => socket.write(character, () => resolve()));
    }
    await until('the answer', () => text.endsWith('\n'));
    expect(JSON.parse(text)).toMatchObject({ session: { id: ID } });
    const answer = await exchangeRaw(control.server.path, `${REPORT}\n`, true);
    expect(JSON.parse(answer)).toMatchObject({ session: { id: ID } });
  });

  test('only the first line counts', async () => {
    await using control = await Control.listen();
    const lines = `${REPORT}\n{"v":1,"verb":"removePath","path":0}\n`;
    const answer = await exchangeRaw(control.server.path, lines);
    expect(answer.split('\n').length).toBe(2);
    expect(control.session.log).toEqual([]);
  });

  test('the longest line is taken, a longer one is not', async () => {
    await using control = await Control.listen();
    const longest = `${REPORT.padEnd(REQUEST_BYTES_MAX - 1)}\n`;
    const { path } = control.server;
    expect(JSON.parse(await exchangeRaw(path, longest))).toMatchObject({ session: { id: ID } });
    const says = /Cannot read a request: it is longer than 4096 bytes/;
    for (const bytes of [` ${longest}`, 'x'.repeat(REQUEST_BYTES_MAX)]) {
      const answer = await exchangeRaw(path, bytes);
      expect(JSON.parse(answer)).toEqual(failure('ERR_CONTROL_REQUEST', says));
    }
  });

  test.each([
    [
      '{"v":1,"verb":"explode"}\n',
      'ERR_CONTROL_VERB',
      /There is no verb "explode": expected report/,
    ],
    ['{"v":1,"verb":"removePath","path":"0"}\n', 'ERR_CONTROL_REQUEST', /"path" must be/],
    ['\n', 'ERR_CONTROL_REQUEST', /no line of JSON/],
    [new Uint8Array([0xff, 0xfe, 0x0a]), 'ERR_CONTROL_REQUEST', /no line of JSON/],
  ])('%j', async (bytes, code, says) => {
    await using control = await Control.listen();
    const answer = await exchangeRaw(control.server.path, bytes);
    expect(JSON.parse(answer)).toEqual(failure(code, says));
  });

  test('a line that has no end', async () => {
    await using control = await Control.listen();
    const answer = await exchangeRaw(control.server.path, REPORT, true);
    const says = /The socket closed before a request came/;
    expect(JSON.parse(answer)).toEqual(failure('ERR_CONTROL_CLOSED', says));
  });
});

describe('limits', () => {
  test('who says nothing is told what was waited for', async () => {
    await using control = await Control.listen();
    const { clock, server } = control;
    const answer = exchangeRaw(server.path, '{"v":1');
    await until('the connection', () => clock.count === 1);
    clock.pass(LINE_TIMEOUT_MS - 1);
    expect(clock.count).toBe(1);
    clock.pass(1);
    const says = /Waited 5000 ms for a request/;
    expect(JSON.parse(await answer)).toEqual(failure('ERR_CONTROL_TIMEOUT', says));
    await until('the connection to be gone', () => clock.count === 0);
  });

  test.each([
    [{ verb: 'addPath', address: { host: 'h', port: 1 } }, /Waited 30000 ms for path to h:1$/],
    [{ verb: 'removePath', path: 1 }, /Waited 30000 ms for path 1 to deliver what is in flight/],
  ])('what takes too long is said to, and may still be done: %j', async (request, says) => {
    await using control = await Control.listen();
    const { clock, session } = control;
    let done!: () => void;
    session.until = new Promise((resolve) => {
      done = resolve;
    });
    const answer = control.ask({ v: 1, ...request });
    await until('the request to come', () => session.log.length > 0);
    clock.pass(CHANGE_TIMEOUT_MS);
    expect(await answer).toEqual(failure('ERR_CONTROL_TIMEOUT', says));
    done();
  });

  test('connections beyond the limit are turned away, and taken again later', async () => {
    await using control = await Control.listen();
    const { path } = control.server;
    const sockets: Socket[] = [];
    for (let count = 0; count < CONNECTIONS_MAX; count++) sockets.push(await connectOnly(path));
    await until('all to be taken', () => control.clock.count === CONNECTIONS_MAX);
    const says = /8 requests are under way, and no more are taken/;
    expect(await control.ask({ v: 1, verb: 'report' })).toEqual(failure('ERR_CONTROL_BUSY', says));
    for (const socket of sockets) socket.destroy();
    await until('all to be gone', () => control.clock.count === 0);
    expect(await control.ask({ v: 1, verb: 'report' })).toMatchObject({ session: { id: ID } });
  });

  test('at the end, whoever waits is told so', async () => {
    await using control = await Control.listen();
    const { server, session } = control;
    session.until = new Promise(() => {});
    const removing = control.ask({ v: 1, verb: 'removePath', path: 0 });
    const silent = exchangeRaw(server.path, '');
    await until('both to come', () => session.log.length > 0 && control.clock.count === 2);
    await server.close();
    const over = failure('ERR_CONTROL_CLOSED', /The migration is over/);
    expect(await removing).toEqual(over);
    expect(JSON.parse(await silent)).toEqual(over);
  });
});

import { afterEach, describe, expect, test } from 'vitest';
import { PATHS_MAX } from '../../src/frame/limits.ts';
import { connectSession } from '../../src/session/connect.ts';
import type { SessionEvent } from '../../src/session/events.ts';
import { listenForSessions } from '../../src/session/listener.ts';
import type { Session } from '../../src/session/session.ts';
import { within } from '../support/lab/processes.ts';
import { Relay } from './relay.ts';
import { openPaths, openRelay, RelayedSession, until } from './relayed.ts';
import { keepEvents, type Transfer } from './support.ts';

const TIMEOUT_MS = 50_000;
/** More messages than are ever sent: it is stopped. */
const TRANSFER = { messages: 1e6, messageBytes: 32 * 1024, queuedBytesMax: 512 * 1024 };

const closers: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

/** Traffic both ways, some of which has arrived. */
async function begin(paths: number, options: { rekeyBytes?: number } = {}) {
  const session = await RelayedSession.open({ paths, ...options }, closers);
  const { client, server } = session;
  const events = keepEvents(client);
  const there = await session.transfer(client, TRANSFER);
  const back = await session.transfer(server, TRANSFER);
  const flows = [there, back];
  await more(flows);
  return { session, client, server, events, flows };
}

/** Waits until some more has arrived. */
async function more(flows: readonly Transfer[], messages = 20): Promise<void> {
  const before = flows.map(({ delivered }) => delivered.size);
  await until('more to arrive', () =>
    flows.every(({ delivered }, index) => delivered.size >= before[index]! + messages),
  );
}

/** Sends nothing further, and looks whether all arrived once and whole. */
async function finish(flows: readonly Transfer[]): Promise<void> {
  for (const flow of flows) flow.stop();
  await until('both directions to be done', () => flows.every(({ isDone }) => isDone));
  expect(flows.map(({ wrong }) => wrong)).toEqual([[], []]);
}

async function closeBoth({ client, server }: RelayedSession): Promise<void> {
  await within(client.close(), TIMEOUT_MS, 'the session to close');
  const ends = Promise.all([client.ended, server.ended]);
  expect(await within(ends, TIMEOUT_MS, 'both sides to end')).toEqual([undefined, undefined]);
}

const reportOf = (session: Session, id: number) =>
  session.pathReports().find((report) => report.id === id)!;

const lostCodes = (events: readonly SessionEvent[]): string[] =>
  events.flatMap((event) => (event.type === 'pathLost' ? [event.code] : []));

describe('Session addPath() while traffic flows', () => {
  test('spreads it over the new path at once', async () => {
    const { session, client, server, flows } = await begin(1);
    for (const side of [client, server]) side.setPathMax(0, 100 * TRANSFER.messageBytes);
    const relay = await openRelay(session.listener.port, closers);
    await client.addPath({ host: '127.0.0.1', port: relay.port });
    expect([openPaths(client), openPaths(server)]).toEqual([
      [0, 1],
      [0, 1],
    ]);
    for (const side of [client, server]) {
      const isUsed = (): boolean => reportOf(side, 1).sentBytes > 500 * TRANSFER.messageBytes;
      await until('the new path to be used', isUsed);
      const { sentBytes } = reportOf(side, 0);
      expect(sentBytes).toBeLessThan(reportOf(side, 1).sentBytes);
    }
    await finish(flows);
    await closeBoth(session);
  });

  test('with a limit of its own', async () => {
    const { session, client, flows } = await begin(1);
    const relay = await openRelay(session.listener.port, closers);
    const maxBytesPerSecond = 1000 * TRANSFER.messageBytes;
    await client.addPath({ host: '127.0.0.1', port: relay.port, maxBytesPerSecond });
    expect(reportOf(client, 1).maxBytesPerSecond).toBe(maxBytesPerSecond);
    await finish(flows);
  });

  test('that fails, throws and is not tried again', async () => {
    const { session, client, events, flows } = await begin(1);
    const relay = await Relay.open(session.listener.port);
    relay.close();
    const adding = client.addPath({ host: '127.0.0.1', port: relay.port });
    await expect(adding).rejects.toMatchObject({ code: 'ERR_PATH_REFUSED' });
    let arrivals = 0;
    const again = await Relay.open(session.listener.port, relay.port);
    again.onArrival = () => arrivals++;
    closers.push(() => again.close());
    await finish(flows);
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(arrivals).toBe(0);
    expect(openPaths(client)).toEqual([0]);
    expect(events.map(({ type }) => type)).toEqual(['pathOpened']);
  });

  test('which is lost later, is opened again', async () => {
    const { session, client, flows } = await begin(1);
    const relay = await openRelay(session.listener.port, closers);
    await client.addPath({ host: '127.0.0.1', port: relay.port });
    relay.cut('reset');
    await until('it to be back', () => openPaths(client).includes(2));
    await finish(flows);
    expect(openPaths(client)).toEqual([0, 2]);
  });
});

describe('Session removePath() while traffic flows', () => {
  test.each([
    ['client', 2],
    ['server', 2],
    ['client', 5],
    ['server', 5],
  ] as const)(
    'by the %s, of %i paths: all arrives, the path is closed for good',
    async (by, paths) => {
      const { session, client, server, events, flows } = await begin(paths);
      let arrivals = 0;
      for (const relay of session.relays) relay.onArrival = () => arrivals++;
      await within(session[by].removePath(0), TIMEOUT_MS, 'the path to be closed');
      expect(reportOf(session[by], 0).state).toBe('closed');
      await until('the other side to know', () => openPaths(client).length === paths - 1);
      await until('the other side to know', () => openPaths(server).length === paths - 1);
      await finish(flows);
      for (const side of [client, server]) {
        const closed = side.pathReports().filter(({ state }) => state !== 'open');
        expect(closed.map(({ state }) => state)).toEqual(['closed']);
      }
      expect(lostCodes(events)).toEqual([by === 'client' ? 'ERR_PATH_REMOVED' : 'ERR_PATH_CLOSED']);
      // Longer than the first wait before a path is dialled again.
      await new Promise((resolve) => setTimeout(resolve, 300));
      expect(arrivals).toBe(0);
      await closeBoth(session);
    },
  );

  test('carries on what the path has, and nothing new', async () => {
    const { client, flows } = await begin(2);
    const removing = client.removePath(1);
    const { sentBytes } = reportOf(client, 1);
    await within(removing, TIMEOUT_MS, 'the path to be closed');
    // Acks and credit for what still arrives, and a word of farewell.
    expect(reportOf(client, 1).sentBytes - sentBytes).toBeLessThan(TRANSFER.messageBytes);
    expect(reportOf(client, 1).unackedBytes).toBe(0);
    await finish(flows);
  });

  test('does not take the last one, nor one that is not there', async () => {
    const { client, flows } = await begin(2);
    await expect(client.removePath(7)).rejects.toThrow(RangeError);
    const removing = client.removePath(1);
    // The other is the only one that stays.
    await expect(client.removePath(0)).rejects.toThrow('Path 0 is the only one');
    await within(removing, TIMEOUT_MS, 'the path to be closed');
    await expect(client.removePath(1)).rejects.toThrow('There is no path 1 open');
    await expect(client.removePath(0)).rejects.toThrow(RangeError);
    await finish(flows);
  });

  test('of all but one, and as many added, again and again', async () => {
    const { session, client, flows } = await begin(4);
    for (let round = 0; round < 4; round++) {
      const [, ...others] = openPaths(client);
      await within(
        Promise.all(others.map((id) => client.removePath(id))),
        TIMEOUT_MS,
        'the paths to be closed',
      );
      const port = session.relays[0]!.port;
      for (const _ of others) await client.addPath({ host: '127.0.0.1', port });
      await more(flows);
      expect(openPaths(client).length).toBe(4);
    }
    await finish(flows);
    await closeBoth(session);
  });

  test('of the last two by one side each: one is opened again', async () => {
    const { session, client, server, events, flows } = await begin(1);
    const { port } = session.listener;
    for (let count = 0; count < 2; count++) await client.addPath({ host: '127.0.0.1', port });
    await within(client.removePath(0), TIMEOUT_MS, 'the path to be closed');
    await until('the other side to know', () => openPaths(server).length === 2);
    // These two do not go through a relay: both sides give them the same addresses.
    const { local } = reportOf(client, 2);
    const { id } = server.pathReports().find(({ remote }) => remote === local)!;
    const removing = Promise.all([client.removePath(1), server.removePath(id)]);
    await within(removing, TIMEOUT_MS, 'the paths to be closed');
    await more(flows);
    await finish(flows);
    expect(openPaths(client)).toEqual([3]);
    expect(events.map(({ type }) => type)).toContain('resumed');
    await closeBoth(session);
  });
});

describe('Session that was opened without some of its paths', () => {
  test('is joined by them when somebody listens there', async () => {
    const common = { security: { kind: 'none' }, windowBytes: 1 << 20 } as const;
    const listener = await listenForSessions({ ...common, host: '127.0.0.1', port: 0 });
    closers.push(() => listener.close());
    const { port } = listener;
    const late = await Relay.open(port);
    late.close();
    const paths = [port, late.port].map((each) => ({ host: '127.0.0.1', port: each }));
    const client = await connectSession({ ...common, paths });
    closers.push(() => client.close());
    const events = keepEvents(client);
    await until('the refusal to be told', () => events.some(({ type }) => type === 'pathFailed'));
    await openRelay(port, closers, late.port);
    await until('the path to join', () => openPaths(client).length === 2);
    const failed = events.filter(({ type }) => type === 'pathFailed');
    expect(failed).toMatchObject([{ code: 'ERR_PATH_REFUSED', remote: `127.0.0.1:${late.port}` }]);
  });
});

describe('Session whose paths get new connections', () => {
  const REKEY_BYTES = 1 << 20;

  test.each([1, 3, PATHS_MAX])(
    'each of %i, several times: all arrives, and as many paths are open in the end',
    async (paths) => {
      const { session, client, events, flows } = await begin(paths, { rekeyBytes: REKEY_BYTES });
      let fewest = paths;
      const watch = setInterval(() => {
        fewest = Math.min(fewest, openPaths(client).length);
      }, 5);
      closers.push(() => clearInterval(watch));
      const replaced = (): number => lostCodes(events).length;
      await until('every path to be replaced', () => replaced() >= 2 * paths);
      await finish(flows);
      clearInterval(watch);
      expect(new Set(lostCodes(events))).toEqual(new Set(['ERR_PATH_REMOVED']));
      // A new one is there before the old one goes, if there is room for both.
      expect(fewest).toBeGreaterThanOrEqual(paths === PATHS_MAX ? paths - 1 : paths);
      await until('all of them to be open', () => openPaths(client).length === paths);
      await closeBoth(session);
    },
  );
});

test('Session of sixteen paths of which half are lost, removed and added meanwhile', async () => {
  const { session, client, flows } = await begin(PATHS_MAX);
  for (let index = 0; index < 4; index++) session.relays[index]!.harm('reset');
  for (let index = 4; index < 8; index++) session.relays[index]!.harm('swallow');
  await until('the losses to be noticed', () => openPaths(client).length <= PATHS_MAX - 4);
  const { port } = session.relays[15]!;
  for (let count = 0; count < 4; count++) await client.addPath({ host: '127.0.0.1', port });
  const last = openPaths(client).at(-1)!;
  await within(client.removePath(last), TIMEOUT_MS, 'the path to be closed');
  await finish(flows);
  await closeBoth(session);
});

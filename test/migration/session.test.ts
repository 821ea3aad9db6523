import { expect, test } from 'vitest';
import {
  connect,
  listen,
  type MigrationSession,
  PagelaneError,
  ProtocolError,
  type SessionEvent,
} from '../../src/index.ts';
import { smallStream } from '../support/small-stream.ts';
import { openEnds } from './support.ts';

const SECURITY = { kind: 'none' } as const;

async function openSessions() {
  const listener = await listen({ host: '127.0.0.1', port: 0, security: SECURITY });
  const accepted = listener.accept();
  const paths = [{ host: '127.0.0.1', port: listener.port }];
  const client = await connect({ paths, security: SECURITY });
  const server = await accepted;
  return {
    listener,
    client,
    server,
    [Symbol.asyncDispose]: async () => {
      await Promise.all([client.close(), server.close()]);
      await listener.close();
    },
  };
}

async function eventsOf(session: MigrationSession): Promise<SessionEvent[]> {
  const events: SessionEvent[] = [];
  for await (const event of session.events()) events.push(event);
  return events;
}

test('acceptMigration() gives the name that the source gave', async () => {
  await using ends = await openEnds({ name: 'vm é' });
  expect(ends.destination.name).toBe('vm é');
  expect(ends.sourceSession.id).toBe(ends.destinationSession.id);
});

test('acceptMigration() rejects with the reason of its signal', async () => {
  await using sessions = await openSessions();
  const reason = new Error('enough');
  const waiting = sessions.server.acceptMigration({ signal: AbortSignal.abort(reason) });
  await expect(waiting).rejects.toBe(reason);
});

test('acceptMigration() rejects with what ended the session', async () => {
  await using sessions = await openSessions();
  const waiting = sessions.server.acceptMigration();
  sessions.client.fail(new PagelaneError('ERR_TEST', 'no more'));
  await expect(waiting).rejects.toMatchObject({ code: 'ERR_TEST', message: 'no more' });
});

test('events() tells the paths and the end, at both ends', async () => {
  await using sessions = await openSessions();
  const both = Promise.all([eventsOf(sessions.client), eventsOf(sessions.server)]);
  await sessions.client.addPath({ host: '127.0.0.1', port: sessions.listener.port });
  expect(sessions.client.pathReports()).toHaveLength(2);
  sessions.client.fail(new PagelaneError('ERR_TEST', 'no more'));
  for (const events of await both) {
    expect(events.map(({ type }) => type)).toEqual(['pathOpened', 'pathOpened', 'closed']);
    expect(events.at(-1)).toEqual({ type: 'closed', code: 'ERR_TEST', reason: 'no more' });
  }
});

test('ended settles without an error after a clean close', async () => {
  await using sessions = await openSessions();
  await sessions.client.close();
  expect([await sessions.client.ended, await sessions.server.ended]).toEqual([
    undefined,
    undefined,
  ]);
});

test('two migrations go over one session, one in each direction', async () => {
  await using sessions = await openSessions();
  const { client, server } = sessions;
  const stream = smallStream({ hasReturnPath: false });
  const directions = [
    { from: client, to: server },
    { from: server, to: client },
  ];
  const results = directions.map(async ({ from, to }) => {
    const source = from.openMigration();
    const destination = await to.acceptMigration();
    destination.resume();
    source.resume().end(stream);
    return [await source.result, await destination.result];
  });
  for (const result of (await Promise.all(results)).flat()) {
    expect(result).toMatchObject({ outcome: 'completed', streamBytes: stream.length });
  }
});

test('connect() and listen() refuse a count of threads that is none', async () => {
  const options = { security: SECURITY, threads: 0 };
  const text = 'Cannot use 0 threads: must be 1 to 256';
  await expect(listen({ ...options, host: '127.0.0.1', port: 0 })).rejects.toThrow(text);
  await expect(connect({ ...options, paths: [] })).rejects.toThrow(text);
});

test('a peer that sends what no migration has is told so, and the guest stays', async () => {
  await using ends = await openEnds();
  const rogue = Object.assign(new ProtocolError('ERR_MESSAGE', 'Source sent nonsense'));
  ends.destinationSession.fail(rogue);
  expect(await ends.source.result).toMatchObject({
    outcome: 'failed',
    guest: 'source',
    error: { code: 'ERR_MESSAGE', message: 'Source sent nonsense', phase: 'setup' },
  });
});

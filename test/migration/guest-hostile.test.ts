import { describe, expect, test } from 'vitest';
import { HEADER_BYTES } from '../../src/frame/limits.ts';
import {
  connect,
  encodeHandover,
  type HandoverMessage,
  type IncomingGuest,
  listen,
} from '../../src/index.ts';
import { encodeHeld, encodeOpenGuest, encodeRound } from '../../src/migration/guest-message.ts';
import { decodeHandover, HandoverKind } from '../../src/migration/handover-message.ts';
import { HASH_SECRET_BYTES, PAGE_HASH_BYTES } from '../../src/native.ts';
import { connectSession } from '../../src/session/connect.ts';
import type { Lane } from '../../src/session/lane.ts';
import { listenForSessions } from '../../src/session/listener.ts';
import * as message from '../../src/stream/message.ts';
import { openMemory, SmallGuest } from './guest-support.ts';

/*
 * A peer that has the key and says what it should not: the migration ends with an error that has a
 * code, and the guest runs at the source.
 */

const NONE = { host: '127.0.0.1', port: 0, security: { kind: 'none' }, threads: 2 } as const;
const BLOCKS = [300, 20];
const MIGRATION = '0123456789abcdef'.repeat(2);

type Encoded = message.EncodedMessage;

function say(lane: Lane, encoded: Encoded): void {
  lane.send({ ...encoded, isOrdered: true });
}

/** A message with some of its bytes changed, or what `change` returns of it. */
function bytes(encoded: Encoded, change: (payload: Uint8Array) => unknown): Encoded {
  const payload = encoded.buffer.slice(encoded.start, encoded.end);
  const changed = change(payload);
  return raw(changed instanceof Uint8Array && changed.length < payload.length ? changed : payload);
}

function raw(payload: Uint8Array | readonly number[]): Encoded {
  const buffer = new Uint8Array(HEADER_BYTES + payload.length);
  buffer.set(payload, HEADER_BYTES);
  return { buffer, start: HEADER_BYTES, end: buffer.length };
}

function put32(at: number, value: number): (payload: Uint8Array) => void {
  return (payload) => new DataView(payload.buffer).setUint32(at, value, true);
}

function held(changed: { block?: number; firstPage?: number; pageCount?: number } = {}): Encoded {
  const { block = 0, firstPage = 0, pageCount = 4 } = changed;
  const secret = new Uint8Array(HASH_SECRET_BYTES).fill(1);
  const hashes = new Uint8Array(pageCount * PAGE_HASH_BYTES).fill(2);
  return encodeHeld({ isLast: false, block, firstPage, pageCount, secret, hashes }, HEADER_BYTES);
}

const nothingHeld = (): Encoded =>
  encodeHeld(
    {
      isLast: true,
      block: 0,
      firstPage: 0,
      pageCount: 0,
      secret: new Uint8Array(HASH_SECRET_BYTES),
      hashes: new Uint8Array(0),
    },
    HEADER_BYTES,
  );

function failed(code: string): Encoded {
  const applied = { isApplied: false, guest: 'source', digest: 0n, code, message: 'No' } as const;
  return message.encodeApplied(applied, HEADER_BYTES);
}

/** What a destination answers to a kind of message; none is what an honest one would say. */
type Answers = Readonly<Record<number, readonly Encoded[]>>;

/** Answers the source as an honest destination does, but for what is given. */
function answer(lane: Lane, payload: Uint8Array, answers: Answers): void {
  const kind = payload[0]!;
  const given = answers[kind];
  if (given !== undefined) {
    for (const encoded of given) say(lane, encoded);
    return;
  }
  const word = (word: 'reserved' | 'ready' | 'active', id = MIGRATION): void =>
    say(lane, encodeHandover({ word, migration: id, attempt: 1 }, HEADER_BYTES));
  if (kind === HandoverKind.reserve) {
    known = decodeHandover(payload).migration;
    say(lane, message.encodeStore(0, HEADER_BYTES));
    word('reserved', known);
    say(lane, nothingHeld());
  } else if (kind === message.MessageKind.Round) say(lane, raw(payload));
  else if (kind === message.MessageKind.End) word('ready', known);
  else if (kind === HandoverKind.commit) word('active', known);
}

let known = MIGRATION;

/** Migrates a guest to a destination that answers like that. */
async function migrateTo(answers: Answers) {
  await using listener = await listenForSessions(NONE);
  const path = { host: NONE.host, port: listener.port };
  const accepted = listener.accept();
  await using source = await connect({ ...NONE, paths: [path] });
  const session = await accepted;
  session.acceptLane().then((lane) => {
    lane.onMessage = (incoming) => {
      answer(lane, incoming.payload, answers);
      incoming.release();
    };
  });
  using memory = openMemory(BLOCKS);
  const guest = new SmallGuest(memory, 1);
  guest.write(200);
  const calls: string[] = [];
  const result = await source.migrateGuest({
    source: memory,
    dirtyLog: guest.dirtyLog,
    downtimeMs: 100,
    pause: () => void calls.push('pause'),
    resume: () => void calls.push('resume'),
    discard: () => void calls.push('discard'),
  });
  return { result, calls };
}

describe('a destination that does not keep to the protocol', () => {
  test('is not this one, which answers as it should', async () => {
    const { result, calls } = await migrateTo({});
    expect(result).toMatchObject({ outcome: 'completed', guest: 'destination' });
    expect(calls).toEqual(['pause', 'discard']);
  });

  const store = message.encodeStore(0, HEADER_BYTES);
  test.each<[string, ...Encoded[]]>([
    ['holds pages of a block that there is not', held({ block: 2 })],
    ['holds pages beyond a block', held({ firstPage: 297 })],
    ['holds pages far beyond', held({ firstPage: Number.MAX_SAFE_INTEGER })],
    ['has a list without its hashes', bytes(held(), (payload) => payload.subarray(0, -1))],
    ['has a list of too many pages', bytes(held(), put32(4, 1_000_000))],
    ['has a list of more than its hashes', bytes(held(), put32(4, 5))],
    ['has a list with flags of its own', bytes(held(), (payload) => void payload.fill(7, 1, 2))],
    ['has a list of one byte', raw([message.MessageKind.Held])],
    ['states its store twice', store],
    ['states its store in half', bytes(store, (payload) => payload.subarray(0, 3))],
    ['has applied a round that was not sent', encodeRound(77, HEADER_BYTES)],
    ['has applied round 0', bytes(encodeRound(1, HEADER_BYTES), put32(4, 0))],
    ['has failed', failed('ERR_THERE')],
    ['sends blocks', raw([message.MessageKind.Blocks, 1, 2, 3])],
    ['sends pages', raw([message.MessageKind.Pages, 1, 2, 3])],
    ['sends what there is not', raw([99])],
    ['breaks off a word of the hand-over', raw([HandoverKind.active, 0, 0])],
    ['holds more than its last word said', nothingHeld(), held()],
  ])('%s', async (_, ...wrong) => {
    const { result, calls } = await migrateTo({
      [message.MessageKind.Blocks]: [store, ...wrong],
    });
    expect(result).toMatchObject({ outcome: 'failed', guest: 'source' });
    expect(result.error?.code).toMatch(/^ERR_(MESSAGE|THERE)$/);
    expect(calls).toEqual(['resume']);
  });

  test('applies another round than was sent', async () => {
    const { result, calls } = await migrateTo({
      [message.MessageKind.Round]: [encodeRound(2, HEADER_BYTES)],
    });
    expect(result).toMatchObject({ guest: 'source', error: { code: 'ERR_MESSAGE' } });
    expect(calls).toEqual(['resume']);
  });

  test.each([
    ['fails instead of getting ready', failed('ERR_THERE')],
    ['says nonsense instead of getting ready', raw([99])],
  ])('%s', async (_, wrong) => {
    const { result, calls } = await migrateTo({ [message.MessageKind.End]: [wrong] });
    expect(result).toMatchObject({ outcome: 'failed', guest: 'source' });
    expect(result.error?.code).toMatch(/^ERR_(MESSAGE|THERE)$/);
    expect(calls).toEqual(['pause', 'resume']);
  });
});

/** What a source says after it has announced its guest. */
async function receiveFrom(said: readonly Encoded[]) {
  await using listener = await listen(NONE);
  const accepted = listener.accept();
  const path = { host: NONE.host, port: listener.port };
  const session = await connectSession({ ...NONE, paths: [path] });
  const lane = session.openLane();
  lane.onMessage = (incoming) => incoming.release();
  await using destination = await accepted;
  using memory = openMemory(BLOCKS);
  const open = { name: 'vm', migration: MIGRATION, attempt: 1, isWarm: false };
  say(lane, encodeOpenGuest(open, HEADER_BYTES));
  say(lane, message.encodeBlocks(memory.layout, HEADER_BYTES));
  const incoming = (await destination.acceptGuest()) as IncomingGuest;
  const calls: string[] = [];
  const receiving = incoming.receive({
    memory,
    load: () => void calls.push('load'),
    start: () => void calls.push('start'),
    discard: () => void calls.push('discard'),
  });
  for (const encoded of said) say(lane, encoded);
  return { result: await receiving, calls };
}

function word(word: HandoverMessage['word'], changed = {}): Encoded {
  const fields = { migration: MIGRATION, attempt: 1, name: 'vm', code: 'ERR_WHY', message: 'Why' };
  return encodeHandover({ word, ...fields, ...changed } as HandoverMessage, HEADER_BYTES);
}

const STATE = { isInsideBefore: false, isInsideAfter: false, isVerbatim: true, lastBlock: -1 };

describe('a source that does not keep to the protocol', () => {
  const state = message.encodeBytes(new Uint8Array(100).fill(1), STATE, HEADER_BYTES);
  test.each([
    ['sends a batch of nothing', raw([message.MessageKind.Pages])],
    ['sends a batch of noise', raw(new Uint8Array(5000).fill(4))],
    ['ends round 0', bytes(encodeRound(1, HEADER_BYTES), put32(4, 0))],
    ['ends a round in half', raw([message.MessageKind.Round, 0, 0])],
    [
      'sends device state that was changed',
      bytes(state, (payload) => void payload.fill(2, 50, 51)),
    ],
    ['breaks off device state', bytes(state, (payload) => payload.subarray(0, 10))],
    ['has sent something else', message.encodeEnd(1n, HEADER_BYTES)],
    ['ends in half', raw([message.MessageKind.End, 0])],
    ['announces the guest again', raw([message.MessageKind.OpenGuest])],
    ['holds pages', held()],
    ['sends what there is not', raw([99])],
    ['breaks off a word of the hand-over', raw([HandoverKind.commit, 0, 0])],
    ['gives up', word('abort')],
  ])('%s', async (_, wrong) => {
    const { result, calls } = await receiveFrom([wrong]);
    expect(result).toMatchObject({ outcome: 'failed', guest: 'source' });
    expect(result.error?.code).toMatch(/^ERR_(MESSAGE|BATCH_\w+|MESSAGE_CHECKSUM|DIGEST|WHY)$/);
    expect(calls).toEqual(['discard']);
  });

  test('commits a guest that is not ready, and another one: neither is started', async () => {
    const other = { migration: 'f'.repeat(32) };
    const words = [word('commit'), word('commit', other), word('abort', other), word('abort')];
    const { result, calls } = await receiveFrom(words);
    expect(result).toMatchObject({ guest: 'source', error: { code: 'ERR_WHY' } });
    expect(calls).toEqual(['discard']);
  });

  test.each([
    ['a guest in half', [raw([message.MessageKind.OpenGuest, 123])]],
    ['a round', [encodeRound(1, HEADER_BYTES)]],
    ['nothing known', [raw([99])]],
    [
      'a guest without blocks',
      [
        encodeOpenGuest(
          { name: 'vm', migration: MIGRATION, attempt: 1, isWarm: false },
          HEADER_BYTES,
        ),
        encodeRound(1, HEADER_BYTES),
      ],
    ],
  ])('begins with %s', async (_, said) => {
    await using listener = await listen(NONE);
    const accepted = listener.accept();
    const path = { host: NONE.host, port: listener.port };
    const session = await connectSession({ ...NONE, paths: [path] });
    const lane = session.openLane();
    for (const encoded of said) say(lane, encoded);
    await using destination = await accepted;
    await expect(destination.acceptGuest()).rejects.toMatchObject({ code: 'ERR_MESSAGE' });
  });
});

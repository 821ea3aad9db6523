import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PagelaneError } from '../../src/errors.ts';
import { encodeFrame } from '../../src/frame/encode.ts';
import { FrameType } from '../../src/frame/header.ts';
import { encodeHello, encodeProof, Intent } from '../../src/frame/hello.ts';
import { PATHS_MAX } from '../../src/frame/limits.ts';
import { type Listener, listenForSessions } from '../../src/session/listener.ts';
import type { Session } from '../../src/session/session.ts';
import { createPrng, exactRandomBytes } from '../support/prng.ts';
import { WirePeer } from './wire.ts';

const HOST = { host: '127.0.0.1', port: 0, security: { kind: 'none' } } as const;

let listener: Listener;
let refusals: string[];
const peers: WirePeer[] = [];

async function listen(options: object = {}): Promise<void> {
  listener = await listenForSessions({ ...HOST, windowBytes: 64 * 1024, ...options });
  listener.onRefused = ({ code }: PagelaneError) => refusals.push(code);
}

async function peer(id?: Uint8Array): Promise<WirePeer> {
  const one = await WirePeer.connect(listener.port, id === undefined ? {} : { id });
  peers.push(one);
  return one;
}

/** A session that a peer has opened. */
async function open(): Promise<{ first: WirePeer; session: Session }> {
  const first = await peer();
  expect(await first.greet()).toBe('Welcome');
  return { first, session: await listener.accept() };
}

/** Another connection of the same peer. */
async function again(first: WirePeer): Promise<WirePeer> {
  const one = await peer(first.id);
  one.secret = first.secret;
  return one;
}

beforeEach(() => {
  refusals = [];
});

afterEach(async () => {
  for (const one of peers.splice(0)) one.destroy();
  await listener.close();
});

describe('A listener welcomes', () => {
  beforeEach(() => listen());

  test('who opens a session, and who joins it with the right proof', async () => {
    const { first, session } = await open();
    const second = await again(first);
    expect(await second.greet({ intent: Intent.Join })).toBe('Welcome');
    expect(session.pathReports().length).toBe(2);
    expect(listener.refused).toBe(0);
  });

  test('the best version that both know', async () => {
    const one = await peer();
    expect(await one.greet({ versions: [900, 7, 1, 2] })).toBe('Welcome');
  });

  test('sixteen paths, and not one more', async () => {
    const { first, session } = await open();
    for (let count = 1; count < PATHS_MAX; count++) {
      expect(await (await again(first)).greet({ intent: Intent.Join })).toBe('Welcome');
    }
    const extra = await again(first);
    expect(await extra.greet({ intent: Intent.Join })).toBe('Refuse ERR_SESSION_PATHS');
    expect(session.pathReports().length).toBe(PATHS_MAX);
    expect(refusals).toEqual(['ERR_SESSION_PATHS']);
  });

  test('one of two joins at once, where there is room for one', async () => {
    const { first, session } = await open();
    for (let count = 2; count < PATHS_MAX; count++) {
      expect(await (await again(first)).greet({ intent: Intent.Join })).toBe('Welcome');
    }
    const joining = [await again(first), await again(first)];
    const answers = await Promise.all(joining.map((one) => one.greet({ intent: Intent.Join })));
    expect(answers.sort()).toEqual(['Refuse ERR_SESSION_PATHS', 'Welcome']);
    expect(session.pathReports().length).toBe(PATHS_MAX);
  });

  test('two joins at once', async () => {
    const { first, session } = await open();
    const joining = [await again(first), await again(first)];
    const answers = await Promise.all(joining.map((one) => one.greet({ intent: Intent.Join })));
    expect(answers).toEqual(['Welcome', 'Welcome']);
    expect(session.pathReports().length).toBe(3);
  });

  test('one of two that open the same session at once', async () => {
    const one = await peer();
    const other = await peer(one.id);
    const answers = await Promise.all([one.greet(), other.greet()]);
    expect(answers.sort()).toEqual(['Refuse ERR_SESSION_EXISTS', 'Welcome']);
  });
});

describe('A listener refuses', () => {
  beforeEach(() => listen({ sessionsMax: 2 }));

  test.each([
    ['versions of which it knows none', { versions: [2, 3, 65535] }, 'ERR_PROTOCOL_VERSION'],
    ['to join a session that it does not know', { intent: Intent.Join }, 'ERR_SESSION_UNKNOWN'],
    ['a wrong proof', { mac: (mac: Uint8Array) => mac.with(31, mac[31]! ^ 1) }, 'ERR_HANDSHAKE'],
  ])('%s', async (_what, changes, code) => {
    const one = await peer();
    expect(await one.greet(changes)).toBe(`Refuse ${code}`);
    expect(await one.end()).toBe('closed');
    expect(refusals).toEqual([code]);
    expect(listener.refused).toBe(1);
    await open();
  });

  test('to join with a wrong proof, and the session lives on', async () => {
    const { first, session } = await open();
    const thief = await peer(first.id);
    thief.secret = new Uint8Array(32);
    expect(await thief.greet({ intent: Intent.Join })).toBe('Refuse ERR_HANDSHAKE');
    const replay = await again(first);
    const mac = (): Uint8Array => new Uint8Array(32);
    expect(await replay.greet({ intent: Intent.Join, mac })).toBe('Refuse ERR_HANDSHAKE');
    expect(session.pathReports().length).toBe(1);
    const honest = await again(first);
    expect(await honest.greet({ intent: Intent.Join })).toBe('Welcome');
  });

  test('to open a session that exists, which lives on', async () => {
    const { first, session } = await open();
    const other = await peer(first.id);
    expect(await other.greet()).toBe('Refuse ERR_SESSION_EXISTS');
    expect(session.pathReports().length).toBe(1);
  });

  test('more sessions than it may have, until one is over', async () => {
    const { session } = await open();
    await open();
    expect(await (await peer()).greet()).toBe('Refuse ERR_SESSION_LIMIT');
    await session.close();
    expect(await (await peer()).greet()).toBe('Welcome');
  });

  test('to join a session that is over', async () => {
    const { first, session } = await open();
    await session.close();
    const late = await again(first);
    expect(await late.greet({ intent: Intent.Join })).toBe('Refuse ERR_SESSION_UNKNOWN');
  });
});

const random = createPrng(3);
const hello = encodeFrame(FrameType.Hello, {
  payload: encodeHello({
    intent: Intent.New,
    versions: [1],
    id: exactRandomBytes(random, 16),
    nonce: exactRandomBytes(random, 32),
  }),
});
const proof = encodeFrame(FrameType.Proof, {
  payload: encodeProof({ mac: new Uint8Array(32), windowBytes: 65536 }),
});

describe('A listener drops rubbish', () => {
  beforeEach(() => listen());

  test.each([
    ['noise', [exactRandomBytes(random, 100)], 'ERR_FRAME_CHECK'],
    ['text', [Buffer.from('GET / HTTP/1.1\r\nHost: somewhere.example\r\n\r\n')], 'ERR_FRAME_CHECK'],
    ['TLS', [Uint8Array.of(0x16, 3, 1, 2, 0, 1, 0, 1)], 'ERR_PATH_SECURITY'],
    ['a frame of the session', [encodeFrame(FrameType.Ping)], 'ERR_FRAME_TYPE'],
    ['a Proof before Hello', [proof], 'ERR_HANDSHAKE'],
    ['a Welcome', [encodeFrame(FrameType.Welcome)], 'ERR_HANDSHAKE'],
    ['a Hello without content', [encodeFrame(FrameType.Hello)], 'ERR_HANDSHAKE'],
    ['a second Hello', [hello, hello], 'ERR_HANDSHAKE'],
    ['noise behind a Hello', [hello, exactRandomBytes(random, 64)], 'ERR_FRAME_CHECK'],
    ['Data behind a Hello', [hello, encodeFrame(FrameType.Goodbye)], 'ERR_FRAME_TYPE'],
    ['a Proof that nobody could make', [hello, proof], 'ERR_HANDSHAKE'],
  ])('before it knows who it is: %s', async (_what, parts, code) => {
    const { session } = await open();
    const one = await peer();
    for (const part of parts) one.send(part);
    expect(await one.end()).toBe(`Refuse ${code}`);
    expect(refusals).toEqual([code]);
    expect(session.pathReports().map(({ state }) => state)).toEqual(['open']);
  });

  test('a connection that is closed half way', async () => {
    const one = await peer();
    one.send(hello.subarray(0, 40));
    one.send(hello.subarray(40));
    expect((await one.next())?.header.type).toBe(FrameType.Challenge);
    one.destroy();
    await open();
    expect(refusals).toEqual(['ERR_PATH_LOST']);
  });
});

test('A listener drops who says nothing, or too little, in time', async () => {
  await listen({ handshakeTimeoutMs: 100 });
  const [mute, slow, unproved] = [await peer(), await peer(), await peer()];
  slow.send(hello.subarray(0, 33));
  unproved.send(hello);
  const ends = await Promise.all([mute, slow, unproved].map((one) => one.end()));
  expect(ends).toEqual(Array(3).fill('closed'));
  expect(refusals).toEqual(Array(3).fill('ERR_PATH_TIMEOUT'));
});

describe('A session ends with a peer that breaks the protocol:', () => {
  beforeEach(() => listen());

  test.each([
    ['noise', 'ERR_FRAME_CHECK', (one: WirePeer) => one.send(exactRandomBytes(random, 64))],
    ['a frame of the handshake', 'ERR_FRAME_TYPE', (one: WirePeer) => one.send(hello)],
    [
      'an ack of what was never sent',
      'ERR_FRAME_SEQUENCE',
      (one: WirePeer) => one.send(encodeFrame(FrameType.Ack, { sequence: 1 })),
    ],
    [
      'credit for a lane that nobody opened',
      'ERR_FRAME_LANE',
      (one: WirePeer) => one.send(encodeFrame(FrameType.Credit, { lane: 2, sequence: 1 })),
    ],
    [
      'data on a lane of ours that we did not open',
      'ERR_FRAME_LANE',
      (one: WirePeer) => one.sendData({ sequence: 0, lane: 1 }),
    ],
    [
      'more than its credit',
      'ERR_WINDOW_EXCEEDED',
      (one: WirePeer) => one.sendData({ sequence: 0, bytes: 64 * 1024 + 1 }),
    ],
    [
      'a sequence far ahead',
      'ERR_WINDOW_EXCEEDED',
      (one: WirePeer) => one.sendData({ sequence: 2 ** 52 }),
    ],
    [
      'epochs that fall',
      'ERR_FRAME_EPOCH',
      (one: WirePeer) => {
        for (const [sequence, epoch] of [
          [0, 0],
          [1, 1],
          [2, 0],
        ] as const) {
          one.sendData({ sequence, epoch });
        }
      },
    ],
  ])('%s', async (_what, code, misbehave) => {
    const { first, session } = await open();
    const bystander = await open();
    misbehave(first);
    expect(await session.ended).toMatchObject({ code });
    expect(await first.end()).toBe(`Close ${code}`);
    expect(bystander.session.pathReports().map(({ state }) => state)).toEqual(['open']);
    expect(listener.refused).toBe(0);
  });

  test('but not with one path of several that is closed, on purpose or not', async () => {
    const { first, session } = await open();
    const [second, third] = [await again(first), await again(first)];
    for (const one of [second, third]) await one.greet({ intent: Intent.Join });
    second.send(encodeFrame(FrameType.Goodbye));
    expect(await second.end()).toBe('closed');
    third.destroy();
    const events = session.events();
    const codes: string[] = [];
    for await (const event of events) {
      if (event.type === 'pathLost') codes.push(event.code);
      if (codes.length === 2) break;
    }
    expect(codes.sort()).toEqual(['ERR_PATH_CLOSED', 'ERR_PATH_LOST']);
    expect(session.pathReports().filter(({ state }) => state === 'open').length).toBe(1);
    first.sendData({ sequence: 0, bytes: 5 });
    expect((await session.acceptLane()).id).toBe(0);
  });
});

import { beforeEach, describe, expect, test } from 'vitest';
import { PATHS_MAX } from '../../src/frame/limits.ts';
import { JOIN_FAULTS_MS } from '../../src/session/limits.ts';
import type { Session } from '../../src/session/session.ts';
import { createPrng, exactRandomBytes, integerBelow } from '../support/prng.ts';
import { Desk, MemoryPeer } from './hostile-peer.ts';

/** How many joins of each kind are tried; none of them may come in. */
const JOINS = 10_000;

/** A session, and what its peer knows. */
interface Known {
  readonly id: Uint8Array;
  readonly secret: Uint8Array;
  readonly session: Session;
}

let random: () => number;
let desk: Desk;
/** The one that is attacked, and one that has nothing to do with it. */
let target: Known;
let bystander: Known;

function open(): Known {
  const id = exactRandomBytes(random, 16);
  const peer = new MemoryPeer(desk, { random });
  expect(peer.greet({ id })).toBe('Welcome');
  return { id, secret: peer.secret!, session: desk.sessions.at(-1)! };
}

function join({ id, secret }: Known): string {
  return new MemoryPeer(desk, { random }).greet({ id, secret });
}

const openPaths = ({ session }: Known): number =>
  session.pathReports().filter(({ state }) => state === 'open').length;

beforeEach(() => {
  random = createPrng(7);
  desk = new Desk();
  target = open();
  bystander = open();
});

/** A kind of wrong join: makes one, and says what it was answered. */
type WrongJoin = (network: string) => string;

function randomMac(network: string): string {
  const peer = new MemoryPeer(desk, { random, network });
  return peer.greet({ ...target, changeMac: () => exactRandomBytes(random, 32) });
}

function macWithOneBitWrong(network: string): string {
  const bit = integerBelow(random, 256);
  const changeMac = (mac: Uint8Array): Uint8Array =>
    mac.with(bit >> 3, mac[bit >> 3]! ^ (1 << (bit & 7)));
  return new MemoryPeer(desk, { random, network }).greet({ ...target, changeMac });
}

function guessedSecret(network: string): string {
  const secret = exactRandomBytes(random, 32);
  return new MemoryPeer(desk, { random, network }).greet({ ...target, secret });
}

function secretOfAnother(network: string): string {
  const { secret } = bystander;
  return new MemoryPeer(desk, { random, network }).greet({ ...target, secret });
}

function proofOfSomethingElse(network: string): string {
  const label = random() < 0.5 ? 'new' : 'welcome';
  return new MemoryPeer(desk, { random, network }).greet({ ...target, label });
}

/** The owner's own join, its two frames as they were, on another connection. */
function replayed(network: string): string {
  const exporter = new Uint8Array(32);
  const good = new MemoryPeer(desk, { random, exporter });
  expect(good.greet(target)).toBe('Welcome');
  good.link.destroy();
  good.link.handlers.onClosed(undefined);
  const replay = new MemoryPeer(desk, { random, exporter, network });
  for (const bytes of good.sent) replay.send(bytes);
  return replay.answer;
}

/** The owner speaks to somebody in between, who passes every frame on over TLS of its own. */
function relayed(network: string): string {
  const exporterHere = exactRandomBytes(random, 32);
  return new MemoryPeer(desk, { random, exporterHere, network }).greet(target);
}

const KINDS: readonly [string, WrongJoin][] = [
  ['random proof', randomMac],
  ['proof in which one bit is wrong', macWithOneBitWrong],
  ['guessed secret', guessedSecret],
  ['secret of another session', secretOfAnother],
  ['proof of something else', proofOfSomethingElse],
  ['recorded join', replayed],
  ['relayed join', relayed],
];

describe.each(KINDS)('A join by a %s', (_what, wrongJoin) => {
  test(`is refused: ${JOINS} of them, from as many networks`, () => {
    const answers = new Map<string, number>();
    for (let index = 0; index < JOINS; index++) {
      const answer = wrongJoin(`network ${index}`);
      answers.set(answer, (answers.get(answer) ?? 0) + 1);
    }
    expect([...answers]).toEqual([['Refuse ERR_HANDSHAKE', JOINS]]);
    expect([openPaths(target), openPaths(bystander)]).toEqual([1, 1]);
    expect([join(target), join(bystander)]).toEqual(['Welcome', 'Welcome']);
  });

  test('is not looked at any more after three from one network, for a while', () => {
    const answers = Array.from({ length: 10 }, () => wrongJoin('evil'));
    expect(answers.slice(0, 3)).toEqual(Array(3).fill('Refuse ERR_HANDSHAKE'));
    expect(answers.slice(3)).toEqual(Array(7).fill('Refuse ERR_SESSION_JOINS'));
    desk.nowMs += JOIN_FAULTS_MS;
    expect(wrongJoin('evil')).toBe('Refuse ERR_HANDSHAKE');
    expect([join(target), join(bystander)]).toEqual(['Welcome', 'Welcome']);
  });
});

describe('A join that comes late', () => {
  test(`is refused: ${JOINS} of them, after the session has ended`, async () => {
    target.session.close();
    await target.session.ended;
    for (let index = 0; index < JOINS; index++) {
      const peer = new MemoryPeer(desk, { random, network: `network ${index}` });
      expect(peer.greet(target)).toBe('Refuse ERR_SESSION_UNKNOWN');
    }
    expect(join(bystander)).toBe('Welcome');
  });

  test('is refused when the session ends between Hello and Proof', async () => {
    const peer = new MemoryPeer(desk, { random });
    peer.hello(target);
    target.session.close();
    await target.session.ended;
    peer.prove(target);
    expect(peer.answer).toBe('Refuse ERR_SESSION_UNKNOWN');
    expect(openPaths(bystander)).toBe(1);
  });

  test('does not get into another session that has taken the name meanwhile', async () => {
    const peer = new MemoryPeer(desk, { random });
    peer.hello(target);
    target.session.close();
    await target.session.ended;
    expect(new MemoryPeer(desk, { random }).greet({ id: target.id })).toBe('Welcome');
    const successor = desk.sessions.at(-1)!;
    peer.prove(target);
    expect(peer.answer).toBe('Refuse ERR_SESSION_UNKNOWN');
    expect(successor.pathReports().length).toBe(1);
  });
});

describe('A Hello', () => {
  test(`cannot open a session that exists: ${JOINS} tries`, () => {
    for (let index = 0; index < JOINS; index++) {
      const peer = new MemoryPeer(desk, { random, network: `network ${index}` });
      expect(peer.greet({ id: target.id })).toBe('Refuse ERR_SESSION_EXISTS');
    }
    expect(desk.reception.sessionCount).toBe(2);
    expect(join(target)).toBe('Welcome');
  });

  test('cannot open a session that began to exist before its Proof', () => {
    const id = exactRandomBytes(random, 16);
    const [one, other] = [new MemoryPeer(desk, { random }), new MemoryPeer(desk, { random })];
    for (const peer of [one, other]) peer.hello({ id });
    for (const peer of [one, other]) peer.prove({ id });
    expect([one.answer, other.answer]).toEqual(['Welcome', 'Refuse ERR_SESSION_EXISTS']);
  });

  test.each([
    ['again', (peer: MemoryPeer) => peer.hello(target)],
    ['again, as another one', (peer: MemoryPeer) => peer.hello(bystander)],
    ['again, for a new session', (peer: MemoryPeer) => peer.hello({ id: new Uint8Array(16) })],
  ])('is not taken %s on the same connection', (_what, repeat) => {
    const peer = new MemoryPeer(desk, { random });
    peer.hello(target);
    repeat(peer);
    expect(peer.answer).toBe('Refuse ERR_HANDSHAKE');
    peer.prove(target);
    expect(openPaths(target)).toBe(1);
  });
});

test('A join is refused where all paths, or all connections, are taken', () => {
  for (let paths = 1; paths < PATHS_MAX; paths++) expect(join(target)).toBe('Welcome');
  expect(join(target)).toBe('Refuse ERR_SESSION_PATHS');
  desk = new Desk({ connectionsMax: 2 });
  target = open();
  expect(join(target)).toBe('Welcome');
  expect(join(target)).toBe('Refuse ERR_CONNECTION_LIMIT');
  const stranger = new MemoryPeer(desk, { random });
  expect(stranger.greet({ id: new Uint8Array(16) })).toBe('Refuse ERR_CONNECTION_LIMIT');
});

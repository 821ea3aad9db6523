import { describe, expect, test } from 'vitest';
import { PagelaneError } from '../../src/errors.ts';
import { FrameDecoder } from '../../src/frame/decode.ts';
import { encodeFrame } from '../../src/frame/encode.ts';
import { encodeHeader, FLAG_FIN, FrameType, nameOf, type Stage } from '../../src/frame/header.ts';
import { encodeChallenge, encodeHello, encodeProof, Intent } from '../../src/frame/hello.ts';
import { HEADER_BYTES } from '../../src/frame/limits.ts';
import { encodeOffer } from '../../src/frame/offer.ts';
import { encodeReason } from '../../src/frame/reason.ts';
import { runClientHandshake } from '../../src/session/handshake.ts';
import { Session } from '../../src/session/session.ts';
import { mendChecks } from '../fuzz/mend.ts';
import { ByteLink } from '../support/byte-link.ts';
import { createPrng } from '../support/prng.ts';
import { Desk, MemoryPeer } from './hostile-peer.ts';
import { sendFilled } from './support.ts';

const WINDOW_BYTES = 64 * 1024;
const CLOCK = { now: () => 0, after: () => () => {} };

/** Fields of a header: where, how many bytes, and what a wrong value is called. */
const FIELDS = {
  flags: { at: 1, bytes: 1, code: 'ERR_FRAME_FLAGS' },
  lane: { at: 2, bytes: 2, code: 'ERR_FRAME_LANE' },
  length: { at: 4, bytes: 4, code: 'ERR_FRAME_LENGTH' },
  sequence: { at: 8, bytes: 8, code: 'ERR_FRAME_SEQUENCE' },
  epoch: { at: 16, bytes: 8, code: 'ERR_FRAME_EPOCH' },
  zero: { at: 24, bytes: 4, code: 'ERR_FRAME_FLAGS' },
} as const;
type Field = keyof typeof FIELDS;

const NUMBER_MAX = 2n ** 53n - 1n;

/** The largest value of each field, by type, as docs/protocol.md has it; what is absent is 0. */
const LIMITS: Readonly<Record<keyof typeof FrameType, Partial<Record<Field, bigint>>>> = {
  Hello: { length: 1024n },
  Challenge: { length: 1024n },
  Proof: { length: 1024n },
  Welcome: { length: 1024n },
  Refuse: { length: 1024n },
  Data: { flags: 1n, lane: 7n, length: 1n << 21n, sequence: NUMBER_MAX, epoch: NUMBER_MAX },
  Ack: { sequence: NUMBER_MAX },
  Credit: { lane: 7n, sequence: NUMBER_MAX },
  Ping: { sequence: NUMBER_MAX },
  Pong: { sequence: NUMBER_MAX },
  Goodbye: {},
  Close: { length: 1024n },
  Offer: { length: 1024n },
};
const TYPES = Object.keys(LIMITS) as (keyof typeof FrameType)[];

const stageOf = (type: number): Stage => (type < FrameType.Data ? 'handshake' : 'session');

/** The edges of a field that has `bytes` bytes and goes up to `max`. */
function edgesOf(bytes: number, max: bigint): bigint[] {
  const edges = [0n, 1n, max, max + 1n, 1n << 31n, (1n << 32n) - 1n, 1n << 53n, 1n << 63n];
  const end = 1n << BigInt(8 * bytes);
  return [...new Set([...edges, end - 1n])].filter((value) => value < end);
}

/** A header in which each field has the value it is told, whatever that may be. */
function rawHeader(type: number, values: Partial<Record<Field, bigint>>): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  bytes[0] = type;
  for (const [name, value] of Object.entries(values)) {
    const { at, bytes: width } = FIELDS[name as Field];
    for (let index = 0; index < width; index++) {
      bytes[at + index] = Number((value >> BigInt(8 * index)) & 0xffn);
    }
  }
  return mendChecks(bytes);
}

interface Decoded {
  readonly outcome: string;
  readonly allocatedBytes: number;
}

function decode(bytes: Uint8Array, stage: Stage): Decoded {
  let allocatedBytes = 0;
  const decoder = new FrameDecoder({
    allocate: (length) => {
      allocatedBytes += length;
      return new Uint8Array(length);
    },
    onFrame: () => {},
  });
  decoder.stage = stage;
  try {
    decoder.push(bytes);
  } catch (error) {
    if (!(error instanceof PagelaneError)) throw error;
    return { outcome: error.code, allocatedBytes };
  }
  return { outcome: 'taken', allocatedBytes };
}

describe.each(TYPES)('A header of %s', (name) => {
  const type = FrameType[name];
  const limits = LIMITS[name];

  test.each(Object.keys(FIELDS) as Field[])('is held to the limit of its %s', (field) => {
    const { bytes, code } = FIELDS[field];
    const max = limits[field] ?? 0n;
    // An epoch is held to the sequence of its frame.
    const others = field === 'epoch' && max > 0n ? { sequence: max } : {};
    for (const value of edgesOf(bytes, max)) {
      const seen = decode(rawHeader(type, { ...others, [field]: value }), stageOf(type));
      const isTaken = value <= max;
      expect({ value, ...seen }).toEqual({
        value,
        outcome: isTaken ? 'taken' : code,
        allocatedBytes: isTaken && field === 'length' ? Number(value) : 0,
      });
    }
  });

  test('is not taken in the other stage, and asks for no memory there', () => {
    const other = stageOf(type) === 'session' ? 'handshake' : 'session';
    const length = limits.length ?? 0n;
    const seen = decode(rawHeader(type, { length }), other);
    expect(seen).toEqual({ outcome: 'ERR_FRAME_TYPE', allocatedBytes: 0 });
  });
});

/** A session of a server, with a lane of ours and one of the peer's on it. */
function makeSession(): { session: Session; link: ByteLink; allocated: () => number } {
  const common = { windowBytes: WINDOW_BYTES, peerWindowBytes: WINDOW_BYTES, clock: CLOCK };
  const id = new Uint8Array(16);
  const session = new Session({ ...common, id, role: 'server', resumeTimeoutMs: 0 });
  const link = new ByteLink();
  session.adopt(link);
  const { handlers } = link;
  let allocatedBytes = 0;
  const allocate = handlers.allocate.bind(handlers);
  handlers.allocate = (bytes) => {
    allocatedBytes += bytes;
    return allocate(bytes);
  };
  session.openLane();
  return { session, link, allocated: () => allocatedBytes };
}

/** Settles what happens in promises; says how the session is then. */
async function stateOf(session: Session): Promise<string> {
  const pending = Promise.resolve().then(() => 'goes on');
  const ended = session.ended.then((error) => error?.code ?? 'ends cleanly');
  return await Promise.race([ended, pending.then((state) => state)]);
}

/** Limits of numbers that a session knows better than the wire format does. */
const SESSION_LIMITS: readonly [keyof typeof FrameType, Field, bigint, string][] = [
  ['Data', 'sequence', 16383n, 'ERR_WINDOW_EXCEEDED'],
  ['Data', 'epoch', 16383n, 'ERR_WINDOW_EXCEEDED'],
  ['Data', 'length', BigInt(WINDOW_BYTES), 'ERR_WINDOW_EXCEEDED'],
  ['Ack', 'sequence', 0n, 'ERR_FRAME_SEQUENCE'],
  ['Credit', 'sequence', BigInt(WINDOW_BYTES), 'ERR_WINDOW_EXCEEDED'],
  ['Ping', 'sequence', NUMBER_MAX, 'none'],
  ['Pong', 'sequence', NUMBER_MAX, 'none'],
];

test.each(SESSION_LIMITS)('A session holds %s to a %s of %i', async (name, field, max, code) => {
  const { bytes, code: wireCode } = FIELDS[field];
  const wireMax = LIMITS[name][field]!;
  for (const value of edgesOf(bytes, max)) {
    const { session, link, allocated } = makeSession();
    // Credit is for the lane that we have opened.
    const values = { lane: name === 'Credit' ? 1n : 0n, [field]: value };
    if (field === 'epoch') Object.assign(values, { sequence: value });
    link.give(rawHeader(FrameType[name], values));
    const isWhole = field === 'length' && value > 0n && value <= wireMax;
    if (isWhole) link.give(new Uint8Array(Number(value)));
    const onWire = field === 'epoch' ? FIELDS.sequence.code : wireCode;
    const wanted = value <= max ? 'goes on' : value <= wireMax ? code : onWire;
    expect([value, await stateOf(session)]).toEqual([value, wanted]);
    expect(allocated()).toBe(isWhole ? Number(value) : 0);
  }
});

/** A frame of each type as an honest peer could send it, at some time. */
const FRAMES: Readonly<Record<keyof typeof FrameType, Uint8Array>> = {
  Hello: encodeFrame(FrameType.Hello, {
    payload: encodeHello({
      intent: Intent.New,
      versions: [1],
      id: new Uint8Array(16),
      nonce: new Uint8Array(32),
    }),
  }),
  Challenge: encodeFrame(FrameType.Challenge, {
    payload: encodeChallenge({ version: 1, nonce: new Uint8Array(32) }),
  }),
  Proof: encodeFrame(FrameType.Proof, {
    payload: encodeProof({ mac: new Uint8Array(32), windowBytes: WINDOW_BYTES }),
  }),
  Welcome: encodeFrame(FrameType.Welcome, {
    payload: encodeProof({ mac: new Uint8Array(32), windowBytes: WINDOW_BYTES }),
  }),
  Refuse: encodeFrame(FrameType.Refuse, {
    payload: encodeReason({ code: 'ERR_THEIRS', message: 'no' }),
  }),
  // The second of its lane: it waits for the first.
  Data: dataFrame(1),
  Ack: encodeFrame(FrameType.Ack),
  Credit: encodeFrame(FrameType.Credit, { lane: 0, sequence: 1 }),
  Ping: encodeFrame(FrameType.Ping),
  Pong: encodeFrame(FrameType.Pong),
  Goodbye: encodeFrame(FrameType.Goodbye),
  Close: encodeFrame(FrameType.Close, { payload: encodeReason({ code: '', message: '' }) }),
  Offer: encodeFrame(FrameType.Offer, { payload: encodeOffer({ addresses: [], port: 1 }) }),
};

function dataFrame(sequence: number, flags = 0): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + 1);
  const header = { type: FrameType.Data, flags, lane: 0, length: 1, sequence, epoch: sequence };
  encodeHeader(bytes, 0, header);
  return bytes;
}

/** What a server's handshake says to a frame. */
function tellServer(prepare: (peer: MemoryPeer) => void): (frame: Uint8Array) => string {
  return (frame) => {
    const peer = new MemoryPeer(new Desk(), { random: createPrng(1) });
    prepare(peer);
    const { length } = peer.link.sent;
    peer.link.give(frame);
    const answers = peer.link.sent.length - length;
    if (answers === 0) return peer.link.state === 'open' ? 'nothing' : 'dropped';
    return peer.answer.replace('Refuse ', '');
  };
}

/** What a client's handshake makes of a frame. */
function tellClient(prepare: (link: ByteLink) => void): (frame: Uint8Array) => Promise<string> {
  return async (frame) => {
    const link = new ByteLink();
    const id = new Uint8Array(16);
    const parts = { link, id, exporter: new Uint8Array(32), windowBytes: WINDOW_BYTES };
    let isWelcome = false;
    const running = runClientHandshake(
      { ...parts, isSecure: false, clock: CLOCK, timeoutMs: 1 },
      () => {
        isWelcome = true;
      },
    );
    const failed = running.then(
      () => 'welcome',
      (error) => error.code as string,
    );
    prepare(link);
    const { length } = link.sent;
    link.give(frame);
    expect(isWelcome).toBe(false);
    if (link.sent.length > length) return link.sentNames().at(-1)!;
    return await failed;
  };
}

function tellSession(prepare: (session: Session, link: ByteLink) => void) {
  return async (frame: Uint8Array): Promise<string> => {
    const { session, link } = makeSession();
    prepare(session, link);
    const before = await stateOf(session);
    link.give(frame);
    const after = await stateOf(session);
    return before === after ? 'no change' : after;
  };
}

/** What comes of each frame: of those of the handshake, and of those of a session. */
interface Outcomes {
  readonly handshake: string;
  readonly session: string;
  /** Those of which something else comes. */
  readonly but?: Partial<Record<keyof typeof FrameType, string>>;
}

interface State {
  readonly name: string;
  readonly tell: (frame: Uint8Array) => string | Promise<string>;
  readonly outcomes: Outcomes;
}

const GREETING: Outcomes = { handshake: 'ERR_HANDSHAKE', session: 'ERR_FRAME_TYPE' };
const SESSION: Outcomes = {
  handshake: 'ERR_FRAME_TYPE',
  session: 'no change',
  but: { Goodbye: 'ERR_PATHS_EXHAUSTED', Close: 'ends cleanly', Credit: 'ERR_FRAME_LANE' },
};

/** Every state of both ends, and what each type of frame does there. */
const STATES: readonly State[] = [
  {
    name: 'a server that waits for Hello',
    tell: tellServer(() => {}),
    outcomes: { ...GREETING, but: { Hello: 'Challenge' } },
  },
  {
    name: 'a server that waits for Proof',
    tell: tellServer((peer) => peer.hello({ id: new Uint8Array(16) })),
    outcomes: GREETING,
  },
  {
    name: 'a server that has refused',
    tell: tellServer((peer) => peer.link.give(FRAMES.Proof)),
    outcomes: { handshake: 'dropped', session: 'dropped' },
  },
  {
    name: 'a client that waits for Challenge',
    tell: tellClient(() => {}),
    outcomes: { ...GREETING, but: { Challenge: 'Proof', Refuse: 'ERR_THEIRS' } },
  },
  {
    name: 'a client that waits for Welcome',
    tell: tellClient((link) => link.give(FRAMES.Challenge)),
    outcomes: { ...GREETING, but: { Refuse: 'ERR_THEIRS' } },
  },
  { name: 'a session', tell: tellSession(() => {}), outcomes: SESSION },
  {
    name: 'a session with a lane of the peer',
    tell: tellSession((_session, link) => link.give(dataFrame(0))),
    outcomes: { ...SESSION, but: { ...SESSION.but, Credit: 'no change' } },
  },
  {
    name: 'a session with a lane that has ended',
    tell: tellSession((_session, link) => link.give(dataFrame(0, FLAG_FIN))),
    outcomes: {
      ...SESSION,
      but: { ...SESSION.but, Credit: 'no change', Data: 'ERR_FRAME_SEQUENCE' },
    },
  },
  {
    name: 'a session that is closing',
    tell: tellSession((session) => {
      sendFilled(session.openLane(), 1);
      session.close();
    }),
    outcomes: SESSION,
  },
  {
    name: 'a session that is over',
    tell: tellSession((session) => session.fail(new PagelaneError('ERR_OURS', ''))),
    outcomes: { handshake: 'no change', session: 'no change' },
  },
];

describe.each(STATES)('To $name comes', ({ tell, outcomes }) => {
  test.each(TYPES)('%s', async (name) => {
    const usual = outcomes[stageOf(FrameType[name])];
    expect(await tell(FRAMES[name])).toBe(outcomes.but?.[name] ?? usual);
  });
});

test('Every type of frame is in the tables', () => {
  expect(TYPES).toEqual(Object.values(FrameType).map(nameOf));
});

import { expect, test } from 'vitest';
import type { Clock } from '../../src/clock.ts';
import { PagelaneError } from '../../src/errors.ts';
import { encodeFrame } from '../../src/frame/encode.ts';
import { FrameType } from '../../src/frame/header.ts';
import {
  decodeChallenge,
  decodeHello,
  decodeProof,
  encodeChallenge,
  encodeHello,
  encodeProof,
  Intent,
} from '../../src/frame/hello.ts';
import { decodeReason, encodeReason } from '../../src/frame/reason.ts';
import { runClientHandshake, runServerHandshake } from '../../src/session/handshake.ts';
import { isSameMac, proofMac, sessionSecret } from '../../src/session/proof.ts';
import { ByteLink } from '../support/byte-link.ts';
import { createPrng, exactRandomBytes, integerBelow } from '../support/prng.ts';
import { mendChecks } from './mend.ts';
import { cutAtRandom, FIRST_SEED, mutate, ROUNDS } from './mutate.ts';

const CLOCK = { now: () => 0, after: () => () => {} };
const EXPORTER = new Uint8Array(32).fill(7);
const ID = new Uint8Array(16).fill(9);

/** Tells, of something that throws, the code; everything but our own errors goes through. */
function codeOfCall(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    if (!(error instanceof PagelaneError)) throw error;
    return error.code;
  }
  return 'none';
}

function damaged(frame: Uint8Array, random: () => number): Uint8Array {
  if (random() < 0.3) return frame;
  const bytes = mutate(frame, random);
  return random() < 0.8 ? mendChecks(bytes) : bytes;
}

/** Where the first frame ends; damage may have left more behind it. */
function firstEnd(bytes: Uint8Array): number {
  return 32 + new DataView(bytes.buffer).getUint32(4, true);
}

/** Whether the frame behind the first one carries `mac`. */
function carriesMac(first: Uint8Array, second: Uint8Array, mac: Uint8Array): boolean {
  const at = firstEnd(first) + 32;
  return isSameMac(new Uint8Array(Buffer.concat([first, second])).subarray(at, at + 32), mac);
}

interface ServerRun {
  readonly answers: string[];
  readonly isProved: boolean;
  readonly isFinished: boolean;
  readonly isMacRight: boolean;
}

/** One server, and a client that is right but for damage on the way. */
function runServer(seed: number): ServerRun {
  const random = createPrng(seed);
  const link = new ByteLink();
  let isProved = false;
  let finishes = 0;
  runServerHandshake({
    link,
    exporter: EXPORTER,
    windowBytes: 1 << 20,
    clock: CLOCK,
    admit: () => undefined,
    prepare: () => {
      isProved = true;
      // A session would take the link over; what follows is none of the handshake's.
      return () => link.end();
    },
    onFinished: () => {
      finishes++;
    },
  });
  const nonce = exactRandomBytes(random, 32);
  const hello = encodeHello({ intent: Intent.New, versions: [1], id: ID, nonce });
  const first = damaged(encodeFrame(FrameType.Hello, { payload: hello }), random);
  for (const chunk of cutAtRandom(first, random, 60)) link.give(chunk);
  const [challenge] = link.sent;
  let isMacRight = false;
  if (challenge?.header.type === FrameType.Challenge) {
    const serverNonce = decodeChallenge(challenge.payload).nonce;
    const seen = decodeHello(first.subarray(32, firstEnd(first)));
    const transcript = { id: seen.id, clientNonce: seen.nonce, serverNonce, exporter: EXPORTER };
    const mac = proofMac(sessionSecret(transcript), 'new', transcript);
    const proof = encodeProof({ mac, windowBytes: 1 << 20 });
    const second = damaged(encodeFrame(FrameType.Proof, { payload: proof }), random);
    for (const chunk of cutAtRandom(second, random, 60)) link.give(chunk);
    isMacRight = carriesMac(first, second, mac);
  }
  expect(finishes, `onFinished of seed ${seed}`).toBeLessThanOrEqual(1);
  return { answers: link.sentNames(), isProved, isFinished: finishes === 1, isMacRight };
}

test(`a server trusts nobody whose proof is wrong: ${ROUNDS} rounds`, () => {
  const answers = new Map<string, number>();
  for (let round = 0; round < ROUNDS; round++) {
    const seed = FIRST_SEED + round;
    const run = runServer(seed);
    const said = run.answers.join(' ');
    answers.set(said, (answers.get(said) ?? 0) + 1);
    expect({ seed, isProved: run.isProved && !run.isMacRight }).toEqual({ seed, isProved: false });
    // It either waits for more, has refused, or has welcomed: and says so once.
    const isOver = said.endsWith('Welcome') || said.endsWith('Refuse');
    expect({ seed, isOver, said }).toEqual({ seed, isOver: run.isFinished, said });
  }
  const known = ['', 'Refuse', 'Challenge', 'Challenge Refuse', 'Challenge Welcome'];
  expect([...answers.keys()].filter((said) => !known.includes(said))).toEqual([]);
  expect(answers.size).toBe(known.length);
});

/** One client, and a server that is right but for damage on the way. */
async function runClient(seed: number): Promise<{ outcome: string; isMacRight: boolean }> {
  const random = createPrng(seed);
  const link = new ByteLink();
  let outcome = 'waits';
  let expire = (): void => {};
  const clock: Clock = {
    now: () => 0,
    after: (_delayMs, callback) => {
      expire = callback;
      return () => {};
    },
  };
  const running = runClientHandshake(
    {
      link,
      exporter: EXPORTER,
      id: ID,
      windowBytes: 1 << 20,
      isSecure: true,
      clock,
      timeoutMs: 1,
    },
    () => {
      outcome = 'welcomed';
    },
  ).catch((error: unknown) => {
    if (!(error instanceof PagelaneError)) throw error;
    outcome = error.code;
  });
  const serverNonce = exactRandomBytes(random, 32);
  const challenge = encodeChallenge({ version: 1, nonce: serverNonce });
  const first = damaged(encodeFrame(FrameType.Challenge, { payload: challenge }), random);
  for (const chunk of cutAtRandom(first, random, 60)) link.give(chunk);
  let isMacRight = false;
  const hello = decodeHello(link.sent[0]!.payload);
  if (link.sent[1]?.header.type === FrameType.Proof) {
    const { nonce } = decodeChallenge(first.subarray(32, firstEnd(first)));
    const transcript = { id: ID, clientNonce: hello.nonce, serverNonce: nonce, exporter: EXPORTER };
    const mac = proofMac(sessionSecret(transcript), 'welcome', transcript);
    const welcome = encodeFrame(FrameType.Welcome, {
      payload: encodeProof({ mac, windowBytes: 1 << 20 }),
    });
    const second = damaged(welcome, random);
    for (const chunk of cutAtRandom(second, random, 60)) link.give(chunk);
    isMacRight = carriesMac(first, second, mac);
  }
  expire();
  await running;
  expect(link.state, `link of seed ${seed}`).toBe(outcome === 'welcomed' ? 'open' : 'destroyed');
  return { outcome, isMacRight };
}

test(`a client trusts no server whose proof is wrong: ${ROUNDS} rounds`, async () => {
  const outcomes = new Map<string, number>();
  for (let round = 0; round < ROUNDS; round++) {
    const seed = FIRST_SEED + round;
    const { outcome, isMacRight } = await runClient(seed);
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    const isWrong = outcome === 'welcomed' && !isMacRight;
    expect({ seed, isWrong }).toEqual({ seed, isWrong: false });
    expect(outcome).toMatch(/^(welcomed|ERR_[A-Z_]+)$/);
  }
  for (const wanted of ['welcomed', 'ERR_HANDSHAKE', 'ERR_PATH_TIMEOUT', 'ERR_FRAME_CHECK']) {
    expect(outcomes.get(wanted), wanted).toBeGreaterThan(0);
  }
});

/** Payloads, each with its decoder, and its encoder where one form is the only one. */
const PAYLOADS = {
  Hello: {
    make: (random: () => number) => {
      const versions = Array.from({ length: 1 + integerBelow(random, 8) }, (_, at) => at);
      const nonce = exactRandomBytes(random, 32);
      return encodeHello({ intent: Intent.Join, versions, id: ID, nonce });
    },
    again: (bytes: Uint8Array) => encodeHello(decodeHello(bytes)),
  },
  Challenge: {
    make: (random: () => number) =>
      encodeChallenge({ version: 1, nonce: exactRandomBytes(random, 32) }),
    again: (bytes: Uint8Array) => encodeChallenge(decodeChallenge(bytes)),
  },
  Proof: {
    make: (random: () => number) =>
      encodeProof({ mac: exactRandomBytes(random, 32), windowBytes: 1 << 20 }),
    again: (bytes: Uint8Array) => encodeProof(decodeProof(bytes)),
  },
} as const;

test.each(Object.entries(PAYLOADS))(
  `%s is refused or comes back the same: ${ROUNDS} rounds`,
  (_name, { make, again }) => {
    const codes = new Set<string>();
    for (let round = 0; round < ROUNDS; round++) {
      const random = createPrng(FIRST_SEED + round);
      const bytes = mutate(make(random), random);
      const code = codeOfCall(() => expect(again(bytes)).toEqual(bytes));
      codes.add(code);
    }
    expect([...codes].sort()).toEqual(['ERR_HANDSHAKE', 'none']);
  },
);

test(`a reason is refused or is one plain line: ${ROUNDS} rounds`, () => {
  const codes = new Set<string>();
  for (let round = 0; round < ROUNDS; round++) {
    const random = createPrng(FIRST_SEED + round);
    const bytes = mutate(encodeReason({ code: 'ERR_X', message: 'über \\u001b "it"' }), random);
    codes.add(
      codeOfCall(() => {
        const { code, message } = decodeReason(bytes);
        expect(code).toMatch(/^([A-Z][A-Z0-9_]{0,63})?$/);
        expect(message).not.toMatch(/[\p{Cc}\u2028\u2029]/u);
        expect(message.length).toBeLessThanOrEqual(480);
      }),
    );
  }
  expect([...codes].sort()).toEqual(['ERR_FRAME_REASON', 'none']);
});

import { expect, test } from 'vitest';
import { PagelaneError } from '../../src/errors.ts';
import { encodeFrame } from '../../src/frame/encode.ts';
import { encodeHeader, FLAG_FIN, FrameType } from '../../src/frame/header.ts';
import { HEADER_BYTES } from '../../src/frame/limits.ts';
import { encodeReason } from '../../src/frame/reason.ts';
import type { Lane } from '../../src/session/lane.ts';
import { Session } from '../../src/session/session.ts';
import { ByteLink } from '../support/byte-link.ts';
import { createPrng, integerBelow } from '../support/prng.ts';
import { FIRST_SEED, mutate, ROUNDS } from './mutate.ts';

const WINDOW_BYTES = 64 * 1024;
const CLOCK = { now: () => 0, after: () => () => {} };

/** Everything that a peer without shame might send next, mostly allowed. */
function randomFrame(random: () => number, next: Map<number, number>): Uint8Array {
  const lane = random() < 0.9 ? integerBelow(random, 4) : integerBelow(random, 8);
  const dice = random();
  if (dice < 0.7) return randomData(random, lane, next);
  const big = random() < 0.1 ? integerBelow(random, 2 ** 53) : integerBelow(random, 5);
  if (dice < 0.8) return encodeFrame(FrameType.Ping, { sequence: big });
  if (dice < 0.9) return encodeFrame(FrameType.Pong, { sequence: big });
  if (dice < 0.93) return encodeFrame(FrameType.Ack, { sequence: big });
  if (dice < 0.98) return encodeFrame(FrameType.Credit, { lane, sequence: big * WINDOW_BYTES });
  if (dice < 0.99) return encodeFrame(FrameType.Goodbye);
  const payload = encodeReason({ code: random() < 0.5 ? '' : 'ERR_X', message: 'enough' });
  return encodeFrame(FrameType.Close, {
    payload: random() < 0.5 ? mutate(payload, random) : payload,
  });
}

function randomData(random: () => number, lane: number, next: Map<number, number>): Uint8Array {
  const usual = next.get(lane) ?? 0;
  next.set(lane, usual + 1);
  const shift = random() < 0.2 ? integerBelow(random, 7) - 3 : 0;
  const jump = random() < 0.01 ? integerBelow(random, 2 ** 40) : 0;
  const sequence = Math.max(0, usual + shift) + jump;
  const epoch = random() < 0.8 ? Math.min(sequence, usual - (usual % 4)) : sequence;
  const flags = random() < 0.01 ? FLAG_FIN : 0;
  const length = integerBelow(random, random() < 0.05 ? 2 * WINDOW_BYTES : 500);
  const frame = new Uint8Array(HEADER_BYTES + length);
  encodeHeader(frame, 0, { type: FrameType.Data, flags, lane, length, sequence, epoch });
  return frame;
}

/** Takes what arrives, and looks whether it may have. */
class Reader {
  heldBytes = 0;
  heldBytesMax = 0;
  readonly wrong: string[] = [];
  readonly #random: () => number;

  constructor(random: () => number) {
    this.#random = random;
  }

  read(lane: Lane): void {
    const seen = new Set<number>();
    lane.onMessage = (message) => {
      if (seen.has(message.sequence)) this.wrong.push(`${message.sequence} came twice`);
      seen.add(message.sequence);
      const { length } = message.payload;
      this.heldBytes += length;
      this.heldBytesMax = Math.max(this.heldBytesMax, this.heldBytes);
      if (this.#random() < 0.02) throw new PagelaneError('ERR_READER', 'does not like it');
      if (this.#random() < 0.1) return;
      message.release();
      this.heldBytes -= length;
    };
  }
}

async function runSession(seed: number): Promise<{ end: string; heldMax: number; said: string }> {
  const random = createPrng(seed);
  const common = {
    windowBytes: WINDOW_BYTES,
    peerWindowBytes: WINDOW_BYTES,
    resumeTimeoutMs: 0,
    clock: CLOCK,
  };
  const session = new Session({ ...common, id: new Uint8Array(16), role: 'client' });
  const link = new ByteLink();
  session.adopt(link);
  const reader = new Reader(random);
  reader.read(session.openLane());
  const accept = async (): Promise<void> => {
    for (;;) reader.read(await session.acceptLane());
  };
  const accepting = accept().catch(() => {});
  let end: PagelaneError | undefined;
  let isOver = false;
  session.ended.then((error) => {
    isOver = true;
    end = error;
  });
  const next = new Map<number, number>();
  for (let left = 60; left > 0 && !isOver; left--) {
    link.give(randomFrame(random, next));
    await undefined;
  }
  session.fail(new PagelaneError('ERR_TEST_OVER', 'the test is over'));
  await session.ended;
  await accepting;
  expect({ seed, wrong: reader.wrong }).toEqual({ seed, wrong: [] });
  expect(link.state, `link of seed ${seed}`).not.toBe('open');
  const name = end === undefined ? 'clean' : `${end.name} ${end.code}`;
  return { end: name, heldMax: reader.heldBytesMax, said: link.sentNames().at(-1) ?? '' };
}

test(`a session survives or ends for a reason, whatever it is told: ${ROUNDS} rounds`, async () => {
  const ends = new Map<string, number>();
  for (let round = 0; round < ROUNDS; round++) {
    const seed = FIRST_SEED + round;
    const { end, heldMax, said } = await runSession(seed);
    ends.set(end, (ends.get(end) ?? 0) + 1);
    // Eight lanes at most, each granted its window.
    expect(heldMax).toBeLessThanOrEqual(8 * WINDOW_BYTES);
    const isTold = said === 'Close' || end === 'PathError ERR_PATHS_EXHAUSTED';
    expect({ seed, end, isTold }).toEqual({ seed, end, isTold: true });
  }
  const known =
    /^(clean|PagelaneError ERR_(READER|TEST_OVER)|(Protocol|Path|Remote)Error ERR_\w+)$/;
  for (const end of ends.keys()) expect(end).toMatch(known);
  for (const code of ['ERR_WINDOW_EXCEEDED', 'ERR_FRAME_SEQUENCE', 'ERR_FRAME_EPOCH']) {
    expect(ends.get(`ProtocolError ${code}`), code).toBeGreaterThan(0);
  }
});

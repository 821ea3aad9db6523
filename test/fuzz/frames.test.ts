import { describe, expect, test } from 'vitest';
import { PagelaneError } from '../../src/errors.ts';
import { FrameDecoder } from '../../src/frame/decode.ts';
import { encodeFrame } from '../../src/frame/encode.ts';
import {
  encodeHeader,
  FLAG_FIN,
  type FrameHeader,
  FrameType,
  type Stage,
} from '../../src/frame/header.ts';
import { HEADER_BYTES, PAYLOAD_BYTES_MAX } from '../../src/frame/limits.ts';
import { encodeReason } from '../../src/frame/reason.ts';
import { createPrng, exactRandomBytes, integerBelow } from '../support/prng.ts';
import { mendChecks } from './mend.ts';
import { cutAtRandom, FIRST_SEED, mutate, ROUNDS } from './mutate.ts';

/** What came of some bytes: frames, and the code of the fault that ended it. */
interface Outcome {
  readonly frames: { header: FrameHeader; payload: Uint8Array }[];
  code: string | undefined;
  allocatedMax: number;
}

function decode(chunks: readonly Uint8Array[], stage: Stage): Outcome {
  const outcome: Outcome = { frames: [], code: undefined, allocatedMax: 0 };
  const decoder = new FrameDecoder({
    allocate: (bytes) => {
      outcome.allocatedMax = Math.max(outcome.allocatedMax, bytes);
      return new Uint8Array(bytes);
    },
    onFrame: (header, payload) => outcome.frames.push({ header: { ...header }, payload }),
  });
  decoder.stage = stage;
  try {
    for (const chunk of chunks) decoder.push(chunk);
  } catch (error) {
    if (!(error instanceof PagelaneError)) throw error;
    outcome.code = error.code;
  }
  return outcome;
}

/** What was decoded, encoded again. */
function encoded({ frames }: Outcome): Uint8Array {
  const parts = frames.map(({ header, payload }) => {
    const frame = new Uint8Array(HEADER_BYTES + payload.length);
    encodeHeader(frame, 0, header);
    frame.set(payload, HEADER_BYTES);
    return frame;
  });
  return new Uint8Array(Buffer.concat(parts));
}

function sessionBytes(random: () => number): Uint8Array {
  const parts: Uint8Array[] = [];
  for (let sequence = 0; sequence < 12; sequence++) {
    const length = integerBelow(random, 200);
    const frame = new Uint8Array(HEADER_BYTES + length);
    const flags = random() < 0.2 ? FLAG_FIN : 0;
    const epoch = integerBelow(random, sequence + 1);
    const lane = integerBelow(random, 8);
    encodeHeader(frame, 0, { type: FrameType.Data, flags, lane, length, sequence, epoch });
    frame.set(exactRandomBytes(random, length), HEADER_BYTES);
    const small = [FrameType.Ack, FrameType.Credit, FrameType.Ping, FrameType.Pong] as const;
    const type = small[integerBelow(random, small.length)]!;
    parts.push(frame, encodeFrame(type, { sequence: integerBelow(random, 2 ** 53) }));
  }
  const payload = encodeReason({ code: 'ERR_X', message: 'over' });
  parts.push(encodeFrame(FrameType.Goodbye), encodeFrame(FrameType.Close, { payload }));
  return new Uint8Array(Buffer.concat(parts));
}

function handshakeBytes(random: () => number): Uint8Array {
  const types = ['Hello', 'Challenge', 'Proof', 'Welcome', 'Refuse'] as const;
  const parts = types.map((name) => {
    const payload = exactRandomBytes(random, integerBelow(random, 100));
    return encodeFrame(FrameType[name], { payload });
  });
  return new Uint8Array(Buffer.concat(parts));
}

/** Names the seed in the failure. */
function inputOf(seed: number, stage: Stage): { input: Uint8Array; random: () => number } {
  const random = createPrng(seed);
  const whole = stage === 'session' ? sessionBytes(random) : handshakeBytes(random);
  const input = mutate(whole, random);
  // With a check that fits, what lies behind it is reached.
  return { input: random() < 0.7 ? mendChecks(input) : input, random };
}

describe.each(['session', 'handshake'] as const)('FrameDecoder in its %s stage', (stage) => {
  test(`loses nothing of what it takes, and tells what it does not: ${ROUNDS} rounds`, () => {
    const codes = new Map<string, number>();
    for (let round = 0; round < ROUNDS; round++) {
      const seed = FIRST_SEED + round;
      const { input } = inputOf(seed, stage);
      const outcome = decode([input], stage);
      const output = encoded(outcome);
      const isPrefix = Buffer.compare(output, input.subarray(0, output.length)) === 0;
      expect({ seed, isPrefix }).toEqual({ seed, isPrefix: true });
      expect(outcome.allocatedMax).toBeLessThanOrEqual(PAYLOAD_BYTES_MAX);
      const code = outcome.code ?? 'none';
      codes.set(code, (codes.get(code) ?? 0) + 1);
    }
    for (const [code] of codes) expect(code).toMatch(/^(none|ERR_FRAME_[A-Z]+)$/);
    expect(codes.get('none')).toBeGreaterThan(0);
    expect(codes.size).toBeGreaterThan(4);
  });

  test(`finds the same however the bytes are cut: ${ROUNDS} rounds`, () => {
    for (let round = 0; round < ROUNDS; round++) {
      const seed = FIRST_SEED + round;
      const { input, random } = inputOf(seed, stage);
      const whole = decode([input], stage);
      const cut = decode(cutAtRandom(input, random, 1 + integerBelow(random, 300)), stage);
      expect({ seed, ...cut }).toEqual({ seed, ...whole });
    }
  });
});

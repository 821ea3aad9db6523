import { expect, test } from 'vitest';
import { ProtocolError } from '../../src/errors.ts';
import {
  decodeHeld,
  decodeOpenGuest,
  decodeRound,
  encodeHeld,
  encodeOpenGuest,
  encodeRound,
} from '../../src/migration/guest-message.ts';
import {
  decodeHandover,
  encodeHandover,
  HandoverKind,
  type HandoverMessage,
} from '../../src/migration/handover-message.ts';
import { HASH_SECRET_BYTES, PAGE_HASH_BYTES } from '../../src/native.ts';
import { createPrng, exactRandomBytes, integerBelow } from '../support/prng.ts';
import { FIRST_SEED, mutate, ROUNDS } from './mutate.ts';

const ID = { migration: '0123456789abcdef'.repeat(2), attempt: 3 };
const OPEN = { name: 'vm', ...ID, isWarm: true };
const WORDS: readonly HandoverMessage[] = [
  { word: 'reserve', ...ID, name: 'vm' },
  { word: 'commit', ...ID },
  { word: 'aborted', ...ID, code: 'ERR_X', message: 'why' },
];

function makeHeld(random: () => number): Uint8Array {
  const pageCount = integerBelow(random, 4);
  return encodeHeld(
    {
      isLast: pageCount === 0,
      block: integerBelow(random, 3),
      firstPage: integerBelow(random, 1000),
      pageCount,
      secret: exactRandomBytes(random, HASH_SECRET_BYTES),
      hashes: exactRandomBytes(random, pageCount * PAGE_HASH_BYTES),
    },
    0,
  ).buffer;
}

/** Every message with its decoder: what is taken is written again as it was, but for JSON. */
const MESSAGES = {
  openGuest: {
    make: () => encodeOpenGuest(OPEN, 0).buffer,
    take: (bytes: Uint8Array) => {
      const open = decodeOpenGuest(bytes);
      expect(decodeOpenGuest(encodeOpenGuest(open, 0).buffer)).toEqual(open);
    },
  },
  round: {
    make: () => encodeRound(300, 0).buffer,
    take: (bytes: Uint8Array) => {
      expect(encodeRound(decodeRound(bytes), 0).buffer.subarray(1)).toEqual(bytes.subarray(1));
    },
  },
  held: {
    make: makeHeld,
    take: (bytes: Uint8Array) => {
      expect(encodeHeld(decodeHeld(bytes), 0).buffer.subarray(1)).toEqual(bytes.subarray(1));
    },
  },
  handover: {
    make: (random: () => number) =>
      encodeHandover(WORDS[integerBelow(random, WORDS.length)]!, 0).buffer,
    take: (bytes: Uint8Array) => {
      const message = decodeHandover(bytes);
      expect(Object.keys(HandoverKind)).toContain(message.word);
      expect(decodeHandover(encodeHandover(message, 0).buffer)).toEqual(message);
    },
  },
} as const;

type Message = {
  readonly make: (random: () => number) => Uint8Array;
  readonly take: (bytes: Uint8Array) => void;
};

function isTaken({ take }: Message, bytes: Uint8Array): boolean {
  try {
    take(bytes);
    return true;
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    expect(error.code).toBe('ERR_MESSAGE');
    return false;
  }
}

test.each(Object.entries<Message>(MESSAGES))(
  'message %s is refused as the peer’s fault, or is one',
  (_name, message) => {
    let refused = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const random = createPrng(FIRST_SEED + round);
      if (!isTaken(message, mutate(message.make(random), random))) refused++;
    }
    expect(refused).toBeGreaterThan(0);
  },
);

test.each(Object.entries<Message>(MESSAGES))('message %s is no noise', (_name, message) => {
  let taken = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const random = createPrng(FIRST_SEED + round);
    if (isTaken(message, exactRandomBytes(random, integerBelow(random, 300)))) taken++;
  }
  expect(taken).toBe(0);
});

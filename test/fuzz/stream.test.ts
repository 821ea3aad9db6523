import { expect, test } from 'vitest';
import { ProtocolError, StreamError } from '../../src/errors.ts';
import {
  decodeApplied,
  decodeBlocks,
  decodeBytes,
  decodeEnd,
  decodeOpen,
  decodeStore,
  encodeApplied,
  encodeBlocks,
  encodeBytes,
  encodeEnd,
  encodeOpen,
  encodeStore,
} from '../../src/stream/message.ts';
import { ReturnPathWatcher } from '../../src/stream/return-path.ts';
import { TailWatcher } from '../../src/stream/tail.ts';
import { type Found, readAll, writeAll } from '../stream/support.ts';
import { createPrng, exactRandomBytes, integerBelow } from '../support/prng.ts';
import { PAGE_BYTES, StreamBuilder } from '../support/qemu-stream.ts';
import { cutAtRandom, FIRST_SEED, mutate, ROUNDS } from './mutate.ts';

/** A stream with one of everything, small enough that a change hits something that matters. */
function smallStream(random: () => number): Uint8Array {
  const blocks = [
    { name: 'pc.ram', pages: 6 },
    { name: 'rom', pages: 2 },
  ];
  const builder = new StreamBuilder({ blocks, hasFooter: random() < 0.8 });
  builder.header('pc').subsection('configuration/uuid', new Uint8Array(16));
  builder.command(1).command(2, [0, 0, 0, 1]);
  if (random() < 0.3) {
    builder.section(1, 7, 'dirty-bitmap', 1).raw([0x1c]).text('node').text('map').u32(65536);
    builder.raw([0, 0x01]).footer(7);
  }
  builder.ramStart().partBegin();
  builder.page(0, 0, { kind: 'zero' }).page(0, 1, { kind: 'zero' }).page(1, 0, { kind: 'zero' });
  const xbzrle = exactRandomBytes(random, integerBelow(random, 30));
  builder.page(0, 3, { kind: 'xbzrle', bytes: xbzrle }).partEnd();
  builder.partBegin().page(0, 0, { kind: 'zero' });
  if (random() < 0.3) {
    builder.page(0, 5, { kind: 'page', bytes: exactRandomBytes(random, PAGE_BYTES) });
  }
  builder.page(1, 1, { kind: 'compress', bytes: exactRandomBytes(random, 20) }).partEnd();
  builder.partBegin(3).page(0, 2, { kind: 'zero' }).partEnd();
  return builder.tail(exactRandomBytes(random, integerBelow(random, 60))).bytes();
}

interface Outcome {
  readonly found: readonly Found[];
  readonly layout: ReturnType<typeof readAll>['layout'];
  readonly code: string;
  readonly isPastMemory: boolean;
}

/** Reads; `readAll` keeps nothing after a fault, so then it reads the chunks before it again. */
function read(chunks: readonly Uint8Array[]): Outcome {
  const whole = attempt(chunks);
  if (whole.code === 'none') return whole;
  let [good, bad] = [0, chunks.length];
  while (bad - good > 1) {
    const middle = (good + bad) >> 1;
    if (attempt(chunks.slice(0, middle)).code === 'none') good = middle;
    else bad = middle;
  }
  return { ...attempt(chunks.slice(0, good)), code: whole.code };
}

function attempt(chunks: readonly Uint8Array[]): Outcome {
  try {
    const { found, layout, reader } = readAll(chunks);
    return { found, layout, code: 'none', isPastMemory: reader.isPastMemory };
  } catch (error) {
    if (!(error instanceof StreamError)) throw error;
    return { found: [], layout: undefined, code: error.code, isPastMemory: false };
  }
}

test(`StreamReader gives back what it takes: ${ROUNDS} rounds`, async () => {
  const codes = new Map<string, number>();
  let foundBeforeFault = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const seed = FIRST_SEED + round;
    const random = createPrng(seed);
    const input = mutate(smallStream(random), random);
    const chunks = cutAtRandom(input, random, 300);
    const { found, layout, code, isPastMemory } = read(chunks);
    if (code !== 'none' && found.length > 0) foundBeforeFault++;
    codes.set(code, (codes.get(code) ?? 0) + 1);
    const order = found.map((_, index) => index);
    const output = await writeAll(found, layout, order, { codec: 'none' });
    const isPrefix = Buffer.compare(output, input.subarray(0, output.length)) === 0;
    expect({ seed, isPrefix }).toEqual({ seed, isPrefix: true });
    // Past its memory nothing is held back.
    if (isPastMemory && code === 'none') {
      expect({ seed, bytes: output.length }).toEqual({ seed, bytes: input.length });
    }
  }
  for (const code of codes.keys()) expect(code).toMatch(/^(none|ERR_STREAM_[A-Z]+)$/);
  expect(codes.get('none')).toBeGreaterThan(0);
  expect(codes.get('ERR_STREAM_PAGE')).toBeGreaterThan(0);
  expect(foundBeforeFault).toBeGreaterThan(0);
});

test(`StreamReader finds the same however the bytes are cut: ${ROUNDS} rounds`, async () => {
  for (let round = 0; round < ROUNDS; round++) {
    const seed = FIRST_SEED + round;
    const random = createPrng(seed);
    const input = mutate(smallStream(random), random);
    const whole = read([input]);
    const cut = read(cutAtRandom(input, random, 1 + integerBelow(random, 400)));
    expect({ seed, code: cut.code, layout: cut.layout }).toEqual({
      seed,
      code: whole.code,
      layout: whole.code === 'none' ? whole.layout : cut.layout,
    });
    if (whole.code !== 'none') continue;
    const [one, other] = await Promise.all([bytesOf(whole), bytesOf(cut)]);
    // A stream that stops inside a record may leave more of it in one case than in the other.
    const shorter = one.length < other.length ? one : other;
    const longer = shorter === one ? other : one;
    const isSame = Buffer.compare(shorter, longer.subarray(0, shorter.length)) === 0;
    expect({ seed, isSame }).toEqual({ seed, isSame: true });
    if (whole.isPastMemory) expect({ seed, n: one.length }).toEqual({ seed, n: other.length });
  }
});

function bytesOf({ found, layout }: Outcome): Promise<Uint8Array> {
  return writeAll(
    found,
    layout,
    found.map((_, index) => index),
    { codec: 'none' },
  );
}

const PLACE = { isInsideBefore: true, isInsideAfter: false, isVerbatim: false, lastBlock: 3 };
const APPLIED = { isApplied: false, digest: 5n, code: 'ERR_X', message: 'why' } as const;
const LAYOUT = {
  pageBits: 12,
  hasFooter: true,
  sectionId: 2,
  blocks: [
    { name: 'pc.ram', usedBytes: 1 << 25 },
    { name: 'rom', usedBytes: 4096 },
  ],
};

/** Every message with its decoder; `again` where one form is the only one. */
const MESSAGES = {
  open: {
    make: () => encodeOpen({ v: 1, name: 'vm' }, 0).buffer,
    take: (bytes: Uint8Array) => void decodeOpen(bytes),
  },
  blocks: {
    make: () => encodeBlocks(LAYOUT, 0).buffer,
    take: (bytes: Uint8Array) => {
      const layout = decodeBlocks(bytes);
      expect(decodeBlocks(encodeBlocks(layout, 0).buffer)).toEqual(layout);
    },
  },
  bytes: {
    make: () => encodeBytes(Uint8Array.of(1, 2, 3, 4, 5), PLACE, 0).buffer,
    take: (bytes: Uint8Array) => {
      const { data, place } = decodeBytes(bytes);
      expect([...data]).toEqual([1, 2, 3, 4, 5]);
      expect(place).toEqual(PLACE);
    },
  },
  end: {
    make: () => encodeEnd(77n, 0).buffer,
    take: (bytes: Uint8Array) => expect(bytes.length).toBe(decodeEnd(bytes) < 2n ** 64n ? 16 : 0),
  },
  applied: {
    make: () => encodeApplied({ ...APPLIED, guest: 'unknown' }, 0).buffer,
    take: (bytes: Uint8Array) => {
      const { code, message } = decodeApplied(bytes);
      expect([typeof code, typeof message]).toEqual(['string', 'string']);
    },
  },
  store: {
    make: () => encodeStore(2 ** 40 + 5, 0).buffer,
    take: (bytes: Uint8Array) => expect(Number.isSafeInteger(decodeStore(bytes))).toBe(true),
  },
} as const;

test.each(Object.entries(MESSAGES))(
  'message %s is refused as the peer’s fault, or is one',
  (_name, { make, take }) => {
    let refused = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const random = createPrng(FIRST_SEED + round);
      const bytes = mutate(make(), random);
      try {
        take(bytes);
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error;
        expect(error.code).toMatch(/^ERR_MESSAGE(_CHECKSUM)?$/);
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(0);
  },
);

test(`watchers look at anything: ${ROUNDS} rounds`, () => {
  let shuts = 0;
  let wholes = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const random = createPrng(FIRST_SEED + round);
    const pong = Uint8Array.of(0, 2, 0, 4, 0, 0, 0, 1);
    const shut = Uint8Array.of(0, 1, 0, 4, 0, 0, 0, 0);
    const returned = mutate(new Uint8Array(Buffer.concat([pong, pong, shut])), random);
    const chunks = cutAtRandom(returned, random, 6);
    const [whole, cut] = [new ReturnPathWatcher(), new ReturnPathWatcher()];
    whole.push(returned);
    for (const chunk of chunks) cut.push(chunk);
    expect([cut.shutStatus, cut.messages]).toEqual([whole.shutStatus, whole.messages]);
    if (whole.shutStatus === 0) shuts++;
    const tail = mutate(smallStream(random), random);
    const [tailWhole, tailCut] = [new TailWatcher(), new TailWatcher()];
    tailWhole.push(tail);
    for (const chunk of cutAtRandom(tail, random, 5000)) tailCut.push(chunk);
    expect(tailCut.endsWhole()).toBe(tailWhole.endsWhole());
    if (tailWhole.endsWhole()) wholes++;
  }
  expect(shuts).toBeGreaterThan(0);
  expect(wholes).toBeGreaterThan(0);
});

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Codec } from '../../src/native.ts';
import { CodecChoice, type CodecStep } from '../../src/page/codec-choice.ts';
import { createPrng } from '../support/prng.ts';

const PAGES = 128;

/**
 * A sender: how long a batch takes with a step of the ladder, whether it then waits, and, unless a
 * tighter step makes it smaller in proportion, how many bytes it has.
 */
type Sender = (step: CodecStep) => {
  readonly ms: number;
  readonly waits: boolean;
  readonly bytes?: number;
};

/** Bytes of a batch by the step: a link that is full takes as long for a byte, whatever it is. */
const bytesOf = (step: CodecStep): number => 1000 * (20 - rungOf(step));

/** A sender's time, and its batches that are on their way. */
interface Course {
  nowMs: number;
  waits: boolean;
  /** Of a batch, if its contents do not compress. */
  literalBytes?: number;
  readonly travelling: { period: number; bytes: number; readyMs: number }[];
}

const courses = new WeakMap<CodecChoice, Course>();

/** Has batches encoded and delivered, `behind` later ones each; gives the steps that were taken. */
function send(choice: CodecChoice, sender: Sender, batches: number, behind = 0): CodecStep[] {
  const course = courses.get(choice) ?? { nowMs: 0, waits: false, travelling: [] };
  courses.set(choice, course);
  return Array.from({ length: batches }, () => {
    const step = choice.next(course.waits ? 1 : 0);
    const { period } = choice;
    const took = sender(step);
    const bytes = took.bytes ?? bytesOf(step);
    course.travelling.push({ period, bytes, readyMs: course.nowMs });
    course.nowMs += took.ms;
    course.waits = took.waits;
    while (course.travelling.length > behind) {
      const { readyMs, ...batch } = course.travelling.shift()!;
      const tookMs = course.nowMs - readyMs;
      const literalBytes = course.literalBytes ?? 10 * batch.bytes;
      choice.delivered({ ...batch, pages: PAGES, literalBytes, tookMs, nowMs: course.nowMs });
    }
    return step;
  });
}

/** From fastest to tightest. */
const NAMES = [
  'none',
  'lz4-fast',
  'lz4',
  'zstd-fast',
  'zstd',
  'zstd-2',
  'zstd-3',
  'zstd-3-similar',
  'zstd-5-similar',
  'zstd-7-similar',
];
const rungOf = ({ name }: CodecStep): number => NAMES.indexOf(name);

/** Links are the limit: a tighter codec's batch is there sooner. */
const slowLink: Sender = (step) => ({ ms: 20 - rungOf(step), waits: true });
/** The processor that encodes is: paths wait for it. */
const slowEncoder: Sender = (step) => ({ ms: 2 + rungOf(step), waits: false });
/** The processor that feeds the paths is: batches wait, and yet a tighter codec takes longer. */
const slowHost: Sender = (step) => ({ ms: 4 + rungOf(step), waits: true });
/** The processor is, and a path has room for whatever LZ4 makes, but not for whole pages. */
const slowWithout: Sender = (step) =>
  step.codec === Codec.None
    ? { ms: 16, waits: true, bytes: 80_000 }
    : { ms: 2 + rungOf(step), waits: false };

describe('a codec that was asked for', () => {
  test.each([
    ['none', Codec.None],
    ['lz4', Codec.Lz4],
    ['zstd', Codec.Zstd],
  ] as const)('%s stays, whatever happens', (name, codec) => {
    for (const sender of [slowLink, slowEncoder, slowHost]) {
      const steps = send(new CodecChoice(name), sender, 300);
      expect(new Set(steps.map((step) => step.codec))).toEqual(new Set([codec]));
    }
  });
});

/** Milliseconds of a batch, with what is chosen after a while. */
function lateMs(sender: Sender, choice = new CodecChoice('auto')): number {
  send(choice, sender, 600);
  const steps = send(choice, sender, 2000);
  return steps.reduce((sum, step) => sum + sender(step).ms, 0) / steps.length;
}

function stepOf(name: string): CodecStep {
  const codec = name === 'none' ? Codec.None : Codec.Lz4;
  return { codec, level: 1, findsSimilar: false, name };
}

/** The same with the best of all steps. */
function bestMs(sender: Sender): number {
  return Math.min(...NAMES.map((name) => sender(stepOf(name)).ms));
}

describe('auto', () => {
  test('begins with LZ4', () => {
    expect(send(new CodecChoice('auto'), slowEncoder, 1)[0]!.name).toBe('lz4');
  });

  test('is at its tightest within 120 batches where links are slow', () => {
    const choice = new CodecChoice('auto');
    send(choice, slowLink, 120);
    expect(choice.current.name).toBe('zstd-7-similar');
  });

  test('takes the cheapest codec within a few batches where paths wait, and none later', () => {
    const choice = new CodecChoice('auto');
    send(choice, slowEncoder, 20);
    expect(choice.current.name).toBe('lz4-fast');
    send(choice, slowEncoder, 60);
    expect(choice.current.name).toBe('none');
    send(choice, slowLink, 150);
    expect(choice.current.name).toBe('zstd-7-similar');
    send(choice, slowEncoder, 150);
    expect(choice.current.name).toBe('none');
  });

  test('goes without a codec for a moment only where paths have no room for it', () => {
    const choice = new CodecChoice('auto');
    const steps = send(choice, slowWithout, 3000);
    const without = steps.filter(({ codec }) => codec === Codec.None).length;
    expect(without).toBeGreaterThan(0);
    expect(without).toBeLessThan(100);
  });

  test('does not take it for a slow link if processors cannot feed the paths', () => {
    const choice = new CodecChoice('auto');
    const steps = send(choice, slowHost, 1000);
    const isFast = steps.filter((step) => rungOf(step) <= 2).length;
    expect(isFast).toBeGreaterThan(850);
  });

  const senders: [string, Sender][] = [
    ['links are slow', slowLink],
    ['encoding is slow', slowEncoder],
    ['processors are short', slowHost],
    ['processors are short, and whole pages fill the paths', slowWithout],
    [
      'links are slow, up to where encoding is',
      (step) => {
        const link = 20 - 2 * rungOf(step);
        const encoder = 4 + 1.5 * rungOf(step);
        return { ms: Math.max(link, encoder), waits: link > encoder, bytes: 1000 * link };
      },
    ],
    [
      'processors are short, and a middle step is best',
      (step) => ({
        ms: 5 + (rungOf(step) - 3) ** 2 / 2,
        waits: true,
      }),
    ],
  ];
  test.each(senders)('is within 5 %% of the best step where %s', (_, sender) => {
    expect(lateMs(sender)).toBeLessThan(1.05 * bestMs(sender));
  });

  test.each([1, 2, 3, 4])(
    'stays tight where links are slow, whatever pages come, seed %i',
    (seed) => {
      const random = createPrng(seed);
      let [left, factor] = [0, 1];
      // Noise, text, and what is nearly nothing, in stretches.
      const mixed: Sender = (step) => {
        if (left-- <= 0) [left, factor] = [Math.floor(random() * 40), 0.2 + 3 * random() ** 3];
        const { ms } = slowLink(step);
        return { ms: ms * factor, waits: true, bytes: bytesOf(step) * factor };
      };
      const choice = new CodecChoice('auto');
      send(choice, mixed, 200);
      const steps = send(choice, mixed, 3000);
      const isTight = steps.filter((step) => rungOf(step) >= 8).length;
      expect(isTight / steps.length).toBeGreaterThan(0.9);
    },
  );

  test('finds its way from wherever it was', () => {
    for (const [, first] of senders) {
      for (const [, then] of senders) {
        const choice = new CodecChoice('auto');
        send(choice, first, 400);
        expect(lateMs(then, choice)).toBeLessThan(1.06 * bestMs(then));
      }
    }
  });

  test.each([1, 2, 3, 4, 5, 6])(
    'is within 12 %% of the best where times scatter, seed %i',
    (seed) => {
      for (const [, sender] of senders) {
        const random = createPrng(seed);
        const choice = new CodecChoice('auto');
        const scattered: Sender = (step) => {
          const { ms, waits } = sender(step);
          return { ms: ms * (0.7 + 0.6 * random()), waits };
        };
        send(choice, scattered, 600);
        const steps = send(choice, scattered, 4000);
        const ms = steps.reduce((sum, step) => sum + sender(step).ms, 0) / steps.length;
        expect(ms).toBeLessThan(1.12 * bestMs(sender));
      }
    },
  );

  test.each(['auto', 'none', 'lz4', 'zstd'] as const)(
    '%s: says whether batches wait for paths, once several agree',
    (name) => {
      const choice = new CodecChoice(name);
      expect(choice.isNetworkLimit).toBe(false);
      send(choice, slowLink, 100);
      expect(choice.isNetworkLimit).toBe(true);
      send(choice, slowEncoder, 2);
      expect(choice.isNetworkLimit).toBe(true);
      send(choice, slowEncoder, 100);
      expect(choice.isNetworkLimit).toBe(false);
    },
  );

  test('goes no tighter where pages do not compress, whatever that costs', () => {
    const choice = new CodecChoice('auto');
    const bytes = 10_000;
    courses.set(choice, { nowMs: 0, waits: false, literalBytes: bytes, travelling: [] });
    const random: Sender = (step) => ({ ms: 10 + rungOf(step) / 10, waits: true, bytes });
    const steps = send(choice, random, 3000);
    const isFast = steps.filter((step) => rungOf(step) <= 2).length;
    expect(isFast).toBeGreaterThan(2800);
  });

  test('is as tight where what waits does so behind us, in the buffers of sockets', () => {
    const choice = new CodecChoice('auto');
    const buffered: Sender = (step) => ({ ...slowLink(step), waits: false });
    send(choice, buffered, 10);
    const late = send(choice, buffered, 400, 8).slice(200);
    expect(late.filter((step) => rungOf(step) >= 8).length).toBeGreaterThan(180);
    expect(choice.isNetworkLimit).toBe(true);
  });

  test.each([4, 12, 30])('judges a step by its own batches, %i of them on their way', (behind) => {
    for (const [, sender] of senders) {
      const choice = new CodecChoice('auto');
      send(choice, sender, 3000, behind);
      const steps = send(choice, sender, 3000, behind);
      const ms = steps.reduce((sum, step) => sum + sender(step).ms, 0) / steps.length;
      expect(ms).toBeLessThan(1.12 * bestMs(sender));
    }
  });

  test('always gives a step of the ladder, whatever is delivered', () => {
    const anyBatch = fc.record({
      ms: fc.constantFrom(0, 1, 50),
      pages: fc.nat(500),
      waits: fc.boolean(),
      age: fc.nat(3),
    });
    fc.assert(
      fc.property(fc.array(anyBatch, { maxLength: 400 }), (batches) => {
        const choice = new CodecChoice('auto');
        let nowMs = 0;
        for (const { ms, pages, waits, age } of batches) {
          expect(NAMES).toContain(choice.next(waits ? 9 : 0).name);
          nowMs += ms;
          const period = choice.period - age;
          const [literalBytes, bytes] = [pages * 9, pages * (7 + age)];
          choice.delivered({ period, pages, literalBytes, bytes, tookMs: ms, nowMs });
        }
      }),
    );
  });
});

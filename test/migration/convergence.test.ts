import { describe, expect, test } from 'vitest';
import {
  Convergence,
  type ConvergenceOptions,
  type Decision,
  type RoundFacts,
} from '../../src/migration/convergence.ts';
import { createPrng, integerBelow } from '../support/prng.ts';

const PAGE_BYTES = 4096;
const SEEDS = Array.from({ length: 200 }, (_, seed) => seed);

/** Pages that become dirty from `fromMs` to `toMs`, each counted once. */
type Guest = (fromMs: number, toMs: number) => number;

/** What a simulated migration is made of. */
interface Setting {
  readonly pages: number;
  /** Pages per millisecond that the network takes, on average. */
  readonly rate: number;
  /** What a round takes besides, and a switchover. */
  readonly fixedMs: number;
  /** How far a round's bandwidth may be from the average, as a part of it. */
  readonly noise: number;
  /** The round whose bandwidth is an exception, and by what factor. */
  readonly exception?: { readonly round: number; readonly factor: number };
  readonly downtimeMs: number;
  /** Whether the guest does less when it is asked to. */
  readonly obeys?: boolean;
}

type Policy = (round: RoundFacts) => Decision;

interface Outcome {
  readonly decision: Decision;
  readonly rounds: number;
  readonly wireBytes: number;
  readonly throttles: readonly number[];
  /** Downtime of the switchover at the average bandwidth: what only the model knows. */
  readonly expectedMs: number;
}

function simulate(seed: number, setting: Setting, guest: Guest, policy: Policy): Outcome {
  const { pages, rate, fixedMs, noise, exception, obeys = false } = setting;
  const random = createPrng(seed);
  const throttles: number[] = [];
  let [left, nowMs, wireBytes, throttle] = [pages, 0, 0, 0];
  for (let round = 1; round <= 1000; round++) {
    const factor = exception?.round === round ? exception.factor : 1;
    const now = rate * factor * (1 + noise * (2 * random() - 1));
    const durationMs = fixedMs + left / now;
    const share = obeys ? 1 - throttle / 100 : 1;
    const dirtyPages = Math.min(pages, Math.round(guest(nowMs, nowMs + durationMs) * share));
    const facts = { sentPages: left, wireBytes: left * PAGE_BYTES, durationMs, dirtyPages };
    nowMs += durationMs;
    wireBytes += facts.wireBytes;
    left = dirtyPages;
    const decision = policy(facts);
    if (decision.action !== 'continue') {
      return {
        decision,
        rounds: round,
        wireBytes,
        throttles,
        expectedMs: fixedMs + left / rate,
      };
    }
    throttle = decision.throttlePercent;
    throttles.push(throttle);
  }
  throw new Error('The policy neither switches nor stops');
}

/** Dirties a set of pages at a constant rate, any page as often as another. */
function constant(pagesPerMs: number, workingSet: number): Guest {
  return (fromMs, toMs) =>
    workingSet * (1 - Math.exp((-pagesPerMs * (toMs - fromMs)) / workingSet));
}

/** Works for a while and rests for a while. */
function bursty(pagesPerMs: number, workMs: number, restMs: number): Guest {
  const workedUntil = (ms: number): number => {
    const whole = Math.floor(ms / (workMs + restMs));
    return whole * workMs + Math.min(workMs, ms - whole * (workMs + restMs));
  };
  return (fromMs, toMs) => pagesPerMs * (workedUntil(toMs) - workedUntil(fromMs));
}

/** Does less and less: half as much every `halfMs`. */
function falling(pagesPerMs: number, halfMs: number): Guest {
  const doneUntil = (ms: number): number =>
    (pagesPerMs * halfMs * (1 - 2 ** (-ms / halfMs))) / Math.LN2;
  return (fromMs, toMs) => doneUntil(toMs) - doneUntil(fromMs);
}

function optionsOf({ pages, fixedMs, downtimeMs }: Setting): ConvergenceOptions {
  return { downtimeMs, fixedMs, pageBytes: PAGE_BYTES, memoryBytes: pages * PAGE_BYTES };
}

function ours(setting: Setting, more: Partial<ConvergenceOptions> = {}): Policy {
  const convergence = new Convergence({ ...optionsOf(setting), ...more });
  return (round) => convergence.endRound(round);
}

function randomSetting(seed: number): Setting {
  const random = createPrng(seed + 5000);
  return {
    pages: 10_000 + integerBelow(random, 1_000_000),
    rate: 5 + random() * 200,
    fixedMs: random() * 10,
    noise: 0.2,
    exception: { round: 1 + integerBelow(random, 6), factor: random() < 0.5 ? 0.25 : 4 },
    downtimeMs: 20 + random() * 300,
  };
}

/** A guest that dirties at most a part of what the network takes. */
function randomGuest(seed: number, { rate, pages }: Setting, partMax: number): Guest {
  const random = createPrng(seed + 9000);
  const pagesPerMs = rate * partMax * random();
  switch (seed % 3) {
    case 0:
      return constant(pagesPerMs, pages * (0.01 + 0.9 * random()));
    case 1:
      return bursty(pagesPerMs, 10 + 1000 * random(), 10 + 1000 * random());
    default:
      return falling(pagesPerMs, 100 + 5000 * random());
  }
}

/** Judges by the last round alone, as one must not. */
function single({ downtimeMs, fixedMs }: Setting): Policy {
  let last = Number.POSITIVE_INFINITY;
  return ({ sentPages, durationMs, dirtyPages }) => {
    if (fixedMs + (dirtyPages * durationMs) / sentPages <= downtimeMs) {
      return { action: 'switch', because: 'fits' };
    }
    const shrinks = dirtyPages < last;
    last = dirtyPages;
    if (!shrinks) return { action: 'stop', because: 'rounds' };
    return { action: 'continue', throttlePercent: 0 };
  };
}

/** Seeds whose outcome is wrong. */
function wrongSeeds(
  policyOf: (setting: Setting) => Policy,
  isWrong: (outcome: Outcome, setting: Setting) => boolean,
): number[] {
  return SEEDS.filter((seed) => {
    const setting = randomSetting(seed);
    const guest = randomGuest(seed, setting, 0.6);
    return isWrong(simulate(seed, setting, guest, policyOf(setting)), setting);
  });
}

describe('guests that dirty less than the network takes', () => {
  const isLate = ({ decision, expectedMs }: Outcome, { downtimeMs }: Setting): boolean =>
    decision.action === 'switch' && expectedMs > downtimeMs;
  const isStopped = ({ decision }: Outcome): boolean => decision.action === 'stop';

  test('are switched over within the downtime, whatever one round says', () => {
    expect(wrongSeeds((setting) => ours(setting), isLate)).toEqual([]);
    expect(wrongSeeds((setting) => ours(setting), isStopped)).toEqual([]);
  });

  test('would not be by who looks at the last round alone', () => {
    expect(wrongSeeds(single, isLate).length).toBeGreaterThan(5);
    expect(wrongSeeds(single, isStopped).length).toBeGreaterThan(5);
  });

  test('are never said not to converge', () => {
    for (const seed of SEEDS) {
      const setting = { ...randomSetting(seed), fixedMs: 1 };
      const convergence = new Convergence(optionsOf(setting));
      simulate(seed, setting, constant(0.5 * setting.rate, setting.pages), (round) => {
        const decision = convergence.endRound(round);
        if (!convergence.estimate.converges) expect.fail(`seed ${seed}`);
        return decision;
      });
      expect(convergence.estimate.text).toMatch(/^a switchover now would take .*are allowed$/);
    }
  });
});

const STEADY: Setting = { pages: 262_144, rate: 30, fixedMs: 2, noise: 0.1, downtimeMs: 100 };

test.each([0, 3, 100])('an idle guest, %i dirty pages, is switched over at once', (dirtyPages) => {
  const { decision, rounds } = simulate(1, STEADY, () => dirtyPages, ours(STEADY));
  expect(decision).toEqual({ action: 'switch', because: 'fits' });
  expect(rounds).toBe(1);
});

test('memory that was never touched is no bandwidth', () => {
  const convergence = new Convergence(optionsOf(STEADY));
  const first = { sentPages: 262_144, wireBytes: 4096 * 1000, durationMs: 100, dirtyPages: 5000 };
  expect(convergence.endRound(first).action).toBe('continue');
  expect(convergence.estimate.pagesPerSecond).toBe(10_000);
  const nothing = new Convergence(optionsOf(STEADY));
  expect(nothing.endRound({ ...first, wireBytes: 0 }).action).toBe('continue');
  expect(nothing.estimate).toMatchObject({ pagesPerSecond: 0, text: 'too early to say' });
  expect(nothing.endRound({ ...first, wireBytes: 0, dirtyPages: 0 }).action).toBe('switch');
});

describe('a guest that dirties more than the network takes', () => {
  const guest = constant(45, 200_000);

  test.each(SEEDS.slice(0, 20))('is given up after as many rounds as allowed, seed %i', (seed) => {
    const more = { maxRounds: 12, maxBytesFactor: 1000 };
    const outcome = simulate(seed, STEADY, guest, ours(STEADY, more));
    expect(outcome.decision).toEqual({ action: 'stop', because: 'rounds' });
    expect(outcome.rounds).toBe(12);
    expect(outcome.throttles.toSorted((a, b) => a - b)).toEqual(outcome.throttles);
  });

  test.each(SEEDS.slice(0, 20))('is given up after as many bytes as allowed, seed %i', (seed) => {
    const outcome = simulate(seed, STEADY, guest, ours(STEADY, { maxBytesFactor: 3 }));
    const memoryBytes = STEADY.pages * PAGE_BYTES;
    expect(outcome.decision).toEqual({ action: 'stop', because: 'bytes' });
    expect(outcome.wireBytes).toBeGreaterThanOrEqual(3 * memoryBytes);
    expect(outcome.wireBytes).toBeLessThan(4 * memoryBytes);
  });

  test('is said not to converge after three rounds, and what would help', () => {
    const convergence = new Convergence(optionsOf(STEADY));
    const said: boolean[] = [];
    simulate(7, STEADY, guest, (round) => {
      const decision = convergence.endRound(round);
      said.push(convergence.estimate.converges);
      return decision;
    });
    expect(said.slice(0, 3)).toEqual([true, true, false]);
    expect(said.slice(3)).not.toContain(true);
    expect(convergence.estimate.text).toMatch(
      /^will not converge at this rate: \d+ pages become dirty a second, \d+ are sent; add a path/,
    );
  });

  test.each(SEEDS.slice(0, 20))('is slowed down until it fits, if it obeys, seed %i', (seed) => {
    const setting = { ...STEADY, obeys: true };
    const outcome = simulate(seed, setting, guest, ours(setting, { maxBytesFactor: 50 }));
    expect(outcome.decision.action).toBe('switch');
    expect(outcome.expectedMs).toBeLessThanOrEqual(setting.downtimeMs);
    expect(outcome.throttles.at(-1)).toBeGreaterThanOrEqual(20);
  });
});

/** Rounds over a network that takes 10 pages a millisecond, until something else than the next. */
function decisionsOn(remainders: readonly number[], more: Partial<ConvergenceOptions> = {}) {
  const memoryBytes = 100_000 * PAGE_BYTES;
  const convergence = new Convergence({
    ...{ downtimeMs: 125, pageBytes: PAGE_BYTES, memoryBytes, maxBytesFactor: 100 },
    ...more,
  });
  let sentPages = 100_000;
  return remainders.map((dirtyPages) => {
    const durationMs = sentPages / 10;
    const round = { sentPages, wireBytes: sentPages * PAGE_BYTES, durationMs, dirtyPages };
    sentPages = dirtyPages;
    const decision = convergence.endRound(round);
    return decision.action === 'continue' ? 'continue' : `${decision.action} ${decision.because}`;
  });
}

describe('what fits: 1000 pages', () => {
  test.each([
    ['with room to spare', [9000, 400], ['continue', 'switch fits']],
    ['not any less', [9000, 1100, 900], ['continue', 'continue', 'switch local-minimum']],
    ['falling: a round later', [9000, 900, 500], ['continue', 'continue', 'switch fits']],
    [
      'lost, then again',
      [9000, 900, 1500, 950],
      [...Array(3).fill('continue'), 'switch local-minimum'],
    ],
    [
      'above the lowest: later',
      [9000, 600, 990, 610],
      [...Array(3).fill('continue'), 'switch local-minimum'],
    ],
  ])('%s', (_, remainders, decisions) => {
    expect(decisionsOn(remainders)).toEqual(decisions);
  });

  test('is not left for a lower remainder for ever', () => {
    const rising = [9000, 601, 670, 740, 815, 900];
    expect(decisionsOn(rising)).toEqual([...Array(5).fill('continue'), 'switch local-minimum']);
  });

  test('does not once the last round took longer', () => {
    const convergence = new Convergence({ ...optionsOf(STEADY), downtimeMs: 125, fixedMs: 0 });
    const decisions = [10, 10, 10, 5, 10].map((rate) => {
      const round = { sentPages: 9000, wireBytes: 9000 * PAGE_BYTES, durationMs: 9000 / rate };
      return convergence.endRound({ ...round, dirtyPages: rate === 5 ? 490 : 9000 }).action;
    });
    expect(decisions).not.toContain('switch');
    const round = { sentPages: 490, wireBytes: 490 * PAGE_BYTES, durationMs: 49, dirtyPages: 490 };
    expect(convergence.endRound(round).action).toBe('switch');
  });

  test('is switched over in the last round that is allowed', () => {
    expect(decisionsOn([9000, 900], { maxRounds: 2 })).toEqual(['continue', 'switch fits']);
    expect(decisionsOn([9000, 1100], { maxRounds: 2 })).toEqual(['continue', 'stop rounds']);
  });
});

test('no single round slows the guest down', () => {
  const convergence = new Convergence({ ...optionsOf(STEADY), maxBytesFactor: 100 });
  const left = [100_000, 50_000, 52_000, 30_000, 29_000, 28_500, 28_300, 20_000, 20_000, 20_000];
  let sentPages = STEADY.pages;
  const throttles = left.map((dirtyPages) => {
    const wireBytes = sentPages * PAGE_BYTES;
    const decision = convergence.endRound({ sentPages, wireBytes, durationMs: 5000, dirtyPages });
    sentPages = dirtyPages;
    return decision.action === 'continue' ? decision.throttlePercent : -1;
  });
  expect(throttles).toEqual([0, 0, 0, 0, 0, 20, 20, 20, 20, 30]);
});

test('pages that are left out of rounds count as left, and as no more than that', () => {
  const convergence = new Convergence({ ...optionsOf(STEADY), maxBytesFactor: 100 });
  const round = { wireBytes: 2 ** 30, durationMs: 8000 };
  convergence.endRound({ ...round, sentPages: 262_144, dirtyPages: 80_000 });
  for (const dirtyPages of [50_000, 30_000, 18_000, 10_000]) {
    const decision = convergence.endRound({ ...round, sentPages: 500, dirtyPages });
    expect(decision).toEqual({ action: 'continue', throttlePercent: 0 });
    expect(convergence.estimate.remainingBytes).toBe(dirtyPages * PAGE_BYTES);
  }
});

test('a switchover that takes too long by itself never converges, and says so', () => {
  const convergence = new Convergence({ ...optionsOf(STEADY), fixedMs: 90 });
  expect(convergence.estimate.converges).toBe(false);
  expect(convergence.estimate.text).toContain('takes 90 ms besides pages, and 100 ms are allowed');
});

test('options and figures out of their limits are refused', () => {
  const good = optionsOf(STEADY);
  for (const [name, values] of [
    ['downtimeMs', [0, -1, Number.NaN, Infinity]],
    ['fixedMs', [-1, Number.NaN]],
    ['maxRounds', [0, 0.5]],
    ['maxBytesFactor', [0, Number.NaN]],
    ['pageBytes', [0]],
    ['memoryBytes', [-1, Infinity]],
  ] as const) {
    for (const value of values) {
      expect(() => new Convergence({ ...good, [name]: value })).toThrow(`"${name}" is out of its`);
    }
  }
  const round = { sentPages: 1, wireBytes: 1, durationMs: 1, dirtyPages: 1 };
  const convergence = new Convergence(good);
  const before = convergence.estimate;
  for (const name of Object.keys(round)) {
    for (const value of [-1, Number.NaN, Infinity, undefined]) {
      const bad = { ...round, [name]: value } as RoundFacts;
      expect(() => convergence.endRound(bad)).toThrow(`"${name}" is out of its range`);
    }
  }
  expect(convergence.estimate).toEqual(before);
});

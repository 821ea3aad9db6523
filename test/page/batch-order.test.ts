import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { codeOf } from '../../src/errors.ts';
import { BatchOrder } from '../../src/page/batch-order.ts';

/* Fixed by the protocol: docs/protocol.md, section 8 */
const AHEAD_MAX = 16_384;

/** Lists of numbers, looked through from their beginning each time. */
class NaiveOrder {
  readonly #begun = new Map<number, number>();
  readonly #done = new Set<number>();

  /** The code of its refusal, or nothing. */
  begin(number: number, base: number): string {
    let missing = 0;
    while (this.#begun.has(missing)) missing++;
    if (this.#begun.has(number) || number >= missing + AHEAD_MAX) return 'ERR_BATCH_NUMBER';
    this.#begun.set(number, base);
    for (let below = 0; below < base; below++) {
      if (this.#begun.has(below)) continue;
      // It will never be decoded.
      this.#begun.set(number, Number.POSITIVE_INFINITY);
      return 'ERR_BATCH_REFERENCE';
    }
    return '';
  }

  finish(number: number): void {
    this.#done.add(number);
  }

  /** Those that may be decoded, and are not done. */
  get ready(): number[] {
    const ready: number[] = [];
    for (const [number, base] of this.#begun) {
      let isReady = Number.isFinite(base) && !this.#done.has(number);
      for (let below = 0; isReady && below < base; below++) isReady = this.#done.has(below);
      if (isReady) ready.push(number);
    }
    return ready.sort((a, b) => a - b);
  }
}

/** The real one, with a list of those that it lets be decoded. */
class WatchedOrder {
  readonly #order = new BatchOrder();
  readonly #ready = new Set<number>();

  begin(number: number, base: number): string {
    try {
      const wait = this.#order.begin(number, base);
      if (wait === undefined) this.#ready.add(number);
      else wait.then(() => this.#ready.add(number));
      return '';
    } catch (error) {
      return codeOf(error);
    }
  }

  finish(number: number): void {
    this.#ready.delete(number);
    this.#order.finish(number);
  }

  get ready(): number[] {
    return [...this.#ready].sort((a, b) => a - b);
  }
}

type Step =
  | { readonly kind: 'begin'; readonly number: number; readonly back: number }
  /** The one of those that are ready. */
  | { readonly kind: 'finish'; readonly which: number };

const anyStep: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    kind: fc.constant('begin' as const),
    number: fc.oneof({ weight: 20, arbitrary: fc.nat(12) }, fc.constantFrom(16_384, 16_390)),
    back: fc.nat(12),
  }),
  fc.record({ kind: fc.constant('finish' as const), which: fc.nat(100) }),
);

/** Numbers that come in an order not far from their own, each after a few that it relies on. */
const anyArrival = fc
  .array(fc.record({ late: fc.nat(4), back: fc.nat(8), finishes: fc.nat(2) }), { maxLength: 60 })
  .map((all) =>
    all
      .map((each, number) => ({ ...each, number, at: number + each.late }))
      .sort((a, b) => a.at - b.at)
      .flatMap(({ number, back, finishes }): Step[] => [
        { kind: 'begin', number, back },
        ...Array.from({ length: finishes }, (): Step => ({ kind: 'finish', which: number })),
      ]),
  );

async function compare(steps: readonly Step[]): Promise<void> {
  const [naive, real] = [new NaiveOrder(), new WatchedOrder()];
  for (const step of steps) {
    if (step.kind === 'begin') {
      const base = Math.max(0, step.number - step.back);
      expect(real.begin(step.number, base)).toBe(naive.begin(step.number, base));
    } else {
      const { ready } = naive;
      if (ready.length === 0) continue;
      const number = ready[step.which % ready.length]!;
      real.finish(number);
      naive.finish(number);
    }
    // What resumes does so in a task of its own.
    await new Promise((resolve) => setImmediate(resolve));
    expect(real.ready).toEqual(naive.ready);
  }
}

describe('BatchOrder', () => {
  test('lets a batch be decoded when the naive one does, whatever comes', async () => {
    await fc.assert(fc.asyncProperty(fc.array(anyStep, { maxLength: 40 }), compare), {
      numRuns: 300,
    });
  });

  test('does so for batches that come a little out of order', async () => {
    await fc.assert(fc.asyncProperty(anyArrival, compare), { numRuns: 300 });
  });

  test('has room for 16384 numbers ahead of the lowest that is missing', () => {
    const order = new BatchOrder();
    expect(order.begin(AHEAD_MAX - 1, 0)).toBeUndefined();
    expect(() => order.begin(AHEAD_MAX, 0)).toThrow(/too far ahead/);
    expect(order.begin(0, 0)).toBeUndefined();
    expect(order.begin(AHEAD_MAX, 0)).toBeUndefined();
  });

  test('lets go all that wait, and each once', async () => {
    const order = new BatchOrder();
    const ready: number[] = [];
    const begin = (number: number, base: number): void => {
      order.begin(number, base)?.then(() => ready.push(number));
    };
    begin(0, 0);
    begin(1, 1);
    begin(2, 1);
    order.letGo();
    await new Promise((resolve) => setImmediate(resolve));
    expect(ready).toEqual([1, 2]);
    order.finish(0);
    await new Promise((resolve) => setImmediate(resolve));
    expect(ready).toEqual([1, 2]);
  });
});

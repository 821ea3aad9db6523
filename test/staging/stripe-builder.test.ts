import { expect, test } from 'vitest';
import type { ParityEntry } from '../../src/staging/manifest.ts';
import { type Stripe, StripeBuilder } from '../../src/staging/stripe-builder.ts';

const scope = { vm: 'guest', attempt: '0'.repeat(32) };

/** A builder over intermediaries of which some take nothing, and where each parity went. */
class Bench {
  readonly parities: ParityEntry[] = [];
  readonly builder: StripeBuilder;
  #works: Promise<void>[] = [];

  constructor(usable: number[], refusing: readonly number[], movesParity: boolean) {
    const put = async (index: number) => !refusing.includes(index);
    this.builder = new StripeBuilder({
      ...{ scope, movesParity, places: { usable: () => usable, put } },
      onParity: (entry) => this.parities.push(entry),
      onWork: (work) => this.#works.push(work),
    });
  }

  /** Places an extent, and has it there. */
  async take(number: number): Promise<number> {
    const { at, stripe } = this.builder.place() as { at: number; stripe: Stripe };
    stripe.sum.add(number, new Uint8Array([number]));
    await this.builder.settle(stripe);
    return at;
  }

  /** Closes the stripe that is open. Where its parity is. */
  async close(): Promise<number | undefined> {
    this.builder.close();
    await Promise.all(this.#works);
    return this.parities.at(-1)?.intermediary;
  }
}

test('StripeBuilder place() gives each extent of a stripe, and its parity, another place', async () => {
  const bench = new Bench([0, 1, 2, 3], [], false);
  const places = [await bench.take(0), await bench.take(1), await bench.take(2)];
  expect(bench.builder.isOpen).toBe(false);
  expect(new Set([...places, await bench.close()]).size).toBe(4);
});

test('StripeBuilder avoid() puts the parity of the stripe that is open elsewhere', async () => {
  const bench = new Bench([0, 1, 2], [0], false);
  expect(await bench.take(0)).toBe(1);
  bench.builder.avoid(0);
  expect(bench.builder.isOpen).toBe(false);
  expect(await bench.close()).toBe(2);
});

test('StripeBuilder tries all that have no extent of the stripe, if it moves parity', async () => {
  for (const [movesParity, place] of [[true, 2] as const, [false, undefined] as const]) {
    const bench = new Bench([0, 1, 2], [0], movesParity);
    expect(await bench.take(0)).toBe(1);
    expect(await bench.close()).toBe(place);
  }
});

test('StripeBuilder place() gives extents, but no parity, to one that is left alone', async () => {
  const bench = new Bench([2], [], true);
  expect(await bench.take(0)).toBe(2);
  expect(await bench.close()).toBe(undefined);
  expect(bench.parities).toMatchObject([{ members: [0] }]);
});

test('StripeBuilder place() gives nothing where nobody has room', () => {
  expect(new Bench([], [], true).builder.place()).toBe(undefined);
});

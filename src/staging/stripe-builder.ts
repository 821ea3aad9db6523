import { parityKey, type StagingScope } from './extent.ts';
import type { ParityEntry } from './manifest.ts';
import { ParitySum, stripePlaces } from './parity.ts';
import type { Places } from './places.ts';

/** Extents that are being put with one parity. */
export interface Stripe {
  readonly number: number;
  readonly sum: ParitySum;
  /** Who gets the next extents, and in the end the parity. */
  places: number[];
  unsettled: number;
  isFull: boolean;
}

export interface StripeBuilderOptions {
  readonly places: Pick<Places, 'usable' | 'put'>;
  /** What keys begin with. */
  readonly scope: StagingScope;
  /** Whether a parity that is not taken at one intermediary is put at another of its stripe. */
  readonly movesParity: boolean;
  /** Gets the parity of each stripe, and its bytes; 0 if it is nowhere. */
  readonly onParity: (entry: ParityEntry, bytes: number) => void;
  /** Gets what is begun here and takes its time. */
  readonly onWork: (work: Promise<void>) => void;
}

/**
 * Gathers extents into stripes, each extent of a stripe at another intermediary, and puts the
 * parity of a stripe when all its extents are settled.
 */
export class StripeBuilder {
  readonly #options: StripeBuilderOptions;
  #next = 0;
  #open: Stripe | undefined;

  constructor(options: StripeBuilderOptions) {
    this.#options = options;
  }

  /** Whether there is a stripe that gets more extents. */
  get isOpen(): boolean {
    return this.#open !== undefined;
  }

  /**
   * Chooses the intermediary and the stripe for an extent, which must be settled later.
   *
   * @returns Undefined if no intermediary has the memory.
   */
  place(): { at: number; stripe: Stripe } | undefined {
    const usable = this.#options.places.usable();
    if (usable.length === 0) return undefined;
    this.#open ??= newStripe(this.#next++, usable);
    const stripe = this.#open;
    stripe.unsettled++;
    const at = stripe.places.shift()!;
    if (stripe.places.length === 1) this.close();
    return { at, stripe };
  }

  /** No more extents come into the stripe that is open. */
  close(): void {
    const stripe = this.#open;
    if (stripe === undefined) return;
    this.#open = undefined;
    stripe.isFull = true;
    this.#options.onWork(this.#finish(stripe));
  }

  /** Keeps the stripe that is open away from an intermediary that is lost. */
  avoid(index: number): void {
    if (this.#open === undefined) return;
    this.#open.places = this.#open.places.filter((place) => place !== index);
    if (this.#open.places.length === 1) this.close();
  }

  /** An extent of the stripe is where it should be, and in the sum, or will never be there. */
  async settle(stripe: Stripe): Promise<void> {
    stripe.unsettled--;
    await this.#finish(stripe);
  }

  /** Puts the parity when all extents of the stripe are settled. */
  async #finish(stripe: Stripe): Promise<void> {
    if (!stripe.isFull || stripe.unsettled > 0) return;
    stripe.unsettled = Number.POSITIVE_INFINITY; // once
    const { members } = stripe.sum;
    if (members.length === 0) return;
    const value = stripe.sum.value();
    const intermediary = await this.#putParity(stripe, value);
    const entry: ParityEntry = { kind: 'parity', stripe: stripe.number, intermediary, members };
    this.#options.onParity(entry, intermediary === undefined ? 0 : value.length);
  }

  /** Puts the parity where no extent of the stripe is. Where; undefined if it is nowhere. */
  async #putParity({ number, places }: Stripe, value: Uint8Array): Promise<number | undefined> {
    const key = parityKey(this.#options.scope, number);
    const choices = this.#options.movesParity ? places.toReversed() : places.slice(-1);
    for (const at of choices) {
      if (at >= 0 && (await this.#options.places.put(at, key, value))) return at;
    }
    return undefined;
  }
}

function newStripe(number: number, usable: readonly number[]): Stripe {
  // One that is left alone holds extents, but no parity.
  const places = usable.length === 1 ? [...usable, -1] : [...stripePlaces(number, usable)];
  return { number, sum: new ParitySum(), places, unsettled: 0, isFull: false };
}

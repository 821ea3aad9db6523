import { type Clock, systemClock } from '../clock.ts';
import { codeOf, StagingError } from '../errors.ts';
import type { PageRun } from '../page/bitmap.ts';
import type { RamLayout } from '../page/block.ts';
import { ExtentBuilder, ExtentKind, type ExtentSeal, extentKey, parityKey } from './extent.ts';
import type { Intermediary } from './intermediary.ts';
import {
  EXTENT_BYTES_MAX,
  EXTENT_SPAN_PAGES_MAX,
  EXTENTS_MAX,
  RENEWAL_FRACTION,
  SCATTER_BYTES_MAX,
  SCATTER_PATIENCE_MS,
} from './limits.ts';
import { type ExtentEntry, Manifest, type ManifestEntry } from './manifest.ts';
import { NAMED_EXTENTS_MAX } from './manifest-codec.ts';
import { ParitySum, stripePlaces } from './parity.ts';
import { choosePlace, NO_PLACE, NO_PLACE_NOW } from './placement.ts';

/*
 * From batches to intermediaries
 *
 *   1. join    batches of one block, until an extent is full               (one at a time)
 *   2. seal    under the next number                                       (one at a time)
 *   3. place   by rate and memory, or by the stripe; wait where all is busy (one at a time)
 *   4. put     several at once at every intermediary; "OK" is the ack      (in parallel)
 *   5. tell    the entry of the manifest goes to the destination
 *   6. add     to the stripe's parity, which is put when all its extents are settled
 *
 * An intermediary that fails is lost for this attempt, with all that it holds: its extents become
 * void, and their pages are to be scattered again while the source has them.
 */

/** Pages that are to be scattered again. */
export interface LostPages {
  readonly block: number;
  readonly runs: readonly PageRun[];
}

export interface ScatterOptions {
  readonly layout: RamLayout;
  readonly seal: ExtentSeal;
  readonly intermediaries: readonly Intermediary[];
  /** Gets the entries of the manifest, as soon as they hold. Must not throw. */
  readonly onEntry: (entry: ManifestEntry) => void;
  /** Whether any one intermediary may be lost; takes two of them at least. @default false */
  readonly hasParity?: boolean;
  /** Bytes that are to be scattered, for placement near the end. @default unknown */
  readonly expectedBytes?: number;
  /** How long an intermediary that is gone is waited for, milliseconds. @default 5000 */
  readonly patienceMs?: number;
  readonly clock?: Clock;
}

/** What has been scattered. */
export interface ScatterFacts {
  readonly extents: number;
  /** Bytes of batches, of sealed extents, and of parity. */
  readonly batchBytes: number;
  readonly extentBytes: number;
  readonly parityBytes: number;
  /** Extents that became void, and names of the intermediaries that were lost. */
  readonly voidExtents: number;
  readonly lost: readonly string[];
}

/** Failures after which an intermediary may be back soon, as it was. */
const PASSING: ReadonlySet<string> = new Set([
  'ERR_STAGING_LOST',
  'ERR_STAGING_TIMEOUT',
  'ERR_STAGING_BUSY',
]);

/** An intermediary, as this scatter sees it. */
interface Place {
  readonly intermediary: Intermediary;
  readonly runId: string;
  isLost: boolean;
}

/** An extent that is not full. */
interface BegunExtent {
  readonly builder: ExtentBuilder;
  block: number;
  runs: PageRun[];
}

/** Extents that are being put with one parity. */
interface Stripe {
  readonly number: number;
  readonly sum: ParitySum;
  /** Who gets the next extents, and in the end the parity. */
  readonly places: number[];
  unsettled: number;
  isFull: boolean;
}

/** Puts batches of guest pages into intermediaries, as sealed extents. */
export class Scatter implements AsyncDisposable {
  readonly manifest: Manifest;
  readonly #options: ScatterOptions;
  readonly #clock: Clock;
  readonly #places: readonly Place[];
  /** The extents that are begun, one for each lane. */
  readonly #begun: BegunExtent[] = [];
  #next = 0;
  #nextStripe = 0;
  #stripe: Stripe | undefined;
  #inFlightBytes = 0;
  #placedBytes = 0;
  #parityBytes = 0;
  #batchBytes = 0;
  #voidExtents = 0;
  #lostPages: LostPages[] = [];
  #failure: StagingError | undefined;
  #waiting: (() => void)[] = [];
  #turn: Promise<void> = Promise.resolve();
  #stopRenewal: () => void = () => {};
  readonly #failing = new Map<Place, Promise<boolean>>();

  private constructor(options: ScatterOptions, places: readonly Place[]) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#places = places;
    this.manifest = new Manifest(options.layout);
    this.#renewLater();
  }

  /**
   * Makes sure that every intermediary can hold its part of `neededBytes`, and begins.
   *
   * @throws {StagingError} ERR_STAGING_… If one cannot: nothing was put anywhere then.
   * @throws {RangeError} If there is no intermediary, or only one with parity.
   */
  static async open(options: ScatterOptions, neededBytes: number): Promise<Scatter> {
    const { intermediaries, hasParity = false, seal } = options;
    const least = hasParity ? 2 : 1;
    if (intermediaries.length < least) {
      throw new RangeError(`Cannot scatter: there must be ${least} intermediaries at least`);
    }
    const parts = intermediaries.length - (hasParity ? 1 : 0);
    const places: Place[] = [];
    for (const intermediary of intermediaries) {
      const probeKey = `${extentKey(seal.scope, 0)}?`;
      const facts = await intermediary.check(neededBytes / parts, probeKey);
      places.push({ intermediary, runId: facts.runId, isLost: false });
    }
    return new Scatter(options, places);
  }

  /**
   * Takes a batch, and copies it. Waits while too much is on its way.
   *
   * @param runs Its pages, ascending; none of them is in an extent that holds.
   * @param lane Which of the extents that are begun it goes into, from 0: whoever adds neighbouring
   *   pages in turn with others has one of its own. @default 0
   * @throws {StagingError} ERR_EXTENT_LENGTH If it is too long for an extent.
   * @throws {StagingError} ERR_STAGING_EXHAUSTED If no intermediary is left to take it; then
   *   nothing more can be scattered.
   */
  async add(batch: Uint8Array, block: number, runs: readonly PageRun[], lane = 0): Promise<void> {
    const turn = this.#turn.then(() => this.#add(batch, block, runs, lane));
    this.#turn = turn.catch(() => {});
    await turn;
  }

  /**
   * Seals what is begun, and waits until all is at intermediaries, or its pages are lost pages.
   *
   * @throws {StagingError} ERR_STAGING_EXHAUSTED.
   */
  async drain(): Promise<void> {
    const turn = this.#turn.then(async () => {
      for (const begun of this.#begun) await this.#seal(begun);
      this.#closeStripe();
    });
    this.#turn = turn.catch(() => {});
    await turn;
    while (this.#inFlightBytes > 0) await this.#change();
    this.#check();
  }

  /**
   * Drains, and asks every intermediary whether it still has all of it; gives it its full time to
   * live. Extents that are missing become void.
   *
   * @returns Whether all is there. If not, `takeLostPages` has what must be scattered again.
   * @throws {StagingError} ERR_STAGING_EXHAUSTED.
   */
  async verify(): Promise<boolean> {
    await this.drain();
    await Promise.all(this.#places.map((place, index) => this.#renew(place, index)));
    this.#check();
    return this.#lostPages.length === 0;
  }

  /** The pages that became void since the last call: they are to be scattered again. */
  takeLostPages(): LostPages[] {
    const lost = this.#lostPages;
    this.#lostPages = [];
    return lost;
  }

  facts(): ScatterFacts {
    return {
      extents: this.#next,
      batchBytes: this.#batchBytes,
      extentBytes: this.#placedBytes,
      parityBytes: this.#parityBytes,
      voidExtents: this.#voidExtents,
      lost: this.#places
        .filter(({ isLost }) => isLost)
        .map(({ intermediary }) => intermediary.name),
    };
  }

  /** Stops renewing keys; what is at intermediaries stays there for its time to live. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#stopRenewal();
    return Promise.resolve();
  }

  async #add(
    batch: Uint8Array,
    block: number,
    runs: readonly PageRun[],
    lane: number,
  ): Promise<void> {
    this.#check();
    const [first, last] = [runs[0], runs.at(-1)];
    if (first === undefined || last === undefined)
      throw new RangeError('Cannot add batch: no page');
    this.#begun[lane] ??= { builder: new ExtentBuilder(), block, runs: [] };
    const begun = this.#begun[lane];
    const previous = begun.runs.at(-1);
    const isNear =
      block === begun.block &&
      (previous === undefined || first.first >= previous.first + previous.count) &&
      last.first + last.count - (begun.runs[0] ?? first).first <= EXTENT_SPAN_PAGES_MAX;
    if (!isNear || !begun.builder.fits(batch.length)) await this.#seal(begun);
    if (!begun.builder.fits(batch.length)) {
      throw new StagingError(
        'ERR_EXTENT_LENGTH',
        `Cannot add batch of ${batch.length} bytes to an extent of ${EXTENT_BYTES_MAX}`,
      );
    }
    begun.block = block;
    begun.builder.add(batch);
    begun.runs.push(...runs);
    this.#batchBytes += batch.length;
  }

  /** Seals an extent that is begun, and has it put as soon as there is a place. */
  async #seal(begun: BegunExtent): Promise<void> {
    if (begun.builder.isEmpty) return;
    if (this.#next >= EXTENTS_MAX) this.#fail(`it has more than ${EXTENTS_MAX} extents`);
    const number = this.#next++;
    const value = this.#options.seal.seal(ExtentKind.Pages, number, begun.builder.take());
    const { block, runs } = begun;
    begun.runs = [];
    this.#placedBytes += value.length;
    while (this.#inFlightBytes + value.length > SCATTER_BYTES_MAX) await this.#change();
    const stripe = this.#options.hasParity ? this.#openStripe() : undefined;
    const at = stripe === undefined ? await this.#choose(value.length) : stripe.places.shift()!;
    const bytes = value.length;
    const entry: ExtentEntry = {
      ...{ kind: 'extent', number, intermediary: at, bytes, block, runs },
      stripe: stripe?.number,
    };
    if (stripe !== undefined && stripe.places.length === 1) this.#closeStripe();
    this.#inFlightBytes += bytes;
    void this.#put(entry, value, stripe).finally(() => {
      this.#inFlightBytes -= bytes;
      this.#changed();
    });
  }

  /** Waits for the place that is best. */
  async #choose(bytes: number): Promise<number> {
    for (;;) {
      this.#check();
      const expected = this.#options.expectedBytes ?? Number.POSITIVE_INFINITY;
      const remainingBytes = Math.max(bytes, expected - this.#placedBytes);
      const at = choosePlace(
        this.#places.map(({ intermediary, isLost }) => ({
          isUsable: !isLost,
          hasSlot: intermediary.hasSlot,
          inFlightBytes: intermediary.inFlightBytes,
          bytesPerSecond: intermediary.bytesPerSecond,
          freeBytes: intermediary.freeBytes,
        })),
        { bytes, remainingBytes },
      );
      if (at === NO_PLACE) this.#fail('no intermediary is left that has the memory');
      if (at !== NO_PLACE_NOW) return at;
      await this.#change();
    }
  }

  async #put(entry: ExtentEntry, value: Uint8Array, stripe: Stripe | undefined): Promise<void> {
    const key = extentKey(this.#options.seal.scope, entry.number);
    const isThere = await this.#putAt(entry.intermediary, key, value);
    if (isThere) {
      this.manifest.add(entry);
      this.#options.onEntry(entry);
      stripe?.sum.add(entry.number, value);
    } else {
      this.#voidExtents++;
      this.#lostPages.push({ block: entry.block, runs: entry.runs });
    }
    if (stripe !== undefined) {
      stripe.unsettled--;
      await this.#settle(stripe);
    }
  }

  /** Puts a value; once more if its intermediary is back soon, with all that it had. */
  async #putAt(index: number, key: string, value: Uint8Array): Promise<boolean> {
    const place = this.#places[index]!;
    for (;;) {
      if (place.isLost) return false;
      try {
        await place.intermediary.put(key, value);
        return !place.isLost;
      } catch (cause) {
        // One that is full keeps what it has; it only gets no more.
        if (codeOf(cause) === 'ERR_STAGING_FULL') return false;
        if (!(await this.#survives(place, index, cause))) return false;
      }
    }
  }

  /** Decides on an intermediary that failed: whether what it held is still there. */
  #survives(place: Place, index: number, cause: unknown): Promise<boolean> {
    const decided = this.#failing.get(place) ?? this.#decide(place, index, cause);
    this.#failing.set(place, decided);
    return decided.finally(() => this.#failing.delete(place));
  }

  async #decide(place: Place, index: number, cause: unknown): Promise<boolean> {
    const patienceMs = this.#options.patienceMs ?? SCATTER_PATIENCE_MS;
    const endMs = this.#clock.now() + patienceMs;
    const isPassing = PASSING.has(codeOf(cause));
    while (isPassing && this.#clock.now() < endMs) {
      try {
        const { runId } = await place.intermediary.facts();
        if (runId === place.runId) return true;
        break; // it was started anew: what it held is gone
      } catch {
        await new Promise<void>((done) => this.#clock.after(50, done, { keepsAlive: true }));
      }
    }
    this.#lose(place, index);
    return false;
  }

  /** An intermediary is not used any more, nor what it holds. */
  #lose(place: Place, index: number): void {
    if (place.isLost) return;
    place.isLost = true;
    this.#void([...this.manifest.extentsAt(index)]);
    this.#changed();
  }

  #void(extents: readonly number[]): void {
    for (const number of extents) {
      const block = this.manifest.at(number)!.block;
      this.#lostPages.push({ block, runs: this.manifest.pagesOf(number) });
      this.manifest.remove(number);
    }
    this.#voidExtents += extents.length;
    for (let at = 0; at < extents.length; at += NAMED_EXTENTS_MAX) {
      const some = extents.slice(at, at + NAMED_EXTENTS_MAX);
      this.#options.onEntry({ kind: 'void', extents: some });
    }
  }

  #openStripe(): Stripe {
    const usable = [...this.#places.keys()].filter((index) => {
      const { isLost, intermediary } = this.#places[index]!;
      return !isLost && intermediary.freeBytes >= EXTENT_BYTES_MAX;
    });
    if (usable.length === 0) this.#fail('no intermediary is left that has the memory');
    if (this.#stripe === undefined) {
      const number = this.#nextStripe++;
      // One that is left alone holds extents, but no parity.
      const places = usable.length === 1 ? [...usable, -1] : [...stripePlaces(number, usable)];
      this.#stripe = { number, sum: new ParitySum(), places, unsettled: 0, isFull: false };
    }
    this.#stripe.unsettled++;
    return this.#stripe;
  }

  /** No more extents come into the stripe that is open. */
  #closeStripe(): void {
    const stripe = this.#stripe;
    if (stripe === undefined) return;
    this.#stripe = undefined;
    stripe.isFull = true;
    this.#inFlightBytes += 1;
    void this.#settle(stripe).finally(() => {
      this.#inFlightBytes -= 1;
      this.#changed();
    });
  }

  /** Puts the parity when all extents of the stripe are settled. */
  async #settle(stripe: Stripe): Promise<void> {
    if (!stripe.isFull || stripe.unsettled > 0) return;
    stripe.unsettled = Number.POSITIVE_INFINITY; // once
    const { members } = stripe.sum;
    if (members.length === 0) return;
    const at = stripe.places.at(-1)!;
    const value = stripe.sum.value();
    const key = parityKey(this.#options.seal.scope, stripe.number);
    const isThere = at >= 0 && (await this.#putAt(at, key, value));
    if (isThere) this.#parityBytes += value.length;
    this.#options.onEntry({
      ...{ kind: 'parity', stripe: stripe.number, members },
      intermediary: isThere ? at : undefined,
    });
  }

  /** Renews the keys at an intermediary; those that are not there make their extents void. */
  async #renew(place: Place, index: number): Promise<void> {
    if (place.isLost) return;
    const { scope } = this.#options.seal;
    const keys = new Map<string, number>();
    for (const number of this.manifest.extentsAt(index)) keys.set(extentKey(scope, number), number);
    for (;;) {
      try {
        const missing = await place.intermediary.renew([...keys.keys()]);
        const extents = missing.map((key) => keys.get(key)!);
        this.#void(extents.filter((number) => this.manifest.at(number) !== undefined));
        return;
      } catch (cause) {
        if (!(await this.#survives(place, index, cause))) return;
      }
    }
  }

  #renewLater(): void {
    const ttlMs = Math.min(...this.#places.map(({ intermediary }) => intermediary.ttlMs));
    this.#stopRenewal = this.#clock.after(ttlMs * RENEWAL_FRACTION, () => {
      const renewals = this.#places.map((place, index) => this.#renew(place, index));
      void Promise.allSettled(renewals).then(() => this.#renewLater());
    });
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  #fail(why: string): never {
    this.#failure = new StagingError('ERR_STAGING_EXHAUSTED', `Cannot scatter: ${why}`);
    throw this.#failure;
  }

  #change(): Promise<void> {
    return new Promise((resume) => this.#waiting.push(resume));
  }

  #changed(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resume of waiting) resume();
  }
}

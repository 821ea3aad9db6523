import { type Clock, systemClock } from '../clock.ts';
import { StagingError } from '../errors.ts';
import { type PageRun, pushRun } from '../page/bitmap.ts';
import type { RamLayout } from '../page/block.ts';
import {
  ExtentBuilder,
  ExtentKind,
  type ExtentSeal,
  extentKey,
  keyPrefix,
  parityKey,
} from './extent.ts';
import type { Intermediary } from './intermediary.ts';
import {
  EXTENT_BYTES_MAX,
  EXTENT_RUNS_MAX,
  EXTENT_SPAN_PAGES_MAX,
  EXTENTS_MAX,
  RENEWAL_FRACTION,
  SCATTER_BYTES_MAX,
  SCATTER_EXTENTS_MAX,
  SCATTER_PATIENCE_MS,
} from './limits.ts';
import { type ExtentEntry, Manifest, type ManifestEntry } from './manifest.ts';
import { NAMED_EXTENTS_MAX } from './manifest-codec.ts';
import { findUnmendable, type Losses } from './mendable.ts';
import { choosePlace, NO_PLACE, NO_PLACE_NOW } from './placement.ts';
import { type Place, Places } from './places.ts';
import { PushRate } from './push-rate.ts';
import { type Stripe, StripeBuilder } from './stripe-builder.ts';
import { StripeTable } from './stripes.ts';

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
 *
 * Where the source has them no more, an extent that one intermediary does not take goes back to 3,
 * as it was sealed; and one that was lost is void only if its stripe cannot give it.
 */

const NO_MEMORY_LEFT = 'no intermediary is left that has the memory';

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
  /**
   * Whether pages cannot be scattered again: what failed to be put at one intermediary is put at
   * another, and what an intermediary that was lost held stays in the manifest if its stripe can
   * give it. @default false
   */
  readonly isLastCopy?: boolean;
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
  /** With parity: extents that would be lost with their intermediary, because another was. */
  readonly unprotectedExtents: number;
  /** Extents that became void, and names of the intermediaries that were lost. */
  readonly voidExtents: number;
  readonly lost: readonly string[];
}

/** An extent that is not full. */
interface BegunExtent {
  readonly builder: ExtentBuilder;
  block: number;
  runs: PageRun[];
}

/** Puts batches of guest pages into intermediaries, as sealed extents. */
export class Scatter implements AsyncDisposable {
  readonly manifest: Manifest;
  readonly #options: ScatterOptions;
  readonly #clock: Clock;
  readonly #places: Places;
  /** The extents that are begun, one for each lane. */
  readonly #begun: BegunExtent[] = [];
  #next = 0;
  readonly #builder: StripeBuilder | undefined;
  #inFlight = 0;
  #inFlightBytes = 0;
  readonly #stripes = new StripeTable();
  /** Of a last copy: extents whose keys were found missing. */
  readonly #missing = new Set<number>();
  readonly #losses: Losses = {
    isGone: (extent) => this.#isGone(extent),
    isLost: (intermediary) => this.#places.isLost(intermediary),
  };
  #placedBytes = 0;
  #parityBytes = 0;
  #batchBytes = 0;
  #voidExtents = 0;
  #lostPages: LostPages[] = [];
  #failure: unknown;
  #isClosed = false;
  readonly #limit: PushRate;
  #waiting: (() => void)[] = [];
  #turn: Promise<void> = Promise.resolve();
  #stopRenewal: () => void = () => {};

  private constructor(options: ScatterOptions, places: readonly Place[]) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#places = new Places(places, {
      patienceMs: options.patienceMs ?? SCATTER_PATIENCE_MS,
      clock: this.#clock,
      onLost: (index) => this.#lose(index),
    });
    this.#builder = options.hasParity ? this.#newBuilder() : undefined;
    this.#limit = new PushRate(this.#clock);
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
      const probeKey = `${keyPrefix(seal.scope)}probe`;
      const facts = await intermediary.check(neededBytes / parts, probeKey);
      places.push({ intermediary, runId: facts.runId });
    }
    return new Scatter(options, places);
  }

  /** Sets the most bytes a second that leave here, from now on; no limit if undefined. */
  setLimit(bytesPerSecond: number | undefined): void {
    this.#limit.set(bytesPerSecond);
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

  /** Seals what is begun, so that it goes off. Whoever adds or drains next hears what fails. */
  async flush(): Promise<void> {
    const turn = this.#turn.then(async () => {
      for (const begun of this.#begun) await this.#seal(begun);
    });
    this.#turn = turn.catch(() => {});
    await this.#turn;
  }

  /**
   * Seals what is begun, and waits until all is at intermediaries, or its pages are lost pages.
   * What is the last copy is never a lost page before `verify`.
   *
   * @throws {StagingError} ERR_STAGING_EXHAUSTED.
   */
  async drain(): Promise<void> {
    const turn = this.#turn.then(async () => {
      for (const begun of this.#begun) await this.#seal(begun);
      this.#builder?.close();
    });
    this.#turn = turn.catch(() => {});
    await turn;
    while (this.#inFlight > 0) {
      await this.#change();
      // What was put elsewhere may be in a stripe that has room.
      if (this.#inFlight === 0 && this.#options.isLastCopy) this.#builder?.close();
    }
    this.#check();
  }

  /**
   * Drains, and asks every intermediary whether it still has all of it; gives it its full time to
   * live. Extents that are missing become void; of a last copy, only those that their stripes
   * cannot give.
   *
   * @returns Whether all is there. If not, `takeLostPages` has what must be scattered again.
   * @throws {StagingError} ERR_STAGING_EXHAUSTED.
   */
  async verify(): Promise<boolean> {
    await this.drain();
    await this.#renewAll();
    if (this.#options.isLastCopy) {
      this.#void(findUnmendable(this.manifest, this.#stripes, this.#losses));
    }
    this.#check();
    return this.#lostPages.length === 0;
  }

  /** What is staged now: every extent that holds, and the parity of stripes that are whole. */
  *entries(): Generator<ManifestEntry, void, undefined> {
    yield* this.manifest.entries();
    yield* this.#stripes.entries(this.manifest);
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
      unprotectedExtents: this.#options.hasParity
        ? this.#stripes.unprotected(this.manifest, this.#losses.isGone)
        : 0,
      voidExtents: this.#voidExtents,
      lost: this.#places.lostNames,
    };
  }

  /** Stops renewing keys; what is at intermediaries stays there for its time to live. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
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
      begun.runs.length + runs.length <= EXTENT_RUNS_MAX &&
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
    for (const run of runs) pushRun(begun.runs, run);
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
    while (
      this.#inFlightBytes + value.length > SCATTER_BYTES_MAX ||
      this.#inFlight >= SCATTER_EXTENTS_MAX
    ) {
      await this.#change();
    }
    await this.#limit.pass(value.length);
    const { at, stripe } = await this.#place(value.length);
    const bytes = value.length;
    const entry: ExtentEntry = {
      ...{ kind: 'extent', number, intermediary: at, bytes, block, runs },
      stripe: stripe?.number,
    };
    this.#track(bytes, this.#put(entry, value, stripe));
  }

  /** Finds the next extent a place, and its stripe if there is parity. */
  async #place(bytes: number): Promise<{ at: number; stripe: Stripe | undefined }> {
    if (this.#builder === undefined) return { at: await this.#choose(bytes), stripe: undefined };
    return this.#builder.place() ?? this.#fail(NO_MEMORY_LEFT);
  }

  /** Waits for the place that is best. */
  async #choose(bytes: number): Promise<number> {
    for (;;) {
      this.#check();
      const expected = this.#options.expectedBytes ?? Number.POSITIVE_INFINITY;
      const remainingBytes = Math.max(bytes, expected - this.#placedBytes);
      const at = choosePlace(this.#places.states(), { bytes, remainingBytes });
      if (at === NO_PLACE) this.#fail(NO_MEMORY_LEFT);
      if (at !== NO_PLACE_NOW) return at;
      await this.#change();
    }
  }

  async #put(entry: ExtentEntry, value: Uint8Array, stripe: Stripe | undefined): Promise<void> {
    const key = extentKey(this.#options.seal.scope, entry.number);
    const isThere = await this.#places.put(entry.intermediary, key, value);
    if (isThere) {
      this.manifest.add(entry);
      this.#options.onEntry(entry);
      stripe?.sum.add(entry.number, value);
    } else if (this.#options.isLastCopy) {
      this.#track(value.length, this.#putElsewhere(entry, value));
    } else {
      this.#voidExtents++;
      this.#lostPages.push({ block: entry.block, runs: entry.runs });
    }
    if (stripe !== undefined) await this.#builder?.settle(stripe);
  }

  /** Puts an extent that an intermediary did not take, as it is sealed, at another. */
  async #putElsewhere(entry: ExtentEntry, value: Uint8Array): Promise<void> {
    await this.#limit.pass(value.length);
    const { at, stripe } = await this.#place(value.length);
    await this.#put({ ...entry, intermediary: at, stripe: stripe?.number }, value, stripe);
  }

  /** Whether an extent would have to wait for an intermediary. */
  get isBusy(): boolean {
    return !this.#places.hasSlot;
  }

  /** Whether an intermediary is waited for that holds what nobody else has. */
  get isDoubtful(): boolean {
    const { isLastCopy = false, hasParity = false } = this.#options;
    return isLastCopy && !hasParity && this.#places.isWaiting;
  }

  /** As soon as what cannot be had again is lost, nothing more is to be scattered. */
  #noteUnmendable(index: number): void {
    if ([...this.manifest.extentsAt(index)].length === 0) return;
    const text = `Cannot scatter: pages were lost with ${this.#places.nameOf(index)}`;
    this.#failure ??= new StagingError('ERR_STAGING_LOST', text);
  }

  /** Nothing that an intermediary holds counts any more; of a last copy, `verify` judges it. */
  #lose(index: number): void {
    const { isLastCopy, hasParity } = this.#options;
    if (isLastCopy && !hasParity) this.#noteUnmendable(index);
    if (isLastCopy) this.#builder?.avoid(index);
    else this.#void([...this.manifest.extentsAt(index)]);
    for (const stripe of this.#stripes.at(index)) this.#stripes.lose(stripe);
    this.#changed();
  }

  #isGone(extent: number): boolean {
    const place = this.manifest.at(extent);
    return (
      place === undefined || this.#places.isLost(place.intermediary) || this.#missing.has(extent)
    );
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

  #newBuilder(): StripeBuilder {
    const { seal, isLastCopy = false, onEntry } = this.#options;
    return new StripeBuilder({
      places: this.#places,
      scope: seal.scope,
      movesParity: isLastCopy,
      onParity: (entry, bytes) => {
        this.#parityBytes += bytes;
        this.#stripes.add(entry);
        onEntry(entry);
      },
      onWork: (work) => this.#track(0, work),
    });
  }

  async #renewAll(): Promise<void> {
    await Promise.all(Array.from({ length: this.#places.count }, (_, index) => this.#renew(index)));
  }

  /**
   * Renews the keys at an intermediary; those that are not there make their extents void, but of a
   * last copy they are only noted.
   */
  async #renew(index: number): Promise<void> {
    const { scope } = this.#options.seal;
    const extents = new Map<string, number>();
    for (const at of this.manifest.extentsAt(index)) extents.set(extentKey(scope, at), at);
    const stripes = new Map<string, number>();
    for (const at of this.#stripes.at(index)) stripes.set(parityKey(scope, at), at);
    const missing = await this.#places.renew(index, [...extents.keys(), ...stripes.keys()]);
    for (const key of missing) if (stripes.has(key)) this.#stripes.lose(stripes.get(key)!);
    const gone = missing.map((key) => extents.get(key) ?? -1);
    const held = gone.filter((number) => this.manifest.at(number) !== undefined);
    if (!this.#options.isLastCopy) this.#void(held);
    else for (const number of held) this.#missing.add(number);
  }

  #renewLater(): void {
    this.#stopRenewal = this.#clock.after(this.#places.ttlMs * RENEWAL_FRACTION, () => {
      void this.#renewAll().finally(() => {
        if (!this.#isClosed) this.#renewLater();
      });
    });
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  #fail(why: string): never {
    const failure = new StagingError('ERR_STAGING_EXHAUSTED', `Cannot scatter: ${why}`);
    this.#failure ??= failure;
    throw failure;
  }

  /** Counts what is on its way. */
  #track(bytes: number, work: Promise<void>): void {
    this.#inFlight++;
    this.#inFlightBytes += bytes;
    const end = (): void => {
      this.#inFlight--;
      this.#inFlightBytes -= bytes;
      this.#changed();
    };
    work.then(end, (cause: unknown) => {
      this.#failure ??= cause;
      end();
    });
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

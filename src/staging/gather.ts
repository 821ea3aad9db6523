import { type Clock, systemClock } from '../clock.ts';
import { PagelaneError, StagingError } from '../errors.ts';
import type { PageRun } from '../page/bitmap.ts';
import type { RamLayout } from '../page/block.ts';
import { type Attempt, firstPlain } from './attempt.ts';
import { batchesOf, ExtentKind, type ExtentSeal, extentKey, parityKey } from './extent.ts';
import { FetchWindow } from './fetch-window.ts';
import type { Intermediary } from './intermediary.ts';
import {
  CONNECTIONS,
  EXTENTS_MAX,
  GATHER_PATIENCE_MS,
  RENEWAL_FRACTION,
  WANTED_WAIT_MS,
} from './limits.ts';
import { Manifest, type ManifestEntry, type ParityEntry } from './manifest.ts';
import { rebuild } from './parity.ts';
import { PushRate } from './push-rate.ts';
import { Removals } from './removals.ts';
import { StagedReader } from './staged-reader.ts';

/*
 * From intermediaries to guest memory
 *
 *   1. accept   entries of the manifest, as the source tells them
 *   2. fetch    in their order, several at once from each intermediary; wanted pages before all
 *   3. open     the seal says whether it is what was put there
 *   4. mend     what is missing, wrong or out of reach: from the stripe, else from the source
 *   5. apply    batch by batch; then the page is there, and whoever wants it is told
 *   6. remove   what is applied: alone, or with all of its stripe
 */

/** Pages that can be had nowhere any more. */
export interface GonePages {
  readonly block: number;
  readonly runs: readonly PageRun[];
  /** Why: the last failure. */
  readonly cause: unknown;
}

export interface GatherOptions {
  readonly layout: RamLayout;
  readonly seal: ExtentSeal;
  /** In the source's order; undefined for one that could not be reached. */
  readonly intermediaries: readonly (Intermediary | undefined)[];
  /**
   * Puts a batch into guest memory.
   *
   * @returns How many pages were in it.
   */
  readonly apply: (batch: Uint8Array, extent: number) => Promise<number>;
  /**
   * Asks the source for the pages of an extent that cannot be gathered. Returns whether it has them
   * and sends them: then they come as other extents, or as it sends pages otherwise.
   */
  readonly askSource?: (block: number, runs: readonly PageRun[]) => Promise<boolean>;
  /**
   * Whether extents are removed when they are applied, or only from `startRemoving` on: as long as
   * the source asks intermediaries whether they have all of it. @default true
   */
  readonly removes?: boolean | 'later';
  /**
   * Extents that stay at each intermediary, the last that were applied, until `removeRest`: if what
   * is applied may yet be lost on its way. @default 0
   */
  readonly removalLag?: number;
  /** How long an intermediary that is gone is waited for, milliseconds. @default 60,000 */
  readonly patienceMs?: number;
  readonly clock?: Clock;
}

/** What has been gathered. */
export interface GatherFacts {
  readonly extents: number;
  readonly pages: number;
  /** Pages that came straight from the source. */
  readonly directPages: number;
  /** Extents that came because a page in them was wanted. */
  readonly wantedExtents: number;
  /** Extents that were made from their stripes; that the source was asked for. */
  readonly mendedExtents: number;
  readonly askedExtents: number;
  /** Extents that were wrong or missing at their intermediary. */
  readonly badExtents: number;
  readonly removedKeys: number;
}

/** Of an extent. Void: its pages come again. Asked: the source sends them. */
const State = { Parked: 1, Fetching: 2, Applied: 3, Void: 4, Asked: 5, Gone: 6 } as const;

/** What is known of a stripe. */
interface Stripe {
  /** Its extents that were told of. */
  readonly seen: number[];
  parity: ParityEntry | undefined;
}

/** Gathers a guest's pages from intermediaries. */
export class Gather implements AsyncDisposable {
  readonly manifest: Manifest;
  readonly #options: GatherOptions;
  readonly #clock: Clock;
  readonly #states: number[] = [];
  /** Numbers of what came straight from the source and is not applied yet. */
  readonly #direct = new Set<number>();
  /** Extents to fetch, for each intermediary, in the order they were told. */
  readonly #queues: number[][];
  readonly #queueHeads: number[];
  readonly #stripes = new Map<number, Stripe>();
  readonly #reader: StagedReader;
  readonly #removals: Removals;
  readonly #gone: GonePages[] = [];
  readonly #counts = {
    ...{ extents: 0, pages: 0, directPages: 0, wantedExtents: 0 },
    ...{ mendedExtents: 0, askedExtents: 0, badExtents: 0 },
  };
  readonly #limit: PushRate;
  readonly #window: FetchWindow;
  #inBackground = 0;
  #waiting: (() => void)[] = [];
  #open = 0;
  #isComplete = false;
  #isClosed = false;
  #failure: unknown;
  #stopRenewal: () => void = () => {};

  constructor(options: GatherOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#limit = new PushRate(this.#clock);
    const slots = options.intermediaries.map((each) => each?.slots ?? CONNECTIONS);
    this.#window = new FetchWindow(slots.reduce((sum, count) => sum + count, 0));
    this.manifest = new Manifest(options.layout);
    this.#queues = options.intermediaries.map(() => []);
    this.#queueHeads = options.intermediaries.map(() => 0);
    const patienceMs = options.patienceMs ?? GATHER_PATIENCE_MS;
    this.#reader = new StagedReader(options.intermediaries, { patienceMs, clock: this.#clock });
    this.#removals = new Removals(options.intermediaries, {
      clock: this.#clock,
      isHeld: options.removes === 'later',
      ...(options.removalLag !== undefined && { lag: options.removalLag }),
    });
    for (const [index, intermediary] of options.intermediaries.entries()) {
      // What is at one that is not here is mended, several at once as from any other.
      const fetchers = intermediary?.slots ?? CONNECTIONS;
      for (let at = 0; at < fetchers; at++) void this.#fetchAll(index);
    }
    this.#renewLater();
  }

  /**
   * Takes an entry of the manifest.
   *
   * @throws {StagingError} ERR_MANIFEST_… If it does not fit those before it.
   */
  accept(entry: ManifestEntry): void {
    if (entry.kind === 'void') {
      for (const number of entry.extents) this.#forget(number);
    } else if (entry.kind === 'parity') {
      this.#acceptParity(entry);
    } else {
      if (entry.intermediary >= this.#queues.length) {
        throw new StagingError(
          'ERR_MANIFEST_EXTENT',
          `Cannot take extent ${entry.number}: there is no intermediary ${entry.intermediary}`,
        );
      }
      this.manifest.add(entry);
      this.#states[entry.number] = State.Parked;
      this.#open++;
      if (entry.stripe !== undefined) this.#stripe(entry.stripe).seen.push(entry.number);
      this.#queues[entry.intermediary]!.push(entry.number);
    }
    this.#changed();
  }

  /**
   * Takes in pages that came straight from the source.
   *
   * @param apply Puts them into guest memory; what it throws ends the gathering.
   * @throws {StagingError} ERR_MANIFEST_PAGE If one of them was staged, or came before.
   */
  async takeDirect(
    block: number,
    runs: readonly PageRun[],
    apply: () => Promise<void>,
  ): Promise<void> {
    const number = this.manifest.addDirect(block, runs);
    this.#direct.add(number);
    this.#open++;
    try {
      await apply();
      for (const { count } of runs) this.#counts.directPages += count;
    } catch (cause) {
      this.#failure ??= cause;
    } finally {
      this.#direct.delete(number);
      this.#open--;
      this.#changed();
    }
  }

  /**
   * Sets the most bytes a second that are fetched ahead, from now on; no limit if undefined. What
   * is wanted comes on top.
   */
  setLimit(bytesPerSecond: number | undefined): void {
    this.#limit.set(bytesPerSecond);
  }

  /** Removes what is applied, and from now on whatever will be. */
  startRemoving(): void {
    this.#removals.release();
  }

  /** Removes all that is applied, the last of it too. */
  removeRest(): Promise<void> {
    return this.#removals.removeRest();
  }

  /** All entries were given. */
  complete(): void {
    this.#isComplete = true;
    this.#changed();
  }

  /**
   * Fetches the page's extent before all others, unless it is applied already.
   *
   * @returns When the page is in guest memory, or the source was asked for it.
   * @throws {StagingError} ERR_STAGING_PAGES_GONE If it can be had nowhere any more, or no entry
   *   names it though all were given.
   */
  async want(block: number, page: number): Promise<void> {
    let asked: number | undefined;
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      const number = this.manifest.find(block, page);
      const state = this.#stateOf(number ?? asked ?? -1);
      if (state === State.Applied || (number === undefined && state === State.Asked)) return;
      if (state === State.Gone) throw this.#goneError(`page ${page} of block ${block} is gone`);
      if (number === undefined && this.#isComplete) {
        throw this.#goneError(`page ${page} of block ${block} is not staged`);
      }
      if (number !== undefined && state === State.Parked) {
        this.#counts.wantedExtents++;
        void this.#fetch(number, { isUrgent: true });
      }
      asked = number ?? asked;
      await this.#change();
    }
  }

  /**
   * Waits until every page of every entry is in guest memory, and all of it is removed from the
   * intermediaries.
   *
   * @throws {StagingError} ERR_STAGING_PAGES_GONE If pages can be had nowhere: `gonePages` tells
   *   which. All others are there then.
   * @throws Whatever `apply` throws.
   */
  async done(): Promise<GatherFacts> {
    while ((!this.#isComplete || this.#open > 0) && this.#failure === undefined) {
      await this.#change();
    }
    if (this.#failure !== undefined) throw this.#failure;
    await this.#removals.flush();
    if (this.#gone.length > 0) throw this.#goneError(this.#describeGone());
    return this.facts();
  }

  /** The pages that can be had nowhere any more. */
  get gonePages(): readonly GonePages[] {
    return this.#gone;
  }

  facts(): GatherFacts {
    return { ...this.#counts, removedKeys: this.#removals.removed };
  }

  /** Stops fetching and renewing. What is at intermediaries stays there for its time to live. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    this.#stopRenewal();
    this.#reader.close();
    this.#failure ??= new StagingError('ERR_STAGING_CLOSED', 'Cannot gather: it was closed');
    this.#changed();
    await this.#removals.close();
  }

  #stateOf(number: number): number | undefined {
    if (number < EXTENTS_MAX) return this.#states[number];
    return this.#direct.has(number) ? State.Fetching : State.Applied;
  }

  /** Fetches what is parked at one intermediary, in order, one after another. */
  async #fetchAll(index: number): Promise<void> {
    const queue = this.#queues[index]!;
    while (!this.#isClosed && this.#failure === undefined) {
      const number = queue[this.#queueHeads[index]!];
      if (number === undefined) {
        await this.#change();
        continue;
      }
      this.#queueHeads[index]!++;
      await this.#limit.pass(this.manifest.at(number)?.bytes ?? 0);
      while (this.#inBackground >= this.#window.size && !this.#isClosed) await this.#change();
      if (this.#states[number] === State.Parked) await this.#fetchAhead(number);
    }
  }

  async #fetchAhead(number: number): Promise<void> {
    const fromMs = this.#clock.now();
    this.#inBackground++;
    await this.#fetch(number, { isUrgent: false });
    this.#inBackground--;
    this.#window.arrived(fromMs, this.#clock.now());
    this.#changed();
  }

  /** Fetches an extent that is parked, and applies it. Never throws. */
  async #fetch(number: number, { isUrgent }: { isUrgent: boolean }): Promise<void> {
    this.#states[number] = State.Fetching;
    try {
      const plain = await this.#plainOf(number, isUrgent);
      if (plain === undefined) return;
      let applied = 0;
      for (const batch of batchesOf(plain)) applied += await this.#options.apply(batch, number);
      if (this.#states[number] !== State.Fetching) return; // it became void meanwhile
      this.#count(number, applied);
      this.#settle(number, State.Applied);
      this.#removeApplied(number);
    } catch (cause) {
      this.#failure ??= cause;
    } finally {
      this.#changed();
    }
  }

  /** Counts what was applied. No page may be left out: it would stay a page of zeros. */
  #count(number: number, applied: number): void {
    let pages = 0;
    for (const { count } of this.manifest.pagesOf(number)) pages += count;
    if (applied !== pages) {
      const text = `Cannot use extent ${number}: it holds ${applied} pages of ${pages}`;
      throw new StagingError('ERR_EXTENT_PAGES', text);
    }
    this.#counts.extents++;
    this.#counts.pages += pages;
  }

  /**
   * The contents of an extent: from its intermediary, else from its stripe, else from either when
   * those who did not answer are back; undefined if they come otherwise, or not at all.
   */
  async #plainOf(number: number, isUrgent: boolean): Promise<Uint8Array | undefined> {
    const { intermediary, bytes } = this.manifest.at(number)!;
    const key = extentKey(this.#options.seal.scope, number);
    const read = () => this.#reader.read(intermediary, key, { bytes, isUrgent });
    const direct = await this.#tryFirst(number, read, isUrgent);
    if (direct.plain !== undefined) return direct.plain;
    if (direct.isBad) this.#counts.badExtents++;
    const mended = await this.#tryMend(number, isUrgent);
    if (mended.plain !== undefined) return mended.plain;
    if (this.#states[number] !== State.Fetching || (await this.#ask(number))) return undefined;
    const { plain, cause } = await firstPlain([
      this.#tryLater(direct, [intermediary], () => direct.late ?? this.#try(number, read)),
      this.#tryLater(mended, this.#menders(number), () => this.#tryMend(number, isUrgent)),
    ]);
    if (plain === undefined && this.#states[number] === State.Fetching) {
      const { block } = this.manifest.at(number)!;
      this.#gone.push({ block, runs: this.manifest.pagesOf(number), cause });
      this.#settle(number, State.Gone);
    }
    return plain;
  }

  /** Tries a way again when all intermediaries that it needs answer; not if what it gave is bad. */
  async #tryLater(
    last: Attempt,
    needed: readonly number[],
    attempt: () => Promise<Attempt>,
  ): Promise<Attempt> {
    if (last.isBad) return last;
    const answers = await Promise.all(needed.map((index) => this.#reader.answers(index)));
    return answers.every(Boolean) ? await attempt() : last;
  }

  /** As `#try`, but who is in a hurry does not wait long for one way if there are others. */
  async #tryFirst(
    number: number,
    get: () => Promise<Uint8Array>,
    isUrgent: boolean,
  ): Promise<Attempt> {
    const late = this.#try(number, get);
    const stripe = this.#stripes.get(this.manifest.at(number)?.stripe ?? -1);
    const hasOthers = stripe?.parity !== undefined || this.#options.askSource !== undefined;
    if (!isUrgent || !hasOthers) return await late;
    late.catch(() => {}); // nobody may wait for it
    let stop: (() => void) | undefined;
    const isOver = new Promise<undefined>((done) => {
      stop = this.#clock.after(WANTED_WAIT_MS, () => done(undefined));
    });
    const found = await Promise.race([late, isOver]);
    stop?.();
    return found ?? { isBad: false, late };
  }

  /** Opens what one way gives. */
  async #try(number: number, get: () => Promise<Uint8Array>): Promise<Attempt> {
    try {
      const plain = this.#options.seal.open(ExtentKind.Pages, number, await get());
      return { plain, isBad: false };
    } catch (cause) {
      if (!(cause instanceof PagelaneError)) throw cause;
      return { isBad: cause.code.startsWith('ERR_EXTENT_'), cause };
    }
  }

  /** Asks the source for the pages of an extent; whether it sends them. */
  async #ask(number: number): Promise<boolean> {
    const { block } = this.manifest.at(number)!;
    const runs = this.manifest.pagesOf(number);
    const isSent = (await this.#options.askSource?.(block, runs)) ?? false;
    if (this.#states[number] !== State.Fetching) return true;
    if (!isSent) return false;
    this.#counts.askedExtents++;
    this.#settle(number, State.Asked);
    this.manifest.remove(number);
    return true;
  }

  /** Makes an extent from its stripe, and opens it. */
  async #tryMend(number: number, isUrgent: boolean): Promise<Attempt> {
    const mended = await this.#try(number, () => this.#rebuild(number, isUrgent));
    if (mended.plain !== undefined) this.#counts.mendedExtents++;
    return mended;
  }

  /** The intermediaries that are needed to mend an extent, as far as they are known. */
  #menders(number: number): number[] {
    const parity = this.#stripes.get(this.manifest.at(number)?.stripe ?? -1)?.parity;
    if (parity?.intermediary === undefined) return [];
    const others = parity.members.filter((member) => member !== number);
    const places = others.map((member) => this.manifest.at(member)?.intermediary ?? -1);
    return [parity.intermediary, ...places.filter((place) => place >= 0)];
  }

  /** Makes an extent from all others of its stripe. */
  async #rebuild(number: number, isUrgent: boolean): Promise<Uint8Array> {
    const parity = await this.#parityOf(number);
    const at = parity?.intermediary;
    if (parity === undefined || at === undefined || !parity.members.includes(number)) {
      throw new StagingError('ERR_EXTENT_MISSING', `Cannot mend extent ${number}: no parity`);
    }
    const { scope } = this.#options.seal;
    const reads = [{ index: at, key: parityKey(scope, parity.stripe) }];
    for (const member of parity.members) {
      const place = this.manifest.at(member);
      if (place === undefined) {
        const text = `Cannot mend extent ${number}: ${member} of its stripe is void`;
        throw new StagingError('ERR_EXTENT_MISSING', text);
      }
      if (member !== number)
        reads.push({ index: place.intermediary, key: extentKey(scope, member) });
    }
    const { bytes } = this.manifest.at(number)!;
    const values = reads.map(({ index, key }) => this.#reader.read(index, key, { isUrgent }));
    return rebuild(await Promise.all(values), bytes);
  }

  /**
   * The parity of an extent; undefined if there is none. It is waited for as long as it may come,
   * unless the source can be asked instead.
   */
  async #parityOf(number: number): Promise<ParityEntry | undefined> {
    const at = this.manifest.at(number)?.stripe;
    if (at === undefined) return undefined;
    const stripe = this.#stripe(at);
    const mayWait = this.#options.askSource === undefined;
    while (mayWait && stripe.parity === undefined && !this.#isComplete) {
      if (this.#failure !== undefined) break;
      await this.#change();
    }
    return stripe.parity;
  }

  #stripe(number: number): Stripe {
    const stripe = this.#stripes.get(number) ?? { seen: [], parity: undefined };
    this.#stripes.set(number, stripe);
    return stripe;
  }

  #acceptParity(entry: ParityEntry): void {
    const stripe = this.#stripe(entry.stripe);
    if (stripe.parity !== undefined || (entry.intermediary ?? 0) >= this.#queues.length) {
      const text = `Cannot take parity of stripe ${entry.stripe}: it was there, or has no place`;
      throw new StagingError('ERR_MANIFEST_EXTENT', text);
    }
    stripe.parity = entry;
    this.#removeStripe(entry.stripe, stripe);
  }

  /** An extent that is void: its pages come again, whatever became of it. */
  #forget(number: number): void {
    const state = this.#states[number];
    if (state === State.Parked || state === State.Fetching) this.#settle(number, State.Void);
    this.manifest.remove(number);
  }

  #settle(number: number, state: number): void {
    this.#states[number] = state;
    this.#open--;
  }

  /** Removes an extent that is applied, or its stripe if it was the last of it. */
  #removeApplied(number: number): void {
    const place = this.manifest.at(number)!;
    if (place.stripe === undefined) {
      this.#remove(place.intermediary, extentKey(this.#options.seal.scope, number));
    } else {
      this.#removeStripe(place.stripe, this.#stripe(place.stripe));
    }
  }

  /** A stripe stays whole until all of it is applied: any of it might mend another. */
  #removeStripe(number: number, { seen, parity }: Stripe): void {
    const isParked = (extent: number): boolean =>
      this.#states[extent] === State.Parked || this.#states[extent] === State.Fetching;
    if (parity === undefined || seen.some(isParked)) return;
    const { scope } = this.#options.seal;
    for (const extent of seen) {
      const place = this.manifest.at(extent);
      if (place !== undefined) this.#remove(place.intermediary, extentKey(scope, extent));
    }
    if (parity.intermediary !== undefined)
      this.#remove(parity.intermediary, parityKey(scope, number));
    this.#stripes.delete(number);
  }

  #remove(index: number, key: string): void {
    if (this.#options.removes !== false) this.#removals.add(index, key);
  }

  /** Keeps alive what is still to be gathered. */
  #renewLater(): void {
    const here = this.#options.intermediaries.filter((each) => each !== undefined);
    const ttlMs = Math.min(...here.map((intermediary) => intermediary.ttlMs));
    if (!Number.isFinite(ttlMs)) return;
    this.#stopRenewal = this.#clock.after(ttlMs * RENEWAL_FRACTION, () => {
      const renewals = this.#queues.map(async (_, index) => {
        await this.#options.intermediaries[index]?.renew(this.#keysAt(index));
      });
      void Promise.allSettled(renewals).then(() => {
        if (!this.#isClosed) this.#renewLater();
      });
    });
  }

  #keysAt(index: number): string[] {
    const { scope } = this.#options.seal;
    const keys: string[] = [];
    for (const number of this.manifest.extentsAt(index)) {
      // What is applied may still mend others of its stripe.
      const isNeeded =
        this.#states[number] !== State.Applied ||
        this.#stripes.has(this.manifest.at(number)?.stripe ?? -1);
      if (isNeeded) keys.push(extentKey(scope, number));
    }
    for (const [number, { parity }] of this.#stripes) {
      if (parity?.intermediary === index) keys.push(parityKey(scope, number));
    }
    return keys;
  }

  #describeGone(): string {
    let pages = 0;
    for (const { runs } of this.#gone) for (const { count } of runs) pages += count;
    const { block, runs, cause } = this.#gone[0]!;
    const why = cause instanceof Error ? `: ${cause.message}` : '';
    return `${pages} pages are gone, page ${runs[0]!.first} of block ${block} the first${why}`;
  }

  #goneError(why: string): StagingError {
    const cause = this.#gone[0]?.cause;
    return new StagingError('ERR_STAGING_PAGES_GONE', `Cannot gather guest: ${why}`, { cause });
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

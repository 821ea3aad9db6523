import { randomBytes } from 'node:crypto';
import { StagingError } from '../errors.ts';
import type { BatchPages } from '../page/batch-map.ts';
import { memoryBytes, type RamLayout } from '../page/block.ts';
import type { CodecName } from '../page/codec-choice.ts';
import type { BatchEncoder, EncodedBatch } from '../page/encode.ts';
import { sharedText } from '../staging/address.ts';
import type { StagedWhere } from '../staging/everywhere.ts';
import { ExtentSeal } from '../staging/extent.ts';
import type { Intermediary } from '../staging/intermediary.ts';
import { ATTEMPT_BYTES, EXTENT_KEY_BYTES } from '../staging/limits.ts';
import { EntryWriter } from '../staging/manifest-codec.ts';
import { extentEncoder } from '../staging/pages.ts';
import { Scatter } from '../staging/scatter.ts';
import { type StoredStream, storeManifest } from '../staging/stored-manifest.ts';
import type { StagedFacts } from './progress.ts';
import type { StageMessage } from './stage-message.ts';

/*
 * The pages of a post-copy, from the source's stream to intermediaries
 *
 *   1. encode    batches, in the addon's threads                                   put
 *   2. scatter   in the stream's order, into extents; straight to the destination
 *                what no intermediary has room for                                 #scatterNext
 *   3. tell      the destination which extent holds which page                     onEntries
 *   4. finish    when every intermediary was asked whether it still has its own    finish
 */

/* Chosen by us */

/** Pause between two looks whether an intermediary that has failed is back. */
const DOUBT_LOOK_MS = 20;

/** Where pages of a post-copy go. */
export interface StageOptions {
  /** Open; they stay the caller's. The destination must reach them too. */
  readonly intermediaries: readonly Intermediary[];
  /** Whether any one of them may be lost; takes two at least. @default false */
  readonly hasParity?: boolean;
  /** Most bytes a second that go to them. @default no limit */
  readonly maxBytesPerSecond?: number;
}

interface Parts {
  readonly layout: RamLayout;
  /** Made by `newStage`. */
  readonly message: StageMessage;
  readonly codec: CodecName;
  readonly threads: number;
  /** Entries of the manifest that hold from now on. */
  readonly onEntries: (entries: Uint8Array) => void;
  /**
   * Sends a batch straight to the destination; false if there is no room for it, or it takes none.
   * One that goes ahead needs no room. @default never
   */
  readonly sendDirect?: (batch: EncodedBatch, isAhead: boolean) => boolean;
  /** A batch went into an extent, or straight to the destination. */
  readonly onBatch: (batch: EncodedBatch) => void;
  readonly onRoom: () => void;
  readonly onError: (error: unknown) => void;
}

interface Made {
  readonly intermediaries: readonly Intermediary[];
  readonly scatter: Scatter;
  readonly entries: EntryWriter;
  readonly message: StageMessage;
}

/** Names a new attempt, with a key of its own. */
export function newStage({ intermediaries }: StageOptions): StageMessage {
  const attempt = randomBytes(ATTEMPT_BYTES).toString('hex');
  return {
    scope: { vm: attempt.slice(0, 8), attempt },
    key: randomBytes(EXTENT_KEY_BYTES),
    intermediaries: intermediaries.map(({ address }) => sharedText(address)),
  };
}

/** Puts the pages of one post-copy into intermediaries. */
export class PageStager implements AsyncDisposable {
  /** What the destination has to know. */
  readonly message: StageMessage;
  readonly #parts: Parts;
  readonly #encoder: BatchEncoder;
  readonly #intermediaries: readonly Intermediary[];
  readonly #scatter: Scatter;
  readonly #entries: EntryWriter;
  #turn: Promise<void> = Promise.resolve();
  #look: NodeJS.Timeout | undefined;
  #directPages = 0;

  private constructor(parts: Parts, { intermediaries, scatter, entries, message }: Made) {
    this.#parts = parts;
    this.message = message;
    this.#intermediaries = intermediaries;
    this.#scatter = scatter;
    this.#entries = entries;
    const { codec, threads, layout } = parts;
    // What intermediaries have room for counts more than what a fast one could take.
    const steady = codec === 'auto' ? 'lz4' : codec;
    this.#encoder = extentEncoder(2 ** layout.pageBits, { codec: steady, threads });
  }

  /**
   * Makes sure that the intermediaries can hold all of the guest's memory.
   *
   * @throws {StagingError} ERR_STAGING_… If one cannot, or is not to be trusted with it.
   * @throws {RangeError} If there are too few of them, or pages are too large.
   */
  static async open(parts: Parts, options: StageOptions): Promise<PageStager> {
    const { layout, message, onEntries } = parts;
    const { intermediaries, hasParity = false, maxBytesPerSecond } = options;
    const entries = new EntryWriter();
    const tell = (): void => {
      if (!entries.isEmpty) onEntries(entries.take());
    };
    const scatter = await Scatter.open(
      {
        layout,
        seal: new ExtentSeal(message.key, message.scope),
        intermediaries,
        hasParity,
        isLastCopy: true,
        onEntry: (entry) => {
          // Those that come together go together.
          if (entries.isEmpty) setImmediate(tell);
          if (entries.add(entry)) return;
          tell();
          entries.add(entry);
        },
      },
      memoryBytes(layout),
    );
    scatter.setLimit(maxBytesPerSecond);
    return new PageStager(parts, { intermediaries, scatter, entries, message });
  }

  /** Where everything is, and what seals it. */
  get where(): StagedWhere {
    const { key, scope } = this.message;
    return { seal: new ExtentSeal(key, scope), intermediaries: this.#intermediaries };
  }

  /** Limits what goes to all intermediaries together, in bytes a second. */
  setLimit(bytesPerSecond: number | undefined): void {
    this.#scatter.setLimit(bytesPerSecond);
  }

  /** A slot for the next batch; undefined while there is no room. */
  takeSlot(): Uint8Array | undefined {
    if (!this.#scatter.isDoubtful) return this.#encoder.takeSlot();
    // QEMU can give pages again only as long as it has not given all of them.
    this.#look ??= setTimeout(() => {
      this.#look = undefined;
      this.#parts.onRoom();
    }, DOUBT_LOOK_MS);
    return undefined;
  }

  /**
   * Takes a sealed batch of pages of one block, ascending.
   *
   * @param pages Those in it.
   * @param options.isAhead Whether the destination waits for it: then it goes straight there, if it
   *   can. @default false
   */
  put(
    slot: Uint8Array,
    sealed: Int32Array,
    pages: BatchPages,
    { isAhead = false }: { isAhead?: boolean } = {},
  ): void {
    const encoding = this.#encoder.encode(slot, sealed, 0);
    encoding.then(this.#parts.onRoom, () => {});
    const isGone = encoding.then((batch) => isAhead && this.#sendDirect(batch, true));
    isGone.catch(() => {}); // told in its turn
    this.#turn = this.#turn.then(async () => {
      if (!(await isGone)) await this.#scatterNext(await encoding, pages);
    });
    this.#turn.catch(this.#parts.onError);
  }

  async #scatterNext(batch: EncodedBatch, { block, runs }: BatchPages): Promise<void> {
    // What no intermediary has room for now need not wait if a path has.
    if (this.#scatter.isBusy && this.#sendDirect(batch, false)) return;
    await this.#scatter.add(batch.buffer.subarray(batch.start, batch.end), block, runs);
    this.#done(batch);
  }

  #sendDirect(batch: EncodedBatch, isAhead: boolean): boolean {
    if (this.#parts.sendDirect?.(batch, isAhead) !== true) return false;
    this.#directPages += batch.facts.pages;
    this.#done(batch);
    return true;
  }

  #done(batch: EncodedBatch): void {
    this.#parts.onBatch(batch);
    this.#encoder.release(batch);
    this.#parts.onRoom();
  }

  /** Sends off what is begun: somebody waits for it. */
  flush(): void {
    this.#turn.then(() => this.#scatter.flush()).catch(() => {});
  }

  /**
   * Waits until every page is in an extent that its intermediary had a moment ago, or can be had
   * from its stripe; the destination was told, and the manifest is at the intermediaries too.
   *
   * @param stream What is there beside pages, if anything is.
   * @throws {StagingError} ERR_STAGING_LOST If pages are nowhere any more.
   */
  async finish(stream?: StoredStream): Promise<void> {
    await this.#turn;
    if (!(await this.#scatter.verify())) {
      const lost = this.#scatter.facts().lost.join(', ') || 'an intermediary';
      const text = `Cannot stage: pages were lost with ${lost}`;
      throw new StagingError('ERR_STAGING_LOST', text);
    }
    if (!this.#entries.isEmpty) this.#parts.onEntries(this.#entries.take());
    const { layout } = this.#parts;
    const entries = this.#scatter.entries();
    await storeManifest({ layout, entries, ...(stream && { stream }) }, this.where);
  }

  facts(): Omit<StagedFacts, 'evictionMs'> {
    const { extents, extentBytes, parityBytes, lost } = this.#scatter.facts();
    const bytes = { extentBytes, parityBytes };
    return { extents, ...bytes, directPages: this.#directPages, lostIntermediaries: lost };
  }

  [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#look);
    return this.#scatter[Symbol.asyncDispose]();
  }
}

import { PagelaneError } from '../errors.ts';
import { HEADER_BYTES } from '../frame/limits.ts';
import { pagesOfSealed } from '../page/batch-map.ts';
import type { RamLayout } from '../page/block.ts';
import type { CodecName } from '../page/codec-choice.ts';
import type { EncodedBatch } from '../page/encode.ts';
import { keyPrefix } from '../staging/extent.ts';
import type { EncodedMessage } from '../stream/message.ts';
import { PageRequestReader } from '../stream/page-request.ts';
import { ReturnType } from '../stream/return-path.ts';
import { AskedPages } from './asked-pages.ts';
import { Deferred } from './deferred.ts';
import { newStage, PageStager, type StageOptions } from './page-stager.ts';
import type { Tally } from './progress.ts';
import { isLoaded } from './return-message.ts';
import type { LimitedStage } from './stage-limit.ts';
import {
  encodeEntries,
  encodeStage,
  type StagedMessage,
  type StageMessage,
} from './stage-message.ts';

/*
 * The source's end of a post-copy whose pages are read, most often by way of intermediaries
 *
 *   1. open     the destination reaches the intermediaries, and they have the room   open
 *   2. switch   the destination hears it before anything of the post-copy            switchOver
 *   3. stage    pages, in the order in which QEMU gives them; those that intermediaries
 *               have no room for now go straight to the destination                  stager
 *   4. finish   all of them are held; the destination is told all entries            finish
 *   5. free     it runs the guest and knows where all pages are: so QEMU may go      #free
 *
 * Without intermediaries pages go straight to the destination. It is asked whether it is ready when
 * QEMU says that it may switch, and QEMU goes when the destination's has loaded everything.
 *
 * Until 2 the guest is here. From then on it is at the destination, and paused there if staging
 * fails before 5: the source QEMU has its pages until then.
 */

/* Chosen by us */

/** How long the destination may take to reach the intermediaries, or to take in the manifest. */
const TIMEOUT_MS = 60_000;

/** What the stage needs of the migration that it is a part of. */
export interface SourceStageHost {
  readonly tally: Tally;
  readonly codec: CodecName;
  readonly threads: number;
  /** Whether any path is open: only that time counts for what the destination may take. */
  isConnected(): boolean;
  /** Queues a message in its place. */
  put(message: EncodedMessage): void;
  /** Queues a batch, unless others wait before it; or ahead of them. */
  sendDirect(batch: EncodedBatch, isAhead: boolean): boolean;
  /** Queues the last message. */
  putEnd(): void;
  /** There may be room for more of QEMU's stream. */
  feed(): void;
  fail(error: unknown): void;
  /** Digest of what was sent. */
  digest(): bigint;
  /** The package is loaded: the guest runs at the destination. */
  loaded(): void;
  /** The source QEMU may go. */
  free(): void;
}

/** Where a batch goes among those that are queued. */
export interface PutOrder {
  /** Before them: the destination waits for it. */
  readonly isAhead: boolean;
}

export class SourceStage implements AsyncDisposable, LimitedStage {
  readonly #host: SourceStageHost;
  readonly #options: StageOptions;
  readonly #message: StageMessage;
  #stager: PageStager | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isAnnounced = false;
  #isReady = false;
  #isLeft = false;
  readonly #reached = new Deferred<void>();
  readonly #ready = new Deferred<void>();
  #hasSwitched = false;
  #isLoaded = false;
  #isTold = false;
  #hasAll = false;
  #takesPages = false;
  #isOver = false;
  readonly #requests = new PageRequestReader();
  #layout: RamLayout | undefined;
  #asked: AskedPages | undefined;

  constructor(host: SourceStageHost, options: StageOptions) {
    this.#host = host;
    this.#options = options;
    this.#message = newStage(options);
    // Nothing needs to be ready: QEMU may be let in.
    if (this.isDirect) this.#ready.resolve();
  }

  /** Whether there are no intermediaries. */
  get isDirect(): boolean {
    return this.#options.intermediaries.length === 0;
  }

  /** Whether the stream must wait: nobody may switch before pages have a place for certain. */
  get mustWait(): boolean {
    if (!this.#isAnnounced || this.#isLeft) return false;
    return !this.#isReady || (!this.isDirect && this.#stager === undefined);
  }

  /** Whether post-copy has begun. */
  get hasSwitched(): boolean {
    return this.#hasSwitched;
  }

  /** Takes pages, once it was switched over; undefined if they go straight to the destination. */
  get stager(): PageStager | undefined {
    return this.#hasSwitched ? this.#stager : undefined;
  }

  get intermediaryCount(): number {
    return this.#stager === undefined ? 0 : this.#options.intermediaries.length;
  }

  limit(bytesPerSecond: number | undefined, intermediary: number | undefined): void {
    if (intermediary === undefined) this.#stager?.setLimit(bytesPerSecond);
    else this.#options.intermediaries[intermediary]?.setLimit(bytesPerSecond);
  }

  /** Has the destination connect, and looks at the intermediaries: before QEMU is needed. */
  announce(): void {
    if (this.#isAnnounced) return;
    this.#isAnnounced = true;
    this.#host.put(encodeStage(this.#message, HEADER_BYTES));
    const probeKey = `${keyPrefix(this.#message.scope)}probe`;
    const { intermediaries } = this.#options;
    const checks = intermediaries.map((intermediary) => intermediary.check(0, probeKey));
    this.#limitWait(`the destination${this.isDirect ? '' : ' and the intermediaries'} to be ready`);
    Promise.all([Promise.all(checks), this.#reached.promise]).then(
      () => {
        this.#stopWait();
        this.#isReady = true;
        this.#ready.resolve();
        this.#noteReady();
      },
      (error: unknown) => this.#host.fail(error),
    );
  }

  /** Resolves when QEMU may be let in; or when nothing is staged, because it cannot be. */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  /** Whether nothing is staged after all. */
  get isLeft(): boolean {
    return this.#isLeft;
  }

  /** Lets pages go straight to the destination: something is not as it has to be. */
  leave(): void {
    this.#isLeft = true;
    this.#stopWait();
    this.#ready.resolve();
  }

  /** As soon as the guest's memory is known. */
  open(layout: RamLayout): void {
    this.#layout = layout;
    if (this.#isLeft || this.isDirect) return;
    const { tally, codec, threads } = this.#host;
    const parts = {
      ...{ layout, message: this.#message, codec, threads },
      onEntries: (entries: Uint8Array) => this.#host.put(encodeEntries(entries, HEADER_BYTES)),
      sendDirect: (batch: EncodedBatch, isAhead: boolean) =>
        this.#takesPages && this.#host.sendDirect(batch, isAhead),
      onBatch: (batch: EncodedBatch) => tally.note(batch),
      onRoom: () => this.#host.feed(),
      onError: (error: unknown) => this.#host.fail(error),
    };
    PageStager.open(parts, this.#options).then(
      (stager) => {
        this.#stager = stager;
        if (this.#isOver) void stager[Symbol.asyncDispose]();
        else this.#noteReady();
      },
      (error: unknown) => this.#host.fail(error),
    );
  }

  /** The next bytes are of the post-copy. */
  switchOver(): void {
    this.#asked = new AskedPages(this.#layout!);
    this.#hasSwitched = true;
    this.#host.put(encodeEntries(NO_ENTRIES, HEADER_BYTES));
  }

  /** QEMU has given its last page. */
  finish(): void {
    if (this.isDirect) {
      this.#host.putEnd();
      return;
    }
    this.#host.tally.waitsFor = 'intermediaries to hold all pages';
    this.#stager!.finish().then(
      () => {
        if (this.#isOver) return;
        this.#limitWait('the destination to know where all pages are');
        this.#isTold = true;
        this.#host.putEnd();
      },
      (error: unknown) => this.#host.fail(error),
    );
  }

  /**
   * Takes what the destination says of it.
   *
   * @throws {PagelaneError} ERR_MESSAGE If it cannot be so; ERR_DIGEST if it was given other bytes.
   */
  take({ hasAll, takesPages, digest }: StagedMessage): void {
    if (!hasAll) {
      this.#takesPages = takesPages;
      this.#reached.resolve();
      return;
    }
    this.#stopWait();
    if (!this.#isTold) {
      throw new PagelaneError('ERR_MESSAGE', 'Destination has all before it was told of all');
    }
    if (digest !== this.#host.digest()) {
      const text = 'What the destination was given differs from what was sent';
      throw new PagelaneError('ERR_DIGEST', text);
    }
    this.#hasAll = true;
    this.#free();
  }

  /** Pages that the destination asked for, and that QEMU has not given. */
  get missingPages(): number {
    return this.#asked?.missing ?? 0;
  }

  /**
   * Takes a sealed batch that QEMU gives, if it is to be staged.
   *
   * @returns How it goes straight to the destination; undefined if it was taken.
   */
  put(slot: Uint8Array, sealed: Int32Array, order: PutOrder): PutOrder | undefined {
    if (!this.#hasSwitched) return order;
    const missing = this.missingPages;
    const pages = pagesOfSealed(slot, sealed);
    this.#asked!.take(pages);
    if (this.#stager === undefined) {
      return { isAhead: order.isAhead || this.missingPages < missing };
    }
    this.#stager.put(slot, sealed, pages, order);
    return undefined;
  }

  /** Hears what the destination's QEMU says. */
  hear(type: number, message: Uint8Array): void {
    if (!this.#hasSwitched) return;
    if (type === ReturnType.RequestById || type === ReturnType.Request) {
      this.#asked!.ask(this.#requests.read(message));
    }
    if (!isLoaded(message)) return;
    this.#isLoaded = true;
    this.#host.loaded();
    this.#free();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    this.#stopWait();
    await this.#stager?.[Symbol.asyncDispose]();
  }

  #noteReady(): void {
    if (this.mustWait) return;
    this.#stopWait();
    this.#host.feed();
  }

  #free(): void {
    if (this.#isLoaded && this.#hasAll && !this.#isOver) this.#host.free();
  }

  #limitWait(what: string): void {
    this.#stopWait();
    this.#host.tally.waitsFor = what;
    this.#timer = setTimeout(() => {
      if (!this.#host.isConnected()) {
        this.#limitWait(what);
        return;
      }
      const text = `Waited ${TIMEOUT_MS} ms for ${what}`;
      this.#host.fail(new PagelaneError('ERR_STAGING_TIMEOUT', text));
    }, TIMEOUT_MS);
  }

  #stopWait(): void {
    if (this.#timer === undefined) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#host.tally.waitsFor = undefined;
  }
}

const NO_ENTRIES = new Uint8Array(0);

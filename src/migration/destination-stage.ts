import { ProtocolError } from '../errors.ts';
import { HEADER_BYTES } from '../frame/limits.ts';
import type { RamLayout } from '../page/block.ts';
import type { DecodedBatch } from '../page/decode.ts';
import type { IncomingMessage } from '../session/lane.ts';
import type { Intermediary } from '../staging/intermediary.ts';
import { decodeEntries } from '../staging/manifest-codec.ts';
import { closeIntermediaries } from '../staging/open-intermediaries.ts';
import type { EncodedMessage } from '../stream/message.ts';
import { encodePageRequest, PageRequestReader } from '../stream/page-request.ts';
import { ReturnType } from '../stream/return-path.ts';
import { Deferred } from './deferred.ts';
import { pingCommand } from './package.ts';
import { type GatherSettings, openAll, PageGatherer } from './page-gatherer.ts';
import { pausedError } from './paused.ts';
import type { Tally } from './progress.ts';
import { isLoaded, isPong, PING_PAGES, SHUT_SUCCESS } from './return-message.ts';
import type { LimitedStage } from './stage-limit.ts';
import { encodeStaged, type StageMessage } from './stage-message.ts';

/*
 * The destination's end of a post-copy whose pages are read, most often by way of intermediaries
 *
 *   1. open       connections to all of them; then the source may switch over      open
 *   2. gather     what the source says is there; what QEMU asks for, first         accept, hear
 *   3. take       what comes straight from the source                              takePages
 *   4. complete   nothing more comes from the source: when QEMU has said that it has loaded
 *                 the package, and what came straight, the source is let go        complete
 *   5. end        when all pages are with QEMU, so is what follows them            host.gathered
 *
 * What QEMU asks for before the source has staged it, is asked of the source.
 */

/** What the stage needs of the migration that it is a part of. */
export interface DestinationStageHost {
  readonly tally: Tally;
  send(message: EncodedMessage): void;
  /** Gives a batch to QEMU; resolves when it is written. */
  write(batch: DecodedBatch): Promise<void>;
  /** Gives QEMU a command, outside of any section. */
  command(bytes: Uint8Array): void;
  /** Gives what QEMU says to the source. */
  relay(bytes: Uint8Array): void;
  /** Digest of what was received. */
  digest(): bigint;
  fail(error: unknown): void;
  /** Post-copy begins. */
  switched(): void;
  /** All pages are with QEMU. */
  gathered(): void;
}

export class DestinationStage implements AsyncDisposable, LimitedStage {
  readonly #host: DestinationStageHost;
  readonly #settings: GatherSettings;
  readonly #requests = new PageRequestReader();
  #gatherer: PageGatherer | undefined;
  #ticket: StageMessage | undefined;
  #layout: RamLayout | undefined;
  #intermediaries: readonly (Intermediary | undefined)[] | undefined;
  #isOver = false;
  #needsSource = true;
  /** What came straight from the source, until it is written. */
  #direct: Promise<void> | undefined;
  readonly #hasDirect = new Deferred<void>();
  readonly #hasLoaded = new Deferred<void>();
  /** Whether what the source heard of QEMU so far ends with a whole message. */
  isAligned = true;

  constructor(settings: GatherSettings, host: DestinationStageHost) {
    this.#settings = settings;
    this.#host = host;
  }

  /** False once the source was let go: what becomes of it does not matter any more. */
  get needsSource(): boolean {
    return this.#needsSource;
  }

  get intermediaryCount(): number {
    return this.#gatherer?.intermediaryCount ?? 0;
  }

  limit(bytesPerSecond: number | undefined, intermediary: number | undefined): void {
    this.#gatherer?.limit(bytesPerSecond, intermediary);
  }

  /** Whether the source reads its post-copy: then what QEMU says goes by here. */
  get isHearing(): boolean {
    return this.#ticket !== undefined && this.isAligned;
  }

  /** Whether there are no intermediaries: the source stays until QEMU has loaded everything. */
  get #isDirect(): boolean {
    return this.#ticket?.intermediaries.length === 0;
  }

  /** Whether post-copy has begun. */
  get hasSwitched(): boolean {
    return this.#host.tally.phase === 'postcopy';
  }

  /**
   * Connects to the intermediaries, while the guest is at the source: best before it is paused.
   *
   * @throws {ProtocolError} ERR_MESSAGE If that was said before.
   */
  open(stage: StageMessage): void {
    if (this.#ticket !== undefined) {
      throw new ProtocolError('ERR_MESSAGE', 'Source stages twice');
    }
    this.#ticket = stage;
    openAll(stage, this.#settings, { mayMiss: false }).then(
      (intermediaries) => {
        this.#intermediaries = intermediaries;
        if (this.#isOver) void closeIntermediaries(intermediaries);
        else this.#tell(false);
      },
      (error: unknown) => this.#host.fail(error),
    );
  }

  /** The guest's memory is known. */
  setLayout(layout: RamLayout): void {
    this.#layout = layout;
  }

  /**
   * Takes entries of the manifest; the first come before anything of the post-copy.
   *
   * @throws {PagelaneError} ERR_MESSAGE, ERR_MANIFEST_… If they cannot be so.
   */
  accept(entries: Uint8Array): void {
    const { tally } = this.#host;
    const gatherer = this.#gathererNow();
    if (!this.hasSwitched) {
      tally.phase = 'postcopy';
      tally.beginRound();
      this.#host.switched();
    }
    for (const entry of decodeEntries(entries)) gatherer.accept(entry);
  }

  /** Takes pages that come straight from the source, and have come behind its first entries. */
  takePages(incoming: IncomingMessage): void {
    const taken = this.#gathererNow().takeDirect(incoming.payload, incoming.sequence);
    const all = Promise.all([this.#direct, taken.then(() => incoming.release())]);
    // Without a value: each would hold all before it.
    this.#direct = all.then(() => {});
    this.#direct.catch((error: unknown) => this.fail(error));
  }

  /** Every page is known. */
  complete(): void {
    this.#complete(this.#gathererNow()).catch((error: unknown) => this.fail(error));
  }

  async #complete(gatherer: PageGatherer): Promise<void> {
    await this.#direct;
    if (!this.#isDirect) await this.#letSourceGo(gatherer);
    if (this.#isOver) return;
    gatherer.complete();
    this.#host.tally.waitsFor = 'pages to be gathered';
    await gatherer.done();
    this.#host.gathered();
  }

  /** Tells the source that it is needed no more, as soon as it is so. */
  async #letSourceGo(gatherer: PageGatherer): Promise<void> {
    if (this.#direct !== undefined) {
      // Nobody else has them once the source is gone, and what is written may be on its way.
      this.#host.command(pingCommand(PING_PAGES));
      await this.#hasDirect.promise;
    }
    // The source hears it too, as long as it is needed.
    await this.#hasLoaded.promise;
    await this.#settings.keepTicket?.(this.#ticket!);
    if (this.#isOver) return;
    gatherer.startRemoving();
    this.#tell(true);
    this.#needsSource = false;
  }

  /** QEMU has loaded everything. */
  async loaded(): Promise<void> {
    await this.#gatherer?.removeAll();
  }

  /** Hears what QEMU says, message by message, and answers its requests or passes them on. */
  hear(type: number, message: Uint8Array): void {
    if (!this.isHearing) return;
    if (!this.hasSwitched) {
      this.#host.relay(message);
      return;
    }
    if (type === ReturnType.RequestById || type === ReturnType.Request) {
      this.#answer(message);
      return;
    }
    if (isLoaded(message)) this.#hasLoaded.resolve();
    if (isPong(message, PING_PAGES)) {
      this.#hasDirect.resolve();
      return;
    }
    // A source that is let go hears of success then.
    const isHeld = !this.#isDirect && Buffer.compare(message, SHUT_SUCCESS) === 0;
    if (this.#needsSource && !isHeld) this.#host.relay(message);
  }

  /** Answers a request, or asks the source; one that cannot be so ends the migration. */
  #answer(message: Uint8Array): void {
    try {
      const request = this.#requests.read(message);
      const { isStaged, isThere } = this.#gathererNow().want(request);
      isThere.catch((error: unknown) => this.fail(error));
      if (!isStaged && this.#needsSource) this.#host.relay(encodePageRequest(request));
    } catch (error) {
      this.fail(error);
    }
  }

  /** Ends the migration: as a post-copy that is paused, as long as the source has its pages. */
  fail(error: unknown): void {
    if (this.#isOver) return;
    const isPaused = this.#needsSource && this.hasSwitched;
    this.#host.fail(isPaused ? pausedError(error) : error);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    if (this.#gatherer !== undefined) {
      this.#host.tally.gathered = this.#gatherer.facts();
      await this.#gatherer[Symbol.asyncDispose]();
    }
    await closeIntermediaries(this.#intermediaries ?? []);
  }

  #gathererNow(): PageGatherer {
    if (this.#gatherer !== undefined) return this.#gatherer;
    const [stage, layout, intermediaries] = [this.#ticket, this.#layout, this.#intermediaries];
    if (stage === undefined || layout === undefined || intermediaries === undefined) {
      throw new ProtocolError('ERR_MESSAGE', 'Source has staged pages, and not said where');
    }
    const { tally, write } = this.#host;
    const parts = { layout, tally, settings: this.#settings, write };
    this.#gatherer = new PageGatherer(parts, stage, intermediaries);
    return this.#gatherer;
  }

  #tell(hasAll: boolean): void {
    const digest = hasAll ? this.#host.digest() : 0n;
    // What comes straight keeps to no limit on what is gathered.
    const takesPages = this.#settings.maxBytesPerSecond === undefined;
    this.#host.send(encodeStaged({ hasAll, takesPages, digest }, HEADER_BYTES));
  }
}

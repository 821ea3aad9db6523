import { asPagelaneError, type GuestPlace, messageOf, PagelaneError } from '../errors.ts';
import { HEADER_BYTES } from '../frame/limits.ts';
import type { RamLayout } from '../page/block.ts';
import type { CodecName } from '../page/codec-choice.ts';
import { BatchEncoder, type EncodedBatch } from '../page/encode.ts';
import { defaultStoreBytes, storeSlots } from '../page/store.ts';
import type { IncomingMessage } from '../session/lane.ts';
import { EndMark } from '../stream/end-mark.ts';
import type { QemuChannel } from '../stream/endpoint.ts';
import * as message from '../stream/message.ts';
import { StreamReader } from '../stream/reader.ts';
import { ReturnPathWatcher } from '../stream/return-path.ts';
import type { BytesPlace, StreamSink } from '../stream/sink.ts';
import { TailWatcher } from '../stream/tail.ts';
import { Departure } from './departure.ts';
import { Joins } from './joins.ts';
import { Outbox } from './outbox.ts';
import type { StageOptions } from './page-stager.ts';
import { pausedError } from './paused.ts';
import { PreemptSource } from './preempt-source.ts';
import type { MigrationResult } from './progress.ts';
import { SHUT_SUCCESS } from './return-message.ts';
import { type PutOrder, SourceStage } from './source-stage.ts';
import type { LimitedStage } from './stage-limit.ts';
import { decodeStaged } from './stage-message.ts';
import { MigrationStream, type StreamParts } from './stream.ts';
import { findTruncation } from './truncation.ts';
import { rateOf, WaitingLimit } from './waiting-limit.ts';

/*
 * The source's end of a migration
 *
 *   1. take      bytes of QEMU's stream, as long as nothing waits for the paths        takeLocal
 *   2. read      into page batches and opaque bytes                                    StreamReader
 *   3. encode    batches, in the addon's threads                                       BatchEncoder
 *   4. send      everything in the stream's order, onto the lane                       Outbox
 *   5. relay     the destination's return path back to QEMU                            #receive
 *   6. end       when QEMU has closed: the digest; then wait for the destination's     takeLocalEnd
 */

/* Chosen by us */

/** Messages that may wait for their turn or for a codec thread. */
const OUTBOX_MAX = 64;

/** A batch that is not full is sent when QEMU has been silent for so long. */
const IDLE_FLUSH_MS = 4;

/** Pages of a post-copy go straight to the destination. */
const NO_STAGE: StageOptions = { intermediaries: [] };

/** What the source is asked to do. */
export interface SourceOptions {
  /** Name of the virtual machine, for reports. @default "" */
  readonly name?: string;
  /** How page contents are compressed. @default "auto" */
  readonly codec?: CodecName;
  /**
   * Most bytes of pages that are kept, so that they need not be sent again; the destination's own
   * limit holds too. @default a quarter of the memory that is free
   */
  readonly storeBytes?: number;
  /**
   * Has the pages of a post-copy go by way of intermediaries: the source QEMU is free as soon as
   * they hold all of them. @default straight to the destination
   */
  readonly stage?: StageOptions;
  /** Cancels the migration. Honoured until switchover begins; then the guest is at the source. */
  readonly signal?: AbortSignal;
}

/** The source's end: write QEMU's stream into it, read QEMU's return path from it. */
export class SourceStream extends MigrationStream {
  readonly #name: string;
  readonly #codec: CodecName;
  readonly #reader: StreamReader;
  #encoder: BatchEncoder;
  readonly #storeBytes: number;
  /** What the destination can keep, once it has said so. */
  #peerStoreBytes: number | undefined;
  #layout: RamLayout | undefined;
  readonly #returnPath = new ReturnPathWatcher((type, bytes) => this.#stage.hear(type, bytes));
  readonly #tail = new TailWatcher();
  readonly #stage: SourceStage;
  #preempt: PreemptSource | undefined;
  readonly #joins = new Joins(() => this.#feed());
  readonly #endMark = new EndMark();
  readonly #waiting: WaitingLimit;
  #departure: Departure | undefined;
  readonly #outbox = new Outbox(this.lane);
  /** The next pages are those of RAM's END section: QEMU's last pass over what is dirty. */
  #nextStartsLastRound = false;
  #input: { bytes: Uint8Array; at: number; done: () => void } | undefined;
  #startedAtMs: number | undefined;
  #lastInputMs = 0;
  #flushTimer: NodeJS.Timeout | undefined;
  #hasLocalEnded = false;
  #isEndQueued = false;
  #applied: bigint | undefined;
  #switchoverAtMs: number | undefined;
  #switchoverMs: number | undefined;

  constructor(parts: StreamParts, options: SourceOptions) {
    super(parts);
    this.#name = options.name ?? '';
    this.#codec = options.codec ?? 'auto';
    this.#storeBytes = options.storeBytes ?? defaultStoreBytes();
    this.#waiting = new WaitingLimit(() => rateOf(this.session), parts.now);
    this.#encoder = this.#newEncoder();
    this.#stage = this.#makeStage(options.stage ?? NO_STAGE);
    this.#reader = new StreamReader(this.#makeSink(), { readsPostcopy: true });
    this.lane.onDrain = () => {
      this.#outbox.send();
      this.#feed();
    };
    this.lane.onMessage = (incoming) => this.#receive(incoming);
    this.#outbox.put(message.encodeOpen({ v: 1, name: this.#name }, HEADER_BYTES));
    if (!this.#stage.isDirect) this.#stage.announce();
    this.tally.waitsFor = 'QEMU to begin the migration';
    this.session.ended.then((error) => this.#sessionEnded(error));
    this.cancelOn(options.signal);
  }

  /** Resolves when QEMU may be let in: with staging, its post-copy has somewhere to go then. */
  get ready(): Promise<void> {
    return this.#stage.ready;
  }

  protected override takeLocal(bytes: Uint8Array, done: () => void): void {
    this.#endMark.push(bytes);
    if (this.isSettled || this.#departure !== undefined) {
      done();
      return;
    }
    this.#lastInputMs = this.now;
    this.#startedAtMs ??= this.now;
    this.#input = { bytes, at: 0, done };
    this.#feed();
  }

  /** Reads on in the bytes at hand, as far as there is room behind. */
  #feed(): void {
    this.#preempt?.feed();
    const input = this.#input;
    if (input === undefined) return;
    if (this.isSettled) {
      this.#input = undefined;
      input.done();
      return;
    }
    this.tally.waitsFor = 'paths to take what is ready';
    if (this.#isBackedUp()) return;
    const before = input.at;
    // Where the network is the limit, a page that will be overwritten is not worth its bytes.
    this.#reader.mayHold = this.#encoder.choice.isNetworkLimit;
    try {
      input.at = this.#reader.push(input.bytes, input.at);
    } catch (error) {
      this.#fail(asPagelaneError(error), 'source');
      return;
    }
    this.tally.streamBytes += input.at - before;
    if (input.at < input.bytes.length) return;
    this.tally.waitsFor = undefined;
    this.#noteFallback();
    this.#armFlush();
    this.#input = undefined;
    input.done();
  }

  #isBackedUp(): boolean {
    if (this.#stage.mustWait && this.#layout !== undefined) return true;
    return this.lane.queuedBytes >= this.#waiting.bytes || this.#outbox.count >= OUTBOX_MAX;
  }

  #makeSink(): StreamSink {
    return {
      takeSlot: () => (this.#isBackedUp() ? undefined : this.#takeSlot()),
      layout: (layout) => {
        this.tally.setLayout(layout);
        this.#layout = layout;
        this.#openStore();
        this.#outbox.put(message.encodeBlocks(layout, HEADER_BYTES));
        if (!this.#reader.hasReturnPath) {
          this.tally.addFallback(
            'no return path: QEMU will call the migration completed before the destination has ' +
              'confirmed anything; turn on the capability return-path at the source',
          );
        }
        this.#stage.open(layout);
      },
      bytes: (data, place) => this.#putBytes(data, place),
      pages: (slot, sealed) => this.#putPages(slot, sealed, { isAhead: false }),
      advised: () => {
        if (this.#stage.isDirect) this.#stage.announce();
      },
      postcopy: (unused) => {
        if (this.#isBackedUp() || !this.#joins.areIn()) return false;
        if (unused !== undefined) this.#encoder.giveSlot(unused);
        // Batches of a post-copy come in any order: they refer to no page that was kept.
        this.#encoder = this.#newEncoder();
        this.#waiting.beginPostcopy();
        this.#beginSwitchover('postcopy');
        this.#stage.switchOver();
        return true;
      },
      batchPages: () => {
        if (this.#stage.stager !== undefined) return Number.POSITIVE_INFINITY;
        // The last page of a batch waits for all of it.
        return this.#waiting.bytes >> this.#layout!.pageBits;
      },
      end: () => {
        if (this.#preempt === undefined) this.#stage.finish();
        else this.#preempt.whenAll(() => this.#stage.finish());
      },
      epoch: () => {
        this.#outbox.beginEpoch();
        this.tally.beginRound();
      },
      leavesPostcopy: (why) => {
        this.#stage.leave();
        if (!this.#stage.isDirect) this.tally.addFallback(`not staged: ${why}`);
      },
    };
  }

  #makeStage(options: StageOptions): SourceStage {
    const { tally, threads } = this;
    const host = {
      ...{ tally, codec: this.#codec, threads },
      isConnected: () => this.#isConnected(),
      put: (encoded: message.EncodedMessage) => this.#outbox.put(encoded),
      sendDirect: (batch: EncodedBatch, isAhead: boolean) => this.#sendDirect(batch, isAhead),
      putEnd: () => this.#putEnd(),
      feed: () => this.#feed(),
      fail: (error: unknown) => this.#failStage(stage, error),
      digest: () => this.#outbox.digest,
      loaded: () => this.#noteSwitchoverEnd(),
      free: () => this.#free(stage),
    };
    const stage: SourceStage = new SourceStage(host, options);
    return stage;
  }

  /** Once QEMU is here it may have switched over already, and must not be left alone. */
  #failStage(stage: SourceStage, error: unknown): void {
    if (stage.hasSwitched) this.#fail(pausedError(error), 'destination');
    else if (this.channel === undefined && !stage.isDirect) {
      this.#fail(asPagelaneError(error), 'source');
    } else {
      this.#reader.leavePostcopy(messageOf(error));
      this.#feed();
    }
  }

  /** Tells the source QEMU that it is done: everything it had is with others. */
  #free(stage: SourceStage): void {
    if (this.#departure !== undefined) return;
    const evictionMs = Math.round(this.now - this.#startedAtMs!);
    this.tally.staged = { ...stage.stager!.facts(), evictionMs };
    this.#applied = this.#outbox.digest;
    this.giveLocal(SHUT_SUCCESS);
    this.giveLocalEnd();
    this.#settle('completed', 'destination');
  }

  #isConnected(): boolean {
    return this.session.pathReports().some(({ state }) => state === 'open');
  }

  #newEncoder(): BatchEncoder {
    const { threads } = this;
    return new BatchEncoder({ codec: this.#codec, threads, now: () => this.now });
  }

  /** As soon as both are known, what there is to keep and what the destination can keep. */
  #openStore(): void {
    if (this.#layout === undefined || this.#peerStoreBytes === undefined) return;
    const bytes = Math.min(this.#storeBytes, this.#peerStoreBytes);
    this.#encoder.openStore(this.#layout, storeSlots(this.#layout, bytes));
    this.tally.storeBytes = bytes;
  }

  #putBytes(data: Uint8Array, place: BytesPlace): void {
    const isPrecopyEnd = place.isInsideAfter && !place.isInsideBefore && !place.isVerbatim;
    if (isPrecopyEnd && this.tally.phase === 'precopy') {
      this.#beginSwitchover('switchover');
      this.#nextStartsLastRound = this.tally.pageBytes > 0 || this.#encoder.inWork > 0;
    }
    const mayBeTail = this.tally.phase === 'switchover' || place.isVerbatim;
    if (mayBeTail && !this.#reader.hasReturnPath) this.#tail.push(data);
    const isHeld = this.#reader.isPastMemory && this.tally.phase === 'switchover';
    let at = 0;
    do {
      const part = data.subarray(at, at + message.BYTES_DATA_MAX);
      this.#outbox.put(message.encodeBytes(part, place, HEADER_BYTES), { isHeld });
      at += part.length;
    } while (at < data.length);
  }

  #beginSwitchover(phase: 'switchover' | 'postcopy'): void {
    this.tally.phase = phase;
    this.#switchoverAtMs = this.now;
    // The guest stands still: the first copy of everything counts.
    this.lane.isUrgent = true;
  }

  #noteFallback(): void {
    const { fallback } = this.#reader;
    if (fallback === undefined) return;
    if (fallback === 'post-copy') {
      const { phase } = this.tally;
      if (phase === 'setup' || phase === 'precopy') this.#beginSwitchover('postcopy');
      return;
    }
    this.tally.addFallback(`carried as plain bytes from a point on: ${fallback}`);
  }

  /** Sends a copy of a batch of a post-copy, if nothing waits for a path or it goes ahead of it. */
  #sendDirect({ buffer, start, end }: EncodedBatch, isAhead: boolean): boolean {
    if (!isAhead && !this.#outbox.isEmpty) return false;
    const copy = buffer.slice(start - HEADER_BYTES, end);
    const send = this.#outbox.reserve({ isAhead });
    send({ buffer: copy, start: HEADER_BYTES, end: copy.length });
    return true;
  }

  #takeSlot(): Uint8Array | undefined {
    return (this.#stage.stager ?? this.#encoder).takeSlot();
  }

  #putPages(slot: Uint8Array, sealed: Int32Array, order: PutOrder): void {
    const left = this.#stage.put(slot, sealed, order);
    if (left !== undefined) this.#putBatch(slot, sealed, left);
    this.#preempt?.settle();
  }

  #putBatch(slot: Uint8Array, sealed: Int32Array, order: PutOrder): void {
    if (this.#nextStartsLastRound) this.tally.beginRound();
    this.#nextStartsLastRound = false;
    this.#encode(this.#outbox.reserve(order), slot, sealed).catch((error: unknown) =>
      this.#fail(asPagelaneError(error), 'source'),
    );
  }

  async #encode(
    send: ReturnType<Outbox['reserve']>,
    slot: Uint8Array,
    sealed: Int32Array,
  ): Promise<void> {
    const encoder = this.#encoder;
    const batch = await encoder.encode(slot, sealed, this.lane.queuedBytes);
    this.tally.note(batch);
    send(batch, () => {
      encoder.acked(batch);
      this.#feed();
    });
    this.#feed();
  }

  #armFlush(): void {
    this.#flushTimer ??= setTimeout(() => {
      this.#flushTimer = undefined;
      if (this.isSettled) return;
      if (this.now - this.#lastInputMs < IDLE_FLUSH_MS - 1) this.#armFlush();
      else if (this.#input === undefined) {
        this.#reader.flush();
        this.#stage.stager?.flush();
      }
    }, IDLE_FLUSH_MS);
  }

  /** What the destination says: its QEMU's return path, and at last how it went. */
  #receive(incoming: IncomingMessage): void {
    try {
      switch (incoming.payload[0]) {
        case message.MessageKind.Bytes: {
          const { data } = message.decodeBytes(incoming.payload);
          this.#returnPath.push(data);
          if (this.#returnPath.shutStatus !== undefined) this.#noteSwitchoverEnd();
          this.giveLocal(data, () => incoming.release());
          return;
        }
        case message.MessageKind.Store:
          if (this.#peerStoreBytes !== undefined) {
            throw new PagelaneError('ERR_MESSAGE', 'Destination stated its store twice');
          }
          this.#peerStoreBytes = message.decodeStore(incoming.payload);
          incoming.release();
          this.#openStore();
          return;
        case message.MessageKind.Staged:
          this.#stage.take(decodeStaged(incoming.payload));
          incoming.release();
          return;
        case message.MessageKind.Applied:
          this.#takeApplied(message.decodeApplied(incoming.payload));
          incoming.release();
          return;
        default:
          throw new PagelaneError('ERR_MESSAGE', 'Destination sent a message of an unknown kind');
      }
    } catch (error) {
      this.#fail(asPagelaneError(error), this.#guestIfLost());
    }
  }

  #takeApplied(applied: message.AppliedMessage): void {
    this.#noteSwitchoverEnd();
    this.#applied = applied.digest;
    if (!applied.isApplied) {
      const guest = this.tally.phase === 'postcopy' ? 'unknown' : applied.guest;
      this.#fail(
        new PagelaneError(applied.code, this.#withWayOn(`Destination: ${applied.message}`)),
        guest,
      );
      return;
    }
    if (applied.digest !== this.#outbox.digest) {
      const text =
        'What the destination applied differs from what was sent: do not trust its memory';
      this.#fail(new PagelaneError('ERR_DIGEST', text), 'unknown');
      return;
    }
    if (!this.#stage.isDirect && !this.#stage.isLeft) {
      this.tally.addFallback('nothing was staged: QEMU did not switch to post-copy');
    }
    this.giveLocalEnd();
    this.#settle('completed', 'destination');
  }

  /** A source QEMU without a return path took its own closing for success. */
  get #hasQemuStopped(): boolean {
    return this.#isEndQueued && !this.#reader.hasReturnPath;
  }

  #withWayOn(text: string): string {
    return this.#hasQemuStopped ? `${text}; the source QEMU has stopped: "cont" there` : text;
  }

  #noteSwitchoverEnd(): void {
    if (this.#switchoverAtMs === undefined) return;
    this.#switchoverMs ??= Math.round(this.now - this.#switchoverAtMs);
  }

  protected override takeLocalEnd(): void {
    this.#departure?.ended();
    if (this.isSettled || this.#hasLocalEnded || this.#departure !== undefined) return;
    this.#hasLocalEnded = true;
    const isPostcopy = this.tally.phase === 'postcopy';
    const watchers = { reader: this.#reader, returnPath: this.#returnPath, tail: this.#tail };
    const truncated = findTruncation({ ...watchers, isPostcopy });
    if (truncated !== undefined) {
      this.#fail(truncated, this.#guestIfLost());
      return;
    }
    this.#reader.flush();
    if (!this.#isEndQueued) this.#putEnd();
  }

  protected override joinLocal(channel: QemuChannel): void {
    this.#preempt ??= new PreemptSource({
      tally: this.tally,
      layout: () => this.#layout,
      isOver: () => this.isSettled || this.#departure !== undefined || this.#isEndQueued,
      isRead: () => this.#stage.hasSwitched,
      isVerbatim: () => this.#reader.fallback !== undefined,
      isBackedUp: () => this.#isBackedUp(),
      isConnected: () => this.#isConnected(),
      missingPages: () => this.#stage.missingPages,
      put: (encoded) => this.#outbox.put(encoded),
      takeSlot: () => this.#takeSlot(),
      pages: (slot, sealed) => {
        this.#putPages(slot, sealed, { isAhead: true });
        this.#stage.stager?.flush();
      },
      fail: (error) => this.#failPreempt(error),
    });
    this.#preempt.join(channel);
  }

  #failPreempt(error: PagelaneError): void {
    const isPaused = this.tally.phase === 'postcopy';
    this.#fail(isPaused ? pausedError(error) : error, this.#guestIfLost());
  }

  #putEnd(): void {
    this.#isEndQueued = true;
    this.#outbox.putEnd();
    this.tally.waitsFor = 'the destination to confirm';
  }

  /** Where the guest is if the session is lost now. */
  #guestIfLost(): GuestPlace {
    if (this.#returnPath.shutStatus === 0) return 'destination';
    if (this.tally.phase === 'postcopy') return 'destination';
    if (this.#returnPath.shutStatus !== undefined) return 'source';
    // Without the last of what QEMU has written nobody can start the guest.
    if (this.#outbox.holds) return 'source';
    // From the first device state on the destination may have all it needs to start the guest.
    // Without a return path QEMU runs on at the source unless it has written, and closed,
    // everything.
    const mayHaveStarted =
      this.#reader.isPastMemory && (this.#reader.hasReturnPath || this.#isEndQueued);
    return mayHaveStarted ? 'unknown' : 'source';
  }

  #sessionEnded(error: PagelaneError | undefined): void {
    if (this.isSettled) return;
    const guest = this.#guestIfLost();
    if (guest === 'destination' && this.tally.phase !== 'postcopy') {
      this.tally.addFallback('the session ended before the last digest could be compared');
      this.giveLocalEnd();
      this.#settle('completed', 'destination');
      return;
    }
    const cause =
      error ?? new PagelaneError('ERR_SESSION_CLOSED', 'The destination closed the session early');
    if (this.tally.phase === 'postcopy') this.#fail(pausedError(cause.message), guest);
    else if (guest === 'source' && this.#hasQemuStopped) {
      this.#fail(new PagelaneError(cause.code, this.#withWayOn(cause.message)), guest);
    } else this.#fail(cause, guest);
  }

  /**
   * Ends without success. QEMU's channel is closed, so that the source runs on, unless the
   * destination may run: then the source stays stopped until whoever owns this stream knows.
   */
  #fail(error: PagelaneError, guest: GuestPlace): void {
    if (this.isSettled || this.#departure !== undefined) return;
    this.session.fail(error);
    if (this.tally.phase === 'postcopy' && this.channel !== undefined) {
      const settle = this.#settle.bind(this, 'failed');
      this.#departure = new Departure(this.channel, { error, endMark: this.#endMark, settle });
      this.#input?.done();
      this.#input = undefined;
      this.#preempt?.feed();
      return;
    }
    const isCancelled = error.code === 'ERR_CANCELLED' && guest === 'source';
    this.#settle(isCancelled ? 'cancelled' : 'failed', guest, error);
    if (guest !== 'unknown') this.channel?.destroy();
    this.#feed();
  }

  #settle(outcome: MigrationResult['outcome'], guest: GuestPlace, error?: PagelaneError): void {
    clearTimeout(this.#flushTimer);
    this.#outbox.close();
    void this.#stage[Symbol.asyncDispose]();
    this.settle({
      side: 'source',
      name: this.#name,
      outcome,
      guest,
      effective: { codec: this.#codec, storeBytes: this.#storeBytes },
      sent: this.#outbox.digest,
      applied: this.#applied,
      switchoverMs: this.#switchoverMs,
      ...(error && { error }),
    });
    this.#preempt?.stop();
  }

  protected override canCancel(): boolean {
    const { phase } = this.tally;
    // A verbatim stream does not show where its switchover begins.
    return phase !== 'switchover' && phase !== 'postcopy' && this.#guestIfLost() === 'source';
  }

  protected override cancel(error: PagelaneError): void {
    this.#fail(error, 'source');
  }

  protected override abandon(error: Error | null): void {
    if (this.#returnPath.shutStatus === 0) {
      // The guest has moved: what is left is to compare the digests.
      this.takeLocalEnd();
      return;
    }
    const text = error === null ? 'Migration stream was destroyed' : messageOf(error);
    this.#fail(new PagelaneError('ERR_DESTROYED', text), this.#guestIfLost());
    this.channel?.destroy();
  }

  protected override get limitedStage(): LimitedStage | undefined {
    return this.#stage;
  }

  protected override wireBytesOf(path: { sentBytes: number }): number {
    return path.sentBytes;
  }

  protected override codecInUse(): string {
    return this.#encoder.choice.current.name;
  }
}

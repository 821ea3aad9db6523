import {
  asPagelaneError,
  type GuestPlace,
  messageOf,
  PagelaneError,
  ProtocolError,
} from '../errors.ts';
import { HEADER_BYTES } from '../frame/limits.ts';
import type { Codec } from '../native.ts';
import { BatchDecoder, DECODED_MAX, type DecodedBatch } from '../page/decode.ts';
import type { MappedMemory } from '../page/loaded-memory.ts';
import { storeSlots } from '../page/store.ts';
import type { IncomingMessage } from '../session/lane.ts';
import type { QemuChannel } from '../stream/endpoint.ts';
import { describeUnknown } from '../stream/item.ts';
import * as message from '../stream/message.ts';
import { ReturnPathWatcher } from '../stream/return-path.ts';
import type { BytesPlace } from '../stream/sink.ts';
import { StreamWriter } from '../stream/writer.ts';
import { DestinationStage } from './destination-stage.ts';
import type { GatherSettings } from './page-gatherer.ts';
import { PreemptDestination } from './preempt-destination.ts';
import { decodedPages, type MigrationResult } from './progress.ts';
import type { LimitedStage } from './stage-limit.ts';
import { decodeEntriesMessage, decodeStage } from './stage-message.ts';
import { MigrationStream, type StreamParts } from './stream.ts';
import { Verification } from './verification.ts';

/*
 * The destination's end of a migration
 *
 *   1. receive   messages, in an order that honours epochs                     #receive
 *   2. decode    batches, in the addon's threads, a few at once                #decodeNext
 *   3. write     everything to QEMU in the order of arrival                    #writeReady
 *   4. relay     QEMU's return path to the source                              takeLocal
 *                before its success: memory, if that is to be verified         #verify
 *   5. confirm   when all is written and QEMU has taken it                     #finishIfDone
 */

/* Chosen by us */

/** Without a return path: how long QEMU may take to load what it has, after the last byte. */
const LOAD_TIMEOUT_MS = 120_000;

/** What a destination is given beside its lane. */
export interface DestinationParts {
  /** Name of the virtual machine, as the source gave it. */
  readonly name: string;
  /** Bytes of pages that may be kept for the source. */
  readonly storeBytes: number;
  /** Memory that is verified before the source hears of QEMU's success. */
  readonly verify: readonly MappedMemory[];
  readonly gather: GatherSettings;
}

interface Item {
  readonly incoming: IncomingMessage;
  readonly kind: number;
  /** It has nothing for QEMU at its place in the stream. */
  readonly isMark: boolean;
  readonly bytes?: { data: Uint8Array; place: BytesPlace };
  isStarted: boolean;
  batch?: DecodedBatch;
}

/** The destination's end: read the stream for QEMU from it, write QEMU's return path into it. */
export class DestinationStream extends MigrationStream {
  /** Name of the virtual machine, as the source gave it. */
  readonly name: string;
  readonly #writer = new StreamWriter();
  readonly #digest = new message.Digest();
  readonly #returnPath = new ReturnPathWatcher((type, bytes) => this.#stage.hear(type, bytes));
  readonly #items: Item[] = [];
  readonly #storeBytes: number;
  #decoder: BatchDecoder | undefined;
  /** Batches in work, or decoded and not yet written. */
  #decodedCount = 0;
  #unwritten = 0;
  #hasEntries = false;
  #openChannel: (() => Promise<QemuChannel>) | undefined;
  #usesReturnPath = false;
  #isPlain = false;
  #hasLocalEnded = false;
  #localError: PagelaneError | undefined;
  #sent: bigint | undefined;
  readonly #verification: Verification;
  #loadTimer: NodeJS.Timeout | undefined;
  readonly #stage: DestinationStage;
  readonly #preempt = new PreemptDestination(this.tally, (error) => this.#stage.fail(error));
  #isConfirmed = false;
  /** What follows all pages of a post-copy, while they are gathered. */
  readonly #afterPages: Item[] = [];

  constructor(parts: StreamParts, { name, storeBytes, verify, gather }: DestinationParts) {
    super(parts);
    this.#stage = this.#makeStage(gather);
    this.#verification = this.#makeVerification(verify);
    this.name = name;
    this.#storeBytes = storeBytes;
    this.tally.storeBytes = storeBytes;
    this.tally.waitsFor = 'the first bytes from the source';
    this.lane.onMessage = (incoming) => this.#receive(incoming);
    // QEMU's return path is short, and the source's guest waits for its end.
    this.lane.isUrgent = true;
    this.lane.send({ ...message.encodeStore(storeBytes, HEADER_BYTES), isOrdered: true });
    this.session.ended.then((error) => this.#sessionEnded(error));
  }

  /**
   * Connects to QEMU when the first bytes for it have arrived, not earlier: a QEMU that has
   * accepted and gets no bytes stops answering its monitor.
   *
   * @param openChannel Called once more if the source QEMU has a second channel (postcopy-preempt).
   * @param options.signal Cancels the migration. Honoured until switchover begins.
   * @returns `result`.
   */
  relayWhenNeeded(
    openChannel: () => Promise<QemuChannel>,
    { signal }: { readonly signal?: AbortSignal } = {},
  ): Promise<MigrationResult> {
    this.#openChannel = openChannel;
    this.cancelOn(signal);
    this.#writeReady();
    return this.result;
  }

  /** The same with the only channel there is. */
  override relay(channel: QemuChannel): Promise<MigrationResult> {
    this.#preempt.refuse();
    return super.relay(channel);
  }

  #receive(incoming: IncomingMessage): void {
    if (this.isSettled) {
      incoming.release();
      return;
    }
    try {
      this.#take(incoming);
    } catch (error) {
      this.#fail(asPagelaneError(error));
    }
  }

  #take(incoming: IncomingMessage): void {
    const { payload, sequence } = incoming;
    const kind = payload[0]!;
    switch (kind) {
      case message.MessageKind.Blocks:
        this.#takeLayout(payload);
        incoming.release();
        return;
      case message.MessageKind.Bytes:
      case message.MessageKind.Pages:
        this.#takeContent(incoming, kind);
        return;
      case message.MessageKind.Preempt:
        this.#takePreempt(incoming);
        return;
      case message.MessageKind.Stage:
        this.#stage.open(decodeStage(payload));
        incoming.release();
        return;
      case message.MessageKind.Entries:
        this.#hasEntries = true;
        this.#putMark(incoming, kind);
        return;
      case message.MessageKind.End:
        this.#sent = message.decodeEnd(payload);
        this.#putMark(incoming, kind);
        return;
      default:
        throw new ProtocolError('ERR_MESSAGE', `Source sent a message of kind ${kind}`, {
          sequence,
        });
    }
  }

  #takeLayout(payload: Uint8Array): void {
    if (this.#writer.hasLayout)
      throw new ProtocolError('ERR_MESSAGE', 'Source named its blocks twice');
    const layout = message.decodeBlocks(payload);
    const hashes = this.#verification.setLayout(layout);
    this.#decoder = new BatchDecoder(layout, storeSlots(layout, this.#storeBytes), hashes);
    this.#writer.setLayout(layout);
    this.#stage.setLayout(layout);
    this.tally.setLayout(layout);
  }

  #takeContent(incoming: IncomingMessage, kind: number): void {
    const isBytes = kind === message.MessageKind.Bytes;
    if (!isBytes && this.#decoder === undefined) {
      throw new ProtocolError('ERR_MESSAGE', 'Source sent pages before its blocks');
    }
    if (this.#hasLocalEnded) throw this.#closedEarly();
    this.tally.waitsFor = undefined;
    const bytes = isBytes ? message.decodeBytes(incoming.payload) : undefined;
    if (bytes?.place.isVerbatim === true && this.#verification.isDue) this.#meetVerbatim(bytes);
    this.#digest.add(incoming.payload, 0, incoming.sequence);
    const isMark = !isBytes && this.#hasEntries;
    if (!isMark) this.#unwritten++;
    this.#put({ incoming, kind, isMark, isStarted: isBytes || isMark, ...(bytes && { bytes }) });
  }

  /** What the source QEMU says on a second channel; the first of it says that there is one. */
  #takePreempt(incoming: IncomingMessage): void {
    const { data } = message.decodeBytes(incoming.payload);
    this.#digest.add(incoming.payload, 0, incoming.sequence);
    this.#preempt.write(data, () => incoming.release());
  }

  /** Queues what changes what is expected, at its place in the stream. */
  #putMark(incoming: IncomingMessage, kind: number): void {
    this.#put({ incoming, kind, isMark: true, isStarted: true });
  }

  #put(item: Item): void {
    this.#items.push(item);
    this.#decodeNext();
    this.#writeReady();
  }

  /** Entries of the manifest, pages beside it; or the end: all entries came, and all else. */
  #takeMark(incoming: IncomingMessage, kind: number): void {
    try {
      if (kind === message.MessageKind.Pages) {
        this.#stage.takePages(incoming);
        return;
      }
      if (kind === message.MessageKind.Entries) {
        this.#stage.accept(decodeEntriesMessage(incoming.payload));
      }
    } catch (error) {
      this.#fail(asPagelaneError(error));
    }
    incoming.release();
    if (kind === message.MessageKind.Entries || this.isSettled) return;
    this.tally.waitsFor = 'QEMU to load the last state';
    if (this.#stage.hasSwitched) this.#stage.complete();
    else this.#finishIfDone();
  }

  #makeVerification(wanted: readonly MappedMemory[]): Verification {
    return new Verification(wanted, {
      ...{ tally: this.tally, threads: this.threads },
      relay: (bytes) => this.#relay(bytes),
      fail: (error, guest) => this.#fail(error, guest),
      verified: () => this.#finishIfDone(),
    });
  }

  #makeStage(settings: GatherSettings): DestinationStage {
    return new DestinationStage(settings, {
      tally: this.tally,
      send: (encoded) => this.lane.send({ ...encoded, isOrdered: true }),
      write: (batch) => this.#writeGathered(batch),
      command: (bytes) => this.giveLocal(Buffer.concat([this.#writer.leaveSection(), bytes])),
      relay: (bytes) => this.#relayVerified(bytes),
      switched: () => this.#verification.drop('post-copy began'),
      digest: () => this.#digest.value,
      fail: (error) => this.#fail(asPagelaneError(error)),
      gathered: () => {
        this.tally.waitsFor = 'QEMU to load the last state';
        this.#preempt.end();
        for (const each of this.#afterPages.splice(0)) this.#writeBytes(each.incoming, each.bytes!);
      },
    });
  }

  async #writeGathered({ output, decoded }: DecodedBatch): Promise<void> {
    if (this.isSettled) throw new PagelaneError('ERR_DESTROYED', 'Migration is over');
    const bytes = this.#writer.batch(output, decoded, 0);
    this.tally.streamBytes += bytes.length;
    await new Promise<void>((resolve) => this.giveLocal(bytes, resolve));
  }

  /** Pages may come in these bytes: what was decoded is then no longer what the guest has. */
  #meetVerbatim({ data }: { readonly data: Uint8Array }): void {
    // Only a recovered post-copy begins like this.
    const isRecovery = this.tally.streamBytes === 0 && this.#items.length === 0;
    if (describeUnknown(data) !== 'post-copy' && !isRecovery) {
      const text = 'Cannot verify memory: from a point on it would be carried as plain bytes';
      throw new PagelaneError('ERR_VERIFY_MEMORY', text);
    }
    this.#verification.drop('post-copy began');
  }

  /** Starts the decoding of waiting batches, as far as there is room for what comes out. */
  #decodeNext(): void {
    if (this.#decodedCount >= DECODED_MAX) return;
    for (const item of this.#items) {
      if (this.#decodedCount >= DECODED_MAX) return;
      if (item.isStarted) continue;
      item.isStarted = true;
      this.#decodedCount++;
      this.#decode(item).catch((error: unknown) => this.#fail(asPagelaneError(error)));
    }
  }

  async #decode(item: Item): Promise<void> {
    const { incoming } = item;
    const codec = incoming.payload[1] as Codec;
    const wireBytes = incoming.payload.length;
    item.batch = await this.#decoder!.decode(incoming.payload, incoming.sequence);
    const literalBytes = message.batchLiteralBytes(incoming.payload);
    incoming.release();
    this.tally.addPages(decodedPages(item.batch.decoded));
    this.tally.addCodec(codec, literalBytes, wireBytes);
    this.#writeReady();
  }

  /** Writes what is ready to QEMU, in the order of arrival. */
  #writeReady(): void {
    if (!this.#hasOutput()) return;
    for (let item = this.#items[0]; item !== undefined && !this.isSettled; item = this.#items[0]) {
      if (item.isMark) this.#takeMark(item.incoming, item.kind);
      else if (item.bytes !== undefined && this.#followsPages(item.bytes.place)) {
        this.#afterPages.push(item);
      } else if (item.bytes !== undefined) this.#writeBytes(item.incoming, item.bytes);
      else if (item.batch !== undefined) this.#writeBatch(item.incoming, item.batch);
      else return;
      this.#items.shift();
    }
  }

  /** Whether bytes of a post-copy belong behind all its pages: RAM's END, and what comes then. */
  #followsPages({ isInsideBefore, isInsideAfter }: BytesPlace): boolean {
    if (!this.#stage.hasSwitched) return false;
    return this.#afterPages.length > 0 || (!isInsideBefore && isInsideAfter);
  }

  /**
   * True if there is somewhere to write to; opens QEMU's channel at the first call that needs it.
   */
  #hasOutput(): boolean {
    if (this.channel !== undefined || this.#isPlain) return true;
    if (this.#items.length === 0 || this.#openChannel === undefined) return false;
    const open = this.#openChannel;
    this.#openChannel = undefined;
    open().then(
      (channel) => {
        if (this.isSettled) channel.destroy();
        else this.#useChannel(channel);
        this.#preempt.follow(channel, open);
      },
      (error: unknown) => this.#fail(asPagelaneError(error)),
    );
    return false;
  }

  #useChannel(channel: QemuChannel): void {
    this.attach(channel);
    channel.closed.then((error) => {
      this.#localError = error;
      this.takeLocalEnd();
    });
    this.#writeReady();
  }

  override _read(): void {
    super._read();
    if (this.channel === undefined && this.#openChannel === undefined && !this.#isPlain) {
      this.#isPlain = true;
      this.#preempt.refuse();
      this.#writeReady();
    }
  }

  #writeBytes(
    incoming: IncomingMessage,
    { data, place }: { data: Uint8Array; place: BytesPlace },
  ): void {
    const before = this.#writer.beforeBytes(place);
    const endsMemory = place.isInsideBefore && !place.isInsideAfter;
    const isPostcopy = this.tally.phase === 'postcopy';
    if ((endsMemory || place.isVerbatim) && !isPostcopy) this.tally.phase = 'switchover';
    if (before.length > 0) this.giveLocal(before);
    this.tally.streamBytes += before.length + data.length;
    this.giveLocal(data, () => {
      incoming.release();
      this.#noteWritten();
    });
  }

  #writeBatch(incoming: IncomingMessage, { output, decoded }: DecodedBatch): void {
    const bytes = this.#writer.batch(output, decoded, incoming.sequence);
    this.tally.streamBytes += bytes.length;
    this.giveLocal(bytes, () => {
      this.#decoder!.give(output);
      this.#decodedCount--;
      this.#noteWritten();
      this.#decodeNext();
    });
  }

  #noteWritten(): void {
    this.#unwritten--;
    this.#finishIfDone();
  }

  /** QEMU's return path: relayed as it comes, but for success before memory is verified. */
  protected override takeLocal(bytes: Uint8Array, done: () => void): void {
    if (this.isSettled) {
      done();
      return;
    }
    this.#usesReturnPath = true;
    const isHeard = this.#stage.isHearing;
    this.#returnPath.push(bytes);
    if (this.#verification.isDue && this.#returnPath.isLost) {
      const text = 'Cannot verify memory: the return path of QEMU is not understood';
      this.#fail(new PagelaneError('ERR_VERIFY_MEMORY', text));
    } else if (!isHeard) {
      this.#relayVerified(bytes);
      this.#stage.isAligned = this.#returnPath.isBetweenMessages;
    } else if (this.#returnPath.isLost) {
      const text = 'Cannot gather: the return path of QEMU is not understood';
      this.#stage.fail(new PagelaneError('ERR_STREAM_REQUEST', text));
    } else this.#finishIfDone();
    done();
  }

  /** QEMU's success waits until memory is verified. */
  #relayVerified(bytes: Uint8Array): void {
    if (!this.#verification.isDue || this.#returnPath.shutStatus !== 0) {
      this.#relay(bytes);
      return;
    }
    clearTimeout(this.#loadTimer);
    this.#verification.holdBack(bytes);
  }

  #relay(bytes: Uint8Array): void {
    this.lane.send({ ...message.encodeReturn(bytes, HEADER_BYTES), isOrdered: true });
    this.#finishIfDone();
  }

  /** QEMU's word, as far as it counts: success before memory is verified does not. */
  get #shutStatus(): number | undefined {
    const { shutStatus } = this.#returnPath;
    return shutStatus === 0 && this.#verification.isDue ? undefined : shutStatus;
  }

  /** QEMU closed its end, or its channel broke. */
  protected override takeLocalEnd(): void {
    if (this.#hasLocalEnded) return;
    this.#hasLocalEnded = true;
    if (this.isSettled) return;
    const isConfirmed = this.#returnPath.shutStatus === 0;
    // Where a return path is in use, a destination that goes without a word has failed.
    if (!isConfirmed && (this.#usesReturnPath || this.#items.length > 0)) {
      this.#fail(this.#closedEarly());
      return;
    }
    this.#finishIfDone();
  }

  #closedEarly(): PagelaneError {
    const cause = this.#localError?.message ?? 'it closed the migration channel';
    return new PagelaneError(
      'ERR_QEMU_CLOSED',
      `Destination QEMU did not take the migration: ${cause}; look at its own log`,
    );
  }

  /** Confirms to the source once everything is with QEMU and QEMU has accepted it. */
  #finishIfDone(): void {
    if (this.#sent === undefined || this.isSettled || this.#isConfirmed) return;
    if (this.#unwritten > 0) return;
    const mustVerify = this.#verification.isDue;
    const needsNoWord = (this.#isPlain && !mustVerify) || this.channel?.isNull === true;
    const hasEndedWell = this.#hasLocalEnded && this.#localError === undefined;
    if (this.#returnPath.shutStatus === 0 || needsNoWord || hasEndedWell) {
      if (!mustVerify) this.#confirm();
      else {
        clearTimeout(this.#loadTimer);
        this.#verification.run();
      }
    } else if (this.#hasLocalEnded) this.#fail(this.#closedEarly());
    else this.#awaitLoad();
  }

  #awaitLoad(): void {
    this.#loadTimer ??= setTimeout(() => {
      const text = `Destination QEMU has all bytes but did not load them within ${LOAD_TIMEOUT_MS} ms`;
      this.#fail(new PagelaneError('ERR_QEMU_TIMEOUT', text));
    }, LOAD_TIMEOUT_MS);
  }

  #confirm(): void {
    if (this.#digest.value !== this.#sent) {
      const text = 'What was applied differs from what was sent: do not trust this guest';
      this.#fail(new PagelaneError('ERR_DIGEST', text), 'unknown');
      return;
    }
    this.#isConfirmed = true;
    const digest = this.#digest.value;
    this.#sendApplied({ isApplied: true, guest: 'destination', digest, code: '', message: '' });
    this.giveLocalEnd();
    if (!this.#stage.hasSwitched) this.#settle('completed', 'destination');
    else void this.#stage.loaded().then(() => this.#settle('completed', 'destination'));
  }

  #sendApplied(applied: message.AppliedMessage): void {
    if (!this.#stage.needsSource) return;
    const encoded = message.encodeApplied(applied, HEADER_BYTES);
    this.lane.send({ ...encoded, isOrdered: true, isLast: true });
  }

  #sessionEnded(error: PagelaneError | undefined): void {
    if (this.isSettled || !this.#stage.needsSource) return;
    if (this.#shutStatus === 0) {
      this.tally.addFallback('the session ended before the last digest could be compared');
      this.giveLocalEnd();
      this.#settle('completed', 'destination');
      return;
    }
    this.#fail(
      error ?? new PagelaneError('ERR_SESSION_CLOSED', 'The source closed the session early'),
    );
  }

  #guestIfFailed(error?: PagelaneError): GuestPlace {
    // The source says so: here a post-copy is only bytes.
    if (error?.code === 'ERR_POSTCOPY_PAUSED') return 'destination';
    // It ran here: the source must not start it again.
    if (this.tally.phase === 'postcopy') return 'unknown';
    const { shutStatus } = this.#returnPath;
    // QEMU has it all, but was started with -S, and the source has not heard of its success.
    if (this.#verification.isRunning) return 'source';
    if (shutStatus !== undefined) return shutStatus === 0 ? 'destination' : 'source';
    // A QEMU that has gone does not run the guest; one that has everything may.
    if (this.#hasLocalEnded) return 'source';
    return this.tally.phase === 'switchover' && this.#usesReturnPath ? 'unknown' : 'source';
  }

  /**
   * Ends without success: QEMU's channel is closed, so that it gives up, and the source is told.
   */
  #fail(error: PagelaneError, guest: GuestPlace = this.#guestIfFailed(error)): void {
    if (this.isSettled) return;
    this.channel?.destroy();
    this.#sendApplied({
      isApplied: false,
      guest,
      digest: this.#digest.value,
      code: error.code,
      message: error.message,
    });
    const isCancelled = error.code === 'ERR_CANCELLED' && guest === 'source';
    this.#settle(isCancelled ? 'cancelled' : 'failed', guest, error);
    for (const item of this.#items) if (item.bytes !== undefined) item.incoming.release();
  }

  protected override canCancel(): boolean {
    return this.tally.phase !== 'switchover' && this.#guestIfFailed() === 'source';
  }

  protected override cancel(error: PagelaneError): void {
    this.#fail(error, 'source');
  }

  #settle(outcome: MigrationResult['outcome'], guest: GuestPlace, error?: PagelaneError): void {
    clearTimeout(this.#loadTimer);
    this.#verification.close();
    this.#preempt.close({ isDone: outcome === 'completed' });
    void this.#stage[Symbol.asyncDispose]();
    this.settle({
      side: 'destination',
      name: this.name,
      outcome,
      guest,
      effective: { storeBytes: this.#storeBytes },
      sent: this.#sent,
      applied: this.#digest.value,
      switchoverMs: undefined,
      ...(error && { error }),
    });
  }

  protected override abandon(error: Error | null): void {
    // The guest is here; only the source's last word is missing.
    if (this.#shutStatus === 0) return;
    const text = error === null ? 'Migration stream was destroyed' : messageOf(error);
    this.#fail(new PagelaneError('ERR_DESTROYED', text));
  }

  protected override get limitedStage(): LimitedStage | undefined {
    return this.#stage;
  }

  protected override wireBytesOf(path: { receivedBytes: number }): number {
    return path.receivedBytes;
  }

  protected override codecInUse(): string {
    return '';
  }
}

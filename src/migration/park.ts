import { asPagelaneError, PagelaneError } from '../errors.ts';
import type { RamLayout } from '../page/block.ts';
import type { CodecName } from '../page/codec-choice.ts';
import { BatchDecoder } from '../page/decode.ts';
import { BatchEncoder } from '../page/encode.ts';
import { StreamWriterAtIntermediaries } from '../staging/stored-stream.ts';
import type { QemuChannel } from '../stream/endpoint.ts';
import { StreamReader } from '../stream/reader.ts';
import type { BytesPlace, StreamSink } from '../stream/sink.ts';
import { StreamWriter } from '../stream/writer.ts';
import { PageStager, type StageOptions } from './page-stager.ts';
import type { StagedFacts } from './progress.ts';
import { PING_DEVICES, PING_LOADED, pong, SHUT_SUCCESS } from './return-message.ts';
import type { Ticket } from './ticket.ts';

/*
 * A whole guest into intermediaries, with no destination
 *
 *   1. before   all that QEMU sends up to its package, as it is: parts of a stream
 *   2. pages    those of the post-copy, as extents
 *   3. after    what follows them, kept until all pages are there: parts of the stream
 *   4. keep     the manifest at the intermediaries, then the ticket here
 *   5. free     only now QEMU hears that its guest has arrived
 *
 * Until 5 QEMU has everything; if anything fails before, it is told so by a closed channel.
 */

/* Chosen by us */

/** Bytes of the stream that may wait for intermediaries. */
const WAITING_BYTES_MAX = 8 * 1024 * 1024;

export interface ParkOptions {
  readonly stage: StageOptions;
  /** Keeps the ticket safe: without it nobody can ever open what is parked. */
  readonly keepTicket: (ticket: Ticket) => Promise<void>;
  /** @default "auto" */
  readonly codec?: CodecName;
  /** Threads of the addon, as `setThreads` set them. */
  readonly threads: number;
}

/** What was parked. */
export interface ParkFacts extends StagedFacts {
  /** Bytes of the stream beside the pages. */
  readonly streamBytes: number;
}

/**
 * Parks the guest of a QEMU whose channel this is, and which switches to post-copy.
 *
 * @returns When the guest is with the intermediaries and QEMU was told so; it may be quit then.
 * @throws {PagelaneError} If it cannot be: then it is with QEMU, which pauses it if it had switched
 *   over: ERR_STAGING_…, ERR_STREAM_…, or ERR_PARK_PRECOPY if it did not.
 */
export function parkGuest(channel: QemuChannel, options: ParkOptions): Promise<ParkFacts> {
  return new Parking(channel, options).run();
}

class Parking {
  readonly #channel: QemuChannel;
  readonly #options: ParkOptions;
  readonly #reader: StreamReader;
  readonly #encoder: BatchEncoder;
  readonly #writer = new StreamWriter();
  readonly #startedMs = performance.now();
  #decoder: BatchDecoder | undefined;
  #layout: RamLayout | undefined;
  #stager: PageStager | undefined;
  #before: StreamWriterAtIntermediaries | undefined;
  readonly #after: Uint8Array[] = [];
  #hasSwitched = false;
  #waitingBytes = 0;
  #streamBytes = 0;
  #turn: Promise<void> = Promise.resolve();
  #input: { bytes: Uint8Array; at: number; done: () => void } | undefined;
  #resolve!: (facts: ParkFacts) => void;
  #reject!: (error: unknown) => void;
  #isOver = false;

  constructor(channel: QemuChannel, options: ParkOptions) {
    this.#channel = channel;
    this.#options = options;
    this.#reader = new StreamReader(this.#makeSink(), { readsPostcopy: true });
    this.#encoder = new BatchEncoder({
      codec: 'none',
      threads: options.threads,
      now: () => performance.now(),
    });
  }

  async run(): Promise<ParkFacts> {
    const parked = new Promise<ParkFacts>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#channel.start({
      chunk: (bytes, done) => {
        this.#input = { bytes, at: 0, done };
        this.#feed();
      },
      end: () => this.#fail(new PagelaneError('ERR_STREAM_TRUNCATED', CLOSED)),
    });
    try {
      return await parked;
    } finally {
      this.#isOver = true;
      await this.#stager?.[Symbol.asyncDispose]();
    }
  }

  #feed(): void {
    const input = this.#input;
    if (input === undefined || this.#isOver || this.#mustWait) return;
    try {
      input.at = this.#reader.push(input.bytes, input.at);
      if (this.#reader.isPastMemory && !this.#hasSwitched) throw notSwitched();
    } catch (error) {
      this.#fail(error);
      return;
    }
    if (input.at < input.bytes.length) return;
    this.#input = undefined;
    input.done();
  }

  get #mustWait(): boolean {
    const isOpening = this.#layout !== undefined && this.#stager === undefined;
    return isOpening || this.#waitingBytes >= WAITING_BYTES_MAX;
  }

  #makeSink(): StreamSink {
    return {
      takeSlot: () => {
        if (this.#mustWait) return undefined;
        return this.#hasSwitched ? this.#stager!.takeSlot() : this.#encoder.takeSlot();
      },
      layout: (layout) => this.#open(layout),
      bytes: (data, place) => this.#takeBytes(data.slice(), place),
      pages: (slot, sealed) => {
        if (this.#hasSwitched) this.#stager!.put(slot, sealed);
        else this.#takeEarly(slot, sealed.slice());
      },
      epoch: () => {},
      ping: (value) => this.#channel.write(pong(value), () => {}),
      postcopy: (unused) => {
        if (this.#mustWait) return false;
        if (unused !== undefined) this.#encoder.giveSlot(unused);
        this.#hasSwitched = true;
        return true;
      },
      end: () => void this.#finish().catch((error: unknown) => this.#fail(error)),
    };
  }

  #open(layout: RamLayout): void {
    const { stage, codec = 'auto', threads } = this.#options;
    this.#layout = layout;
    this.#writer.setLayout(layout);
    this.#decoder = new BatchDecoder(layout, 0, { isOrdered: false });
    const parts = {
      ...{ layout, codec, threads },
      onEntries: () => {},
      onBatch: () => {},
      onRoom: () => this.#feed(),
      onError: (error: unknown) => this.#fail(error),
    };
    PageStager.open(parts, stage).then(
      (stager) => {
        this.#stager = stager;
        this.#feed();
      },
      (error: unknown) => this.#fail(error),
    );
  }

  /** Bytes before the pages, in their place; or behind them. */
  #takeBytes(data: Uint8Array, place: BytesPlace): void {
    const isBehind = !place.isInsideBefore && place.isInsideAfter;
    if (this.#hasSwitched && (isBehind || this.#after.length > 0)) {
      this.#after.push(data);
      return;
    }
    this.#then(data.length, async () => {
      await this.#store(this.#writer.beforeBytes(place));
      await this.#store(data);
    });
  }

  /** Pages that came before QEMU switched over, as they were in its stream. */
  #takeEarly(slot: Uint8Array, sealed: Int32Array): void {
    const encoding = this.#encoder.encode(slot, sealed, 0);
    this.#then(slot.length, async () => {
      const batch = await encoding;
      const bytes = batch.buffer.subarray(batch.start, batch.end);
      const { output, decoded } = await this.#decoder!.decode(bytes, batch.number);
      await this.#store(this.#writer.batch(output, decoded, batch.number));
      this.#decoder!.give(output);
      this.#encoder.release(batch);
    });
  }

  #then(bytes: number, work: () => Promise<void>): void {
    this.#waitingBytes += bytes;
    this.#turn = this.#turn.then(work);
    this.#turn.then(
      () => {
        this.#waitingBytes -= bytes;
        this.#feed();
      },
      (error: unknown) => this.#fail(error),
    );
  }

  async #store(bytes: Uint8Array): Promise<void> {
    const stager = this.#stager;
    // What comes before memory is known, is little.
    if (stager === undefined) return await this.#opened().then(() => this.#store(bytes));
    this.#before ??= new StreamWriterAtIntermediaries(stager.where);
    this.#streamBytes += bytes.length;
    await this.#before.add(bytes);
  }

  #opened(): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        if (this.#stager !== undefined) resolve();
        else if (this.#isOver) reject(new PagelaneError('ERR_DESTROYED', 'Parking is over'));
        else setTimeout(look, OPENED_LOOK_MS);
      };
      look();
    });
  }

  /** QEMU has given all it has. */
  async #finish(): Promise<void> {
    const stager = this.#stager!;
    const before = this.#before!;
    await this.#turn;
    await before.flush();
    const partsBefore = before.parts;
    for (const bytes of this.#after) await this.#store(bytes);
    await before.flush();
    const stream = { partsBefore, partsAfter: before.parts - partsBefore };
    await stager.finish(stream);
    await this.#options.keepTicket(stager.message);
    if (this.#isOver) return;
    for (const word of [pong(PING_LOADED), pong(PING_DEVICES), SHUT_SUCCESS]) {
      this.#channel.write(word, () => {});
    }
    this.#channel.end();
    this.#isOver = true;
    const evictionMs = Math.round(performance.now() - this.#startedMs);
    this.#resolve({ ...stager.facts(), evictionMs, streamBytes: this.#streamBytes });
  }

  #fail(error: unknown): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#channel.destroy();
    const cause = asPagelaneError(error);
    if (!this.#hasSwitched) this.#reject(cause);
    else {
      const text = `Post-copy is paused: ${cause.message}`;
      this.#reject(new PagelaneError('ERR_POSTCOPY_PAUSED', text, { cause }));
    }
  }
}

const OPENED_LOOK_MS = 5;
const CLOSED = 'Source QEMU closed the channel before its guest was parked';

function notSwitched(): PagelaneError {
  const text = 'Cannot park: QEMU did not switch to post-copy (migrate-start-postcopy)';
  return new PagelaneError('ERR_PARK_PRECOPY', text);
}

import { asPagelaneError, PagelaneError } from '../errors.ts';
import { pagesOfSealed } from '../page/batch-map.ts';
import type { RamLayout } from '../page/block.ts';
import type { CodecName } from '../page/codec-choice.ts';
import { StoredStreamWriter } from '../staging/stored-stream.ts';
import type { QemuChannel } from '../stream/endpoint.ts';
import { PART_HEADER_BYTES } from '../stream/format.ts';
import { StreamReader } from '../stream/reader.ts';
import type { BytesPlace, StreamSink } from '../stream/sink.ts';
import { TailWatcher } from '../stream/tail.ts';
import { discardAll, postcopyPackage } from './package.ts';
import { newStage, PageStager, type StageOptions } from './page-stager.ts';
import type { StagedFacts } from './progress.ts';
import { ramEnd } from './recovery.ts';
import { pong, SHUT_SUCCESS } from './return-message.ts';
import type { Ticket } from './ticket.ts';

/*
 * A whole guest into intermediaries, with no destination
 *
 *   1. pages    of a guest that stands still, so that each comes once: as extents
 *   2. state    its devices, packed as in a post-copy: so it can run before its pages are there
 *   3. keep     stream and manifest at the intermediaries, then the ticket here
 *   4. free     only now QEMU hears that its guest has arrived
 *
 * To QEMU it is a pre-copy: whatever fails before 4, its guest goes on there as if nothing was.
 */

/* Chosen by us */

/** QEMU is done when its stream is whole, and it has been silent for so long. */
const SILENCE_MS = 200;

/** How long QEMU may be silent in the middle of its stream. */
const TIMEOUT_MS = 60_000;

/** Most bytes of the stream beside pages. */
const STREAM_BYTES_MAX = 256 * 1024 * 1024;

export interface ParkOptions {
  readonly stage: StageOptions;
  /**
   * Keeps the ticket safe: without it nobody can ever open what is parked. Throw it away if parking
   * fails afterwards: the guest goes on with QEMU.
   */
  readonly keepTicket: (ticket: Ticket) => Promise<void>;
  /** @default "auto" */
  readonly codec?: CodecName;
  /** Threads of the addon, as `setThreads` set them. */
  readonly threads: number;
  /** Aborted: parking fails, unless QEMU was told that its guest has arrived. */
  readonly signal?: AbortSignal;
}

/** What was parked. */
export interface ParkFacts extends StagedFacts {
  /** Bytes of the stream beside the pages. */
  readonly streamBytes: number;
}

/**
 * Parks the guest of a QEMU whose channel this is. It must be stopped, and have the capability
 * `postcopy-ram`.
 *
 * @returns When the guest is with the intermediaries and QEMU was told so; it may be quit then.
 * @throws {PagelaneError} ERR_STAGING_…, ERR_STREAM_…, ERR_PARK_…, ERR_CANCELLED If it cannot be:
 *   then it is with QEMU, whose migration has failed.
 */
export function parkGuest(channel: QemuChannel, options: ParkOptions): Promise<ParkFacts> {
  return new Parking(channel, options).run();
}

class Parking {
  readonly #channel: QemuChannel;
  readonly #options: ParkOptions;
  readonly #reader: StreamReader;
  readonly #tail = new TailWatcher();
  readonly #startedMs = performance.now();
  #layout: RamLayout | undefined;
  #stager: PageStager | undefined;
  readonly #before: Uint8Array[] = [];
  readonly #deviceState: Uint8Array[] = [];
  #streamBytes = 0;
  #isAdvised = false;
  #isPastMemory = false;
  #timer: NodeJS.Timeout | undefined;
  #input: { bytes: Uint8Array; at: number; done: () => void } | undefined;
  #resolve!: (facts: ParkFacts) => void;
  #reject!: (error: unknown) => void;
  #keeping: Promise<void> = Promise.resolve();
  #isOver = false;

  constructor(channel: QemuChannel, options: ParkOptions) {
    this.#channel = channel;
    this.#options = options;
    this.#reader = new StreamReader(this.#makeSink(), { isStanding: true });
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
    this.#await();
    const { signal } = this.#options;
    const abort = (): void => this.#fail(new PagelaneError('ERR_CANCELLED', INTERRUPTED));
    signal?.addEventListener('abort', abort);
    if (signal?.aborted === true) abort();
    try {
      return await parked;
    } finally {
      signal?.removeEventListener('abort', abort);
      this.#isOver = true;
      clearTimeout(this.#timer);
      await this.#stager?.[Symbol.asyncDispose]();
    }
  }

  #feed(): void {
    const input = this.#input;
    if (input === undefined || this.#isOver) return;
    try {
      input.at = this.#reader.push(input.bytes, input.at);
      if (this.#reader.fallback !== undefined) throw notParkable(this.#reader.fallback);
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.#await();
    if (input.at < input.bytes.length) return;
    this.#input = undefined;
    input.done();
  }

  /** Waits for more of the stream, or for its end. */
  #await(): void {
    clearTimeout(this.#timer);
    const isWhole = this.#isPastMemory && this.#tail.endsWhole();
    this.#timer = setTimeout(
      () => {
        if (isWhole) this.#finish().catch((error: unknown) => this.#fail(error));
        else this.#fail(new PagelaneError('ERR_QEMU_TIMEOUT', SILENT));
      },
      isWhole ? SILENCE_MS : TIMEOUT_MS,
    );
  }

  #makeSink(): StreamSink {
    return {
      takeSlot: () => this.#stager?.takeSlot(),
      layout: (layout) => this.#open(layout),
      bytes: (data, place) => this.#takeBytes(data.slice(), place),
      pages: (slot, sealed) => this.#stager!.put(slot, sealed, pagesOfSealed(slot, sealed)),
      epoch: () => this.#fail(new PagelaneError('ERR_PARK_RUNNING', RUNNING)),
      ping: (value) => this.#channel.write(pong(value), () => {}),
      advised: () => {
        this.#isAdvised = true;
      },
    };
  }

  #open(layout: RamLayout): void {
    const { stage, codec = 'auto', threads } = this.#options;
    if (!this.#isAdvised) throw notParkable('the capability postcopy-ram is off');
    this.#layout = layout;
    const parts = {
      ...{ layout, message: newStage(stage), codec, threads },
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

  /** What is before the pages; the borders of RAM's END, which are made anew; what is behind. */
  #takeBytes(data: Uint8Array, { isInsideBefore, isInsideAfter }: BytesPlace): void {
    this.#streamBytes += data.length;
    if (this.#streamBytes > STREAM_BYTES_MAX) {
      throw notParkable(`it has more than ${STREAM_BYTES_MAX} bytes beside pages`);
    }
    if (isInsideBefore) this.#isPastMemory = true;
    else if (this.#isPastMemory) {
      this.#tail.push(data);
      this.#deviceState.push(data);
    } else this.#before.push(isInsideAfter ? data.subarray(0, -PART_HEADER_BYTES) : data);
  }

  /** QEMU has given all it has. */
  async #finish(): Promise<void> {
    const stager = this.#stager!;
    const behind = Buffer.concat(this.#deviceState);
    const deviceState = behind.subarray(0, behind.length - this.#tail.endBytes());
    const writer = new StoredStreamWriter(stager.where);
    for (const bytes of this.#before) await writer.add(bytes);
    await writer.add(discardAll(this.#layout!));
    await writer.add(postcopyPackage(deviceState));
    await writer.flush();
    const partsBefore = writer.parts;
    await writer.add(ramEnd(this.#layout!));
    await writer.flush();
    await stager.finish({ partsBefore, partsAfter: writer.parts - partsBefore });
    if (this.#isOver) return;
    // Known before it begins: what fails from here on waits for it.
    this.#keeping = Promise.resolve().then(() => this.#options.keepTicket(stager.message));
    await this.#keeping;
    if (this.#isOver) return;
    this.#isOver = true;
    this.#channel.write(SHUT_SUCCESS, () => {});
    this.#channel.end();
    const evictionMs = Math.round(performance.now() - this.#startedMs);
    this.#resolve({ ...stager.facts(), evictionMs, streamBytes: this.#streamBytes });
  }

  #fail(error: unknown): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#channel.destroy();
    // Whoever has begun to keep the ticket is told when he can throw it away.
    const reject = (): void => this.#reject(asPagelaneError(error));
    this.#keeping.then(reject, reject);
  }
}

const CLOSED = 'Source QEMU closed the channel before its guest was parked';
const INTERRUPTED = 'Parking was interrupted';
const SILENT = `Source QEMU was silent for ${TIMEOUT_MS} ms in the middle of its stream`;
const RUNNING = 'Cannot park: a page came twice; the guest must be stopped';

function notParkable(why: string): PagelaneError {
  return new PagelaneError('ERR_PARK_STREAM', `Cannot park: ${why}`);
}

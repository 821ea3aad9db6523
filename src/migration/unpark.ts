import { asPagelaneError, PagelaneError } from '../errors.ts';
import type { RamLayout } from '../page/block.ts';
import type { DecodedBatch } from '../page/decode.ts';
import type { StagedWhere } from '../staging/everywhere.ts';
import { ExtentSeal } from '../staging/extent.ts';
import { closeIntermediaries } from '../staging/open-intermediaries.ts';
import { loadManifest } from '../staging/stored-manifest.ts';
import { loadStreamPart } from '../staging/stored-stream.ts';
import type { QemuChannel } from '../stream/endpoint.ts';
import { PageRequestReader } from '../stream/page-request.ts';
import { ReturnPathWatcher, ReturnType } from '../stream/return-path.ts';
import { StreamWriter } from '../stream/writer.ts';
import { Deferred } from './deferred.ts';
import { type GatherSettings, openAll, PageGatherer } from './page-gatherer.ts';
import { pausedError } from './paused.ts';
import { PreemptDestination } from './preempt-destination.ts';
import { type GatheredFacts, Tally } from './progress.ts';
import {
  keepMissing,
  RESUME,
  ReceivedBitmaps,
  ramEnd,
  ramSection,
  recoveryQuestions,
} from './recovery.ts';
import { isLoaded } from './return-message.ts';
import type { Ticket } from './ticket.ts';

/*
 * A parked guest, from intermediaries to a QEMU
 *
 *   1. load     the manifest, from whichever intermediary has it
 *   2. before   what belongs before all pages: the guest runs then
 *   3. pages    in the background; what QEMU asks for, first
 *   4. after    what follows them; QEMU says that it has everything
 *   5. remove   all of it from the intermediaries
 *
 * Nothing is removed before the guest runs: until then it can be gathered again, anywhere.
 */

/* Chosen by us */

/** How long QEMU may take for the last of it. */
const LOAD_TIMEOUT_MS = 120_000;

/** How long QEMU may take to say what it has. */
const ANSWER_TIMEOUT_MS = 30_000;

export interface UnparkOptions {
  readonly settings?: GatherSettings;
  /**
   * Whether QEMU has some of the guest already, and its post-copy is paused there: then only what
   * it has not is sent. @default false
   */
  readonly isRecovery?: boolean;
  /** How long QEMU may take to say what it has, milliseconds. @default 30_000 */
  readonly answerTimeoutMs?: number;
  /** Opened when there are bytes for it: a QEMU that gets none stops answering its monitor. */
  readonly openChannel: () => Promise<QemuChannel>;
}

/** What was gathered. */
export interface UnparkFacts extends GatheredFacts {
  /** Milliseconds until the guest ran, and until it had all its pages. */
  readonly runningMs: number | undefined;
  readonly durationMs: number;
}

/**
 * Gathers a parked guest.
 *
 * @throws {PagelaneError} ERR_POSTCOPY_PAUSED If the guest runs already: it waits in QEMU for the
 *   rest, which is still at the intermediaries.
 * @throws {PagelaneError} ERR_MANIFEST_…, ERR_STAGING_…, ERR_QEMU_… If it does not: all of it is at
 *   the intermediaries.
 */
export function unparkGuest(ticket: Ticket, options: UnparkOptions): Promise<UnparkFacts> {
  return new Unparking(ticket, options).run();
}

class Unparking {
  readonly #ticket: Ticket;
  readonly #options: UnparkOptions;
  readonly #writer = new StreamWriter();
  readonly #requests = new PageRequestReader();
  readonly #startedMs = performance.now();
  readonly #returnPath = new ReturnPathWatcher((type, bytes) => this.#hear(type, bytes));
  #gatherer: PageGatherer | undefined;
  #channel: QemuChannel | undefined;
  readonly #tally = new Tally();
  readonly #preempt = new PreemptDestination(this.#tally, (error) => this.#hasAll.reject(error));
  #runningMs: number | undefined;
  readonly #hasAll = new Deferred<void>();
  readonly #answered = new Deferred<void>();
  #layout: RamLayout | undefined;
  /** What QEMU has already, if its post-copy is recovered. */
  #received: ReceivedBitmaps | undefined;

  constructor(ticket: Ticket, options: UnparkOptions) {
    this.#ticket = ticket;
    this.#options = options;
  }

  async run(): Promise<UnparkFacts> {
    const { settings = {} } = this.#options;
    const intermediaries = await openAll(this.#ticket, settings);
    const where = {
      seal: new ExtentSeal(this.#ticket.key, this.#ticket.scope),
      intermediaries: intermediaries.filter((each) => each !== undefined),
    };
    try {
      const manifest = await loadManifest(where);
      const { layout, entries, stream } = manifest;
      this.#writer.setLayout(layout);
      this.#layout = layout;
      const parts = {
        ...{ layout, settings, tally: this.#tally },
        write: (batch: DecodedBatch) => this.#writeBatch(batch),
      };
      const gatherer = new PageGatherer(parts, this.#ticket, intermediaries);
      this.#gatherer = gatherer;
      await this.#openChannel();
      if (this.#options.isRecovery === true) await this.#recover(layout);
      else await this.#loadStream({ first: 0, end: stream.partsBefore }, where);
      for (const entry of entries) gatherer.accept(entry);
      gatherer.complete();
      const facts = await this.#or(gatherer.done());
      this.#preempt.end();
      await this.#write(this.#writer.leaveSection());
      const { partsBefore, partsAfter } = stream;
      if (this.#received !== undefined) await this.#write(ramEnd(layout));
      else await this.#loadStream({ first: partsBefore, end: partsBefore + partsAfter }, where);
      await within(LOAD_TIMEOUT_MS, this.#hasAll.promise, 'did not load what it has');
      await gatherer.removeAll();
      const durationMs = Math.round(performance.now() - this.#startedMs);
      return { ...facts, runningMs: this.#runningMs, durationMs };
    } catch (error) {
      throw this.#describe(error);
    } finally {
      this.#channel?.destroy();
      this.#preempt.close({ isDone: this.#returnPath.shutStatus === 0 });
      await this.#gatherer?.[Symbol.asyncDispose]();
      await closeIntermediaries(intermediaries);
    }
  }

  async #openChannel(): Promise<void> {
    const channel = await this.#options.openChannel();
    this.#channel = channel;
    channel.start({
      chunk: (bytes, done) => {
        try {
          this.#receive(bytes);
        } catch (error) {
          this.#hasAll.reject(error);
        }
        done();
      },
      end: () => this.#hasAll.reject(closed()),
    });
    channel.closed.then((error) => this.#hasAll.reject(error ?? closed()));
    // Nobody tells whether QEMU waits for it.
    this.#preempt.want();
    this.#preempt.follow(channel, this.#options.openChannel);
  }

  async #loadStream(
    { first, end }: { readonly first: number; readonly end: number },
    where: StagedWhere,
  ): Promise<void> {
    for (let part = first; part < end; part++) {
      await this.#or(loadStreamPart(part, where).then((bytes) => this.#write(bytes)));
    }
  }

  /** Asks QEMU what it has, and has it go on. */
  async #recover(layout: RamLayout): Promise<void> {
    this.#received = new ReceivedBitmaps(layout);
    await this.#write(recoveryQuestions(layout));
    const { answerTimeoutMs = ANSWER_TIMEOUT_MS } = this.#options;
    const answered = this.#or(this.#answered.promise);
    await within(answerTimeoutMs, answered, 'did not say what it has');
    await this.#write(RESUME);
    this.#runningMs = Math.round(performance.now() - this.#startedMs);
    this.#gatherer!.startRemoving();
  }

  #receive(bytes: Uint8Array): void {
    const received = this.#received;
    if (received === undefined || received.isComplete) {
      this.#returnPath.push(bytes);
      return;
    }
    const rest = received.push(bytes);
    if (received.isComplete) this.#answered.resolve();
    this.#returnPath.push(rest);
  }

  #hear(type: number, message: Uint8Array): void {
    const gatherer = this.#gatherer!;
    if (type === ReturnType.RequestById || type === ReturnType.Request) {
      const { isThere } = gatherer.want(this.#requests.read(message));
      isThere.catch((error: unknown) => this.#hasAll.reject(error));
    } else if (isLoaded(message)) {
      this.#runningMs ??= Math.round(performance.now() - this.#startedMs);
      gatherer.startRemoving();
    } else if (type === ReturnType.Shut) {
      if (this.#returnPath.shutStatus === 0) this.#hasAll.resolve();
      else this.#hasAll.reject(closed());
    }
  }

  #write(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve) => this.#channel!.write(bytes, resolve));
  }

  async #writeBatch(batch: DecodedBatch): Promise<void> {
    const { output, decoded } = batch;
    if (this.#received === undefined) {
      await this.#write(this.#writer.batch(output, decoded, 0));
      return;
    }
    const missing = keepMissing(batch, this.#received, this.#layout!);
    if (missing.length > 0) await this.#write(ramSection(this.#layout!, missing));
  }

  /** `work`, unless QEMU goes before. */
  #or<Value>(work: Promise<Value>): Promise<Value> {
    const never = this.#hasAll.promise.then(() => new Promise<never>(() => {}));
    return Promise.race([never, work]);
  }

  #describe(error: unknown): unknown {
    const runs = this.#runningMs !== undefined || this.#options.isRecovery === true;
    return runs ? pausedError(error) : asPagelaneError(error);
  }
}

/** `work` of QEMU's, unless it takes longer. */
async function within(timeoutMs: number, work: Promise<void>, failing: string): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    const text = `Destination QEMU ${failing} within ${timeoutMs} ms`;
    timer = setTimeout(() => reject(new PagelaneError('ERR_QEMU_TIMEOUT', text)), timeoutMs);
  });
  try {
    await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

function closed(): PagelaneError {
  const text = 'Destination QEMU closed the channel; look at its own log';
  return new PagelaneError('ERR_QEMU_CLOSED', text);
}

import { asPagelaneError, type GuestPlace, PagelaneError, ProtocolError } from '../errors.ts';
import { HEADER_BYTES } from '../frame/limits.ts';
import type { Codec } from '../native.ts';
import { BatchApplier } from '../page/apply.ts';
import type { RamLayout } from '../page/block.ts';
import { clearMemory } from '../page/clear-memory.ts';
import type { GuestMemory } from '../page/memory.ts';
import { defaultStoreBytes, storeSlots } from '../page/store.ts';
import type { IncomingMessage } from '../session/lane.ts';
import * as message from '../stream/message.ts';
import { Deferred } from './deferred.ts';
import {
  DEVICE_STATE_BYTES_MAX,
  decodeRound,
  encodeRound,
  type OpenGuestMessage,
} from './guest-message.ts';
import type { GuestResult } from './guest-result.ts';
import { DestinationHandover } from './handover-destination.ts';
import {
  decodeHandover,
  encodeHandover,
  type HandoverMessage,
  isHandoverKind,
} from './handover-message.ts';
import { tellHeld, tellNothingMore } from './held.ts';
import { type Journal, VolatileJournal } from './journal.ts';
import { forgetLive, rememberLive } from './live-handovers.ts';
import { decodedPages } from './progress.ts';
import { type MigrationEnd, resultOf } from './result.ts';
import type { StreamParts } from './stream.ts';

/*
 * The destination's end of a migration whose memory is ours to write
 *
 *   1. reserve    memory that is like the source's; tell what it holds already       #begin
 *   2. apply      batches as they come, in the addon's threads; between rounds wait   #work
 *   3. load       the device state, when all is here and the digests are equal       #finish
 *   4. hand over  the guest is started when the source has committed, not before
 */

/* Chosen by us */

/** Batches that are applied at once, beside one for each thread. */
const APPLIED_AHEAD = 2;

/** Where a guest goes to. */
export interface ReceiveOptions {
  /** Writable; blocks with the names and sizes of `layout`. */
  readonly memory: GuestMemory;
  /**
   * Gives the guest its device state; it must not run yet. If this throws, the guest stays at the
   * source.
   */
  load?(state: Uint8Array): void | Promise<void>;
  /** Runs the guest here. May be called again after a crash. */
  start(): void | Promise<void>;
  /** The guest stays at the source: remove what is here. May be called again. */
  discard?(): void | Promise<void>;
  /** Where the hand-over is written down, so that a crash leaves no doubt. @default nowhere */
  readonly journal?: Journal;
  /** What the journal keeps for after a crash. */
  readonly context?: Readonly<Record<string, unknown>>;
  /** Most bytes of pages that are kept. @default a quarter of the memory that is free */
  readonly storeBytes?: number;
  /**
   * Whether memory holds the guest as it was at an earlier time, so that what is still the same
   * need not be sent. Otherwise whatever it holds is replaced by zeros first. @default false
   */
  readonly holdsEarlier?: boolean;
}

/** What a copy ahead of a migration goes to. */
export type KeepOptions = Pick<ReceiveOptions, 'memory' | 'storeBytes' | 'holdsEarlier'>;

interface Plan extends KeepOptions {
  /** Absent if memory is only copied ahead. */
  readonly receive?: ReceiveOptions;
}

/** A guest that a source wants to migrate here. Nothing is sent until it is received or refused. */
export class IncomingGuest {
  /** Name of the virtual machine. */
  readonly name: string;
  /** 32 hexadecimal digits: names this migration in both journals. */
  readonly migration: string;
  /** True if memory is only copied ahead: `keep` it. */
  readonly isWarm: boolean;
  /** RAM blocks and page size. */
  readonly layout: RamLayout;
  readonly #open: OpenGuestMessage;
  readonly #parts: StreamParts;

  constructor(parts: StreamParts, open: OpenGuestMessage, layout: RamLayout) {
    this.#parts = parts;
    this.#open = open;
    this.name = open.name;
    this.migration = open.migration;
    this.isWarm = open.isWarm;
    this.layout = layout;
  }

  /**
   * Takes the guest over.
   *
   * @returns How it ended; never rejects. With `guest` "destination" it was started here.
   * @throws {TypeError} If it is a copy that is to be kept.
   */
  receive(options: ReceiveOptions): Promise<GuestResult> {
    return this.#run({ ...options, receive: options });
  }

  /**
   * Takes a copy of the guest's memory; the guest stays at the source.
   *
   * @returns How it ended; never rejects.
   * @throws {TypeError} If it is a guest that is to be received.
   */
  keep(options: KeepOptions): Promise<GuestResult> {
    return this.#run(options);
  }

  /** Tells the source that there is no room here, and why. The guest runs on there. */
  refuse(code: string, reason: string): void {
    sendFailure(this.#parts, new PagelaneError(code, reason));
  }

  #run(plan: Plan): Promise<GuestResult> {
    if (this.isWarm !== (plan.receive === undefined)) {
      const text = this.isWarm ? 'is a copy to be kept' : 'is to be received';
      throw new TypeError(`Guest "${this.name}" ${text}`);
    }
    return new GuestDestination(this.#parts, this.#open, this.layout, plan).run();
  }
}

class GuestDestination {
  readonly #parts: StreamParts;
  readonly #open: OpenGuestMessage;
  readonly #layout: RamLayout;
  readonly #plan: Plan;
  readonly #handover: DestinationHandover;
  readonly #digest = new message.Digest();
  readonly #fault = new Deferred<never>();
  readonly #allSent = new Deferred<void>();
  #applier: BatchApplier | undefined;
  readonly #queue: IncomingMessage[] = [];
  #inWork = 0;
  #state: Uint8Array[] = [];
  #stateBytes = 0;
  #sent: bigint | undefined;
  #drained = new Deferred<void>();
  #isOver = false;
  readonly #startedMs: number;

  constructor(parts: StreamParts, open: OpenGuestMessage, layout: RamLayout, plan: Plan) {
    this.#parts = parts;
    this.#open = open;
    this.#layout = layout;
    this.#plan = plan;
    this.#startedMs = parts.now();
    this.#handover = this.#makeHandover();
    parts.tally.setLayout(layout);
  }

  async run(): Promise<GuestResult> {
    const { session, lane } = this.#parts;
    try {
      session.ended.then((error) => this.#sessionEnded(error));
      lane.onDrain = () => {
        this.#drained.resolve();
        this.#drained = new Deferred();
      };
      // To its end, whatever happens: when it is over nobody writes to memory any more.
      await this.#prepareMemory();
      const applier = await this.#or(this.#begin());
      if (this.#plan.receive !== undefined) {
        // From here on the source may ask about it, on another session too.
        rememberLive(this.#handover, this.#open.migration);
        this.#noteAbort();
        await this.#or(this.#handover.reserve());
      }
      // Only now: what the source says of a hand-over that has not begun would be lost.
      lane.onMessage = (incoming) => this.#receive(incoming);
      this.#applier = applier;
      await this.#or(this.#tellHeld());
      this.#work();
      await this.#or(this.#allSent.promise);
      return await this.#finish();
    } catch (error) {
      return await this.#giveUp(asPagelaneError(error));
    }
  }

  /**
   * Pages that the source never used are not sent: memory of which nothing is known becomes zeros.
   * The source is not told what was there, for it may be another owner's.
   *
   * @throws {PagelaneError} ERR_MEMORY_LAYOUT If memory is not like the source's.
   */
  async #prepareMemory(): Promise<void> {
    const { memory, holdsEarlier = false } = this.#plan;
    const difference = findDifference(this.#layout, memory.layout);
    if (difference !== undefined) {
      throw new PagelaneError('ERR_MEMORY_LAYOUT', `Cannot receive guest: ${difference}`);
    }
    if (!holdsEarlier) await clearMemory(memory);
  }

  async #begin(): Promise<BatchApplier> {
    const { memory, storeBytes = defaultStoreBytes() } = this.#plan;
    this.#parts.tally.storeBytes = storeBytes;
    const applier = await BatchApplier.open(memory, storeSlots(memory.layout, storeBytes));
    this.#put(message.encodeStore(storeBytes, HEADER_BYTES));
    return applier;
  }

  async #tellHeld(): Promise<void> {
    const { memory, holdsEarlier = false } = this.#plan;
    const { lane } = this.#parts;
    if (holdsEarlier) await tellHeld(memory, lane, () => this.#or(this.#drained.promise));
    else tellNothingMore(lane);
  }

  /** Everything is here: the guest may be handed over, or its copy be kept. */
  async #finish(): Promise<GuestResult> {
    const { memory, receive } = this.#plan;
    if (this.#digest.value !== this.#sent) {
      throw new PagelaneError('ERR_DIGEST', 'What was applied differs from what was sent');
    }
    memory.checkIntact();
    if (receive === undefined) {
      const digest = this.#digest.value;
      const applied = { isApplied: true, guest: 'source', digest, code: '', message: '' } as const;
      this.#put(message.encodeApplied(applied, HEADER_BYTES));
      this.#isOver = true;
      return this.#result('completed', 'source');
    }
    await this.#or(receive.load?.(Buffer.concat(this.#state)));
    memory.checkIntact();
    const handed = await this.#handover.ready();
    this.#isOver = true;
    this.#handover.released().then(() => forgetLive(this.#open.migration));
    if (handed.guest === 'destination') return this.#result('completed', 'destination');
    throw new PagelaneError(handed.code, handed.message);
  }

  async #giveUp(error: PagelaneError): Promise<GuestResult> {
    this.#isOver = true;
    for (const incoming of this.#queue.splice(0)) incoming.release();
    await this.#applier?.stop();
    await this.#handover.abort(error.code, error.message).catch(() => false);
    const { guest } = this.#handover;
    if (guest === 'source') sendFailure(this.#parts, error);
    else this.#handover.leave();
    forgetLive(this.#open.migration);
    const isCancelled = error.code === 'ERR_CANCELLED' && guest === 'source';
    return this.#result(isCancelled ? 'cancelled' : 'failed', guest, error);
  }

  #makeHandover(): DestinationHandover {
    const { name, migration, attempt } = this.#open;
    const { receive } = this.#plan;
    return new DestinationHandover({
      journal: receive?.journal ?? new VolatileJournal(),
      migration,
      attempt,
      name,
      ...(receive?.context && { context: receive.context }),
      hooks: {
        start: async () => receive?.start(),
        // What is being applied would be written into memory that may have another use by then.
        discard: async () => {
          await this.#applier?.stop();
          await receive?.discard?.();
        },
      },
      send: (word: HandoverMessage) => this.#put(encodeHandover(word, HEADER_BYTES)),
      say: (text) => this.#parts.tally.addFallback(text),
    });
  }

  #put(encoded: message.EncodedMessage): void {
    this.#parts.lane.send({ ...encoded, isOrdered: true });
  }

  #receive(incoming: IncomingMessage): void {
    try {
      if (isHandoverKind(incoming.payload[0]!)) {
        // Whatever else waits: the source may have given up.
        this.#handover.receive(decodeHandover(incoming.payload));
        incoming.release();
      } else if (this.#isOver) incoming.release();
      else {
        this.#queue.push(incoming);
        this.#work();
      }
    } catch (error) {
      this.#fault.reject(error);
    }
  }

  #noteAbort(): void {
    this.#handover.result.then(
      (handed) => {
        if (handed.guest === 'source') {
          this.#fault.reject(new PagelaneError(handed.code, handed.message));
        }
      },
      (error: unknown) => this.#fault.reject(error),
    );
  }

  /** Starts what waits, in its order: batches side by side, anything else when they are done. */
  #work(): void {
    const inWorkMax = this.#parts.threads.threads + APPLIED_AHEAD;
    while (this.#applier !== undefined && !this.#isOver) {
      const incoming = this.#queue[0];
      if (incoming === undefined) return;
      const isBatch = incoming.payload[0] === message.MessageKind.Pages;
      if (this.#inWork >= (isBatch ? inWorkMax : 1)) return;
      this.#queue.shift();
      if (isBatch) this.#apply(incoming, this.#applier);
      else this.#take(incoming);
    }
  }

  #apply(incoming: IncomingMessage, applier: BatchApplier): void {
    const { payload, sequence } = incoming;
    this.#digest.add(payload, 0, sequence);
    this.#inWork++;
    applier.apply(payload, sequence).then(
      (decoded) => {
        this.#inWork--;
        if (decoded !== undefined) this.#count(payload, decoded);
        incoming.release();
        this.#work();
      },
      (error: unknown) => this.#fault.reject(error),
    );
  }

  #count(payload: Uint8Array, decoded: Int32Array): void {
    const { tally } = this.#parts;
    tally.addPages(decodedPages(decoded));
    const literalBytes = message.batchLiteralBytes(payload);
    tally.addCodec(payload[1] as Codec, literalBytes, payload.length);
  }

  #take(incoming: IncomingMessage): void {
    const { payload, sequence } = incoming;
    try {
      switch (payload[0]) {
        case message.MessageKind.Round:
          this.#put(encodeRound(decodeRound(payload), HEADER_BYTES));
          this.#parts.tally.beginRound();
          break;
        case message.MessageKind.Bytes:
          this.#takeState(payload, sequence);
          break;
        case message.MessageKind.End:
          this.#sent = message.decodeEnd(payload);
          this.#allSent.resolve();
          break;
        default:
          throw new ProtocolError('ERR_MESSAGE', `Source sent a message of kind ${payload[0]}`, {
            sequence,
          });
      }
      incoming.release();
    } catch (error) {
      this.#fault.reject(error);
    }
  }

  #takeState(payload: Uint8Array, sequence: number): void {
    const { data } = message.decodeBytes(payload);
    this.#stateBytes += data.length;
    if (this.#stateBytes > DEVICE_STATE_BYTES_MAX) {
      throw new ProtocolError('ERR_MESSAGE', 'Device state is too large', { sequence });
    }
    this.#digest.add(payload, 0, sequence);
    this.#state.push(data.slice());
  }

  #sessionEnded(error: PagelaneError | undefined): void {
    this.#fault.reject(
      error ?? new PagelaneError('ERR_SESSION_CLOSED', 'The source closed the session early'),
    );
    this.#handover.connectionLost();
  }

  #or<Value>(work: Value | Promise<Value>): Promise<Value> {
    return Promise.race([this.#fault.promise, Promise.resolve(work)]);
  }

  #result(outcome: MigrationEnd['outcome'], guest: GuestPlace, error?: PagelaneError): GuestResult {
    const { session, tally, threads, now } = this.#parts;
    const end: MigrationEnd = {
      side: 'destination',
      name: this.#open.name,
      outcome,
      guest,
      effective: { storeBytes: tally.storeBytes, isWarm: this.#open.isWarm },
      sent: this.#sent,
      applied: this.#digest.value,
      switchoverMs: undefined,
      ...(error && { error }),
    };
    const elapsedMs = now() - this.#startedMs;
    const wireBytesOf = (path: { receivedBytes: number }): number => path.receivedBytes;
    return {
      ...resultOf(end, { session, tally, threads, elapsedMs, wireBytesOf }),
      roundFacts: [],
      heldPages: 0,
    };
  }
}

/** Tells the source that this side has failed, and that the guest is its own. */
function sendFailure({ lane }: StreamParts, { code, message: text }: PagelaneError): void {
  const failure = { isApplied: false, guest: 'source', digest: 0n, code, message: text } as const;
  lane.send({ ...message.encodeApplied(failure, HEADER_BYTES), isOrdered: true });
}

/** In what two guests' memories differ; undefined if in nothing. */
function findDifference(theirs: RamLayout, ours: RamLayout): string | undefined {
  if (theirs.pageBits !== ours.pageBits) {
    return `its pages have ${2 ** theirs.pageBits} bytes, and those here ${2 ** ours.pageBits}`;
  }
  if (theirs.blocks.length !== ours.blocks.length) {
    return `it has ${theirs.blocks.length} RAM blocks, and memory here ${ours.blocks.length}`;
  }
  for (const [index, { name, usedBytes }] of theirs.blocks.entries()) {
    const own = ours.blocks[index]!;
    if (own.name !== name) return `its block ${index} is "${name}", and here "${own.name}"`;
    if (own.usedBytes !== usedBytes) {
      return `its block "${name}" has ${usedBytes} bytes, and here ${own.usedBytes}`;
    }
  }
  return undefined;
}

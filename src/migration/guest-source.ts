import { asPagelaneError, codeOf, type GuestPlace, messageOf, PagelaneError } from '../errors.ts';
import { HEADER_BYTES } from '../frame/limits.ts';
import type { PageDigests } from '../native-memory.ts';
import { DirtyBitmap } from '../page/bitmap.ts';
import { memoryBytes } from '../page/block.ts';
import { BatchEncoder, type EncodedBatch } from '../page/encode.ts';
import { RoundChoice } from '../page/round.ts';
import { defaultStoreBytes, storeSlots } from '../page/store.ts';
import type { IncomingMessage } from '../session/lane.ts';
import type { Session } from '../session/session.ts';
import * as message from '../stream/message.ts';
import { ownerOf } from './commit.ts';
import { Convergence } from './convergence.ts';
import { Deferred } from './deferred.ts';
import {
  DEVICE_STATE_BYTES_MAX,
  decodeRound,
  encodeOpenGuest,
  ROUNDS_MAX,
} from './guest-message.ts';
import type { MoveOptions, WarmOptions } from './guest-options.ts';
import type { GuestProgress, GuestResult, RoundFacts } from './guest-result.ts';
import { decodeHandover, encodeHandover, isHandoverKind } from './handover-message.ts';
import { SourceHandover } from './handover-source.ts';
import { compareHeld, HeldComparison } from './held.ts';
import { newMigrationId, VolatileJournal } from './journal.ts';
import { type MigrationEnd, type ProgressParts, progressOf, resultOf } from './result.ts';
import { RoundSender } from './rounds.ts';
import type { StreamParts } from './stream.ts';

/*
 * The source's end of a migration whose memory is ours to read
 *
 *   1. reserve    the destination takes memory for the guest, and says what it holds   #reserve
 *   2. rounds     populated pages first, then dirty ones, until the rest is small      #converge
 *   3. switch     pause, the last pages, the device state                              #switchOver
 *   4. commit     the hand-over: from then on the guest is the destination's           #handOver
 *
 * Whatever fails before 4 leaves the guest running here.
 */

/* Chosen by us */

/** How long the destination may take to say what it holds already, and to apply a round. */
const HELD_TIMEOUT_MS = 120_000;
const APPLY_TIMEOUT_MS = 120_000;

/** How long a hook of the embedder's may take before it is said. */
const HOOK_MS = 30_000;

const PROGRESS_MS = 250;

/** What a hand-over takes, in times of what the reservation took: both write journals and ask. */
const HANDOVER_RESERVES = 2;
/** No more of the allowed downtime is set aside for it. */
const FIXED_SHARE_MAX = 0.5;

/** What both kinds take. */
interface Plan extends WarmOptions {
  /** Absent if memory is only copied ahead. */
  readonly move?: MoveOptions;
}

/** What a migration of a guest needs of its session. */
export type GuestSession = Pick<Session, 'id' | 'ended' | 'pathReports'>;

/** What it is given beside its options. */
export type GuestParts = Omit<StreamParts, 'session'> & { readonly session: GuestSession };

/** One migration of a guest from here. */
export class GuestSource {
  readonly #parts: GuestParts;
  readonly #plan: Plan;
  readonly #encoder: BatchEncoder;
  readonly #sender: RoundSender;
  readonly #digest = new message.Digest();
  readonly #handover: SourceHandover;
  readonly #migration = newMigrationId();
  /** Rejects with whatever ends the migration from outside. */
  readonly #fault = new Deferred<never>();
  readonly #held = new HeldComparison();
  #applied = new Deferred<number>();
  #toSend: DirtyBitmap[] = [];
  readonly #choices: RoundChoice[];
  #heldPages = 0;
  #peerStoreBytes: number | undefined;
  readonly #roundFacts: RoundFacts[] = [];
  #pausedAtMs: number | undefined;
  #convergence: Convergence | undefined;
  #hasBegun = false;
  #reserveMs = 0;
  #downtime: GuestResult['downtimeMs'] = { switchover: undefined };
  readonly #startedMs: number;

  constructor(parts: GuestParts, plan: Plan) {
    this.#parts = parts;
    this.#plan = plan;
    this.#startedMs = parts.now();
    const { lane, session, threads, tally } = parts;
    this.#encoder = new BatchEncoder({
      codec: plan.codec ?? 'auto',
      threads: threads.threads,
      now: parts.now,
    });
    this.#sender = new RoundSender({
      memory: plan.source,
      encoder: this.#encoder,
      lane,
      onSent: (batch, sequence) => this.#noteSent(batch, sequence),
    });
    this.#handover = this.#makeHandover();
    const blocks = plan.move === undefined ? [] : plan.source.layout.blocks;
    this.#choices = blocks.map((_, block) => new RoundChoice(plan.source.pageCount(block)));
    tally.setLayout(plan.source.layout);
    lane.onMessage = (incoming) => this.#receive(incoming);
    session.ended.then((error) => this.#sessionEnded(error));
    this.#fault.promise.catch((error: unknown) => this.#sender.fail(error));
  }

  /** Runs it to its end. Never rejects: the result says where the guest is. */
  async run(): Promise<GuestResult> {
    const { signal, move } = this.#plan;
    const cancel = (): void => {
      if (this.#pausedAtMs !== undefined) return;
      this.#fault.reject(new PagelaneError('ERR_CANCELLED', 'Migration was cancelled'));
    };
    signal?.addEventListener('abort', cancel, { once: true });
    if (signal?.aborted) cancel();
    const timer = this.#plan.onProgress && setInterval(() => this.#tellProgress(), PROGRESS_MS);
    try {
      await this.#reserve();
      await this.#findFirst();
      if (move === undefined) return await this.#copyAhead();
      await this.#converge(move);
      await this.#switchOver(move);
      return await this.#handOver();
    } catch (error) {
      return await this.#giveUp(asPagelaneError(error));
    } finally {
      signal?.removeEventListener('abort', cancel);
      clearInterval(timer);
      this.#stopDirtyLog();
    }
  }

  /** Announces the guest, and has the destination take memory for it. */
  async #reserve(): Promise<void> {
    const { source, name = '', move } = this.#plan;
    if (move !== undefined && move.journal === undefined) {
      this.#parts.tally.addFallback('no journal: after a crash nobody can tell whose the guest is');
    }
    const isWarm = move === undefined;
    const open = { name, migration: this.#migration, attempt: 1, isWarm };
    this.#put(encodeOpenGuest(open, HEADER_BYTES));
    this.#put(message.encodeBlocks(source.layout, HEADER_BYTES));
    if (move !== undefined) {
      const fromMs = this.#parts.now();
      this.#hasBegun = true;
      await this.#or(this.#handover.begin());
      this.#reserveMs = this.#parts.now() - fromMs;
    }
  }

  /** Starts the dirty log, and finds the pages of the first round: what the destination lacks. */
  async #findFirst(): Promise<void> {
    const { source, move } = this.#plan;
    // From here on what is written is in the log: only then is it safe to look.
    await this.#hook('dirtyLog.start', () => move?.dirtyLog.start());
    this.#toSend = await this.#or(source.scanAllPopulated());
    this.#heldPages = await this.#or(
      this.#held.run(
        (held) => compareHeld(source, held, this.#toSend, this.#digests),
        (next) => this.#within(next, HELD_TIMEOUT_MS, 'to say what it holds'),
      ),
    );
    this.#openStore();
  }

  async #copyAhead(): Promise<GuestResult> {
    const sent = await this.#sendRound(this.#toSend);
    this.#noteRound({ ...sent, dirtyPages: 0, throttlePercent: 0, outlook: 'copied ahead' });
    this.#applied = new Deferred();
    this.#put(message.encodeEnd(this.#digest.value, HEADER_BYTES), { isLast: true });
    await this.#within(this.#applied.promise, APPLY_TIMEOUT_MS, 'to keep the copy');
    return this.#result('completed', 'source');
  }

  /** Sends rounds until what is left can be sent while the guest stands still. */
  async #converge(move: MoveOptions): Promise<void> {
    const convergence = convergenceOf(move, this.#reserveMs);
    this.#convergence = convergence;
    for (;;) {
      const sent = await this.#sendRound(this.#toSend);
      this.#toSend = await this.#collect(move);
      const dirtyPages = this.#leaveHot();
      const decision = convergence.endRound({ ...sent, sentPages: sent.pages, dirtyPages });
      const throttlePercent = decision.action === 'continue' ? decision.throttlePercent : 0;
      const { text: outlook } = convergence.estimate;
      this.#noteRound({ ...sent, dirtyPages, throttlePercent, outlook });
      if (decision.action === 'switch') return;
      if (decision.action === 'stop') {
        throw new PagelaneError('ERR_NOT_CONVERGING', `Gave up: ${outlook}`);
      }
      await this.#hook('throttle', () => move.throttle?.(throttlePercent));
    }
  }

  /**
   * Takes pages that are always dirty out of what the next round sends, unless there are no others.
   *
   * @returns How many pages are left to send, those among them.
   */
  #leaveHot(): number {
    for (const [block, bitmap] of this.#toSend.entries()) this.#choices[block]!.next(bitmap);
    const pages = countOf(this.#toSend);
    const hot = countOf(this.#choices.map(({ left }) => left));
    if (pages === 0) {
      for (const [block, bitmap] of this.#toSend.entries()) this.#choices[block]!.last(bitmap);
    }
    return pages + hot;
  }

  /** Pauses the guest and sends what is left of it. */
  async #switchOver(move: MoveOptions): Promise<void> {
    const { now, tally, lane } = this.#parts;
    // What went wrong since the last round is noticed here, and the guest not paused.
    await this.#or(undefined);
    const pausedAtMs = now();
    this.#pausedAtMs = pausedAtMs;
    tally.phase = 'switchover';
    // The guest stands still: the first copy of everything counts.
    lane.isUrgent = true;
    await this.#hook('pause', () => move.pause());
    // What the log finds now joins what was to be sent anyway.
    const last = await this.#collect(move);
    for (const [block, bitmap] of last.entries()) {
      bitmap.merge(this.#toSend[block]!);
      this.#choices[block]!.last(bitmap);
    }
    const asking = this.#hook('deviceState', () => move.deviceState?.());
    const [sent, state = NO_STATE] = await this.#or(Promise.all([this.#sendRound(last), asking]));
    move.source.checkIntact();
    this.#noteRound({ ...sent, dirtyPages: 0, throttlePercent: 0, outlook: 'paused' });
    const restAtMs = now();
    this.#putState(state);
    this.#put(message.encodeEnd(this.#digest.value, HEADER_BYTES));
    const rest = Math.round(restAtMs - pausedAtMs);
    this.#downtime = { switchover: undefined, rest, state: Math.round(now() - restAtMs) };
  }

  async #handOver(): Promise<GuestResult> {
    const { now } = this.#parts;
    const sentAtMs = now();
    // The guest stands still: nobody waits for a destination that has failed. Once it is committed
    // this does nothing.
    this.#fault.promise.catch((error: unknown) => {
      this.#handover.abort(codeOf(error), messageOf(error)).catch(() => {});
    });
    const handed = await this.#handover.commit();
    if (handed.guest === 'source') throw new PagelaneError(handed.code, handed.message);
    const commit = Math.round(now() - sentAtMs);
    const switchover = Math.round(now() - this.#pausedAtMs!);
    this.#downtime = { ...this.#downtime, switchover, commit };
    return this.#result('completed', 'destination');
  }

  /** Leaves the guest where it is, and running if that is here. */
  async #giveUp(error: PagelaneError): Promise<GuestResult> {
    this.#fault.reject(error);
    if (this.#hasBegun) {
      await this.#handover.abort(error.code, error.message).catch((failed: unknown) => {
        this.#parts.tally.addFallback(messageOf(failed));
      });
    }
    const guest = await this.#whereGuestIs(error);
    if (guest === 'unknown') this.#handover.leave();
    if (guest === 'source' && this.#pausedAtMs !== undefined) {
      const switchover = Math.round(this.#parts.now() - this.#pausedAtMs);
      this.#downtime = { ...this.#downtime, switchover };
    }
    await this.#endThrottle();
    const isCancelled = error.code === 'ERR_CANCELLED' && guest === 'source';
    return this.#result(isCancelled ? 'cancelled' : 'failed', guest, error);
  }

  async #whereGuestIs({ code }: PagelaneError): Promise<GuestPlace> {
    if (!this.#hasBegun) return 'source';
    if (code !== 'ERR_HANDOVER_STATE') return this.#handover.guest;
    // The journal has an earlier hand-over, and that one may not be decided.
    const earlier = await this.#plan.move?.journal?.read().catch(() => undefined);
    return earlier?.side === 'source' ? ownerOf(earlier).guest : 'unknown';
  }

  async #endThrottle(): Promise<void> {
    try {
      await this.#plan.move?.throttle?.(0);
    } catch (error) {
      this.#parts.tally.addFallback(`cannot end the throttling: ${messageOf(error)}`);
    }
  }

  #makeHandover(): SourceHandover {
    const { name, move } = this.#plan;
    return new SourceHandover({
      journal: move?.journal ?? new VolatileJournal(),
      migration: this.#migration,
      ...(name !== undefined && { name }),
      ...(move?.context && { context: move.context }),
      hooks: {
        resume: async () => move?.resume(),
        discard: async () => move?.discard?.(),
      },
      send: (word) => this.#put(encodeHandover(word, HEADER_BYTES)),
      say: (text) => this.#parts.tally.addFallback(text),
    });
  }

  get #digests(): PageDigests | undefined {
    return this.#plan.move?.dirtyLog.digests;
  }

  #put(encoded: message.EncodedMessage, { isLast = false } = {}): number {
    return this.#parts.lane.send({ ...encoded, isOrdered: true, isLast });
  }

  async #sendRound(bitmaps: readonly DirtyBitmap[]): Promise<Sent> {
    const { now } = this.#parts;
    const fromMs = now();
    const round = this.#roundFacts.length + 1;
    if (round > 1) this.#parts.tally.beginRound();
    this.#applied = new Deferred();
    const sent = await this.#or(this.#sender.send(bitmaps, { round, digests: this.#digests }));
    const applied = this.#within(this.#applied.promise, APPLY_TIMEOUT_MS, 'to apply a round');
    if ((await applied) !== round) {
      throw new PagelaneError('ERR_MESSAGE', 'Destination has applied another round');
    }
    // Zeros may have been read in place of what was lost.
    this.#plan.source.checkIntact();
    return { ...sent, durationMs: now() - fromMs };
  }

  /** What was written since the last time, one bitmap for each block. */
  async #collect({ source, dirtyLog }: MoveOptions): Promise<DirtyBitmap[]> {
    const bitmaps = source.layout.blocks.map(
      (_, block) => new DirtyBitmap(source.pageCount(block)),
    );
    const words = bitmaps.map((bitmap) => bitmap.words);
    await this.#hook('dirtyLog.collect', () => dirtyLog.collect(words));
    return bitmaps;
  }

  #noteSent(batch: EncodedBatch, sequence: number): void {
    this.#digest.add(batch.buffer, batch.start, sequence);
    this.#parts.tally.note(batch);
  }

  #noteRound(facts: Omit<RoundFacts, 'round'>): void {
    const round = { round: this.#roundFacts.length + 1, ...facts };
    this.#roundFacts.push(round);
    this.#plan.move?.onRound?.(round);
  }

  #putState(state: Uint8Array): void {
    if (state.length > DEVICE_STATE_BYTES_MAX) {
      const text = `Device state has ${state.length} bytes, more than ${DEVICE_STATE_BYTES_MAX}`;
      throw new PagelaneError('ERR_DEVICE_STATE', text);
    }
    for (let at = 0; at < state.length; at += message.BYTES_DATA_MAX) {
      const part = state.subarray(at, at + message.BYTES_DATA_MAX);
      const encoded = message.encodeBytes(part, STATE_PLACE, HEADER_BYTES);
      const sequence = this.#put(encoded);
      this.#digest.add(encoded.buffer, encoded.start, sequence);
    }
  }

  #receive(incoming: IncomingMessage): void {
    const { payload } = incoming;
    const kind = payload[0]!;
    try {
      if (kind === message.MessageKind.Held) {
        this.#held.take(incoming);
        return;
      }
      if (isHandoverKind(kind)) this.#handover.receive(decodeHandover(payload));
      else if (kind === message.MessageKind.Round) this.#applied.resolve(decodeRound(payload));
      else if (kind === message.MessageKind.Store) this.#takeStore(message.decodeStore(payload));
      else if (kind === message.MessageKind.Applied) this.#takeEnd(payload);
      else throw new PagelaneError('ERR_MESSAGE', `Destination sent a message of kind ${kind}`);
      incoming.release();
    } catch (error) {
      this.#fault.reject(error);
    }
  }

  #takeStore(bytes: number): void {
    if (this.#peerStoreBytes !== undefined) {
      throw new PagelaneError('ERR_MESSAGE', 'Destination stated its store twice');
    }
    this.#peerStoreBytes = bytes;
  }

  #openStore(): void {
    const { source, storeBytes = defaultStoreBytes() } = this.#plan;
    const bytes = Math.min(storeBytes, this.#peerStoreBytes ?? 0);
    this.#encoder.openStore(source.layout, storeSlots(source.layout, bytes));
    this.#parts.tally.storeBytes = bytes;
  }

  /** The destination's last word, where there is no hand-over; or that it has failed. */
  #takeEnd(payload: Uint8Array): void {
    const { isApplied, code, message: text, digest } = message.decodeApplied(payload);
    if (!isApplied) this.#fault.reject(new PagelaneError(code, `Destination: ${text}`));
    else if (digest !== this.#digest.value) this.#fault.reject(digestError());
    else this.#applied.resolve(0);
  }

  #sessionEnded(error: PagelaneError | undefined): void {
    const cause = error ?? new PagelaneError('ERR_SESSION_CLOSED', 'The session was closed');
    this.#fault.reject(cause);
    // It will not come back on this lane: `recoverGuest` asks on another. A commitment may just be
    // in writing: what is asked for now is done after it.
    this.#handover
      .abort(cause.code, cause.message)
      .catch(() => {})
      .then(() => {
        if (this.#handover.guest === 'unknown') this.#handover.leave();
      });
    this.#handover.connectionLost();
  }

  /** `work`, unless the migration ends before. */
  #or<Value>(work: Value | Promise<Value>): Promise<Value> {
    return Promise.race([this.#fault.promise, Promise.resolve(work)]);
  }

  async #within<Value>(work: Promise<Value>, timeoutMs: number, what: string): Promise<Value> {
    const text = `Waited ${timeoutMs} ms for the destination ${what}`;
    const giveUp = (): void => {
      this.#fault.reject(new PagelaneError('ERR_GUEST_TIMEOUT', text));
    };
    return this.#waitFor(`the destination ${what}`, work, { afterMs: timeoutMs, call: giveUp });
  }

  /** Calls a hook of the embedder's, and says so if it takes long: nobody else can end it. */
  async #hook<Value>(name: string, call: () => Value | Promise<Value>): Promise<Value> {
    const { tally } = this.#parts;
    const text = `Waited ${HOOK_MS} ms for the hook "${name}" of the guest, and waits on`;
    const say = (): void => tally.addFallback(text);
    const work = (async () => call())();
    return this.#waitFor(`the hook "${name}"`, work, { afterMs: HOOK_MS, call: say });
  }

  async #waitFor<Value>(
    what: string,
    work: Promise<Value>,
    { afterMs, call }: { readonly afterMs: number; readonly call: () => void },
  ): Promise<Value> {
    const { tally } = this.#parts;
    tally.waitsFor = what;
    const timer = setTimeout(call, afterMs);
    try {
      return await this.#or(work);
    } finally {
      clearTimeout(timer);
      if (tally.waitsFor === what) tally.waitsFor = undefined;
    }
  }

  /** What it throws ends the migration, and not the process. */
  #tellProgress(): void {
    try {
      this.#plan.onProgress?.(this.#progress());
    } catch (error) {
      this.#fault.reject(error);
    }
  }

  #progress(): GuestProgress {
    const { estimate } = this.#convergence ?? {};
    const codec = this.#encoder.choice.current.name;
    return { ...progressOf(this.#progressParts(), codec), estimate };
  }

  #progressParts(): ProgressParts {
    const { session, tally, now } = this.#parts;
    const elapsedMs = now() - this.#startedMs;
    return { session, tally, elapsedMs, wireBytesOf: ({ sentBytes }) => sentBytes };
  }

  #stopDirtyLog(): void {
    const stopping = async (): Promise<void> => this.#plan.move?.dirtyLog.stop();
    stopping().catch(() => {});
  }

  #result(outcome: MigrationEnd['outcome'], guest: GuestPlace, error?: PagelaneError): GuestResult {
    const { name = '', codec = 'auto', move } = this.#plan;
    const { downtimeMs, dirtyLog } = move ?? {};
    const end: MigrationEnd = {
      side: 'source',
      name,
      outcome,
      guest,
      effective: { codec, downtimeMs, dirtyLog: dirtyLog?.name, isWarm: move === undefined },
      sent: this.#digest.value,
      applied: outcome === 'completed' ? this.#digest.value : undefined,
      switchoverMs: undefined,
      ...(error && { error }),
    };
    const { threads } = this.#parts;
    return {
      ...resultOf(end, { ...this.#progressParts(), threads }),
      downtimeMs: this.#downtime,
      roundFacts: this.#roundFacts,
      heldPages: this.#heldPages,
    };
  }
}

interface Sent {
  readonly pages: number;
  readonly wireBytes: number;
  readonly durationMs: number;
}

const NO_STATE = new Uint8Array(0);

const STATE_PLACE = {
  isInsideBefore: false,
  isInsideAfter: false,
  isVerbatim: true,
  lastBlock: -1,
};

/** @throws {RangeError} If an option is out of its range. */
export function checkMove(options: MoveOptions): void {
  convergenceOf(options, 0);
  const { maxRounds = 1 } = options;
  if (!Number.isInteger(maxRounds) || maxRounds > ROUNDS_MAX) {
    throw new RangeError(`A migration has 1 to ${ROUNDS_MAX} rounds, not ${maxRounds}`);
  }
}

/** @param reserveMs What the reservation took. */
function convergenceOf(
  { source, downtimeMs, maxRounds, maxBytesFactor }: MoveOptions,
  reserveMs: number,
): Convergence {
  const { layout } = source;
  return new Convergence({
    downtimeMs,
    pageBytes: 2 ** layout.pageBits,
    memoryBytes: memoryBytes(layout),
    fixedMs: Math.min(reserveMs * HANDOVER_RESERVES, downtimeMs * FIXED_SHARE_MAX),
    ...(maxRounds !== undefined && { maxRounds }),
    ...(maxBytesFactor !== undefined && { maxBytesFactor }),
  });
}

function countOf(bitmaps: readonly DirtyBitmap[]): number {
  return bitmaps.reduce((sum, bitmap) => sum + bitmap.count(), 0);
}

function digestError(): PagelaneError {
  const text = 'What the destination applied differs from what was sent';
  return new PagelaneError('ERR_DIGEST', text);
}

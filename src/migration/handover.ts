import { type Clock, systemClock } from '../clock.ts';
import { type GuestPlace, MigrationError, messageOf, PagelaneError } from '../errors.ts';
import {
  type Act,
  type GuestAct,
  type HandoverEvent,
  type HandoverId,
  type HandoverState,
  isSame,
  type JournalEntry,
  ownerOf,
  type Table,
  type Word,
  whyNotReplaced,
} from './commit.ts';
import type { HandoverMessage } from './handover-message.ts';
import type { Journal } from './journal.ts';

/* Chosen by us; milliseconds */

const TIMEOUTS: HandoverTimeouts = {
  reservedMs: 30_000,
  readyMs: 120_000,
  commitMs: 60_000,
  releasedMs: 60_000,
  undecidedMs: 5000,
  hookMs: 30_000,
};

/** Messages that wait for a hook or the journal; more are dropped, as if they were lost. */
const WAITING_MAX = 64;

/** Between two times that the same thing is said: the first, and the longest. */
const REMIND_MS_MIN = 200;
const REMIND_MS_MAX = 5000;

/** How long is waited for what, in milliseconds. */
export interface HandoverTimeouts {
  /** Source: for the destination to take the guest. Then it aborts. @default 30_000 */
  readonly reservedMs: number;
  /** Source, paused: for the destination to be ready. Then it aborts. @default 120_000 */
  readonly readyMs: number;
  /** Destination, ready: for the source to commit. Then it aborts. @default 60_000 */
  readonly commitMs: number;
  /** Destination, active: for the source to let go, in `released`. @default 60_000 */
  readonly releasedMs: number;
  /** Source, committed: until it says that it waits. It waits on. @default 5000 */
  readonly undecidedMs: number;
  /** For a hook of the guest, until it is said that it is slow. It waits on. @default 30_000 */
  readonly hookMs: number;
}

/**
 * What is done to the guest. After a crash a hook may be called again for what it has done already:
 * it must then do nothing. One that throws leaves the guest to whoever owns it, and is called again
 * by `recover`.
 *
 * Each is given what the journal holds, with the embedder's `context`. None may wait for the
 * hand-over itself: that waits for the hook.
 */
export interface GuestHooks {
  /** Source: the guest stays here; run it, if it is paused. */
  resume(entry: JournalEntry): Promise<void>;
  /** The guest is not this side's: remove its copy. It does not run here. */
  discard(entry: JournalEntry): Promise<void>;
  /**
   * Destination: the guest is here now; run it.
   *
   * After a crash it may have run already and be gone, with memory changed: throw then.
   */
  start(entry: JournalEntry): Promise<void>;
  /** Destination, after a crash: whether the guest runs; then it is not started. */
  isRunning?(entry: JournalEntry): Promise<boolean>;
}

/** What a side is told by the embedder. */
export interface HandoverOptions<Hooks> {
  readonly journal: Journal;
  readonly hooks: Hooks;
  /** 32 hexadecimal digits: `newMigrationId()`, or what the source's `reserve` says. */
  readonly migration: string;
  /** @default 1 */
  readonly attempt?: number;
  /** Name of the virtual machine. @default '' */
  readonly name?: string;
  /** Small JSON that the journal keeps for the embedder. @default {} */
  readonly context?: Readonly<Record<string, unknown>>;
  /** Gives a message to the other side. It may be lost, also if this throws. */
  readonly send?: ((message: HandoverMessage) => void) | undefined;
  readonly timeouts?: Partial<HandoverTimeouts>;
  /** Told what people should know: what is waited for, what went wrong beside. */
  readonly say?: (text: string) => void;
  readonly clock?: Clock;
}

/** How a hand-over ended: where the guest runs, and if that is the source, why. */
export type HandoverResult =
  | { readonly guest: 'destination' }
  | { readonly guest: 'source'; readonly code: string; readonly message: string };

/** What a side is made of, beside what the embedder says. */
export interface Role<State extends HandoverState, Event extends HandoverEvent> {
  readonly side: JournalEntry['side'];
  readonly table: Table<State, Event>;
  /** What the journal held; undefined for a new hand-over. */
  readonly entry: JournalEntry | undefined;
}

/**
 * One side of a hand-over: does what the table of commit.ts says, one event at a time.
 *
 * Whatever happens, at most one side runs the guest, and one that does not know whose it is leaves
 * it paused.
 */
export abstract class Handover<
  State extends HandoverState,
  Event extends HandoverEvent,
  Hooks extends Partial<GuestHooks>,
> {
  /**
   * Where the guest runs in the end. It waits for that as long as it takes.
   *
   * @throws {MigrationError} If a hook or the journal failed, or this end left before it was
   *   decided; its `guest` says whose the guest is.
   */
  readonly result: Promise<HandoverResult>;
  protected readonly clock: Clock;
  protected readonly timeouts: HandoverTimeouts;
  protected readonly heard: Set<Word> = new Set();
  protected state: State;
  protected isSettled = false;
  /** No message reaches the other side. */
  protected isLost = false;
  /** Nothing more is done here. */
  protected hasLeft = false;
  readonly #role: Role<State, Event>;
  readonly #options: HandoverOptions<Hooks>;
  readonly #id: HandoverId;
  #context: Readonly<Record<string, unknown>>;
  #send: ((message: HandoverMessage) => void) | undefined;
  #queue: Promise<unknown> = Promise.resolve();
  #failure = { code: 'ERR_HANDOVER_ABORTED', message: 'The hand-over was aborted' };
  /** What a write that failed would have made of it: the journal may be there already. */
  #doubt: State | undefined;
  #isRestarted = false;
  /** Why it was given up before it began. */
  #givenUp: { readonly code: string; readonly message: string } | undefined;
  #messagesWaiting = 0;
  readonly #waiting = new Set<() => void>();
  #reminder: { readonly state: State; readonly delayMs: number; cancel(): void } | undefined;
  #resolve: (result: HandoverResult) => void = () => {};
  #reject: (error: unknown) => void = () => {};

  protected constructor(options: HandoverOptions<Hooks>, role: Role<State, Event>) {
    const { entry } = role;
    this.#options = options;
    this.#role = role;
    this.#id = { migration: options.migration, attempt: options.attempt ?? 1 };
    this.#context = options.context ?? {};
    this.#send = options.send;
    this.clock = options.clock ?? systemClock;
    this.timeouts = { ...TIMEOUTS, ...options.timeouts };
    this.state = (entry?.state ?? 'none') as State;
    this.isSettled = entry?.isSettled ?? false;
    this.result = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Whoever does not ask for the result has been told otherwise.
    this.result.catch(() => {});
  }

  /** What the journal holds, as far as this process knows; undefined before the beginning. */
  get entry(): JournalEntry | undefined {
    return this.state === 'none' ? undefined : this.#entry(this.state, this.isSettled);
  }

  /** Where the guest is, as far as this side can know. */
  get guest(): GuestPlace {
    const [one, other] = [this.state, this.#doubt ?? this.state].map((state) =>
      state === 'none' ? 'source' : ownerOf(this.#entry(state as State, false)).guest,
    ) as [GuestPlace, GuestPlace];
    return one === other ? one : 'unknown';
  }

  /** Takes a message of the other side. One of another migration or attempt is dropped. */
  receive(message: HandoverMessage): void {
    if (!isSame(this.#id, message) || this.#messagesWaiting >= WAITING_MAX) return;
    this.heard.add(message.word);
    this.#messagesWaiting++;
    const failure = 'code' in message ? message : undefined;
    this.perform(`got ${message.word}` as Event, failure)
      .catch(() => {})
      .finally(() => this.#messagesWaiting--);
  }

  /**
   * Gives up, unless it is too late: the source until it has committed, the destination until it
   * activates. The guest stays at the source, and runs there.
   *
   * @returns Whether it is aborted.
   * @throws {MigrationError} If a hook failed, or the journal in doubt.
   */
  async abort(code: string, message: string): Promise<boolean> {
    if (this.state === 'none') this.#givenUp = { code, message };
    return await this.perform('abort' as Event, { code, message });
  }

  /**
   * Says that messages reach the other side again, and how.
   *
   * @returns When it was sent again what it may have missed. Never rejects.
   */
  async connectionBack(send: (message: HandoverMessage) => void): Promise<void> {
    this.isLost = false;
    this.#send = send;
    await this.perform('remind' as Event).catch(() => false);
  }

  /** Says that no message reaches the other side any more. */
  connectionLost(): void {
    this.isLost = true;
    this.#send = undefined;
    this.onConnectionLost();
  }

  /**
   * Stops what this process does about it, as if it had ended, and leaves the rest to `recover`:
   * nothing more is written, sent, or done to the guest.
   */
  leave(): void {
    this.hasLeft = true;
    this.#reminder?.cancel();
    this.#changed();
    const text = this.entry === undefined ? 'nothing was begun' : ownerOf(this.entry).text;
    this.#reject(this.error('ERR_HANDOVER_UNDECIDED', `Left the hand-over undecided: ${text}`));
  }

  /** Does again what the journal's state asks for after a crash; for `recover`. */
  async restart(): Promise<void> {
    this.#isRestarted = true;
    if (this.isSettled) this.#conclude();
    else await this.perform('restart' as Event);
  }

  protected abstract onConnectionLost(): void;
  /** Where the guest runs if this is where it ends. */
  protected abstract placeIn(state: State): 'source' | 'destination' | undefined;
  /** Whether the other side must hear where this one is, and answer. */
  protected abstract isReminding(): boolean;
  /** Called when the journal has a new state. */
  protected onState(): void {}

  protected say(text: string): void {
    this.#options.say?.(text);
  }

  protected error(code: string, message: string, cause?: unknown): MigrationError {
    const { guest } = this;
    const phase = guest === 'source' ? 'precopy' : 'switchover';
    return new MigrationError(code, message, { guest, side: this.#role.side, phase, cause });
  }

  /** Keeps something else for the embedder from the next write on. */
  protected keep(context: Readonly<Record<string, unknown>> | undefined): void {
    if (context !== undefined) this.#context = context;
  }

  /** @throws {PagelaneError} ERR_HANDOVER_STATE If the journal has a hand-over that is not over. */
  protected async beginBy(event: Event): Promise<void> {
    const earlier = await this.#options.journal.read();
    const why = whyNotReplaced(earlier, { ...this.#id, side: this.#role.side });
    if (why !== undefined) {
      throw new PagelaneError('ERR_HANDOVER_STATE', `Cannot begin by this journal: ${why}`);
    }
    // Whoever gave up while the journal was read is not to find it begun.
    if (this.#givenUp !== undefined) throw this.error(this.#givenUp.code, this.#givenUp.message);
    await this.perform(event);
    // What was lost before there was anything to give up.
    if (this.isLost) this.onConnectionLost();
  }

  /**
   * Waits until something is so, at most `timeoutMs`.
   *
   * @returns Whether it is so.
   */
  protected until(isSo: () => boolean, timeoutMs: number): Promise<boolean> {
    return new Promise((resolve) => {
      const end = (): void => {
        cancel();
        this.#waiting.delete(look);
        resolve(isSo());
      };
      const look = (): void => {
        if (isSo() || this.hasLeft) end();
      };
      const cancel = this.clock.after(timeoutMs, end, { keepsAlive: true });
      this.#waiting.add(look);
      look();
    });
  }

  /**
   * Does what an event asks for, after all that was to be done before.
   *
   * @param failure Why, if this is an abort.
   * @returns Whether there was something to do.
   */
  protected perform(event: Event, failure?: { code: string; message: string }): Promise<boolean> {
    const done = this.#queue.then(() => this.#step(event, failure));
    this.#queue = done.catch(() => {});
    return done;
  }

  async #step(event: Event, failure?: { code: string; message: string }): Promise<boolean> {
    const acts = this.#role.table[this.state][event];
    if (acts === undefined || this.hasLeft) {
      this.#changed();
      return false;
    }
    if (failure !== undefined && acts.includes('journal aborted')) {
      this.#failure = { code: failure.code, message: failure.message };
    }
    try {
      await this.#actAll(acts, event);
    } catch (error) {
      await this.#afterFailure(event, error);
    }
    this.#conclude();
    return true;
  }

  /** A write that failed before the guest could change hands ends in an abort, if that can be. */
  async #afterFailure(event: Event, error: unknown): Promise<void> {
    const acts = this.#role.table[this.state]['abort' as Event];
    try {
      if (this.#doubt === undefined || acts === undefined || event === 'abort') throw error;
      this.#failure = { code: 'ERR_JOURNAL', message: messageOf(error) };
      await this.#actAll(acts, 'abort');
    } catch (last) {
      this.#reject(last);
      throw last;
    }
  }

  async #actAll(acts: readonly Act[], event: HandoverEvent): Promise<void> {
    for (const act of acts) if (!this.hasLeft) await this.#act(act, event);
  }

  async #act(act: Act, event: HandoverEvent): Promise<void> {
    if (act === 'settle') {
      this.isSettled = true;
      await this.#write(this.state, true).catch((error) => this.say(messageOf(error)));
      return;
    }
    const [verb, what] = act.split(' ') as [string, string];
    if (verb === 'journal') await this.#enter(what as State, event);
    else if (verb === 'send') this.#tell(what as Word);
    else await this.#call(what as GuestAct);
  }

  async #enter(state: State, event: HandoverEvent): Promise<void> {
    try {
      await this.#write(state, false);
    } catch (cause) {
      // As long as no other write has failed, what the journal holds ends in an abort as well.
      const isCertain = this.#doubt === undefined || event === 'got aborted';
      if (state !== 'aborted' || !isCertain) {
        this.#doubt ??= state;
        throw this.error('ERR_JOURNAL', messageOf(cause), cause);
      }
      this.say(messageOf(cause));
    }
    this.#doubt = undefined;
    this.state = state;
    this.onState();
    this.#changed();
  }

  #write(state: State, isSettled: boolean): Promise<void> {
    return this.#options.journal.write(this.#entry(state, isSettled));
  }

  #entry(state: State, isSettled: boolean): JournalEntry {
    const { name = '' } = this.#options;
    const { side } = this.#role;
    const context = this.#context;
    return { v: 1, side, state, ...this.#id, name, isSettled, context } as JournalEntry;
  }

  #tell(word: Word): void {
    try {
      this.#send?.(this.#message(word));
    } catch (error) {
      this.say(`Cannot send "${word}" now: ${messageOf(error)}`);
    }
  }

  #message(word: Word): HandoverMessage {
    const { name = '' } = this.#options;
    const { code, message } = this.#failure;
    if (word === 'reserve') return { word, ...this.#id, name };
    if (word === 'abort' || word === 'aborted') return { word, ...this.#id, code, message };
    return { word, ...this.#id };
  }

  async #call(act: GuestAct): Promise<void> {
    const { hooks } = this.#options;
    const { hookMs } = this.timeouts;
    const entry = this.#entry(this.state, false);
    const cancel = this.clock.after(hookMs, () =>
      this.say(`Waited ${hookMs} ms for the hook "${act}" of the guest, and waits on`),
    );
    try {
      const isDone = act === 'start' && this.#isRestarted && (await hooks.isRunning?.(entry));
      if (!isDone) await hooks[act]?.(entry);
    } catch (cause) {
      const message = `The hook "${act}" of the guest failed: ${messageOf(cause)}`;
      throw this.error('ERR_HANDOVER_HOOK', message, cause);
    } finally {
      cancel();
    }
  }

  #conclude(): void {
    const guest = this.placeIn(this.state);
    if (guest === 'destination') this.#resolve({ guest });
    else if (guest === 'source') this.#resolve({ guest, ...this.#failure });
    this.#changed();
    this.#remindLater();
  }

  #changed(): void {
    for (const look of this.#waiting) look();
  }

  /** Says the same again after a while, and then after longer ones. */
  #remindLater(): void {
    const { state } = this;
    const last = this.#reminder;
    last?.cancel();
    this.#reminder = undefined;
    if (this.hasLeft || this.isSettled || !this.isReminding()) return;
    const isSameState = last?.state === state;
    const delayMs = isSameState ? Math.min(last.delayMs * 2, REMIND_MS_MAX) : REMIND_MS_MIN;
    const remind = (): void => void this.perform('remind' as Event).catch(() => {});
    const isOpen = this.placeIn(state) === undefined;
    const cancel = this.clock.after(delayMs, remind, { keepsAlive: isOpen });
    this.#reminder = { state, delayMs, cancel };
  }
}

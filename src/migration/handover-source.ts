import {
  ownerOf,
  SOURCE_TABLE,
  type SourceEntry,
  type SourceEvent,
  type SourceState,
} from './commit.ts';
import {
  type GuestHooks,
  Handover,
  type HandoverOptions,
  type HandoverResult,
} from './handover.ts';

/** What the source does to the guest. */
export type SourceHooks = Pick<GuestHooks, 'resume' | 'discard'>;

/**
 * The source's side of a hand-over.
 *
 * ```ts
 * const handover = new SourceHandover({ journal, migration: newMigrationId(), name, hooks, send });
 * await handover.begin();              // the destination has taken memory for it
 * …                                    // rounds; then the guest is paused, the last pages are sent
 * const { guest } = await handover.commit();
 * ```
 *
 * Until `commit` has written its journal the guest is the source's: a failure, a time-out, a lost
 * connection and a crash all end with it running here.
 */
export class SourceHandover extends Handover<SourceState, SourceEvent, SourceHooks> {
  constructor(options: HandoverOptions<SourceHooks>, entry?: SourceEntry) {
    super(options, { side: 'source', table: SOURCE_TABLE, entry });
    if (entry !== undefined) this.onState();
  }

  /**
   * Asks the destination to take the guest, which runs on meanwhile.
   *
   * @throws {PagelaneError} ERR_HANDOVER_STATE If the journal has a hand-over that is not over.
   * @throws {MigrationError} ERR_JOURNAL If it cannot be written, ERR_HANDOVER_TIMEOUT If there is
   *   no answer, or the destination's reason, if it refuses.
   */
  async begin(): Promise<void> {
    await this.beginBy('begin');
    const { reservedMs } = this.timeouts;
    const isAnswered = await this.until(
      () => this.heard.has('reserved') || this.state !== 'copying',
      reservedMs,
    );
    if (!isAnswered) {
      const message = `Waited ${reservedMs} ms for the destination to take the guest`;
      await this.abort('ERR_HANDOVER_TIMEOUT', message);
    }
    if (this.state === 'copying' && !this.hasLeft) return;
    const result = await this.result;
    if (result.guest === 'source') throw this.error(result.code, result.message);
  }

  /**
   * Hands over the guest, which is paused, and all of which was sent. Waits for the destination to
   * be ready before, and after it as long as it takes to know whose the guest is.
   *
   * @param options.context What the journal keeps from here on.
   * @returns Where the guest runs; at the source `resume` was called.
   * @throws {MigrationError} If a hook or the journal failed, or `leave` was called; its `guest`
   *   says whose the guest is.
   */
  async commit(
    options: { context?: Readonly<Record<string, unknown>> } = {},
  ): Promise<HandoverResult> {
    const { readyMs } = this.timeouts;
    if (this.state === 'none') throw this.error('ERR_HANDOVER_STATE', 'Nothing was begun');
    const isAnswered = await this.until(
      () => this.heard.has('ready') || this.state !== 'copying',
      readyMs,
    );
    if (!isAnswered) {
      const message = `Waited ${readyMs} ms for the destination to be ready`;
      await this.abort('ERR_HANDOVER_TIMEOUT', message);
    }
    this.keep(options.context);
    await this.perform('commit');
    return await this.result;
  }

  protected override onConnectionLost(): void {
    this.#sayIfUndecided();
    this.abort('ERR_HANDOVER_LOST', 'The connection to the destination was lost').catch(() => {});
  }

  protected override onState(): void {
    if (this.state !== 'committed') return;
    this.until(() => this.state !== 'committed', this.timeouts.undecidedMs).then(() =>
      this.#sayIfUndecided(),
    );
  }

  protected override placeIn(state: SourceState): 'source' | 'destination' | undefined {
    if (state === 'released') return 'destination';
    return state === 'aborted' ? 'source' : undefined;
  }

  protected override isReminding(): boolean {
    return this.state === 'committed';
  }

  #sayIfUndecided(): void {
    if (this.state === 'committed' && this.entry !== undefined) this.say(ownerOf(this.entry).text);
  }
}

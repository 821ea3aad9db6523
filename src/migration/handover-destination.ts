import {
  DESTINATION_TABLE,
  type DestinationEntry,
  type DestinationEvent,
  type DestinationState,
} from './commit.ts';
import {
  type GuestHooks,
  Handover,
  type HandoverOptions,
  type HandoverResult,
} from './handover.ts';

/** What the destination does to the guest. */
export type DestinationHooks = Pick<GuestHooks, 'start' | 'discard' | 'isRunning'>;

/**
 * The destination's side of a hand-over.
 *
 * ```ts
 * const { migration, attempt, name } = reserve;            // the source's first message
 * const handover = new DestinationHandover({ journal, migration, attempt, name, hooks, send });
 * await handover.reserve();            // memory for the guest is here
 * …                                    // pages come; then all is applied and verified
 * const { guest } = await handover.ready();
 * ```
 *
 * It starts the guest when the source has committed, never before, and may give up until then.
 */
export class DestinationHandover extends Handover<
  DestinationState,
  DestinationEvent,
  DestinationHooks
> {
  constructor(options: HandoverOptions<DestinationHooks>, entry?: DestinationEntry) {
    super(options, { side: 'destination', table: DESTINATION_TABLE, entry });
    if (entry !== undefined) this.onState();
  }

  /**
   * Says that there is room for the guest.
   *
   * @throws {PagelaneError} ERR_HANDOVER_STATE If the journal has a hand-over that is not over.
   * @throws {MigrationError} ERR_JOURNAL If it cannot be written.
   */
  async reserve(): Promise<void> {
    await this.beginBy('reserve');
  }

  /**
   * Says that all of the guest is here and verified, and waits for the source to commit.
   *
   * @param options.context What the journal keeps from here on.
   * @returns Where the guest runs; here `start` was called, otherwise `discard`.
   * @throws {MigrationError} If a hook or the journal failed, or `leave` was called; its `guest`
   *   says whose the guest is.
   */
  async ready(
    options: { context?: Readonly<Record<string, unknown>> } = {},
  ): Promise<HandoverResult> {
    this.keep(options.context);
    await this.perform('ready');
    if (this.state === 'none') throw this.error('ERR_HANDOVER_STATE', 'Nothing was reserved');
    return await this.result;
  }

  /** Waits until the source has let go of its copy; false if that was not heard in time. */
  async released(): Promise<boolean> {
    const isOver = await this.until(() => this.isSettled, this.timeouts.releasedMs);
    return isOver && this.state === 'active';
  }

  protected override onConnectionLost(): void {
    // One that is ready waits for the source to come back, as long as for its word.
    if (this.state !== 'none' && this.state !== 'reserved') return;
    this.abort('ERR_HANDOVER_LOST', 'The connection to the source was lost').catch(() => {});
  }

  protected override onState(): void {
    if (this.state !== 'ready') return;
    const { commitMs } = this.timeouts;
    this.until(() => this.state !== 'ready', commitMs).then((isOver) => {
      if (isOver) return;
      const message = `Waited ${commitMs} ms for the source to commit`;
      this.abort('ERR_HANDOVER_TIMEOUT', message).catch(() => {});
    });
  }

  protected override placeIn(state: DestinationState): 'source' | 'destination' | undefined {
    if (state === 'active') return 'destination';
    return state === 'aborted' ? 'source' : undefined;
  }

  protected override isReminding(): boolean {
    return this.state === 'ready' || this.state === 'active';
  }
}

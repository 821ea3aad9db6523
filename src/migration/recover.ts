import type { GuestHooks, HandoverOptions } from './handover.ts';
import { DestinationHandover } from './handover-destination.ts';
import { SourceHandover } from './handover-source.ts';

/** What `recover` needs; the rest is in the journal. */
export type RecoverOptions = Pick<
  HandoverOptions<GuestHooks>,
  'journal' | 'hooks' | 'send' | 'timeouts' | 'say' | 'clock'
> & {
  /** Only this migration: what the journal has of another is left alone. @default any */
  readonly migration?: string;
};

/**
 * Goes on after a crash with what the journal holds, and nothing else.
 *
 * On return the guest is resumed, if it is the source's; started, if the destination was about to;
 * and a copy that will not be needed is discarded. A source that had committed stays paused, and
 * asks the destination as soon as there is a connection (`connectionBack`): await its `result`.
 *
 * For a process that begins, or one that knows of nothing under way with this journal: two that
 * work by one journal at a time know nothing of each other.
 *
 * @returns The hand-over, which goes on to answer the other side; undefined if there is none.
 * @throws {PagelaneError} ERR_JOURNAL If the journal cannot be read: then start nothing.
 * @throws {MigrationError} ERR_HANDOVER_HOOK If a hook fails; its `guest` says whose the guest is.
 */
export async function recover(
  options: RecoverOptions,
): Promise<SourceHandover | DestinationHandover | undefined> {
  const entry = await options.journal.read();
  if (entry === undefined) return undefined;
  const { migration, attempt, name, context } = entry;
  if (migration !== (options.migration ?? migration)) return undefined;
  const all = { ...options, migration, attempt, name, context };
  const handover =
    entry.side === 'source' ? new SourceHandover(all, entry) : new DestinationHandover(all, entry);
  await handover.restart();
  return handover;
}

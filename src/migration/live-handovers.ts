import type { DestinationHandover } from './handover-destination.ts';

/*
 * Hand-overs of this process that the source may ask about on another session: the one it began on
 * may have been lost when it mattered.
 */

const live = new Map<string, DestinationHandover>();

export function rememberLive(handover: DestinationHandover, migration: string): void {
  live.set(migration, handover);
}

export function forgetLive(migration: string): void {
  live.delete(migration);
}

/** The hand-over of a migration, if this process is in the midst of it. */
export function findLive(migration: string): DestinationHandover | undefined {
  return live.get(migration);
}

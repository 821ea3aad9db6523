import type { ConvergenceEstimate } from './convergence.ts';
import type { MigrationResult, Progress } from './progress.ts';

/** Where the migration of a guest stands whose memory is the embedder's. */
export interface GuestProgress extends Progress {
  /** What its rounds let expect; undefined before the first has ended, and without rounds. */
  readonly estimate: ConvergenceEstimate | undefined;
}

/** What one round over a guest's memory did. */
export interface RoundFacts {
  /** From 1. */
  readonly round: number;
  /** Pages that were sent. */
  readonly pages: number;
  /** What they took, encoded. */
  readonly wireBytes: number;
  /** From the first of them to the destination's word that all are applied. */
  readonly durationMs: number;
  /** Pages that are left to send, those that were written meanwhile; 0 in the last round. */
  readonly dirtyPages: number;
  /** By how much the guest is slowed down from here on. */
  readonly throttlePercent: number;
  /** What can be said about when it ends. */
  readonly outlook: string;
}

/** How the migration of a guest whose memory is the embedder's ended. */
export interface GuestResult extends Omit<MigrationResult, 'downtimeMs'> {
  /**
   * How long the guest stood still, as the source saw it: all of it, and its parts. Undefined if it
   * was never paused, and at the destination.
   */
  readonly downtimeMs: {
    readonly switchover: number | undefined;
    /** The last pages. */
    readonly rest?: number;
    /** Device state, beyond what it took beside the last pages. */
    readonly state?: number;
    /** From the last byte to the destination's word that the guest runs. */
    readonly commit?: number;
  };
  /** The source's rounds. */
  readonly roundFacts: readonly RoundFacts[];
  /** Pages that the destination held already, and that were not sent. */
  readonly heldPages: number;
}

import type { CodecName } from '../page/codec-choice.ts';
import type { DirtyLog } from '../page/dirty-log.ts';
import type { GuestMemory } from '../page/memory.ts';
import type { GuestProgress, RoundFacts } from './guest-result.ts';
import type { Journal } from './journal.ts';

/** How a guest whose memory is the embedder's is migrated. */
export interface MoveOptions {
  /** Guest memory. Its blocks have the same names and sizes at the destination. */
  readonly source: GuestMemory;
  /** Tells which pages the guest writes. */
  readonly dirtyLog: DirtyLog;
  /** How long the guest may stand still. */
  readonly downtimeMs: number;
  /** Stops the guest: when it is done, nothing writes to its memory any more. */
  pause(): void | Promise<void>;
  /** Lets the guest run on here, whether or not it was paused. May be called again. */
  resume(): void | Promise<void>;
  /** Device state of the paused guest. @default nothing */
  deviceState?(): Uint8Array | Promise<Uint8Array>;
  /** The guest runs at the destination: remove what is here. May be called again. */
  discard?(): void | Promise<void>;
  /** Slows the guest down by so many percent, 0 to 99, so that it dirties fewer pages. */
  throttle?(percent: number): void | Promise<void>;
  /** Where the hand-over is written down, so that a crash leaves no doubt. @default nowhere */
  readonly journal?: Journal;
  /** What the journal keeps for after a crash. */
  readonly context?: Readonly<Record<string, unknown>>;
  /** Name of the virtual machine. @default "" */
  readonly name?: string;
  /** Rounds after which the migration is given up. */
  readonly maxRounds?: number;
  /** How often all of memory may be sent before the migration is given up. */
  readonly maxBytesFactor?: number;
  /** @default "auto" */
  readonly codec?: CodecName;
  /** Most bytes of pages that are kept. @default a quarter of the memory that is free */
  readonly storeBytes?: number;
  /** Cancels the migration. Honoured until the guest is paused. */
  readonly signal?: AbortSignal;
  /** Hears of each round. */
  onRound?(round: RoundFacts): void;
  /** Hears four times a second where it stands. */
  onProgress?(progress: GuestProgress): void;
}

/** How a guest's memory is copied ahead of its migration. */
export type WarmOptions = Pick<
  MoveOptions,
  'source' | 'name' | 'codec' | 'storeBytes' | 'signal' | 'onProgress'
>;

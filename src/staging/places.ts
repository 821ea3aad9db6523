import type { Clock } from '../clock.ts';
import { codeOf } from '../errors.ts';
import type { Intermediary } from './intermediary.ts';
import { EXTENT_BYTES_MAX, RETURN_LOOK_MS } from './limits.ts';
import type { PlaceState } from './placement.ts';

/** Failures after which an intermediary may be back soon, as it was. */
const PASSING: ReadonlySet<string> = new Set([
  'ERR_STAGING_LOST',
  'ERR_STAGING_TIMEOUT',
  'ERR_STAGING_BUSY',
]);

/** An intermediary, and which start of it holds what was put there. */
export interface Place {
  readonly intermediary: Intermediary;
  readonly runId: string;
}

export interface PlacesOptions {
  /** How long one that is gone is waited for, milliseconds. */
  readonly patienceMs: number;
  readonly clock: Clock;
  /** Hears of each that is lost, once: nothing that it holds counts any more. */
  readonly onLost: (index: number) => void;
}

/**
 * The intermediaries of a scatter. One that fails and is not back soon, or is back without what it
 * held, is lost for good.
 */
export class Places {
  readonly #places: readonly Place[];
  readonly #options: PlacesOptions;
  readonly #lost = new Set<number>();
  /** Intermediaries that have failed, and whether they have survived it. */
  readonly #failing = new Map<number, Promise<boolean>>();

  constructor(places: readonly Place[], options: PlacesOptions) {
    this.#places = places;
    this.#options = options;
  }

  get count(): number {
    return this.#places.length;
  }

  /** The shortest of their times to live, milliseconds. */
  get ttlMs(): number {
    return Math.min(...this.#places.map(({ intermediary }) => intermediary.ttlMs));
  }

  /** Whether nothing that one holds counts any more. */
  isLost(index: number): boolean {
    return this.#lost.has(index);
  }

  /** Whether one of them has failed, and it is not known yet whether it is lost. */
  get isWaiting(): boolean {
    return this.#failing.size > 0;
  }

  /** Whether one that is not lost would take another value at once. */
  get hasSlot(): boolean {
    return this.#places.some(
      ({ intermediary }, index) => !this.#lost.has(index) && intermediary.hasSlot,
    );
  }

  nameOf(index: number): string {
    return this.#places[index]!.intermediary.name;
  }

  /** Names of those that are lost. */
  get lostNames(): string[] {
    return [...this.#lost].map((index) => this.nameOf(index));
  }

  /** What placement must know of them. */
  states(): PlaceState[] {
    return this.#places.map(({ intermediary }, index) => ({
      isUsable: !this.#lost.has(index),
      hasSlot: intermediary.hasSlot,
      inFlightBytes: intermediary.inFlightBytes,
      bytesPerSecond: intermediary.bytesPerSecond,
      freeBytes: intermediary.freeBytes,
    }));
  }

  /** Those that are not lost, and have room. */
  usable(): number[] {
    return [...this.#places.keys()].filter(
      (index) =>
        !this.#lost.has(index) && this.#places[index]!.intermediary.freeBytes >= EXTENT_BYTES_MAX,
    );
  }

  /** Puts a value. False if it is not there, or will not count; never throws. */
  async put(index: number, key: string, value: Uint8Array): Promise<boolean> {
    while (!this.#lost.has(index)) {
      try {
        await this.#places[index]!.intermediary.put(key, value);
        return !this.#lost.has(index);
      } catch (cause) {
        // One that is full keeps what it has; it only gets no more.
        if (codeOf(cause) === 'ERR_STAGING_FULL') return false;
        if (!(await this.#survives(index, cause))) return false;
      }
    }
    return false;
  }

  /** Renews keys. Which of them are missing; none if the intermediary is lost. */
  async renew(index: number, keys: readonly string[]): Promise<readonly string[]> {
    while (!this.#lost.has(index)) {
      try {
        return await this.#places[index]!.intermediary.renew(keys);
      } catch (cause) {
        if (!(await this.#survives(index, cause))) return [];
      }
    }
    return [];
  }

  /** Whether one that failed still has what it held; all that wait for it hear the same. */
  #survives(index: number, cause: unknown): Promise<boolean> {
    const decided = this.#failing.get(index) ?? this.#decide(index, cause);
    this.#failing.set(index, decided);
    return decided.finally(() => this.#failing.delete(index));
  }

  async #decide(index: number, cause: unknown): Promise<boolean> {
    const { patienceMs, clock, onLost } = this.#options;
    const { intermediary, runId } = this.#places[index]!;
    const endMs = clock.now() + patienceMs;
    let isPassing = PASSING.has(codeOf(cause));
    while (isPassing && clock.now() < endMs) {
      try {
        if ((await intermediary.facts()).runId === runId) return true;
        isPassing = false; // it was started anew: what it held is gone
      } catch {
        await new Promise<void>((done) => {
          clock.after(RETURN_LOOK_MS, done, { keepsAlive: true });
        });
      }
    }
    if (!this.#lost.has(index)) {
      this.#lost.add(index);
      onLost(index);
    }
    return false;
  }
}

import type { Clock } from '../clock.ts';
import type { Intermediary } from './intermediary.ts';
import { KEYS_TOGETHER, REMOVE_DELAY_MS } from './limits.ts';

/** Removes keys from intermediaries, many together. What cannot be removed lives out its time. */
export class Removals {
  readonly #intermediaries: readonly (Intermediary | undefined)[];
  readonly #clock: Clock;
  readonly #lag: number;
  readonly #keys: string[][];
  #removed = 0;
  #stop: (() => void) | undefined;
  #work: Promise<void> = Promise.resolve();
  #isHeld: boolean;

  /**
   * @param how.isHeld Whether nothing is removed before `release`. @default false
   * @param how.lag Keys that stay at each intermediary, the last that were added, until
   *   `removeRest`. @default 0
   */
  constructor(
    intermediaries: readonly (Intermediary | undefined)[],
    {
      clock,
      isHeld = false,
      lag = 0,
    }: { readonly clock: Clock; readonly isHeld?: boolean; readonly lag?: number },
  ) {
    this.#lag = lag;
    this.#intermediaries = intermediaries;
    this.#clock = clock;
    this.#isHeld = isHeld;
    this.#keys = intermediaries.map(() => []);
  }

  /** Keys that were there, and are removed. */
  get removed(): number {
    return this.#removed;
  }

  /** Removes a key soon. */
  add(index: number, key: string): void {
    const keys = this.#keys[index]!;
    keys.push(key);
    if (this.#isHeld) return;
    if (keys.length >= KEYS_TOGETHER + this.#lag) void this.flush();
    else this.#stop ??= this.#clock.after(REMOVE_DELAY_MS, () => void this.flush());
  }

  /** Removes what was added, and from now on whatever is. */
  release(): void {
    this.#isHeld = false;
    void this.flush();
  }

  /** Removes what is added, but for what is held or last, and waits until it was tried. */
  flush(): Promise<void> {
    return this.#isHeld ? this.#work : this.#remove(this.#lag);
  }

  /** Removes all that is added, and waits until it was tried. */
  removeRest(): Promise<void> {
    return this.#remove(0);
  }

  #remove(lag: number): Promise<void> {
    this.#stop?.();
    this.#stop = undefined;
    const keys = this.#keys.map((all) => all.splice(0, Math.max(0, all.length - lag)));
    this.#work = this.#work.then(async () => {
      const removals = keys.map(async (some, index) => {
        if (some.length === 0) return;
        const removed = (await this.#intermediaries[index]?.remove(some)) ?? 0;
        this.#removed += removed;
      });
      await Promise.allSettled(removals);
    });
    return this.#work;
  }

  /** Removes nothing that is not begun; waits for what is. */
  async close(): Promise<void> {
    this.#stop?.();
    for (const keys of this.#keys) keys.length = 0;
    await this.#work;
  }
}

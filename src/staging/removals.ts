import type { Clock } from '../clock.ts';
import type { Intermediary } from './intermediary.ts';
import { KEYS_TOGETHER, REMOVE_DELAY_MS } from './limits.ts';

/** Removes keys from intermediaries, many together. What cannot be removed lives out its time. */
export class Removals {
  readonly #intermediaries: readonly (Intermediary | undefined)[];
  readonly #clock: Clock;
  readonly #keys: string[][];
  #removed = 0;
  #stop: (() => void) | undefined;
  #work: Promise<void> = Promise.resolve();

  constructor(intermediaries: readonly (Intermediary | undefined)[], clock: Clock) {
    this.#intermediaries = intermediaries;
    this.#clock = clock;
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
    if (keys.length >= KEYS_TOGETHER) void this.flush();
    else this.#stop ??= this.#clock.after(REMOVE_DELAY_MS, () => void this.flush());
  }

  /** Removes what is added, and waits until all of it was tried. */
  flush(): Promise<void> {
    this.#stop?.();
    this.#stop = undefined;
    const keys = this.#keys.map((waiting) => waiting.splice(0));
    this.#work = this.#work.then(async () => {
      const removals = keys.map(async (some, index) => {
        if (some.length === 0) return;
        this.#removed += (await this.#intermediaries[index]?.remove(some)) ?? 0;
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

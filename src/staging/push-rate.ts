import type { Clock } from '../clock.ts';
import { Pacer } from '../path/pacing.ts';
import { LIMIT_LOOK_MS } from './limits.ts';

/** Keeps a rate that can be changed at any time. Who wants to pass waits its turn. */
export class PushRate {
  readonly #clock: Clock;
  #pacer: Pacer | undefined;
  #turn: Promise<void> = Promise.resolve();

  constructor(clock: Clock, bytesPerSecond?: number) {
    this.#clock = clock;
    this.set(bytesPerSecond);
  }

  /** Bytes per second; infinite if there is no limit. */
  get bytesPerSecond(): number {
    return this.#pacer?.bytesPerSecond ?? Number.POSITIVE_INFINITY;
  }

  /** Sets the limit from now on; none if undefined. */
  set(bytesPerSecond: number | undefined): void {
    this.#pacer =
      bytesPerSecond === undefined ? undefined : new Pacer(bytesPerSecond, this.#clock.now());
  }

  /** Waits until `bytes` bytes may pass; undefined if they may at once. */
  pass(bytes: number): Promise<void> | undefined {
    if (this.#pacer === undefined) return undefined;
    this.#turn = this.#turn.then(() => this.#wait(bytes));
    return this.#turn;
  }

  async #wait(bytes: number): Promise<void> {
    for (;;) {
      const waitMs = this.#pacer?.waitMs(this.#clock.now()) ?? 0;
      if (waitMs === 0) break;
      await new Promise<void>((done) => {
        this.#clock.after(Math.min(waitMs, LIMIT_LOOK_MS), done, { keepsAlive: true });
      });
    }
    this.#pacer?.pass(bytes, this.#clock.now());
  }
}

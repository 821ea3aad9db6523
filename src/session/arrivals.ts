import { Fifo } from '../path/fifo.ts';

interface Waiter<T> {
  readonly resolve: (item: T) => void;
  readonly reject: (reason: unknown) => void;
}

/** Things that arrive, and those who wait for one; each goes to one of them. */
export class Arrivals<T> {
  readonly #items = new Fifo<T>();
  readonly #waiters = new Set<Waiter<T>>();
  #end: { readonly reason: unknown } | undefined;

  /** Gives an item to who has waited longest, or keeps it. */
  add(item: T): void {
    const [waiter] = this.#waiters;
    if (waiter === undefined) {
      this.#items.push(item);
    } else {
      this.#waiters.delete(waiter);
      waiter.resolve(item);
    }
  }

  /**
   * Takes the next item, now or when it arrives.
   *
   * @throws `signal.reason` If it is aborted.
   * @throws What `end` was told, when there is no item left.
   */
  take({ signal }: { signal?: AbortSignal } = {}): Promise<T> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const item = this.#items.shift();
      if (item !== undefined) {
        resolve(item);
        return;
      }
      if (this.#end !== undefined) throw this.#end.reason;
      const stop = (): void => signal?.removeEventListener('abort', onAbort);
      const waiter: Waiter<T> = {
        resolve: (arrived) => {
          stop();
          resolve(arrived);
        },
        reject: (reason) => {
          stop();
          reject(reason);
        },
      };
      const onAbort = (): void => {
        this.#waiters.delete(waiter);
        waiter.reject(signal?.reason);
      };
      signal?.addEventListener('abort', onAbort);
      this.#waiters.add(waiter);
    });
  }

  /** Takes all that nobody waited for. */
  drain(): T[] {
    return this.#items.drain();
  }

  /** Nothing will arrive any more: who waits, or will wait, gets `reason` as an error. */
  end(reason: unknown): void {
    this.#end ??= { reason };
    for (const waiter of this.#waiters) waiter.reject(reason);
    this.#waiters.clear();
  }
}

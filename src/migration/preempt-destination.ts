import { PagelaneError } from '../errors.ts';
import type { QemuChannel } from '../stream/endpoint.ts';
import { RamFlag } from '../stream/format.ts';

/*
 * The second channel of a destination QEMU with postcopy-preempt.
 *
 * Where post-copy is read, the pages that QEMU asked for go by the first one, with little before
 * them; QEMU needs the second to be there, and to end. Else it gets what the source's has.
 *
 * A QEMU without postcopy-preempt drops it, and says so on its stderr (10.0), or listens no more
 * (7.2): that matters only if something is to go there.
 */

export class PreemptDestination {
  readonly #fail: (error: PagelaneError) => void;
  #channel: QemuChannel | undefined;
  #isWanted = false;
  #isOpening = false;
  #isRefused = false;
  #isClosed = false;
  #waiting: { readonly bytes: Uint8Array; readonly done: () => void }[] = [];
  #open: (() => Promise<QemuChannel>) | undefined;

  constructor(fail: (error: PagelaneError) => void) {
    this.#fail = fail;
  }

  /**
   * The first channel is there: QEMU takes the second one after it.
   *
   * @param open Opens another channel to the same QEMU.
   */
  follow(first: QemuChannel, open: () => Promise<QemuChannel>): void {
    if (first.isOnly) this.refuse();
    else {
      this.#open = open;
      this.#connect();
    }
  }

  /** There can be none. */
  refuse(): void {
    this.#channel = undefined;
    this.#isRefused = true;
    this.#flush();
  }

  /** Opens the channel as soon as there is a first one. */
  want(): void {
    this.#isWanted = true;
    this.#connect();
  }

  /** Writes bytes; `done` also comes when the channel breaks. */
  write(bytes: Uint8Array, done: () => void): void {
    this.want();
    this.#waiting.push({ bytes, done });
    this.#flush();
  }

  /** All pages are with QEMU, by the first channel. */
  end(): void {
    if (this.#isWanted) this.write(EOS_RECORD, () => {});
  }

  close(): void {
    this.#isClosed = true;
    this.#channel?.end();
    for (const { done } of this.#waiting.splice(0)) done();
  }

  #connect(): void {
    if (!this.#isWanted || this.#isOpening || this.#open === undefined || this.#isClosed) return;
    this.#isOpening = true;
    this.#open().then(
      (channel) => this.#use(channel),
      () => this.refuse(),
    );
  }

  #use(channel: QemuChannel): void {
    if (this.#isClosed) {
      channel.destroy();
      return;
    }
    this.#channel = channel;
    channel.discard();
    channel.closed.then(() => this.refuse());
    this.#flush();
  }

  #flush(): void {
    if (this.#isClosed || (this.#channel === undefined && !this.#isRefused)) return;
    for (const { bytes, done } of this.#waiting.splice(0)) {
      if (this.#channel !== undefined) this.#channel.write(bytes, done);
      else {
        done();
        if (bytes !== EOS_RECORD) this.#fail(notTaken());
      }
    }
  }
}

function notTaken(): PagelaneError {
  const text = 'Destination QEMU took no second channel: postcopy-preempt is on at the source only';
  return new PagelaneError('ERR_QEMU_CHANNELS', text);
}

const EOS_RECORD = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, RamFlag.Eos);

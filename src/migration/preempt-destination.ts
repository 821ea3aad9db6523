import { messageOf, PagelaneError } from '../errors.ts';
import type { QemuChannel } from '../stream/endpoint.ts';
import { EOS_RECORD } from '../stream/format.ts';
import type { Tally } from './progress.ts';

/*
 * The second channel of a destination QEMU with postcopy-preempt.
 *
 * Where post-copy is read, the pages that QEMU asked for go by the first one, with little before
 * them; QEMU needs the second to be there, and to end. Else (pages of the host that are larger than
 * the guest's, and every recovery) it gets what the source's has.
 *
 * A QEMU without postcopy-preempt drops it, and says so on its stderr (10.0), or listens no more
 * (7.2): that matters only if something is to go there.
 */

/* Chosen by us */

/** QEMU closes it when it has everything; its word for that may come so much later. */
const WORD_MS = 5000;

interface Waiting {
  readonly bytes: Uint8Array;
  readonly done: () => void;
}

export class PreemptDestination {
  readonly #tally: Tally;
  readonly #fail: (error: PagelaneError) => void;
  #channel: QemuChannel | undefined;
  #isWanted = false;
  #isRefused = false;
  #isClosed = false;
  /** Pages were written there, which nobody else has. */
  #hasPages = false;
  #timer: NodeJS.Timeout | undefined;
  readonly #waiting: Waiting[] = [];
  /** Until it is used, once. */
  #open: (() => Promise<QemuChannel>) | undefined;

  constructor(tally: Tally, fail: (error: PagelaneError) => void) {
    this.#tally = tally;
    this.#fail = fail;
  }

  /**
   * The first channel is there: QEMU takes the second one after it.
   *
   * @param open Opens another channel to the same QEMU.
   */
  follow(first: QemuChannel, open: () => Promise<QemuChannel>): void {
    if (first.isOnly) {
      this.refuse();
      return;
    }
    this.#open = async () => {
      const channel = await open();
      if (channel !== first) return channel;
      throw new PagelaneError('ERR_QEMU_CHANNELS', 'the embedding program opens but one');
    };
    this.#connect();
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

  /** Writes pages, none to begin with; `done` also comes when the channel breaks. */
  write(bytes: Uint8Array, done: () => void): void {
    this.want();
    if (bytes.length === 0) {
      done();
      return;
    }
    this.#hasPages = true;
    this.#waiting.push({ bytes, done });
    this.#flush();
  }

  /** All pages are with QEMU, by the first channel. */
  end(): void {
    if (!this.#isWanted) return;
    this.#waiting.push({ bytes: EOS_RECORD, done: () => {} });
    this.#flush();
  }

  /** @param isDone Whether QEMU has what was written. */
  close({ isDone }: { readonly isDone: boolean }): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    if (isDone) this.#channel?.end();
    else this.#channel?.destroy();
    for (const { done } of this.#waiting.splice(0)) done();
  }

  #connect(): void {
    const open = this.#open;
    if (!this.#isWanted || open === undefined || this.#isClosed) return;
    this.#open = undefined;
    open().then(
      (channel) => this.#use(channel),
      (error: unknown) => {
        this.#tally.addFallback(`no second channel to the destination QEMU: ${messageOf(error)}`);
        this.refuse();
      },
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
    if (this.#isClosed) return;
    if (this.#channel !== undefined) {
      for (const { bytes, done } of this.#waiting.splice(0)) this.#channel.write(bytes, done);
    } else if (this.#isRefused) {
      for (const { done } of this.#waiting.splice(0)) done();
      if (this.#hasPages) this.#timer ??= setTimeout(() => this.#fail(notTaken()), WORD_MS);
    }
  }
}

function notTaken(): PagelaneError {
  const text = 'Destination QEMU closed its second channel, or took none: it misses pages';
  return new PagelaneError('ERR_QEMU_CHANNELS', text);
}

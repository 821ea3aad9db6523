import { type GuestPlace, PagelaneError } from '../errors.ts';
import type { EndMark } from '../stream/end-mark.ts';
import type { QemuChannel } from '../stream/endpoint.ts';
import { SHUT_SUCCESS } from './return-message.ts';

/*
 * How a source QEMU is left whose post-copy has failed: the guest runs, or will, at the destination
 *
 *   1. refuse   it can write no more; what it has written comes
 *   2. look     whether that was all it had to write
 *   3. no       it will find that it cannot write: it pauses, and can be recovered. The channel is
 *               closed
 *   4. yes      it waits for a word. If its channel closed instead, QEMU 10 would start the guest,
 *               a second time. So it is told that it is done
 */

/* Chosen by us */

/** How long QEMU's last bytes may take. */
const LAST_BYTES_MS = 5000;

interface Parts {
  readonly error: PagelaneError;
  /** Sees what QEMU writes. */
  readonly endMark: EndMark;
  readonly settle: (guest: GuestPlace, error: PagelaneError) => void;
}

export class Departure {
  readonly #channel: QemuChannel;
  readonly #parts: Parts;
  #timer: NodeJS.Timeout | undefined;
  #isOver = false;

  constructor(channel: QemuChannel, parts: Parts) {
    this.#channel = channel;
    this.#parts = parts;
    if (channel.refuseMore()) this.#timer = setTimeout(() => this.ended(), LAST_BYTES_MS);
    else setImmediate(() => this.ended());
  }

  /** QEMU's last bytes were seen. */
  ended(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#timer);
    const { error, endMark, settle } = this.#parts;
    if (!endMark.isSeen) {
      this.#channel.destroy();
      settle('destination', error);
      return;
    }
    this.#channel.write(SHUT_SUCCESS, () => {});
    this.#channel.end();
    const text =
      `${error.message}; the source QEMU had given all it has, and was told that it is done, so ` +
      'that it does not start the guest: it keeps its memory until it is quit';
    settle('unknown', new PagelaneError('ERR_POSTCOPY_ENDED', text, { cause: error }));
  }
}

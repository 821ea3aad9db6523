import { asPagelaneError, EndpointError, PagelaneError } from '../errors.ts';
import { HEADER_BYTES } from '../frame/limits.ts';
import type { RamLayout } from '../page/block.ts';
import { viewOf } from '../stream/bytes.ts';
import type { QemuChannel } from '../stream/endpoint.ts';
import * as message from '../stream/message.ts';
import { PreemptReader, type PreemptSink } from '../stream/preempt-reader.ts';
import type { Tally } from './progress.ts';

/*
 * The second channel of a source QEMU with postcopy-preempt: pages that the destination asked for
 *
 *   1. join    the destination is told, so that its QEMU gets a second channel too     join
 *   2. read    as pages among the others, if post-copy is read; else it is carried     feed
 *              as bytes, to the second channel there
 *   3. wait    when the first channel has ended, for pages that were asked for         whenAll
 *
 * A QEMU with multifd opens more channels as well, and each says so at once. Whatever else connects
 * there is read too: nothing tells QEMU's channel from one that is silent.
 */

/* Fixed by QEMU: migration/multifd.h, MULTIFD_MAGIC */
const MULTIFD_MAGIC = 0x1122_3344;

/* Chosen by us */

/** Channels that may be the second one; more are read, and forgotten. */
const CHANNELS_MAX = 8;

/** How long a page may take that was asked for, once QEMU has ended its first channel. */
const TIMEOUT_MS = 30_000;

/** What the second channel needs of the migration that it is a part of. */
export interface PreemptSourceHost extends PreemptSink {
  readonly tally: Tally;
  /** The guest's memory, once it is known: before there is a post-copy. */
  layout(): RamLayout | undefined;
  /** Whether what comes is of no use any more. */
  isOver(): boolean;
  /** Whether there is a post-copy whose pages are read. */
  isRead(): boolean;
  /** Whether it would be carried as bytes. */
  isVerbatim(): boolean;
  isBackedUp(): boolean;
  /** Whether any path is open: only that time counts for what QEMU may take. */
  isConnected(): boolean;
  /** Pages that the destination asked for, and that have come by no channel. */
  missingPages(): number;
  /** Queues a message in its place. */
  put(encoded: message.EncodedMessage): void;
  fail(error: PagelaneError): void;
}

export class PreemptSource {
  readonly #host: PreemptSourceHost;
  readonly #channels: PreemptChannel[] = [];
  #onAll: (() => void) | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(host: PreemptSourceHost) {
    this.#host = host;
  }

  /** QEMU has opened a channel. */
  join(channel: QemuChannel): void {
    const host = this.#host;
    if (host.isOver() || this.#channels.length >= CHANNELS_MAX) {
      channel.discard();
      return;
    }
    if (this.#channels.length === 0) {
      host.tally.preemptBytes = 0;
      host.put(message.encodePreempt(NO_BYTES, HEADER_BYTES));
    }
    this.#channels.push(new PreemptChannel(channel, host, () => this.settle()));
  }

  /** Reads on, as far as there is room. */
  feed(): void {
    for (const channel of this.#channels) channel.feed();
  }

  /** Calls back when no page is on its way that was asked for: the first channel has ended. */
  whenAll(done: () => void): void {
    this.#onAll = done;
    this.#host.tally.waitsFor = 'pages on the second channel of QEMU';
    this.#limitWait();
    this.settle();
  }

  /** What comes from now on is forgotten. */
  stop(): void {
    this.#stopWait();
    this.feed();
  }

  /** Pages are on their way: there may be nothing more to wait for. */
  settle(): void {
    const onAll = this.#onAll;
    if (onAll === undefined) return;
    if (this.#host.missingPages() === 0) {
      this.#stopWait();
      onAll();
    } else if (this.#channels.every(({ hasEnded }) => hasEnded)) {
      this.#giveUp('and closed its second channel');
    }
  }

  #limitWait(): void {
    this.#timer = setTimeout(() => {
      // What waits for room, or for a path, has a limit of its own.
      const isOurs = !this.#host.isConnected() || this.#channels.some(({ isHeld }) => isHeld);
      if (isOurs) this.#limitWait();
      else this.#giveUp(`not within ${TIMEOUT_MS} ms`);
    }, TIMEOUT_MS);
  }

  #stopWait(): void {
    clearTimeout(this.#timer);
    this.#onAll = undefined;
  }

  #giveUp(why: string): void {
    this.#stopWait();
    const text =
      `Source QEMU ended its stream, and has not given ${this.#host.missingPages()} pages that the ` +
      `destination asked for: ${why}`;
    this.#host.fail(new PagelaneError('ERR_STREAM_TRUNCATED', text));
  }
}

/** One channel that may be the second. */
class PreemptChannel {
  readonly #host: PreemptSourceHost;
  readonly #address: string;
  #reader: PreemptReader | undefined;
  #isKnown = false;
  #input: { bytes: Uint8Array; at: number; done: () => void } | undefined;
  #hasClosed = false;

  constructor(channel: QemuChannel, host: PreemptSourceHost, onEnd: () => void) {
    this.#host = host;
    this.#address = channel.address;
    channel.start({
      chunk: (bytes, done) => {
        host.tally.preemptBytes! += bytes.length;
        this.#input = { bytes, at: 0, done };
        this.feed();
      },
      end: () => {
        this.#hasClosed = true;
        onEnd();
      },
    });
  }

  /** Whether bytes wait for room, or until it is known how the post-copy goes. */
  get isHeld(): boolean {
    return this.#input !== undefined;
  }

  /** Whether all was read that there will be. */
  get hasEnded(): boolean {
    return this.#hasClosed && !this.isHeld;
  }

  feed(): void {
    const input = this.#input;
    if (input === undefined) return;
    this.#input = undefined;
    try {
      if (!this.#host.isOver() && !this.#read(input)) {
        this.#input = input;
        return;
      }
    } catch (error) {
      this.#host.fail(asPagelaneError(error));
    }
    input.done();
  }

  /** False if it must wait. */
  #read(input: { readonly bytes: Uint8Array; at: number }): boolean {
    const { bytes } = input;
    if (!this.#isKnown && isMultifd(bytes)) throw notCarried(this.#address);
    this.#isKnown = true;
    if (this.#host.isRead()) {
      this.#reader ??= new PreemptReader(this.#host.layout()!, this.#host);
      input.at = this.#reader.push(bytes, input.at);
      return input.at === bytes.length;
    }
    if (!this.#host.isVerbatim() || this.#host.isBackedUp()) return false;
    this.#host.put(message.encodePreempt(bytes, HEADER_BYTES));
    return true;
  }
}

function notCarried(endpoint: string): EndpointError {
  return new EndpointError(
    'ERR_QEMU_CHANNELS',
    `QEMU opened a channel at ${endpoint} that cannot be carried: multifd is on`,
    endpoint,
  );
}

function isMultifd(bytes: Uint8Array): boolean {
  return bytes.length >= 4 && viewOf(bytes).getUint32(0) === MULTIFD_MAGIC;
}

const NO_BYTES = new Uint8Array(0);

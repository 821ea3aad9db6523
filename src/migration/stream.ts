import { Duplex } from 'node:stream';
import { MigrationError, PagelaneError } from '../errors.ts';
import type { ThreadsInUse } from '../page/threads.ts';
import type { Lane } from '../session/lane.ts';
import type { Session } from '../session/session.ts';
import type { ChannelReader, QemuChannel } from '../stream/endpoint.ts';
import type { MigrationResult, Progress, Tally } from './progress.ts';
import { type MigrationEnd, type ProgressParts, progressOf, resultOf } from './result.ts';
import { type LimitedStage, limitStage } from './stage-limit.ts';

/* Chosen by us */

/** Bytes of the local side's output that a plain Readable keeps ready. */
const READABLE_BYTES = 1024 * 1024;

/** What both ends of a migration share. */
export interface StreamParts {
  readonly session: Session;
  readonly lane: Lane;
  readonly tally: Tally;
  /** Of the addon, for the result record. */
  readonly threads: ThreadsInUse;
  readonly now: () => number;
}

/**
 * One end of a migration, as a Duplex: at the source, write QEMU's stream and read its return path;
 * at the destination, read the stream and write the return path.
 *
 * `pipeline(qemuSocket, stream, qemuSocket)` is a working migration; `relay(channel)` is the same
 * without a copy per chunk. `result` says how it ended, in any case.
 *
 * A migration that fails destroys the stream, and `pipeline` QEMU's socket with it: the source
 * runs on. Where the guest may run at the destination, both stay open until the caller knows.
 */
export abstract class MigrationStream extends Duplex {
  /** Settles when the migration is over; never rejects. */
  readonly result: Promise<MigrationResult>;
  protected readonly session: Session;
  protected readonly lane: Lane;
  protected readonly tally: Tally;
  protected channel: QemuChannel | undefined;
  readonly #now: () => number;
  readonly #startedMs: number;
  readonly #threads: ThreadsInUse;
  #settle!: (result: MigrationResult) => void;
  #isSettled = false;
  /** Used as a plain stream, without a channel. */
  #isPlain = false;
  /** Why nothing is taken any more; absent where taking keeps the source stopped. */
  #failure: MigrationError | undefined;
  /** Of the chunks that the Readable has taken beyond what it keeps ready. */
  #pushed: (() => void)[] = [];

  protected constructor(parts: StreamParts) {
    super({ highWaterMark: READABLE_BYTES, allowHalfOpen: true, emitClose: true });
    this.session = parts.session;
    this.lane = parts.lane;
    this.tally = parts.tally;
    this.#threads = parts.threads;
    this.#now = parts.now;
    this.#startedMs = parts.now();
    this.result = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  /**
   * Limits what goes to intermediaries, or is gathered ahead from them; undefined ends the limit.
   *
   * @param intermediary Place of the one that is limited, from 0; all together if undefined.
   * @throws {PagelaneError} ERR_CONTROL_STAGE If nothing is staged, or there is no such one.
   */
  setStageBandwidth(bytesPerSecond: number | undefined, intermediary: number | undefined): void {
    limitStage(this.limitedStage, bytesPerSecond, intermediary);
  }

  /** Where the migration stands now. */
  progress(): Progress {
    return progressOf(this.#progressParts(), this.codecInUse());
  }

  /**
   * Connects the stream to QEMU's channel, both ways, and reads into one buffer that is used again.
   *
   * @returns `result`.
   */
  relay(channel: QemuChannel): Promise<MigrationResult> {
    if (this.#failure !== undefined) channel.destroy();
    else this.attach(channel);
    return this.result;
  }

  /** Bytes from the local QEMU, valid until `done`. */
  protected abstract takeLocal(bytes: Uint8Array, done: () => void): void;

  /** The local QEMU closed its end. */
  protected abstract takeLocalEnd(): void;

  protected abstract wireBytesOf(path: { sentBytes: number; receivedBytes: number }): number;

  protected abstract codecInUse(): string;

  protected abstract get limitedStage(): LimitedStage | undefined;

  /** Threads of the addon. */
  protected get threads(): number {
    return this.#threads.threads;
  }

  protected get now(): number {
    return this.#now();
  }

  protected get isSettled(): boolean {
    return this.#isSettled;
  }

  protected attach(channel: QemuChannel): void {
    this.channel = channel;
    const reader: ChannelReader = {
      chunk: (bytes, done) => this.takeLocal(bytes, done),
      end: () => this.takeLocalEnd(),
      join: (other) => this.joinLocal(other),
    };
    channel.start(reader);
  }

  /** The local QEMU opened a further channel. */
  protected joinLocal(channel: QemuChannel): void {
    channel.discard();
  }

  /** Gives bytes to the local QEMU; they stay as they are until `done`. */
  protected giveLocal(bytes: Uint8Array, done: () => void = () => {}): void {
    if (this.channel !== undefined) {
      this.channel.write(bytes, done);
      return;
    }
    // A plain Readable's consumer may keep the chunk: it gets one of its own.
    if (this.push(bytes.slice())) done();
    else this.#pushed.push(done);
  }

  /** Ends what the local QEMU reads. */
  protected giveLocalEnd(): void {
    if (this.channel !== undefined) this.channel.end();
    else this.push(null);
  }

  override _read(): void {
    this.#isPlain = this.channel === undefined;
    const pushed = this.#pushed;
    this.#pushed = [];
    for (const done of pushed) done();
  }

  override _write(chunk: Uint8Array, _encoding: string, done: (error?: Error) => void): void {
    this.#isPlain = true;
    // A QEMU that is rid of its bytes would think that they arrived, and stop the guest in the end.
    if (this.#failure !== undefined) done(this.#failure);
    // No Buffer: its `slice` makes no copy, and what is kept of a chunk must be one.
    else this.takeLocal(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length), done);
  }

  override _final(done: (error?: Error) => void): void {
    this.takeLocalEnd();
    this.result.then((result) =>
      done(result.outcome === 'completed' ? undefined : errorOf(result)),
    );
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.abandon(error);
    done(error);
  }

  /** Ends the migration by the user's will; the guest stays at the source. */
  protected abstract cancel(error: PagelaneError): void;

  /** Whether the guest would be at the source for certain. */
  protected abstract canCancel(): boolean;

  /** Cancels when `signal` is aborted, unless switchover has begun: then it goes to its end. */
  protected cancelOn(signal: AbortSignal | undefined): void {
    if (signal === undefined) return;
    const cancel = (): void => {
      if (!this.canCancel()) {
        this.tally.addFallback('cancelled too late: switchover may have begun');
        return;
      }
      this.cancel(new PagelaneError('ERR_CANCELLED', 'Migration was cancelled'));
    };
    if (signal.aborted) cancel();
    else signal.addEventListener('abort', cancel, { once: true });
    this.result.then(() => signal.removeEventListener('abort', cancel));
  }

  /** The stream is destroyed before its end. */
  protected abstract abandon(error: Error | null): void;

  /** States how the migration ended; only the first call counts. */
  protected settle(end: MigrationEnd): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    const result = resultOf(end, { ...this.#progressParts(), threads: this.#threads });
    this.#settle(result);
    this.#failPlain(result);
  }

  #progressParts(): ProgressParts {
    return {
      session: this.session,
      tally: this.tally,
      elapsedMs: this.#now() - this.#startedMs,
      wireBytesOf: (path) => this.wireBytesOf(path),
    };
  }

  /**
   * Fails as any stream does, so that whoever joined QEMU's socket to this one closes it. Where
   * the guest may run at the destination, the socket stays as it is, and the source stopped.
   */
  #failPlain(result: MigrationResult): void {
    if (result.outcome === 'completed' || result.guest === 'unknown') return;
    this.#failure = errorOf(result);
    if (this.#isPlain && !this.destroyed) this.destroy(this.#failure);
  }
}

/** The error that a result which is no success stands for. */
export function errorOf(result: MigrationResult): MigrationError {
  const { code, message, phase } = result.error ?? {
    code: 'ERR_INTERNAL',
    message: 'Migration did not complete',
    phase: 'setup',
  };
  return new MigrationError(code, message, { guest: result.guest, side: result.side, phase });
}

import { asPagelaneError, type GuestPlace, PagelaneError } from '../errors.ts';
import type { PageHashes } from '../native.ts';
import type { RamLayout } from '../page/block.ts';
import {
  LoadedMemory,
  type MappedMemory,
  type VerifiedFacts,
  VerifyError,
} from '../page/loaded-memory.ts';
import type { Tally } from './progress.ts';

/** What a verification needs of the migration that it is a part of. */
export interface VerificationHost {
  readonly tally: Tally;
  readonly threads: number;
  /** Gives what QEMU said to the source. */
  relay(bytes: Uint8Array): void;
  fail(error: PagelaneError, guest?: GuestPlace): void;
  /** Memory is as it was decoded. */
  verified(): void;
}

/** Compares QEMU's memory with what was decoded, before the source hears of QEMU's success. */
export class Verification {
  readonly #host: VerificationHost;
  /** What is to be verified; none once it was. */
  #wanted: readonly MappedMemory[];
  #memory: LoadedMemory | undefined;
  #isRunning = false;
  #isOver = false;
  /** QEMU's success, until memory is verified. */
  readonly #heldBack: Uint8Array[] = [];

  constructor(wanted: readonly MappedMemory[], host: VerificationHost) {
    this.#wanted = wanted;
    this.#host = host;
  }

  /** Whether memory has still to be verified. */
  get isDue(): boolean {
    return this.#wanted.length > 0;
  }

  /** Whether it is being compared: QEMU has loaded everything. */
  get isRunning(): boolean {
    return this.#isRunning && this.isDue;
  }

  /**
   * Opens the files of memory that is to be verified.
   *
   * @returns Where the decoder notes pages; nothing if none is.
   * @throws {PagelaneError} ERR_VERIFY_MEMORY If a block or its file cannot be verified.
   */
  setLayout(layout: RamLayout): { hashes?: PageHashes } {
    if (!this.isDue) return {};
    const { threads } = this.#host;
    this.#memory = new LoadedMemory(layout, { memory: this.#wanted, threads });
    return { hashes: this.#memory.hashes };
  }

  /** Gives up: the guest must not be lost for this. */
  drop(why: string): void {
    if (!this.isDue) return;
    this.#host.tally.addFallback(`memory is not verified: ${why}`);
    this.#wanted = [];
    this.#memory?.close();
  }

  /** Keeps QEMU's success back until memory is verified. */
  holdBack(bytes: Uint8Array): void {
    this.#heldBack.push(bytes.slice());
    this.run();
  }

  /** Compares; QEMU has loaded everything. */
  run(): void {
    if (this.#isRunning || this.#isOver) return;
    this.#isRunning = true;
    this.#host.tally.waitsFor = 'memory to be verified';
    if (this.#memory === undefined) {
      const text = 'Cannot verify memory: the source named none';
      this.#host.fail(new PagelaneError('ERR_VERIFY_MEMORY', text));
      return;
    }
    this.#memory.verify().then(
      (verified) => this.#take(verified),
      (error: unknown) => {
        if (error instanceof VerifyError) this.#host.tally.verified = error.verified;
        // QEMU has all it needs, and a guest that runs looks like this: let nobody start another.
        this.#host.fail(asPagelaneError(error), 'unknown');
      },
    );
  }

  /** Nothing is verified any more. */
  close(): void {
    this.#isOver = true;
    this.#memory?.close();
  }

  /** Memory is as it was decoded: the source may hear it. */
  #take(verified: VerifiedFacts): void {
    if (this.#isOver) return;
    const { tally } = this.#host;
    tally.verified = verified;
    tally.waitsFor = undefined;
    this.#wanted = [];
    for (const bytes of this.#heldBack.splice(0)) this.#host.relay(bytes);
    this.#host.verified();
  }
}

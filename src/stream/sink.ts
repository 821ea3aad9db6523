import type { RamLayout } from '../page/block.ts';

/** Where opaque bytes belong in the stream. */
export interface BytesPlace {
  /** A RAM section of the source is open before these bytes. */
  readonly isInsideBefore: boolean;
  /** A RAM section is open after them. */
  readonly isInsideAfter: boolean;
  /** From these bytes on nothing is parsed. */
  readonly isVerbatim: boolean;
  /** Index of the block that the stream named last, -1 if none. */
  readonly lastBlock: number;
}

/** Takes what the reader finds, in the order of the stream. */
export interface StreamSink {
  /** A slot for the next batch; undefined when none is free, then the reader waits. */
  takeSlot(): Uint8Array | undefined;
  /** The RAM blocks; once, before the first pages. */
  layout(layout: RamLayout): void;
  /**
   * Opaque bytes, valid during the call. They follow all earlier pages and precede all later ones.
   */
  bytes(data: Uint8Array, place: BytesPlace): void;
  /** A sealed batch (`Sealed` says where in the slot). The slot is the sink's now. */
  pages(slot: Uint8Array, sealed: Int32Array): void;
  /** The next batch holds a page that the epoch already has. */
  epoch(): void;
  /**
   * Post-copy begins with the next bytes: from now on a batch has pages of one block, ascending,
   * and a slot is one for them. Only of a reader that reads post-copy.
   *
   * @param unused A slot that was taken before, and has nothing in it; the sink's again.
   * @returns False if it must wait for that: then nothing has happened.
   */
  postcopy?(unused: Uint8Array | undefined): boolean;
  /** Most pages of the next batch of a post-copy, 1 at least. @default as many as there may be */
  batchPages?(): number;
  /** A post-copy that was to be read will be carried as bytes. */
  leavesPostcopy?(why: string): void;
  /** The source may switch to post-copy; its host's pages are as large as the guest's. */
  advised?(): void;
  /** The source asks the destination for a sign of life, outside of a package. */
  ping?(value: number): void;
  /** The stream of a post-copy is over: all its pages were given. */
  end?(): void;
}

import type { GuestPlace, Side } from '../errors.ts';
import { Codec, Decoded } from '../native.ts';
import type { RamLayout } from '../page/block.ts';
import { memoryBytes } from '../page/block.ts';
import type { BatchFacts, EncodedBatch } from '../page/encode.ts';
import type { VerifiedFacts } from '../page/loaded-memory.ts';
import type { GatherFacts } from '../staging/gather.ts';
import type { LatencyFacts } from './latencies.ts';

/** What was gathered of a post-copy. */
export interface GatheredFacts extends GatherFacts {
  /** QEMU's requests for pages that were staged: from its word until they were written to it. */
  readonly requests: LatencyFacts;
  /** Those for pages that were not, which the source was asked for. */
  readonly sourceRequests: LatencyFacts;
}

/** What was staged of a post-copy. */
export interface StagedFacts {
  readonly extents: number;
  readonly extentBytes: number;
  readonly parityBytes: number;
  /** Pages that went straight to the destination. */
  readonly directPages: number;
  /** Milliseconds from the stream's beginning until the source was free. */
  readonly evictionMs: number | undefined;
  readonly lostIntermediaries: readonly string[];
}

/** What a migration is doing. In this order; a phase may be skipped, none comes back. */
export type Phase = 'setup' | 'precopy' | 'switchover' | 'postcopy' | 'done';

/** Pages by how they travelled. */
export interface PageCounts {
  /** Pages of zeros, sent as a fact. */
  zero: number;
  /** Pages that repeat one word of 8 bytes. */
  fill: number;
  /** Pages sent with their bytes, compressed or not. */
  raw: number;
  /** Pages that the destination had, from another page or from an earlier time. */
  same: number;
  /** Pages sent as what changed since they were sent before. */
  delta: number;
  /** Pages that QEMU had encoded itself: XBZRLE, COMPRESS. */
  foreign: number;
}

/** Bytes of page contents by the codec that carried them: before, and on the wire. */
export interface CodecBytes {
  pageBytes: number;
  wireBytes: number;
}

/** What keeping pages at both ends was good for. */
export interface StoreFacts {
  /** Most bytes that were kept at each end. */
  readonly bytes: number;
  /** Bytes of pages that did not have to be sent, before compression. */
  readonly savedBytes: number;
}

/** Pages that were sent more than once; counted by the source while it keeps pages. */
export interface ResentFacts {
  readonly pages: number;
  /** Their share of what went over the wire. */
  readonly wireBytes: number;
}

/** One path, as the result states it. */
export interface PathFacts {
  readonly local: string;
  readonly remote: string;
  readonly wireBytes: number;
  readonly rttMs: number | undefined;
  readonly isLost: boolean;
}

/** Where a migration stands. Plain numbers: take a copy to compare. */
export interface Progress {
  readonly phase: Phase;
  readonly elapsedMs: number;
  /** Pass over the guest's memory, from 1; 0 before the first page. */
  readonly round: number;
  /** Bytes of guest memory in use, by QEMU's block list; 0 before it came. */
  readonly memoryBytes: number;
  /** Guest memory covered by pages in this round, in bytes. */
  readonly roundBytes: number;
  /** Guest memory covered by pages so far, repeated ones counted again. */
  readonly pageBytes: number;
  /** Bytes of QEMU's stream so far. */
  readonly streamBytes: number;
  /** Bytes given to or taken from paths. */
  readonly wireBytes: number;
  readonly pages: Readonly<PageCounts>;
  readonly codecs: Readonly<Record<string, Readonly<CodecBytes>>>;
  /** Codec in use. */
  readonly codec: string;
  readonly pathsOpen: number;
  readonly pathsAll: number;
  /** What the migration waits for, if it does. */
  readonly waitsFor: string | undefined;
}

/** How a migration ended. `docs/cli.md` lists every field. */
export interface MigrationResult {
  readonly v: 1;
  readonly type: 'result';
  readonly side: Side;
  readonly session: string;
  readonly name: string;
  readonly outcome: 'completed' | 'failed' | 'cancelled';
  readonly guest: GuestPlace;
  readonly durationMs: number;
  /** From the last page round's end at the source to the destination's word, as seen here. */
  readonly downtimeMs: { readonly switchover: number | undefined };
  readonly memoryBytes: number;
  readonly streamBytes: number;
  readonly wireBytes: number;
  readonly pages: Readonly<PageCounts>;
  readonly codecs: Readonly<Record<string, Readonly<CodecBytes>>>;
  readonly store: StoreFacts;
  readonly resent: ResentFacts;
  readonly paths: readonly PathFacts[];
  readonly rounds: number;
  readonly cpuSeconds: number;
  readonly digest: {
    readonly sent: string | undefined;
    readonly applied: string | undefined;
    readonly equal: boolean | undefined;
  };
  /** At a destination that was asked to verify memory, once it has. */
  readonly verified?: VerifiedFacts;
  /** At a source that staged its pages. */
  readonly staged?: StagedFacts;
  /** At a destination that gathered them. */
  readonly gathered?: GatheredFacts;
  /** Bytes that the source QEMU gave on a second channel: postcopy-preempt. */
  readonly preemptBytes?: number;
  readonly effective: Readonly<Record<string, unknown>>;
  /** What was not done as asked, or not as well as could be, and why. */
  readonly fallbacks: readonly string[];
  readonly error?: { readonly code: string; readonly message: string; readonly phase: string };
}

const CODEC_NAMES: Readonly<Record<number, string>> = {
  [Codec.None]: 'none',
  [Codec.Lz4]: 'lz4',
  [Codec.Zstd]: 'zstd',
};

/** All pages, however they travelled. */
export function sumOf(pages: Readonly<PageCounts>): number {
  const { zero, fill, raw, same, delta, foreign } = pages;
  return zero + fill + raw + same + delta + foreign;
}

type SentBatch = Pick<EncodedBatch, 'facts' | 'codec' | 'start' | 'end'>;

type PageFacts = Pick<
  BatchFacts,
  'pages' | 'zeroPages' | 'blankPages' | 'foreignPages' | 'fillPages' | 'samePages' | 'deltaPages'
>;

/** The pages of a batch that was decoded or applied: what `Decoded` says of it. */
export function decodedPages(decoded: Int32Array): PageFacts {
  return {
    pages: decoded[Decoded.pages]!,
    zeroPages: decoded[Decoded.zeroPages]!,
    blankPages: 0,
    foreignPages: 0,
    fillPages: decoded[Decoded.fillPages]!,
    samePages: decoded[Decoded.samePages]!,
    deltaPages: decoded[Decoded.deltaPages]!,
  };
}

/** Counts what passes one end of a migration. */
export class Tally {
  phase: Phase = 'setup';
  round = 0;
  memoryBytes = 0;
  streamBytes = 0;
  /** Bytes of pages that are kept at each end. */
  storeBytes = 0;
  readonly pages: PageCounts = { zero: 0, fill: 0, raw: 0, same: 0, delta: 0, foreign: 0 };
  readonly resent = { pages: 0, wireBytes: 0 };
  #deltaBytes = 0;
  readonly codecs: Record<string, CodecBytes> = {};
  readonly fallbacks: string[] = [];
  waitsFor: string | undefined;
  verified: VerifiedFacts | undefined;
  staged: StagedFacts | undefined;
  gathered: GatheredFacts | undefined;
  preemptBytes: number | undefined;
  #pageBits = 12;
  #pagesBeforeRound = 0;
  readonly #cpuAtStart = process.cpuUsage();

  setLayout(layout: RamLayout): void {
    this.#pageBits = layout.pageBits;
    this.memoryBytes = memoryBytes(layout);
    this.phase = 'precopy';
    this.round = 1;
  }

  /** A page came again: another pass over memory has begun. */
  beginRound(): void {
    this.round++;
    this.#pagesBeforeRound = this.#allPages;
  }

  addPages(facts: PageFacts): void {
    const { pages } = this;
    pages.zero += facts.zeroPages + facts.blankPages;
    pages.foreign += facts.foreignPages;
    pages.fill += facts.fillPages;
    pages.same += facts.samePages;
    pages.delta += facts.deltaPages;
    pages.raw +=
      facts.pages -
      (facts.zeroPages + facts.blankPages + facts.foreignPages) -
      (facts.fillPages + facts.samePages + facts.deltaPages);
  }

  /** Counts the pages of a batch that were sent before, and their share of its bytes. */
  addResent({ pages, zeroPages, againPages, deltaBytes }: BatchFacts, wireBytes: number): void {
    this.#deltaBytes += deltaBytes;
    if (againPages === 0) return;
    this.resent.pages += againPages;
    this.resent.wireBytes += Math.round((wireBytes * againPages) / (pages - zeroPages));
  }

  /** Bytes of pages that did not have to be sent. */
  get savedBytes(): number {
    const { same, delta } = this.pages;
    return Math.max(0, (same + delta) * 2 ** this.#pageBits - this.#deltaBytes);
  }

  /** Counts a batch that was sent. */
  note({ facts, codec, start, end }: SentBatch): void {
    this.addPages(facts);
    this.addResent(facts, end - start);
    this.addCodec(codec, facts.literalBytes, end - start);
  }

  addCodec(codec: Codec, pageBytes: number, wireBytes: number): void {
    const name = CODEC_NAMES[codec]!;
    this.codecs[name] ??= { pageBytes: 0, wireBytes: 0 };
    this.codecs[name].pageBytes += pageBytes;
    this.codecs[name].wireBytes += wireBytes;
  }

  addFallback(text: string): void {
    if (!this.fallbacks.includes(text)) this.fallbacks.push(text);
  }

  get pageBytes(): number {
    return this.#allPages * 2 ** this.#pageBits;
  }

  get roundBytes(): number {
    return (this.#allPages - this.#pagesBeforeRound) * 2 ** this.#pageBits;
  }

  /** Processor time of this process since the migration began, in seconds. */
  get cpuSeconds(): number {
    const { user, system } = process.cpuUsage(this.#cpuAtStart);
    return (user + system) / 1e6;
  }

  get #allPages(): number {
    return sumOf(this.pages);
  }
}

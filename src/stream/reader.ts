import { CutStop, native, type RamCutter, Sealed } from '../native.ts';
import { blockColumns, type RamBlock, type RamLayout } from '../page/block.ts';
import { joined, viewOf } from './bytes.ts';
import {
  BitmapFlag,
  Command,
  EOS_RECORD,
  FOOTER_BYTES,
  PAGE_BITS_DEFAULT,
  SectionType,
  STREAM_MAGIC,
  STREAM_VERSION,
} from './format.ts';
import * as item from './item.ts';
import { OpaqueBytes } from './opaque.ts';
import { POSTCOPY_PAGES_MAX, POSTCOPY_SPAN_MAX } from './postcopy-reach.ts';
import {
  badPage,
  noFooter,
  noPostcopy,
  notAStream,
  otherVersion,
  pagesElsewhere,
  truncated,
} from './refusals.ts';
import type { StreamSink } from './sink.ts';

/*
 * From QEMU's bytes to pages and opaque bytes
 *
 *   header       magic, version                                  opaque
 *   configuration, its subsections                               opaque, read for page size and
 *   capabilities
 *   items        commands, sections of what we know              opaque, in place
 *   RAM PART     its records                                     cut into page batches by the addon
 *   RAM END      the last pages of a pre-copy                    batches between two opaque runs
 *   tail         device state, EOF, description                  opaque to the end
 *
 * Whatever is not understood turns the rest of the stream into opaque bytes ("verbatim"). Nothing
 * is lost by it but speed. So it is with post-copy, unless it is asked for:
 *
 *   discards, package                                            opaque
 *   RAM PARTs and END                                            cut into batches, without borders
 *   EOF                                                          opaque; the end
 */

type State =
  | 'header'
  | 'configuration'
  | 'items'
  | 'ramStart'
  | 'ramBody'
  | 'ramFooter'
  | 'bitmap'
  | 'opaque';

/* Chosen by us */

/** Most bytes that one item (a block list, a command) may have before we stop reading it as one. */
const ITEM_BYTES_MAX = 2 * 1024 * 1024;

/** Reads QEMU's migration stream; the sink receives the same items, however it is cut. */
export class StreamReader {
  readonly #sink: StreamSink;
  #readsPostcopy: boolean;
  #isPostcopy = false;
  /** Batches have pages of one block, ascending, and no borders of sections. */
  #isWithoutBorders: boolean;
  #state: State = 'header';
  #offsetBytes = 0;
  /** Bytes of an item that is not complete yet. */
  #held: Uint8Array = new Uint8Array(0);
  /** Opaque bytes not yet handed on. */
  readonly #opaque = new OpaqueBytes((...run) => this.#emitBytes(...run));
  /** Bytes of the current item that are skipped over, as opaque bytes. */
  #skipBytes = 0;
  #isInside = false;
  #isVerbatim = false;
  #isEnd = false;
  #isComplete = false;
  #pageBits = PAGE_BITS_DEFAULT;
  #ignoresShared = false;
  #adviceSummary = 0n;
  #ramSection = -1;
  #bitmapSection = -1;
  #hasFooter = false;
  #blocks: readonly RamBlock[] = [];
  #layout: RamLayout | undefined;
  #cutter: RamCutter | undefined;
  #slot: Uint8Array | undefined;
  #hasReturnPath = false;
  #fallback: string | undefined;
  #mayHold = false;
  /** The section that is open is not the source's: it is for pages that were held. */
  #isOwnSection = false;
  readonly #sealed = new Int32Array(Sealed.count);

  /**
   * @param options.readsPostcopy Whether pages of a post-copy are read, if it was advised and they
   *   can be; what is not understood in it is an error then. @default false
   * @param options.isStanding Whether the guest stands still: its pre-copy is read like that too.
   *   @default false
   */
  constructor(
    sink: StreamSink,
    {
      readsPostcopy = false,
      isStanding = false,
    }: { readonly readsPostcopy?: boolean; readonly isStanding?: boolean } = {},
  ) {
    this.#sink = sink;
    this.#readsPostcopy = readsPostcopy;
    this.#isWithoutBorders = isStanding;
  }

  /** Bytes read so far. */
  get offsetBytes(): number {
    return this.#offsetBytes;
  }

  /** True once the source opened the return path. */
  get hasReturnPath(): boolean {
    return this.#hasReturnPath;
  }

  /** Why the stream is carried as plain bytes from some point on; undefined while it is not. */
  get fallback(): string | undefined {
    return this.#fallback;
  }

  /**
   * Says whether pages that keep changing may be held back, until something must follow all pages.
   * Their last version is what counts.
   */
  set mayHold(mayHold: boolean) {
    this.#mayHold = mayHold && !this.#isPostcopy;
    this.#cutter?.setHolding(this.#mayHold);
  }

  /** Carries a post-copy as bytes, if there will be one: as long as it has not begun. */
  leavePostcopy(why: string): void {
    if (!this.#readsPostcopy || this.#isPostcopy) return;
    this.#readsPostcopy = false;
    this.#sink.leavesPostcopy?.(why);
  }

  /** True once all RAM was seen, or once nothing is parsed any more. */
  get isPastMemory(): boolean {
    return this.#isComplete || this.#isVerbatim;
  }

  /**
   * Reads `chunk` from `from` on.
   *
   * @returns Where it stopped: `chunk.length`, or less when the sink had no slot; call again with
   *   the rest.
   * @throws {StreamError} ERR_STREAM_MAGIC, ERR_STREAM_VERSION, ERR_STREAM_PAGE, ERR_STREAM_FOOTER
   *   If the bytes are no migration stream; ERR_STREAM_MULTIFD if its pages are elsewhere;
   *   ERR_STREAM_POSTCOPY if it is to be read as post-copy, and cannot.
   */
  push(chunk: Uint8Array, from: number): number {
    let at = from;
    while (at < chunk.length) {
      const next = this.#step(chunk, at);
      if (next < 0) break;
      this.#offsetBytes += next - at;
      at = next;
    }
    this.#flushOpaque();
    return at;
  }

  /** Hands on a batch that is not full, unless a record is only half there. */
  flush(): void {
    if (this.#cutter === undefined || this.#cutter.isInsideRecord()) return;
    this.#seal();
  }

  /**
   * Says that the stream is over.
   *
   * @throws {StreamError} ERR_STREAM_TRUNCATED If it ended before its end.
   */
  end(): void {
    if (!this.isPastMemory) throw truncated(this.#state, this.#offsetBytes);
  }

  /** One step: returns where it stopped, or -1 if it must wait for a slot. */
  #step(chunk: Uint8Array, at: number): number {
    if (this.#skipBytes > 0) return this.#skip(chunk, at);
    switch (this.#state) {
      case 'opaque':
        return this.#passThrough(chunk, at);
      case 'ramBody':
        return this.#cutPages(chunk, at);
      default:
        return this.#readItem(chunk, at);
    }
  }

  #skip(chunk: Uint8Array, at: number): number {
    const end = Math.min(chunk.length, at + this.#skipBytes);
    this.#putOpaque(chunk.subarray(at, end));
    this.#skipBytes -= end - at;
    return end;
  }

  #passThrough(chunk: Uint8Array, at: number): number {
    this.#flushOpaque();
    this.#emitBytes(chunk.subarray(at), this.#isInside);
    return chunk.length;
  }

  /** Reads one item that is small enough to be looked at as a whole. */
  #readItem(chunk: Uint8Array, at: number): number {
    const heldBytes = this.#held.length;
    const bytes = heldBytes === 0 ? chunk.subarray(at) : joined(this.#held, chunk.subarray(at));
    const itemBytes = this.#measure(bytes);
    if (itemBytes === item.NEED_MORE) {
      if (bytes.length > ITEM_BYTES_MAX) {
        return this.#goVerbatim(bytes, chunk, 'an item of the stream is too large');
      }
      this.#held = bytes.slice();
      return chunk.length;
    }
    if (!this.#keepsHolding(bytes) && !this.#releaseHeld()) return -1;
    if (itemBytes === item.NOT_KNOWN) {
      if (this.#state === 'ramStart' && item.saysMultifd(bytes, this.#listForm())) {
        throw pagesElsewhere(this.#offsetBytes);
      }
      // Only a recovered post-copy begins without a header.
      const isRecovery = this.#state === 'header';
      return this.#goVerbatim(bytes, chunk, isRecovery ? 'post-copy' : item.describeUnknown(bytes));
    }
    if (!this.#take(bytes.subarray(0, itemBytes))) return -1;
    this.#held = EMPTY;
    return at + itemBytes - heldBytes;
  }

  /** Bytes of the item at the start of `bytes`, or why that cannot be said. */
  #measure(bytes: Uint8Array): number {
    switch (this.#state) {
      case 'header':
        return this.#measureHeader(bytes);
      case 'configuration':
        return item.measureConfiguration(bytes);
      case 'ramStart':
        return item.measureRamStart(bytes, this.#listForm());
      case 'ramFooter':
        return this.#hasFooter ? (bytes.length < FOOTER_BYTES ? item.NEED_MORE : FOOTER_BYTES) : 0;
      case 'bitmap':
        return item.measureBitmapChunk(bytes);
      default:
        return this.#measureItem(bytes);
    }
  }

  #measureItem(bytes: Uint8Array): number {
    if (this.#isPostcopy && bytes[0] === SectionType.Eof) return 1;
    const sections = { ram: this.#ramSection, bitmap: this.#bitmapSection };
    const isRead = this.#readsPostcopy && this.#adviceSummary !== 0n;
    return item.measureItem(bytes, sections, isRead);
  }

  #measureHeader(bytes: Uint8Array): number {
    const recovery = item.measureRecovery(bytes);
    if (recovery !== 0) return recovery;
    if (bytes.length < item.HEADER_BYTES) {
      if (!item.mayBeHeader(bytes)) throw notAStream(bytes);
      return item.NEED_MORE;
    }
    const view = viewOf(bytes);
    if (view.getUint32(0) !== STREAM_MAGIC) throw notAStream(bytes);
    const version = view.getUint32(4);
    if (version !== STREAM_VERSION) throw otherVersion(version);
    return item.HEADER_BYTES;
  }

  /** Acts on a whole bytes. False if it needs a slot that is not there; then nothing happened. */
  #take(bytes: Uint8Array): boolean {
    switch (this.#state) {
      case 'header':
        this.#putOpaque(bytes);
        this.#state = 'configuration';
        return true;
      case 'configuration':
        this.#takeConfiguration(bytes);
        return true;
      case 'ramStart':
        this.#blocks = item.readRamStart(bytes, this.#listForm());
        this.#putOpaque(bytes);
        this.#state = 'items';
        return true;
      case 'ramFooter':
        return this.#takeRamFooter(bytes);
      case 'bitmap':
        this.#putOpaque(bytes);
        this.#skipBytes = item.bitmapDataBytes(bytes);
        if ((bytes[0]! & BitmapFlag.Eos) !== 0) this.#state = 'items';
        return true;
      default:
        return this.#takeItem(bytes);
    }
  }

  #takeConfiguration(bytes: Uint8Array): void {
    if (bytes.length === 0) {
      this.#state = 'items';
      return;
    }
    const found = item.readConfiguration(bytes);
    if (found.pageBits !== undefined) this.#pageBits = found.pageBits;
    if (found.ignoresShared) this.#ignoresShared = true;
    this.#putOpaque(bytes);
  }

  #takeItem(bytes: Uint8Array): boolean {
    const type = bytes[0]!;
    const section = bytes.length >= 5 ? viewOf(bytes).getUint32(1) : -1;
    if (type === SectionType.Part && section === this.#ramSection) return this.#beginPart();
    if (type === SectionType.End && section === this.#ramSection) return this.#beginEnd(bytes);
    if (type === SectionType.Eof) return this.#endPostcopy(bytes);
    if (item.beginsPostcopy(bytes) && !this.#beginPostcopy()) return false;
    this.#putOpaque(bytes);
    if (type === SectionType.Command) this.#noteCommand(bytes);
    else if (type === SectionType.Footer) this.#hasFooter = true;
    else if (type === SectionType.Start || type === SectionType.Full)
      this.#beginSection(bytes, section);
    else this.#state = 'bitmap';
    return true;
  }

  #noteCommand(bytes: Uint8Array): void {
    const view = viewOf(bytes);
    const command = view.getUint16(1);
    if (command === Command.OpenReturnPath) this.#hasReturnPath = true;
    if (command === Command.Ping) this.#sink.ping?.(view.getUint32(5));
    if (command === Command.PostcopyAdvise && bytes.length === 21) {
      this.#adviceSummary = view.getBigUint64(5);
      if (this.#adviceSummary === 1n << BigInt(this.#pageBits)) this.#sink.advised?.();
      else this.leavePostcopy('the host has larger pages than the guest');
    }
    this.#skipBytes = item.packageBytes(bytes);
  }

  /** From here on each page comes once, and sections are the destination's own. */
  #beginPostcopy(): boolean {
    if (this.#isPostcopy) return true;
    this.#openCutter();
    this.#flushOpaque();
    this.#seal();
    if (this.#sink.postcopy?.(this.#slot) === false) return false;
    this.#slot = undefined;
    this.#isPostcopy = true;
    this.#isWithoutBorders = true;
    this.mayHold = false;
    return true;
  }

  #endPostcopy(bytes: Uint8Array): boolean {
    this.#putOpaque(bytes);
    this.#opaque.flush(false);
    this.#isComplete = true;
    this.#state = 'opaque';
    this.#sink.end?.();
    return true;
  }

  #beginSection(bytes: Uint8Array, section: number): void {
    const name = item.sectionName(bytes);
    if (name === 'ram') {
      this.#ramSection = section;
      this.#state = 'ramStart';
    } else if (name === 'dirty-bitmap') {
      this.#bitmapSection = section;
      this.#state = 'bitmap';
    } else {
      this.#skipBytes = item.virtioMemBitmapBytes(bytes);
    }
  }

  #beginPart(): boolean {
    this.#flushOpaque();
    const cutter = this.#openCutter();
    if (this.#isWithoutBorders) this.#isInside = true;
    else if (!this.#markSection(cutter, true)) return false;
    this.#isEnd = false;
    this.#state = 'ramBody';
    return true;
  }

  /** The END section's borders are opaque: all pages before it are applied before it begins. */
  #beginEnd(bytes: Uint8Array): boolean {
    this.#openCutter();
    this.#putOpaque(bytes);
    this.#opaque.flush(true);
    this.#isInside = true;
    this.#isEnd = true;
    this.#state = 'ramBody';
    return true;
  }

  #openCutter(): RamCutter {
    if (this.#cutter !== undefined) return this.#cutter;
    this.#flushOpaque();
    this.#layout = {
      pageBits: this.#pageBits,
      hasFooter: this.#hasFooter,
      sectionId: this.#ramSection,
      blocks: this.#blocks,
    };
    this.#cutter = new native.RamCutter(this.#pageBits);
    const { names, usedBytes } = blockColumns(this.#blocks);
    this.#cutter.setBlocks(names, usedBytes);
    this.#cutter.setHolding(this.#mayHold);
    if (this.#isWithoutBorders) this.#cutter.setReach(POSTCOPY_PAGES_MAX, POSTCOPY_SPAN_MAX);
    this.#sink.layout(this.#layout);
    return this.#cutter;
  }

  #haveSlot(cutter: RamCutter): boolean {
    if (this.#slot === undefined) {
      this.#slot = this.#sink.takeSlot();
      if (this.#slot === undefined) return false;
      cutter.begin(this.#slot);
      if (this.#isPostcopy) {
        const pages = this.#sink.batchPages?.() ?? POSTCOPY_PAGES_MAX;
        cutter.setReach(Math.min(pages, POSTCOPY_PAGES_MAX), POSTCOPY_SPAN_MAX);
      }
    }
    if (cutter.batchEntries() === 0) cutter.setInside(this.#isInside);
    return true;
  }

  #cutPages(chunk: Uint8Array, at: number): number {
    const cutter = this.#cutter!;
    if (!this.#haveSlot(cutter)) return -1;
    const result = cutter.cut(chunk, at, chunk.length);
    const next = at + Math.floor(result / 8);
    switch (result % 8) {
      case CutStop.BatchFull:
        this.#seal();
        break;
      case CutStop.PageAgain:
        this.#seal();
        this.#beginEpoch(cutter);
        break;
      case CutStop.SectionEnd:
        this.#state = 'ramFooter';
        break;
      case CutStop.Unknown:
        // What comes next follows all pages; without a slot it is found again.
        if (!this.#releaseHeld()) return next > at ? next : -1;
        return this.#goVerbatimInside(cutter, chunk, next);
      case CutStop.BadPage:
        throw badPage(this.#offsetBytes + next - at);
    }
    return next;
  }

  #takeRamFooter(bytes: Uint8Array): boolean {
    if (bytes.length > 0) {
      const view = viewOf(bytes);
      if (bytes[0] !== SectionType.Footer || view.getUint32(1) !== this.#ramSection) {
        throw noFooter(this.#offsetBytes);
      }
    }
    const cutter = this.#cutter!;
    if (this.#isEnd) {
      if (!this.#releaseHeld()) return false;
      this.#seal();
      this.#putOpaque(EOS_RECORD);
      this.#putOpaque(bytes);
      this.#opaque.flush(false);
      this.#isInside = false;
      this.#isComplete = !this.#isPostcopy;
      this.#state = this.#isPostcopy ? 'items' : 'opaque';
      return true;
    }
    if (this.#isWithoutBorders) this.#isInside = false;
    else if (!this.#markSection(cutter, false)) return false;
    this.#state = 'items';
    return true;
  }

  /** Whether what begins with `bytes` leaves the pages that are held where they are. */
  #keepsHolding(bytes: Uint8Array): boolean {
    if (this.#state === 'ramFooter') return true;
    if (this.#state !== 'items' || bytes.length < 5) return false;
    const isSection = bytes[0] === SectionType.Part || bytes[0] === SectionType.End;
    return isSection && viewOf(bytes).getUint32(1) === this.#ramSection;
  }

  /** Lets the pages that are held go on. False if a slot is missing; then call again. */
  #releaseHeld(): boolean {
    const cutter = this.#cutter;
    if (cutter === undefined || (cutter.heldPages() === 0 && !this.#isOwnSection)) return true;
    while (cutter.heldPages() > 0) {
      if (!this.#haveSlot(cutter)) return false;
      if (!this.#isInside) {
        if (!this.#markSection(cutter, true)) return false;
        this.#isOwnSection = true;
      }
      const stop = cutter.release();
      if (stop === CutStop.Input) break;
      this.#seal();
      if (stop === CutStop.PageAgain) this.#beginEpoch(cutter);
    }
    if (this.#isOwnSection && !this.#markSection(cutter, false)) return false;
    this.#isOwnSection = false;
    return true;
  }

  /** Notes a border of a RAM section in the map. False if a slot is missing. */
  #markSection(cutter: RamCutter, isBegin: boolean): boolean {
    const mark = (): boolean => (isBegin ? cutter.markSectionBegin() : cutter.markSectionEnd());
    if (!this.#haveSlot(cutter)) return false;
    if (!mark()) {
      this.#seal();
      if (!this.#haveSlot(cutter)) return false;
      mark();
    }
    this.#isInside = isBegin;
    return true;
  }

  #beginEpoch(cutter: RamCutter): void {
    cutter.beginEpoch();
    this.#sink.epoch();
  }

  #seal(): void {
    const cutter = this.#cutter;
    const slot = this.#slot;
    if (cutter === undefined || slot === undefined || cutter.batchEntries() === 0) return;
    cutter.seal(this.#sealed);
    this.#slot = undefined;
    this.#sink.pages(slot, this.#sealed);
  }

  /** Carries the rest of the stream as bytes, beginning with `bytes` (held and the chunk's). */
  #goVerbatim(bytes: Uint8Array, chunk: Uint8Array, reason: string): number {
    this.#held = EMPTY;
    this.#flushOpaque();
    this.#beginVerbatim(bytes, reason);
    return chunk.length;
  }

  #goVerbatimInside(cutter: RamCutter, chunk: Uint8Array, at: number): number {
    const held = cutter.takeHeld();
    this.#seal();
    const rest = held.length === 0 ? chunk.subarray(at) : joined(held, chunk.subarray(at));
    if (item.isMultifdFlush(rest)) throw pagesElsewhere(this.#offsetBytes);
    this.#beginVerbatim(rest, 'a RAM record of a kind that is not understood');
    return chunk.length;
  }

  #beginVerbatim(bytes: Uint8Array, reason: string): void {
    if (this.#isPostcopy) throw noPostcopy(reason, this.#offsetBytes);
    this.#fallback = reason;
    this.#isVerbatim = true;
    this.#state = 'opaque';
    this.#emitBytes(bytes, this.#isInside);
  }

  #putOpaque(bytes: Uint8Array): void {
    this.#opaque.put(bytes, this.#isInside);
  }

  #flushOpaque(): void {
    this.#opaque.flush(this.#isInside);
  }

  #emitBytes(bytes: Uint8Array, isInsideAfter: boolean, isInsideBefore = this.#isInside): void {
    if (bytes.length === 0) return;
    this.#seal();
    this.#sink.bytes(bytes, {
      isInsideBefore,
      isInsideAfter,
      isVerbatim: this.#isVerbatim,
      lastBlock: this.#cutter?.lastBlock() ?? -1,
    });
    // Opaque bytes are an epoch of their own, so the pages after them begin another.
    this.#cutter?.beginEpoch();
  }

  #listForm(): item.ListForm {
    return {
      hasAddresses: this.#ignoresShared,
      mayHavePageSizes: item.hasSeveralPageSizes(this.#adviceSummary),
    };
  }
}

const EMPTY = new Uint8Array(0);

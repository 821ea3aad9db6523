import { PagelaneError, StagingError } from '../errors.ts';
import { pagesOf } from '../page/batch-map.ts';
import type { RamLayout } from '../page/block.ts';
import { BatchDecoder, DECODED_MAX, type DecodedBatch } from '../page/decode.ts';
import { type IntermediaryAddress, parseIntermediary } from '../staging/address.ts';
import { ExtentSeal } from '../staging/extent.ts';
import { Gather } from '../staging/gather.ts';
import { Intermediary } from '../staging/intermediary.ts';
import { removeStaged } from '../staging/leftovers.ts';
import type { ManifestEntry } from '../staging/manifest.ts';
import { closeIntermediaries } from '../staging/open-intermediaries.ts';
import type { PageRequest } from '../stream/page-request.ts';
import { Latencies } from './latencies.ts';
import { decodedPages, type GatheredFacts, type Tally } from './progress.ts';
import type { StageMessage } from './stage-message.ts';
import { Turns } from './turns.ts';

/*
 * The pages of a post-copy, from intermediaries to the destination's QEMU
 *
 *   1. accept   which extent holds which page, as the source tells it            accept
 *   2. gather   in the background; what QEMU asks for, before all else           want
 *   3. decode   each batch, in the addon's threads                               #apply
 *   4. write    to QEMU, every page once, in whatever order they come            parts.write
 */

/** How pages are gathered that the source has staged. */
export interface GatherSettings {
  /**
   * This host's own addresses of the intermediaries, in the source's order. @default the source's
   */
  readonly intermediaries?: readonly IntermediaryAddress[];
  /** Most bytes a second that are gathered ahead of what QEMU asks for. @default no limit */
  readonly maxBytesPerSecond?: number;
  /**
   * Keeps what opens the pages, before the source is let go: so that they can be gathered after a
   * crash. @default nothing
   */
  readonly keepTicket?: (ticket: StageMessage) => Promise<void>;
}

/* Chosen by us */

/**
 * Extents that stay at each intermediary after they were written to QEMU: more than what may be on
 * its way there, and lost with its channel.
 */
const REMOVAL_LAG = 512;

interface Parts {
  readonly layout: RamLayout;
  readonly tally: Tally;
  readonly settings: GatherSettings;
  /** Writes a batch to QEMU; resolves when it is written. */
  readonly write: (batch: DecodedBatch) => Promise<void>;
}

/** Gathers the pages of one post-copy. */
export class PageGatherer implements AsyncDisposable {
  readonly #parts: Parts;
  readonly #stage: StageMessage;
  readonly #requests = new Latencies();
  readonly #sourceRequests = new Latencies();
  /** What is decoded takes more memory than what was received. */
  readonly #directTurns = new Turns(DECODED_MAX);
  readonly #intermediaries: readonly (Intermediary | undefined)[];
  readonly #decoder: BatchDecoder;
  readonly #gather: Gather;
  readonly #blocks: ReadonlyMap<string, number>;

  /** @param intermediaries In the source's order; undefined for one that is out of reach. */
  constructor(
    parts: Parts,
    stage: StageMessage,
    intermediaries: readonly (Intermediary | undefined)[],
  ) {
    this.#parts = parts;
    this.#stage = stage;
    this.#intermediaries = intermediaries;
    const { layout } = parts;
    this.#blocks = new Map(layout.blocks.map(({ name }, index) => [name, index]));
    this.#decoder = new BatchDecoder(layout, 0, { isOrdered: false });
    this.#gather = new Gather({
      layout,
      seal: new ExtentSeal(stage.key, stage.scope),
      intermediaries,
      apply: (batch, extent) => this.#apply(batch, extent),
      removes: 'later',
      removalLag: REMOVAL_LAG,
    });
    this.#gather.setLimit(parts.settings.maxBytesPerSecond);
  }

  /**
   * Takes an entry of the manifest.
   *
   * @throws {StagingError} ERR_MANIFEST_… If it does not fit those before it.
   */
  accept(entry: ManifestEntry): void {
    this.#gather.accept(entry);
  }

  /**
   * Puts a batch that came straight from the source into QEMU.
   *
   * @throws {ProtocolError} ERR_BATCH_… If it is wrong; {StagingError} ERR_MANIFEST_PAGE If a page
   *   in it was staged, or came before.
   */
  async takeDirect(payload: Uint8Array, sequence: number): Promise<void> {
    await this.#directTurns.run(async () => {
      const batch = await this.#decoder.decode(payload, sequence);
      const { block, runs } = pagesOf(payload);
      await this.#gather.takeDirect(block, runs, async () => void (await this.#write(batch)));
    });
  }

  get intermediaryCount(): number {
    return this.#intermediaries.length;
  }

  /** Limits what is gathered ahead, in bytes a second; or all that comes from one intermediary. */
  limit(bytesPerSecond: number | undefined, intermediary: number | undefined): void {
    if (intermediary === undefined) this.#gather.setLimit(bytesPerSecond);
    else this.#intermediaries[intermediary]?.setLimit(bytesPerSecond);
  }

  /** All entries were given. */
  complete(): void {
    this.#gather.complete();
  }

  /** Removes what QEMU has, from now on: nobody asks any more whether it is there. */
  startRemoving(): void {
    this.#gather.startRemoving();
  }

  /**
   * Has what QEMU asks for gathered first.
   *
   * @returns Whether all of it is staged already; and when it is with QEMU.
   * @throws {PagelaneError} ERR_STREAM_REQUEST If the guest has no such memory.
   */
  want(request: PageRequest): { readonly isStaged: boolean; readonly isThere: Promise<void> } {
    const { pageBits, blocks } = this.#parts.layout;
    const block = this.#blocks.get(request.block) ?? -1;
    const first = request.offsetBytes / 2 ** pageBits;
    const count = request.lengthBytes / 2 ** pageBits;
    const usedBytes = blocks[block]?.usedBytes ?? 0;
    const isWhole = Number.isInteger(first) && Number.isInteger(count) && count > 0;
    if (!isWhole || request.offsetBytes + request.lengthBytes > usedBytes) {
      const text = `Destination QEMU asked for memory that there is not, of "${request.block}"`;
      throw new PagelaneError('ERR_STREAM_REQUEST', text);
    }
    const askedMs = performance.now();
    let isStaged = true;
    const wanted: Promise<void>[] = [];
    for (let page = first; page < first + count; page++) {
      isStaged &&= this.#gather.manifest.find(block, page) !== undefined;
      wanted.push(this.#gather.want(block, page));
    }
    const latencies = isStaged ? this.#requests : this.#sourceRequests;
    const isThere = Promise.all(wanted).then(() => latencies.add(performance.now() - askedMs));
    return { isStaged, isThere };
  }

  /**
   * Waits until every page is with QEMU.
   *
   * @throws {StagingError} ERR_STAGING_PAGES_GONE If pages are nowhere any more.
   */
  async done(): Promise<GatheredFacts> {
    await this.#gather.done();
    return this.facts();
  }

  /** QEMU has loaded all of it: nothing of the attempt is left at the intermediaries. */
  async removeAll(): Promise<void> {
    await this.#gather.removeRest();
    const here = this.#intermediaries.filter((each) => each !== undefined);
    // What cannot be removed lives out its time.
    await removeStaged(here, this.#stage.scope.attempt).catch(() => {});
  }

  facts(): GatheredFacts {
    const requests = this.#requests.facts();
    const sourceRequests = this.#sourceRequests.facts();
    return { ...this.#gather.facts(), requests, sourceRequests };
  }

  /**
   * Stops; what is at intermediaries stays there for its time to live. They are the caller's to
   * close.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#gather[Symbol.asyncDispose]();
  }

  async #apply(bytes: Uint8Array, extent: number): Promise<number> {
    return await this.#write(await this.#decoder.decode(bytes, extent));
  }

  /** Returns how many pages were in it. */
  async #write(batch: DecodedBatch): Promise<number> {
    const pages = decodedPages(batch.decoded);
    this.#parts.tally.addPages(pages);
    try {
      await this.#parts.write(batch);
    } finally {
      this.#decoder.give(batch.output);
    }
    return pages.pages;
  }
}

/**
 * Connects to the intermediaries of a guest. What `mayMiss` is undefined where it is out of reach:
 * its pages may be mended.
 *
 * @throws {StagingError} ERR_STAGING_… Of one that may not, or of the first if none is reached.
 */
export async function openAll(
  stage: StageMessage,
  settings: GatherSettings,
  { mayMiss = true }: { readonly mayMiss?: boolean } = {},
): Promise<(Intermediary | undefined)[]> {
  if (stage.intermediaries.length === 0) return [];
  const addresses = addressesFor(stage, settings.intermediaries ?? []);
  const opening = addresses.map((address) => Intermediary.open(address));
  const settled = await Promise.allSettled(opening);
  const opened = settled.map((each) => (each.status === 'fulfilled' ? each.value : undefined));
  const rejected = settled.find((each) => each.status === 'rejected');
  const failure: unknown = rejected?.reason;
  const isEnough = failure === undefined || (mayMiss && opened.some((each) => each !== undefined));
  if (isEnough) return opened;
  await closeIntermediaries(opened);
  throw failure;
}

function addressesFor(
  { intermediaries }: StageMessage,
  own: readonly IntermediaryAddress[],
): readonly IntermediaryAddress[] {
  if (own.length === 0) return intermediaries.map((text) => parseShared(text));
  if (own.length === intermediaries.length) return own;
  const text =
    `Cannot gather: --stage names ${own.length} intermediaries here, and the source has ` +
    `${intermediaries.length}`;
  throw new StagingError('ERR_STAGING_CONNECT', text);
}

/** What a peer names is for the network: it must not read files here. */
function parseShared(text: string): IntermediaryAddress {
  try {
    const address = parseIntermediary(text);
    const { passwordFile, caFile, certificateFile, keyFile } = address;
    const named = [passwordFile, caFile, certificateFile, keyFile];
    if (named.every((file) => file === undefined)) return { ...address, isForeign: true };
  } catch {
    // Said below: what the peer wrote is not repeated.
  }
  const why = 'the source names one that cannot be used from here; give --stage';
  throw new StagingError('ERR_STAGING_CONNECT', `Cannot connect to intermediary: ${why}`);
}

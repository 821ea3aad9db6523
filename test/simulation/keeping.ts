import { SequenceSet } from '../../src/frame/sequence-set.ts';
import { Codec, Decoded, Encoded, native, OrderFlag } from '../../src/native.ts';
import { BatchDecoder } from '../../src/page/decode.ts';
import { EpochOrder } from '../../src/session/epoch.ts';
import type { NaiveTarget } from '../naive/batch.ts';
import { guestOf, KeepingEnds, type PageWrite, type SentBatch } from '../native/keeping.ts';
import { createPrng, exactRandomBytes, integerBelow } from '../support/prng.ts';

/*
 * A guest that writes to its memory, batches of what it wrote, and a network that delivers them in
 * any order that docs/protocol.md, section 5, allows:
 *
 *   1. write     some pages, in one of several ways; a round is an epoch
 *   2. encode    as many batches at once as there are threads
 *   3. arrive    any of those that were sent; held until its epoch may be delivered
 *   4. decode    as they are delivered, all at once
 *   5. ack       any of those that arrived, at once or much later
 */

const PAGE_BITS = 10;
const PAGE_BYTES = 1 << PAGE_BITS;

/** What the simulated ends do; each may be broken. */
export interface Conduct {
  /** The base of a batch, from the lowest number that was not acknowledged. */
  readonly baseOf: (acked: number, number: number) => number;
  /** When a batch counts as acknowledged. */
  readonly acksWhen: 'arrived' | 'sent';
  /** Whether a batch is decoded after all below its base, or in whatever order comes. */
  readonly honoursBase: boolean;
}

export const SOUND: Conduct = {
  baseOf: (acked) => acked,
  acksWhen: 'arrived',
  honoursBase: true,
};

/** What a simulation has seen, so that a test can tell that it tried what it should. */
export interface Seen {
  batches: number;
  same: number;
  delta: number;
  prefixes: number;
  kept: number;
  /** Batches that arrived before one with a lower number. */
  overtaking: number;
}

interface Sent extends SentBatch {
  readonly epoch: number;
}

/** @throws {Error} If the destination's memory is not what the source's is. */
export async function simulateKeeping(seed: number, conduct: Conduct = SOUND): Promise<Seen> {
  const world = new KeepingWorld(seed, conduct);
  await world.run();
  return world.seen;
}

class KeepingWorld {
  readonly seen: Seen = { batches: 0, same: 0, delta: 0, prefixes: 0, kept: 0, overtaking: 0 };
  readonly #random: () => number;
  readonly #conduct: Conduct;
  readonly #guest: NaiveTarget;
  readonly #threads: number;
  readonly #memory: Uint8Array[];
  readonly #arrivedMemory: Uint8Array[];
  readonly #ends: KeepingEnds;
  readonly #decoder: BatchDecoder;
  readonly #order = new EpochOrder<Sent>();
  readonly #acked = new SequenceSet();
  readonly #ackDelay: number;
  #number = 0;
  #epoch = 0;
  #sent: Sent[] = [];
  #unacked: Sent[] = [];
  #decoding: Promise<Uint8Array>[] = [];
  #delivered: Sent[] = [];

  constructor(seed: number, conduct: Conduct) {
    this.#random = createPrng(seed);
    this.#conduct = conduct;
    const pages = 40 + this.#below(100);
    const slots = 1 + this.#below(this.#chance(0.7) ? pages : 12);
    this.#guest = guestOf(PAGE_BITS, pages);
    this.#threads = 1 + this.#below(4);
    this.#ackDelay = [0.9, 0.5, 0.1][this.#below(3)]!;
    const common = this.#noise();
    this.#memory = Array.from({ length: pages }, () => this.#firstContent(common));
    this.#arrivedMemory = Array.from({ length: pages }, () => new Uint8Array(PAGE_BYTES));
    this.#ends = new KeepingEnds(this.#guest, slots);
    // The destination may have more room than the source makes use of.
    this.#decoder = new BatchDecoder(this.#guest, slots + this.#below(3));
  }

  async run(): Promise<void> {
    native.setThreads(this.#threads);
    const rounds = 4 + this.#below(7);
    for (let round = 0; round < rounds; round++) {
      const dirty = round === 0 ? this.#memory.map((_, page) => page) : this.#rewrite();
      await this.#sendRound(dirty);
      if (this.#chance(0.3)) await this.#settleSome();
    }
    while (this.#sent.length > 0) this.#arrive();
    await this.#write();
    for (const [page, bytes] of this.#memory.entries()) {
      if (Buffer.compare(bytes, this.#arrivedMemory[page]!) !== 0) {
        throw new Error(`page ${page} differs`);
      }
    }
  }

  /** Sends the pages as batches of one epoch, with arrivals and acks between them. */
  async #sendRound(dirty: number[]): Promise<void> {
    this.#epoch = this.#number;
    const batchPages = 1 + this.#below(24);
    for (let at = 0; at < dirty.length; ) {
      const works: (() => Promise<Sent>)[] = [];
      while (works.length < this.#threads && at < dirty.length) {
        works.push(this.#prepare(dirty.slice(at, at + batchPages)));
        at += batchPages;
        if (this.#chance(0.3)) this.#ack();
      }
      // Threads come to them in any order.
      const first = this.#below(works.length);
      const order = this.#chance(0.5) ? works : works.toReversed();
      const started = [...order.slice(first), ...order.slice(0, first)].map((work) => work());
      const batches = await Promise.all(started);
      batches.sort((one, other) => one.number - other.number);
      for (const batch of batches) {
        this.#sent.push(batch);
        if (this.#conduct.acksWhen === 'sent') this.#acked.add(batch.number);
      }
      await this.#settleSome();
    }
  }

  /** Gives a batch its place; what it holds is as it is now. */
  #prepare(pages: readonly number[]): () => Promise<Sent> {
    const writes = pages.map((page): PageWrite => [page, this.#memory[page]!]);
    const epoch = this.#epoch;
    const number = this.#number++;
    const base = this.#conduct.baseOf(this.#acked.base, number);
    const [codec, level] = CODECS[this.#below(CODECS.length)]!;
    const flags =
      (this.#chance(0.9) ? OrderFlag.Keeps : 0) | (this.#chance(0.5) ? OrderFlag.FindsSimilar : 0);
    return async () => {
      const sent = await this.#ends.send(writes, { number, base, codec, level, flags });
      this.#note(sent);
      return { ...sent, epoch };
    };
  }

  #note({ encoded, parsed }: SentBatch): void {
    const { seen } = this;
    seen.batches++;
    seen.same += encoded[Encoded.samePages]!;
    seen.delta += encoded[Encoded.deltaPages]!;
    seen.prefixes += parsed.entries.filter(({ kind }) => kind === 3).length;
    seen.kept += parsed.entries.filter(({ flags }) => (flags & 2) !== 0).length;
  }

  /** Lets some batches arrive and some be acknowledged; sometimes waits for those in work. */
  async #settleSome(): Promise<void> {
    for (let left = this.#below(8); left > 0; left--) {
      if (this.#chance(0.6)) this.#arrive();
      else if (this.#chance(this.#ackDelay)) this.#ack();
    }
    if (this.#chance(0.1)) await this.#write();
  }

  /** Any of those under way, mostly one of the first. */
  #arrive(): void {
    if (this.#sent.length === 0) return;
    const reach = this.#chance(0.5) ? 3 : this.#sent.length;
    const at = this.#below(Math.min(reach, this.#sent.length));
    const [batch] = this.#sent.splice(at, 1);
    if (this.#sent.some(({ number }) => number < batch!.number)) this.seen.overtaking++;
    const place = { sequence: batch!.number, epoch: batch!.epoch };
    this.#order.add(batch!, place, (each) => this.#deliver(each));
    if (this.#conduct.acksWhen === 'sent') return;
    if (this.#chance(this.#ackDelay)) this.#acked.add(batch!.number);
    else this.#unacked.push(batch!);
  }

  #ack(): void {
    if (this.#unacked.length === 0) return;
    const [batch] = this.#unacked.splice(this.#below(this.#unacked.length), 1);
    this.#acked.add(batch!.number);
  }

  #deliver(batch: Sent): void {
    this.#delivered.push(batch);
    if (this.#conduct.honoursBase) {
      const decoding = this.#decode(batch);
      // Whoever waits for it is told; nobody may be waiting yet.
      decoding.catch(() => {});
      this.#decoding.push(decoding);
    }
  }

  async #decode({ batch, number }: Sent): Promise<Uint8Array> {
    const { output, decoded } = await this.#decoder.decode(batch, number);
    const records = output.slice(decoded[Decoded.start]!, decoded[Decoded.end]!);
    this.#decoder.give(output);
    return records;
  }

  /** Waits for what is decoded, and writes it to memory in the order of delivery. */
  async #write(): Promise<void> {
    const delivered = this.#delivered;
    const records = this.#conduct.honoursBase
      ? await Promise.all(this.#decoding)
      : await this.#decodeInAnyOrder(delivered);
    this.#delivered = [];
    this.#decoding = [];
    for (const [index, { stream, number }] of delivered.entries()) {
      if (Buffer.compare(records[index]!, stream) !== 0) throw new Error(`batch ${number} differs`);
      this.#apply(records[index]!);
    }
  }

  /** What a destination does that does not look at bases. */
  async #decodeInAnyOrder(delivered: readonly Sent[]): Promise<Uint8Array[]> {
    const records: Uint8Array[] = [];
    const indexes = delivered.map((_, index) => index);
    while (indexes.length > 0) {
      const [index] = indexes.splice(this.#below(indexes.length), 1);
      const { batch } = delivered[index!]!;
      const decoded = new Int32Array(Decoded.count);
      native.inspectBatch(this.#ends.table, batch, decoded);
      const output = new Uint8Array(decoded[Decoded.outputBytes]!);
      await native.decodeBatch(this.#ends.table, batch, output, decoded);
      records[index!] = output.slice(decoded[Decoded.start]!, decoded[Decoded.end]!);
    }
    return records;
  }

  /** Loads one RAM section as QEMU does. */
  #apply(records: Uint8Array): void {
    const view = new DataView(records.buffer, records.byteOffset, records.length);
    for (let at = 5; ; ) {
      const head = view.getBigUint64(at);
      at += 8;
      if ((head & 0x10n) !== 0n) return;
      if ((head & 0x20n) === 0n) at += 1 + records[at]!;
      const page = Number(head >> BigInt(PAGE_BITS));
      const isZero = (head & 0x2n) !== 0n;
      const target = this.#arrivedMemory[page]!;
      if (isZero) target.fill(0);
      else target.set(records.subarray(at, at + PAGE_BYTES));
      at += isZero ? 1 : PAGE_BYTES;
    }
  }

  /** The guest writes to some of its pages; returns which, in some order. */
  #rewrite(): number[] {
    const dirty = new Set<number>();
    const before = this.#memory.slice();
    const hot = this.#below(this.#memory.length);
    for (let left = 1 + this.#below(this.#memory.length); left > 0; left--) {
      const page = this.#chance(0.5)
        ? (hot + this.#below(8)) % this.#memory.length
        : this.#below(this.#memory.length);
      this.#memory[page] = this.#rewritten(this.#memory[page]!, before);
      dirty.add(page);
    }
    const pages = [...dirty].sort((one, other) => one - other);
    return this.#chance(0.5) ? pages : pages.toReversed();
  }

  #rewritten(page: Uint8Array, before: readonly Uint8Array[]): Uint8Array {
    const copy = page.slice();
    switch (this.#below(9)) {
      case 0:
        return this.#noise();
      case 1:
        return new Uint8Array(PAGE_BYTES);
      case 2:
        return new Uint8Array(PAGE_BYTES).fill(1 + this.#below(3));
      case 3:
      case 8:
        return before[this.#below(before.length)]!;
      case 4:
        copy.copyWithin(1 + this.#below(200), 0);
        return copy;
      case 5:
        return page;
      default:
        copy.set(exactRandomBytes(this.#random, 1 + this.#below(60)), this.#below(900));
        return copy;
    }
  }

  #firstContent(common: Uint8Array): Uint8Array {
    if (this.#chance(0.2)) return new Uint8Array(PAGE_BYTES);
    if (this.#chance(0.4)) return this.#noise();
    const copy = common.slice();
    copy.set(exactRandomBytes(this.#random, 200), this.#below(800));
    return copy;
  }

  #noise(): Uint8Array {
    return exactRandomBytes(this.#random, PAGE_BYTES);
  }

  #below(end: number): number {
    return integerBelow(this.#random, end);
  }

  #chance(share: number): boolean {
    return this.#random() < share;
  }
}

const CODECS: readonly (readonly [Codec, number])[] = [
  [Codec.None, 0],
  [Codec.Lz4, 1],
  [Codec.Zstd, 1],
  [Codec.Zstd, -1],
];

import { randomBytes } from 'node:crypto';
import { DirtyBitmap } from '../../src/page/bitmap.ts';
import type { CodecName } from '../../src/page/codec-choice.ts';
import { GuestMemory } from '../../src/page/memory.ts';
import { ExtentSeal } from '../../src/staging/extent.ts';
import { Gather, type GatherOptions } from '../../src/staging/gather.ts';
import { Intermediary, type IntermediaryOptions } from '../../src/staging/intermediary.ts';
import type { ManifestEntry } from '../../src/staging/manifest.ts';
import { applyTo, extentEncoder, scatterAll } from '../../src/staging/pages.ts';
import { Scatter, type ScatterOptions } from '../../src/staging/scatter.ts';
import { createPrng, integerBelow } from '../support/prng.ts';
import type { RedisServer } from '../support/redis.ts';

export const PAGE_BYTES = 4096;

/** Guest memory of one block, with every page there. */
export class StagedGuest implements Disposable {
  readonly memory: GuestMemory;
  readonly pages: number;
  readonly bitmap: DirtyBitmap;

  constructor(pages: number, seed?: number) {
    const buffer = new Uint8Array(new ArrayBuffer(pages * PAGE_BYTES));
    this.memory = new GuestMemory([{ name: 'ram', buffer }], { isWritable: true });
    this.pages = pages;
    this.bitmap = new DirtyBitmap(pages);
    this.bitmap.setAll();
    if (seed !== undefined) fillMemory(buffer, createPrng(seed));
  }

  get bytes(): Uint8Array {
    return this.memory.view(0);
  }

  [Symbol.dispose](): void {
    this.memory[Symbol.dispose]();
  }
}

/** Pages of each kind: zeros, a repeated word, text, noise. */
function fillMemory(bytes: Uint8Array, random: () => number): void {
  for (let at = 0; at < bytes.length; at += PAGE_BYTES) {
    const page = bytes.subarray(at, at + PAGE_BYTES);
    const kind = integerBelow(random, 5);
    if (kind === 1) page.fill(integerBelow(random, 256));
    else if (kind === 2)
      for (let i = 0; i < PAGE_BYTES; i++) page[i] = 97 + ((i * (at >>> 12)) % 17);
    else if (kind > 2) {
      const words = new Uint32Array(page.buffer, page.byteOffset, PAGE_BYTES / 4);
      for (let i = 0; i < words.length; i++) words[i] = random() * 2 ** 32;
    }
  }
}

/** A seal of a new attempt. */
export function newSeal(): ExtentSeal {
  const attempt = randomBytes(16).toString('hex');
  return new ExtentSeal(randomBytes(32), { vm: 'guest', attempt });
}

export async function openAll(
  servers: readonly RedisServer[],
  options: IntermediaryOptions = {},
): Promise<Intermediary[]> {
  return await Promise.all(servers.map(({ address }) => Intermediary.open(address, options)));
}

export interface Scattered {
  readonly seal: ExtentSeal;
  readonly entries: readonly ManifestEntry[];
  readonly scatter: Scatter;
}

export interface ScatterWay extends Partial<ScatterOptions> {
  readonly codec?: CodecName;
  /** Called behind each entry. */
  readonly afterEntry?: (entries: readonly ManifestEntry[]) => void;
}

/** Scatters a guest, and again what was lost, until all of it is there. */
export async function scatterGuest(
  guest: StagedGuest,
  intermediaries: readonly Intermediary[],
  { codec = 'none', afterEntry, ...way }: ScatterWay = {},
): Promise<Scattered> {
  const seal = way.seal ?? newSeal();
  const entries: ManifestEntry[] = [];
  const onEntry = (entry: ManifestEntry): void => {
    entries.push(entry);
    afterEntry?.(entries);
  };
  const { layout } = guest.memory;
  const needed = guest.pages * PAGE_BYTES;
  const scatter = await Scatter.open({ layout, seal, intermediaries, onEntry, ...way }, needed);
  const encoder = extentEncoder(PAGE_BYTES, { codec, threads: 2 });
  const blocks = [{ memory: guest.memory, block: 0, pages: guest.bitmap }];
  await scatterAll(blocks, encoder, { scatter, threads: 2 });
  await scatter[Symbol.asyncDispose]();
  return { seal, entries, scatter };
}

/** A gather that writes to `guest` and was told everything. */
export async function startGather(
  guest: StagedGuest,
  { seal, entries }: Pick<Scattered, 'seal' | 'entries'>,
  intermediaries: readonly (Intermediary | undefined)[],
  options: Partial<GatherOptions> = {},
): Promise<Gather> {
  const gather = new Gather({
    layout: guest.memory.layout,
    seal,
    intermediaries,
    apply: await applyTo(guest.memory),
    ...options,
  });
  for (const entry of entries) gather.accept(entry);
  gather.complete();
  return gather;
}

import { closeSync } from 'node:fs';
import {
  connect,
  createMemoryFile,
  GuestMemory,
  type GuestResult,
  type IncomingGuest,
  listen,
  type MigrationSession,
  type MoveOptions,
  type ReceiveOptions,
} from '../../src/index.ts';
import { createPrng, integerBelow } from '../support/prng.ts';

const SECURITY = { kind: 'none' } as const;
export const PAGE_BYTES = 4096;

/** Two sessions of one process, joined over loopback. */
export interface GuestEnds extends AsyncDisposable {
  readonly source: MigrationSession;
  readonly destination: MigrationSession;
}

export async function openGuestEnds({ pathCount = 2 } = {}): Promise<GuestEnds> {
  const listener = await listen({ host: '127.0.0.1', port: 0, security: SECURITY, threads: 2 });
  const path = { host: '127.0.0.1', port: listener.port };
  const paths = Array.from({ length: pathCount }, () => path);
  const accepted = listener.accept();
  const source = await connect({ paths, security: SECURITY, threads: 2 });
  const destination = await accepted;
  return {
    source,
    destination,
    [Symbol.asyncDispose]: async () => {
      await Promise.all([source.close(), destination.close()]);
      await listener.close();
    },
  };
}

/** Guest memory of so many pages a block, in files that have no path. */
export function openMemory(blockPages: readonly number[]): GuestMemory {
  const files = blockPages.map((pages, block) =>
    createMemoryFile(`block-${block}`, pages * PAGE_BYTES),
  );
  const blocks = files.map((file, block) => ({ name: `block-${block}`, file }));
  const memory = new GuestMemory(blocks, { isWritable: true });
  for (const file of files) closeSync(file);
  return memory;
}

/** A guest that writes to its memory and notes where, as a hypervisor's log does. */
export class SmallGuest {
  readonly memory: GuestMemory;
  readonly #below: (end: number) => number;
  readonly #dirty: Uint32Array[];
  readonly #views: Uint8Array[];
  isRunning = true;
  isDiscarded = false;

  constructor(memory: GuestMemory, seed: number) {
    this.memory = memory;
    const random = createPrng(seed);
    this.#below = (end) => integerBelow(random, end);
    this.#views = memory.layout.blocks.map((_, block) => memory.view(block));
    this.#dirty = this.#views.map(
      (view) => new Uint32Array(2 * Math.ceil(view.length / PAGE_BYTES / 64)),
    );
  }

  /** Writes so many pages anywhere: random bytes, words, text, or zeros. */
  write(pages: number): void {
    if (!this.isRunning) throw new Error('A guest that is paused writes');
    for (let index = 0; index < pages; index++) this.#writePage();
  }

  #writePage(): void {
    const block = this.#below(this.#views.length);
    const view = this.#views[block]!;
    const page = this.#below(view.length / PAGE_BYTES);
    const bytes = view.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
    const kind = this.#below(5);
    if (kind === 0) bytes.fill(0);
    else if (kind === 1) bytes.fill(this.#below(256));
    else if (kind === 2) for (let at = 0; at < bytes.length; at++) bytes[at] = this.#below(256);
    else if (kind === 3) bytes[this.#below(bytes.length)] = this.#below(256);
    else for (let at = 0; at < bytes.length; at++) bytes[at] = 97 + (((at * at) >> 4) % 20);
    this.#dirty[block]![page >>> 5]! |= 1 << (page & 31);
  }

  /** Gives what was written, and forgets it. */
  takeDirty(block: number, words: Uint32Array): void {
    words.set(this.#dirty[block]!);
    this.#dirty[block]!.fill(0);
  }

  /** The log of what was written, as KVM gives it. */
  readonly dirtyLog = {
    name: 'own',
    start: (): void => {
      for (const words of this.#dirty) words.fill(0);
    },
    stop: (): void => {},
    collect: (bitmaps: readonly Uint32Array[]): void => {
      for (const [block, words] of this.#dirty.entries()) {
        for (let index = 0; index < words.length; index++) bitmaps[block]![index]! |= words[index]!;
        words.fill(0);
      }
    },
  };
}

export function isEqual(a: GuestMemory, b: GuestMemory): boolean {
  return a.layout.blocks.every((_, block) => Buffer.compare(a.view(block), b.view(block)) === 0);
}

/** Both ends of a move. */
export async function move(
  ends: GuestEnds,
  moving: MoveOptions,
  receiving: ReceiveOptions,
): Promise<{ source: GuestResult; destination: GuestResult }> {
  const [source, destination] = await Promise.all([
    ends.source.migrateGuest(moving),
    ends.destination
      .acceptGuest()
      .then((incoming) => (incoming as IncomingGuest).receive(receiving)),
  ]);
  return { source, destination };
}

import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { codeOf, messageOf, PagelaneError } from '../errors.ts';
import type { RamLayout } from './block.ts';

/*
 * Memory of guests that have left this host, or that was copied ahead of their coming
 *
 *   1. keep   the files of a guest's RAM blocks move here, the oldest guests make room   keep
 *   2. take   they become the memory of the same guest of the same owner, when it comes  take
 *
 * What they hold is a guess: the source compares it with hashes before it relies on any of it.
 */

/** Whose guest it is. Nothing is ever taken for another owner, or for another name. */
export interface KeptKey {
  readonly owner: string;
  readonly name: string;
}

interface KeptGuest {
  readonly folder: string;
  readonly bytes: number;
  readonly keptAtMs: number;
}

const LAYOUT_FILE = 'layout.json';

/** Files of guest memory in a folder, best on /dev/shm, up to so many bytes. */
export class KeptMemory {
  readonly #folder: string;
  readonly #bytesMax: number;

  /**
   * @param folder Of this process alone; it is made if it is not there, for its user only.
   * @param options.bytesMax Most bytes of memory that are kept, as they take up room.
   */
  constructor(folder: string, { bytesMax }: { readonly bytesMax: number }) {
    this.#folder = folder;
    this.#bytesMax = bytesMax;
  }

  /**
   * Takes over the files of a guest's RAM blocks, in the order of its layout. Nobody may have them
   * open for writing any more. Guests that were kept earlier make room.
   *
   * @param paths On the folder's file system.
   * @returns False if they are more than may be kept: then they are removed.
   * @throws {PagelaneError} ERR_KEPT_MEMORY If they cannot be moved.
   */
  async keep(key: KeptKey, layout: RamLayout, paths: readonly string[]): Promise<boolean> {
    return await this.#attempt('keep memory', async () => {
      const folder = this.#folderOf(key);
      await rm(folder, { recursive: true, force: true });
      const bytes = (await Promise.all(paths.map(bytesOf))).reduce((sum, each) => sum + each, 0);
      if (bytes > this.#bytesMax) {
        await Promise.all(paths.map((path) => rm(path, { force: true })));
        return false;
      }
      await this.#makeRoom(bytes);
      await mkdir(folder, { recursive: true, mode: 0o700 });
      for (const [block, path] of paths.entries()) await rename(path, join(folder, `${block}`));
      // Written last: without it nothing counts as kept.
      await writeFile(join(folder, LAYOUT_FILE), JSON.stringify(layout.blocks), { mode: 0o600 });
      return true;
    });
  }

  /**
   * Gives a guest's files back, if they are kept and its RAM blocks are still the same.
   *
   * @param paths Where they are to be; nothing may be there.
   * @returns Whether they are there now: pass it on as `holdsEarlier`.
   * @throws {PagelaneError} ERR_KEPT_MEMORY If they cannot be moved.
   */
  async take(key: KeptKey, layout: RamLayout, paths: readonly string[]): Promise<boolean> {
    return await this.#attempt('take memory', async () => {
      const folder = this.#folderOf(key);
      const kept = await readFile(join(folder, LAYOUT_FILE), 'utf8').catch(() => undefined);
      const isSame = kept === JSON.stringify(layout.blocks);
      if (isSame) {
        await rm(join(folder, LAYOUT_FILE));
        for (const [block, path] of paths.entries()) await rename(join(folder, `${block}`), path);
      }
      await rm(folder, { recursive: true, force: true });
      return isSame;
    });
  }

  /** Removes what is kept of a guest. */
  async drop(key: KeptKey): Promise<void> {
    await this.#attempt('drop memory', () =>
      rm(this.#folderOf(key), { recursive: true, force: true }),
    );
  }

  /** Bytes that are kept, as they take up room. */
  async bytes(): Promise<number> {
    return (await this.#list()).reduce((sum, guest) => sum + guest.bytes, 0);
  }

  async #makeRoom(bytes: number): Promise<void> {
    const guests = (await this.#list()).sort((a, b) => a.keptAtMs - b.keptAtMs);
    let kept = guests.reduce((sum, guest) => sum + guest.bytes, 0);
    for (const guest of guests) {
      if (kept + bytes <= this.#bytesMax) return;
      await rm(guest.folder, { recursive: true, force: true });
      kept -= guest.bytes;
    }
  }

  async #list(): Promise<KeptGuest[]> {
    const names = await readdir(this.#folder).catch(() => []);
    return await Promise.all(
      names.map(async (name) => {
        const folder = join(this.#folder, name);
        const files = await readdir(folder).catch(() => []);
        const sizes = await Promise.all(files.map((file) => bytesOf(join(folder, file))));
        const bytes = sizes.reduce((sum, each) => sum + each, 0);
        return { folder, bytes, keptAtMs: (await stat(folder)).mtimeMs };
      }),
    );
  }

  /** Names of owners and guests may be any text: they are not made part of a path. */
  #folderOf({ owner, name }: KeptKey): string {
    const hash = createHash('sha256')
      .update(JSON.stringify([owner, name]))
      .digest('hex');
    return join(this.#folder, hash.slice(0, 32));
  }

  async #attempt<Value>(task: string, work: () => Promise<Value>): Promise<Value> {
    try {
      return await work();
    } catch (cause) {
      const hint = codeOf(cause) === 'EXDEV' ? ' (it must be on one file system)' : '';
      const text = `Cannot ${task}: ${messageOf(cause)}${hint}`;
      throw new PagelaneError('ERR_KEPT_MEMORY', text, { cause });
    }
  }
}

/** Bytes that a file takes up: of a sparse one less than its size. */
async function bytesOf(path: string): Promise<number> {
  return (await stat(path)).blocks * 512;
}

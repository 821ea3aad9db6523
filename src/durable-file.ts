import { constants } from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';

/**
 * Replaces a file, for this user alone to read. It is written under another name, synced, and
 * renamed, so that it is always whole: safe from a loss of power on return, and the old one or the
 * new one after a throw.
 *
 * @throws {Error} Of the file system.
 */
export async function writeDurably(path: string, text: string): Promise<void> {
  const next = `${path}.new`;
  await rm(next, { force: true });
  await writeNew(next, text);
  await rename(next, path);
  await syncDirectory(dirname(path));
}

/**
 * Makes a file, for this user alone to read. It is safe from a loss of power on return; after a
 * throw it is not there, or what was there before is as it was.
 *
 * @throws {Error} EEXIST If there is one already; others of the file system.
 */
export async function createDurably(path: string, text: string): Promise<void> {
  await writeNew(path, text);
  try {
    await syncDirectory(dirname(path));
  } catch (cause) {
    await rm(path, { force: true });
    throw cause;
  }
}

/**
 * Reads a file that is no longer than `bytesMax`.
 *
 * @throws {Error} Of the file system, or if it is no file, or longer.
 */
export async function readBounded(path: string, bytesMax: number): Promise<string> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stats = await file.stat();
    if (!stats.isFile()) throw new Error('it is no file');
    if (stats.size > bytesMax) throw new Error(`it has ${stats.size} bytes, more than ${bytesMax}`);
    return await file.readFile('utf8');
  } finally {
    await file.close();
  }
}

/** Writes a file that must not be there; it is not there after a throw either. */
async function writeNew(path: string, text: string): Promise<void> {
  const file = await open(path, 'wx', 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } catch (cause) {
    await rm(path, { force: true });
    throw cause;
  } finally {
    await file.close();
  }
}

/** Makes a new name survive a loss of power. */
async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

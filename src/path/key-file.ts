import { randomBytes } from 'node:crypto';
import { closeSync, fstatSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { messageOf, PagelaneError } from '../errors.ts';

/** Bytes of a shared key. */
export const KEY_BYTES = 32;

const KEY_PREFIX = 'pagelane-key-1 ';

/**
 * Writes a new random key to a file that only its owner may read.
 *
 * @throws {PagelaneError} ERR_KEY_FILE If the file exists or cannot be written.
 */
export function createKeyFile(path: string): void {
  try {
    const text = `${KEY_PREFIX}${randomBytes(KEY_BYTES).toString('base64')}\n`;
    writeFileSync(path, text, { flag: 'wx', mode: 0o600 });
  } catch (cause) {
    throw new PagelaneError('ERR_KEY_FILE', `Cannot write key file: ${messageOf(cause)}`, {
      cause,
    });
  }
}

/**
 * Reads a key that `createKeyFile` wrote.
 *
 * @throws {PagelaneError} ERR_KEY_FILE If it cannot be read, others may read it too, or it holds no
 *   key.
 */
export function readKeyFile(path: string): Uint8Array {
  const text = readOwn(path);
  const match = new RegExp(`^${KEY_PREFIX}([A-Za-z0-9+/]{43}=)\\s*$`).exec(text);
  if (match === null) {
    throw new PagelaneError(
      'ERR_KEY_FILE',
      `Cannot use "${path}": it holds no key; make one with "pagelane keygen ${path}"`,
    );
  }
  return new Uint8Array(Buffer.from(match[1]!, 'base64'));
}

function readOwn(path: string): string {
  let descriptor: number | undefined;
  try {
    descriptor = openSync(path, 'r');
    const { mode } = fstatSync(descriptor);
    if ((mode & 0o077) !== 0) {
      throw new Error(`others may read it (mode ${(mode & 0o777).toString(8)}); chmod 600 it`);
    }
    return readFileSync(descriptor, 'utf8').slice(0, 1024);
  } catch (cause) {
    throw new PagelaneError('ERR_KEY_FILE', `Cannot use key file "${path}": ${messageOf(cause)}`, {
      cause,
    });
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

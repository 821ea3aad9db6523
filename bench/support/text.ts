import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { repositoryRoot } from '../../test/support/lab/binaries.ts';

/* Chosen by us */
const FOLDERS = [join(repositoryRoot, 'node_modules'), '/usr/include', '/usr/share/perl'];
const NAMES = /\.(?:[cm]?[jt]s|json|md|h|hpp|pm|pl|txt)$/;
const FILE_BYTES_MAX: number = 4 * 1024 * 1024;

/**
 * Text of programs and documents that this machine has: at least `bytes` of it, or all there is.
 * Its length is odd, so that pages of it differ when it is repeated.
 */
export function collectText(bytes: number): Buffer {
  const parts: Buffer[] = [];
  let collected = 0;
  for (const file of textFiles()) {
    if (collected >= bytes) break;
    const part = readFileSync(file);
    parts.push(part);
    collected += part.length;
  }
  const text = Buffer.concat(parts);
  return text.subarray(0, text.length - ((text.length + 1) % 2));
}

function* textFiles(): Generator<string> {
  for (const folder of FOLDERS) yield* filesUnder(folder);
}

function* filesUnder(folder: string): Generator<string> {
  for (const entry of entriesOf(folder)) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* filesUnder(path);
    else if (entry.isFile() && NAMES.test(entry.name) && statSync(path).size <= FILE_BYTES_MAX) {
      yield path;
    }
  }
}

function entriesOf(folder: string) {
  try {
    const entries = readdirSync(folder, { withFileTypes: true });
    return entries.sort((one, other) => (one.name < other.name ? -1 : 1));
  } catch {
    return []; // not on this machine
  }
}

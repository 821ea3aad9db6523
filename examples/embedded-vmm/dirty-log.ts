import {
  callbackDirtyLog,
  type DirtyLog,
  hashDirtyLog,
  writeProtectDirtyLog,
} from '../../src/index.ts';
import type { Guest } from './guest.ts';

/** Who tells which pages the guest writes. */
export type DirtyLogKind = 'own' | 'write-protect' | 'hash';

/** @throws {SyntaxError} If it is none. */
export function parseDirtyLogKind(text: string): DirtyLogKind {
  if (text === 'own' || text === 'write-protect' || text === 'hash') return text;
  throw new SyntaxError(`Cannot log by "${text}": expected own, write-protect or hash`);
}

/** A log for one migration. */
export function openDirtyLog(kind: DirtyLogKind, { memory, dirty }: Guest): DirtyLog {
  switch (kind) {
    case 'own':
      // What was written before now is not asked for: the first round sends all there is.
      dirty.fill(0);
      return callbackDirtyLog((_, words) => takeBits(dirty, words));
    case 'write-protect':
      return writeProtectDirtyLog(memory);
    case 'hash':
      return hashDirtyLog(memory);
  }
}

/** The processor of the guest sets the bit of each page that it writes, as KVM does. */
function takeBits(dirty: Uint32Array, words: Uint32Array): void {
  for (let index = 0; index < dirty.length; index++) {
    words[index] = Atomics.exchange(dirty, index, 0);
  }
}

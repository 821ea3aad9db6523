import type { MoveOptions } from '../../src/index.ts';
import type { Guest } from './guest.ts';

/** Who tells which pages the guest writes. */
export type DirtyLogKind = 'own';

/** A log for one migration. */
export function openDirtyLog(kind: DirtyLogKind, guest: Guest): MoveOptions['dirtyLog'] {
  switch (kind) {
    case 'own':
      return ownDirtyLog(guest.dirty);
  }
}

/** The guest's processor sets the bit of each page that it writes, as KVM does. */
function ownDirtyLog(dirty: Uint32Array): MoveOptions['dirtyLog'] {
  return {
    name: 'own',
    start: () => void dirty.fill(0),
    collect: ([words]) => {
      for (let index = 0; index < dirty.length; index++) {
        words![index]! |= Atomics.exchange(dirty, index, 0);
      }
    },
    stop: () => {},
  };
}

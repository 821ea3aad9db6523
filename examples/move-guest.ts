/*
 * A hypervisor's own guest moves from one host to another: docs/embedding.md
 */
import { closeSync, ftruncateSync, openSync } from 'node:fs';
import {
  callbackDirtyLog,
  type FileJournal,
  type GuestHooks,
  GuestMemory,
  type GuestResult,
  type HandoverResult,
  IncomingQuestion,
  type MigrationSession,
  recoverGuest,
} from '../src/index.ts';

/** What a hypervisor can do with the one guest that it holds. */
export interface Hypervisor {
  readonly name: string;
  /** On a disk: it must outlive a crash of the host. */
  readonly journal: FileJournal;
  /** The file of a RAM block, on /dev/shm. */
  pathOf(block: number): string;
  run(): Promise<void>;
  isRunning(): Promise<boolean>;
  /** When it is done, nothing writes to memory any more. */
  pause(): Promise<void>;
  slowDown(percent: number): void;
  saveState(): Promise<Uint8Array>;
  loadState(state: Uint8Array): Promise<void>;
  /** Sets a bit for each page that was written since the last call, as KVM_GET_DIRTY_LOG does. */
  takeDirty(block: number, words: Uint32Array): void;
  /** Removes guest and memory. */
  remove(): Promise<void>;
  readonly memoryBytesMax: number;
}

/** Source: moves the guest to the host at the other end of the session. */
export async function send(vm: Hypervisor, session: MigrationSession): Promise<GuestResult> {
  using memory = new GuestMemory([{ name: 'ram', path: vm.pathOf(0) }]);
  return await session.migrateGuest({
    name: vm.name,
    source: memory,
    dirtyLog: callbackDirtyLog((block, words) => vm.takeDirty(block, words)),
    downtimeMs: 50,
    pause: () => vm.pause(),
    resume: () => vm.run(),
    deviceState: () => vm.saveState(),
    discard: () => vm.remove(),
    throttle: (percent) => vm.slowDown(percent),
    journal: vm.journal,
  });
}

/** Destination: takes one guest, or answers a source that asks for one it has sent. */
export async function receive(
  vm: Hypervisor,
  session: MigrationSession,
): Promise<GuestResult | HandoverResult | undefined> {
  const { journal } = vm;
  const incoming = await session.acceptGuest();
  if (incoming instanceof IncomingQuestion) {
    return await incoming.answer({ journal, hooks: hooksOf(vm) });
  }
  const { blocks } = incoming.layout;
  const bytes = blocks.reduce((sum, { usedBytes }) => sum + usedBytes, 0);
  if (bytes > vm.memoryBytesMax || incoming.isWarm) {
    incoming.refuse('ERR_VM_NO_ROOM', `No room for ${bytes} bytes of memory`);
    return undefined;
  }
  // By their numbers: names are the peer's, and no part of a path.
  for (const [block, { usedBytes }] of blocks.entries()) makeFile(vm.pathOf(block), usedBytes);
  const files = blocks.map(({ name }, block) => ({ name, path: vm.pathOf(block) }));
  using memory = new GuestMemory(files, { isWritable: true });
  return await incoming.receive({
    memory,
    journal,
    load: (state) => vm.loadState(state),
    start: () => vm.run(),
    discard: () => vm.remove(),
  });
}

/** Either host: first of all when its process begins, and after a guest was left "unknown". */
export async function recover(
  vm: Hypervisor,
  connectToDestination: () => Promise<MigrationSession>,
): Promise<HandoverResult | undefined> {
  const { journal } = vm;
  return await recoverGuest({ journal, hooks: hooksOf(vm), connect: connectToDestination });
}

function hooksOf(vm: Hypervisor): GuestHooks {
  return {
    resume: () => vm.run(),
    start: () => vm.run(),
    isRunning: () => vm.isRunning(),
    discard: () => vm.remove(),
  };
}

/** A file of zeros that takes up no room yet. */
function makeFile(path: string, bytes: number): void {
  const file = openSync(path, 'w', 0o600);
  ftruncateSync(file, bytes);
  closeSync(file);
}

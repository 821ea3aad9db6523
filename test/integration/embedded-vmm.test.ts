// Requires: /dev/shm.
import { mkdtempSync, rmSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { writeProtectDirtyLog } from '../../src/index.ts';
import { openMemory } from '../migration/guest-support.ts';
import { startProcess, waitUntil } from '../support/lab/processes.ts';
import { BuiltVmm, VmmHost } from '../support/vmm/host.ts';

const BOUND_MS = 20_000;
const COMMON = ['--memory', '16MiB', '--dirty-rate', '2000', '--path-timeout', '1s'];

let built: BuiltVmm;
let folder: string;

beforeAll(async () => {
  built = await BuiltVmm.build();
});
afterAll(() => built[Symbol.dispose]());
beforeEach(() => {
  folder = mkdtempSync('/dev/shm/pagelane-vmm-');
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function startOther(words: readonly string[] = COMMON): Promise<VmmHost> {
  const host = new VmmHost(built, { name: 'other', folder, words: [...words, '--incoming'] });
  await host.start();
  await host.listening();
  return host;
}

function hostThatMoves(to: VmmHost, words: readonly string[] = []): VmmHost {
  const moving = [...COMMON, ...words, '--migrate-to', to.address, '--after', '300ms'];
  return new VmmHost(built, { name: 'one', folder, words: moving, listens: false });
}

async function canProtect(): Promise<boolean> {
  using memory = openMemory([1]);
  const log = writeProtectDirtyLog(memory);
  try {
    await log.start();
    return true;
  } catch {
    return false;
  } finally {
    await log.stop();
  }
}

test.each(['own', 'write-protect', 'hash'])(
  '--migrate-to ends with 0 when the guest is gone, by the dirty log "%s"',
  async (kind) => {
    await using other = await startOther();
    const isSupported = kind !== 'write-protect' || (await canProtect());
    await using one = hostThatMoves(other, ['--dirty-log', kind]);
    await one.start();
    if (isSupported) {
      expect(await one.ended()).toBe(0);
      await other.hear(/^guest came, and runs$/m);
      expect(await other.check()).toBe('memory is right');
    } else {
      await one.hear(/^not migrated: ERR_DIRTY_LOG_UNSUPPORTED: .*; guest: source$/m);
      expect(await one.check()).toBe('memory is right');
    }
  },
);

test('a guest that is refused runs on, and its process ends with 1 in the end', async () => {
  await using other = await startOther([...COMMON, '--memory', '32MiB']);
  await using one = hostThatMoves(other);
  await one.start();
  await one.hear(/^not migrated: ERR_VMM_REFUSED: .*; guest: source$/m);
  expect(await one.status()).toEqual({ runs: true, isBusy: false });
  expect(await one.check()).toBe('memory is right');
  one.tell('quit');
  expect(await one.ended()).toBe(1);
});

test('a source that does not know whose the guest is starts nothing, and ends with 6', async () => {
  await using other = await startOther();
  await using one = hostThatMoves(other);
  other.trap('kill after journal activating');
  await one.start();
  expect(await other.ended()).toBe('SIGKILL');
  await waitUntil('the source to ask', async () => one.story().includes('Cannot ask'), {
    timeoutMs: BOUND_MS,
  });
  expect(await one.status()).toEqual({ runs: false, isBusy: true });
  one.tell('quit');
  expect(await one.ended()).toBe(6);

  // Both begin again: the destination was about to start it.
  await other.start();
  await other.listening();
  await one.start();
  expect(await one.ended()).toBe(0);
  expect(await other.status()).toEqual({ runs: true, isBusy: false });
  expect(await other.check()).toBe('memory is right');
});

test.each([
  [['stop']],
  [['run']],
  [['run', '--state-dir', '/dev/shm/none', '--dirty-log', 'kvm']],
  [['run', '--state-dir', '/dev/shm/none', '--memory', 'much']],
])('%j is no way to start it: it ends with 2', async (words) => {
  await using started = startProcess([process.execPath, built.program, ...words]);
  expect(await started.exit(BOUND_MS)).toBe(2);
  expect(started.stderr()).toContain('Usage: node');
});

// Requires: QEMU 9.0 or newer.
import { mkdtempSync, rmSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { BOUND_MS, Commands, ended, failureOf, resultOf } from '../support/command.ts';
import { type Guest, startGuest, type Workload } from '../support/lab/guest.ts';
import { beginTo, configure, listenAt, type MigrationSettings } from '../support/lab/migrate.ts';
import { type RunningProcess, waitUntil } from '../support/lab/processes.ts';

/* Chosen by us */
const BOOT_TIMEOUT_MS = 60_000;
const MEMORY_MIB = 128;
const PAGE_BYTES = 4096;
const GUEST_PAGES = (MEMORY_MIB * 1024 * 1024) / PAGE_BYTES;
const BLOCK = 'memory';

/** Kernel and programs lie above; so far below the end that much of memory still follows. */
const FLIPPED_FROM_PAGE = (24 * 1024 * 1024) / PAGE_BYTES;

/** Two QEMUs with their memory in files, the destination with -S, and pagelane between them. */
class Verified implements AsyncDisposable {
  readonly folder = mkdtempSync('/dev/shm/pagelane-verify-');
  readonly commands = new Commands();
  source!: Guest;
  destination!: Guest;
  sender!: RunningProcess;
  receiver!: RunningProcess;

  memoryFile(side: 'source' | 'destination'): string {
    return join(this.folder, side);
  }

  async start(workload: Workload): Promise<void> {
    const memory = (side: 'source' | 'destination') => ({
      memoryMiB: MEMORY_MIB,
      memoryFile: this.memoryFile(side),
      workload,
    });
    this.source = await startGuest(memory('source'));
    this.destination = await startGuest({
      ...memory('destination'),
      isIncoming: true,
      extraWords: ['-S'],
    });
    await this.source.waitFor(/READY/, BOOT_TIMEOUT_MS);
  }

  /** Lets QEMU begin; `words` are of `receive`. */
  async begin(words: readonly string[], settings: MigrationSettings = {}): Promise<void> {
    const { commands, source, destination } = this;
    await configure({ source, destination }, settings);
    await listenAt(destination, { uri: `unix:${commands.in}` });
    const output = ['--output', 'ndjson'];
    const { receiver, port } = await commands.receive([...output, '--verify', 'full', ...words]);
    this.receiver = receiver;
    this.sender = await commands.send(port, output);
    await beginTo(source, { uri: `unix:${commands.out}` });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.commands[Symbol.asyncDispose]();
    await this.source?.stop();
    await this.destination?.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

let lab: Verified;
let memoryWords: readonly string[];
beforeEach(() => {
  lab = new Verified();
  memoryWords = ['--memory', `${BLOCK}=${lab.memoryFile('destination')}`];
});
afterEach(async () => {
  await lab[Symbol.asyncDispose]();
});

const BUSY: Workload = { fill: 48, rate: 2000, content: 'mixed' };

test.each([true, false])(
  'memory of a running guest is as it was decoded, return path %s',
  async (hasReturnPath) => {
    await lab.start(BUSY);
    await lab.begin(memoryWords, { capabilities: { 'return-path': hasReturnPath } });
    const sent = await ended(lab.sender);
    const received = await ended(lab.receiver);
    expect([sent.code, received.code], received.stderr).toEqual([0, 0]);
    const { verified, guest } = resultOf(received.stdout);
    expect(guest).toBe('destination');
    // What lies outside of the file: firmware, tables, video memory.
    expect(verified).toMatchObject({ pages: GUEST_PAGES, differing: 0 });
    expect(verified!.unverified).toBeGreaterThan(0);
    await lab.destination.qmp.execute('cont');
    await lab.destination.waitForCounter(lab.source.counter() + 2, BOUND_MS);
    await lab.destination.verifyMemory();
  },
  120_000,
);

test.each([true, false])(
  'a flipped bit is found, and the guest stays at the source, return path %s',
  async (hasReturnPath) => {
    await lab.start({ ...BUSY, content: 'random' });
    const counter = lab.source.counter();
    await lab.source.qmp.execute('stop');
    await lab.begin(memoryWords, {
      capabilities: { 'return-path': hasReturnPath },
      parameters: { 'max-bandwidth': 16 * 1024 * 1024 },
    });
    const page = await flipLoadedPage(lab.memoryFile('destination'));
    for (const [side, process] of [
      ['source', lab.sender],
      ['destination', lab.receiver],
    ] as const) {
      const { code, stdout, stderr } = await ended(process);
      expect(code, stderr).toBe(1);
      const failure = failureOf(stderr);
      expect(failure).toMatchObject({ code: 'ERR_VERIFY', side, phase: 'switchover' });
      expect(failure.message).toMatch(/^(Destination: )?1 of \d+ pages .* differ/);
      expect(failure.message).toContain(`first page ${page} of block "${BLOCK}"`);
      expect(failure.guest).toMatch(/^at the source/);
      expect(failure.advice).toMatch(/throw away the destination guest/);
      expect(resultOf(stdout).guest).toBe('source');
    }
    const result = resultOf(lab.receiver.stdout());
    expect(result.verified).toMatchObject({ pages: GUEST_PAGES, differing: 1 });
    const ends = hasReturnPath ? (['failed'] as const) : (['completed'] as const);
    await lab.source.qmp.waitForMigration(ends, { timeoutMs: BOUND_MS });
    const { running } = await lab.destination.qmp.execute<{ running: boolean }>('query-status');
    expect(running).toBe(false);
    await lab.source.qmp.execute('cont');
    await lab.source.waitForCounter(counter + 2, BOUND_MS);
    await lab.source.verifyMemory();
  },
  120_000,
);

test('a file that cannot be verified ends it before the first page', async () => {
  await lab.start(BUSY);
  await lab.begin(['--memory', `pc.ram=${lab.memoryFile('destination')}`]);
  for (const process of [lab.sender, lab.receiver]) {
    const { code, stderr } = await ended(process);
    expect(code).toBe(1);
    const failure = failureOf(stderr);
    expect(failure.code).toBe('ERR_VERIFY_MEMORY');
    expect(failure.message).toContain('QEMU has no RAM block "pc.ram"; it has "memory", ');
  }
  await lab.source.qmp.waitForMigration(['failed'], { timeoutMs: BOUND_MS });
  await lab.source.waitForCounter(lab.source.counter() + 2, BOUND_MS);
}, 120_000);

/** Flips a bit of a page that QEMU has loaded, while others are still to come. */
async function flipLoadedPage(path: string): Promise<number> {
  await using file = await open(path, 'r+');
  const at = await waitUntil('pages to be loaded', () => firstLoaded(file), {
    timeoutMs: BOUND_MS,
  });
  const byte = new Uint8Array(1);
  await file.read(byte, 0, 1, at);
  byte[0]! ^= 1;
  await file.write(byte, 0, 1, at);
  return Math.floor(at / PAGE_BYTES);
}

/** Where a page lies that is not zero, behind which others have been loaded; its last byte. */
async function firstLoaded(file: FileHandle): Promise<number | undefined> {
  const bytes = new Uint8Array(1024 * PAGE_BYTES);
  await file.read(bytes, 0, bytes.length, FLIPPED_FROM_PAGE * PAGE_BYTES);
  const loaded = [...Array(1024).keys()].filter((page) =>
    bytes.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES).some((byte) => byte !== 0),
  );
  if (loaded.length < 2) return undefined;
  return (FLIPPED_FROM_PAGE + loaded[0]! + 1) * PAGE_BYTES - 1;
}

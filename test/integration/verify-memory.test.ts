// Requires: QEMU 9.0 or newer.
import { mkdtempSync, rmSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { BOUND_MS, Commands, ended, failureOf, resultOf } from '../support/command.ts';
import { type Guest, type GuestOptions, startGuest, type Workload } from '../support/lab/guest.ts';
import { beginTo, configure, listenAt } from '../support/lab/migrate.ts';
import { type RunningProcess, waitUntil } from '../support/lab/processes.ts';

/* Chosen by us */
const BOOT_TIMEOUT_MS = 60_000;
const MEMORY_MIB = 128;
const PAGE_BYTES = 4096;
const GUEST_PAGES = (MEMORY_MIB * 1024 * 1024) / PAGE_BYTES;

/** Kernel and programs lie above; so far below the end that much of memory still follows. */
const FLIPPED_FROM_PAGE = (24 * 1024 * 1024) / PAGE_BYTES;

const WORKLOAD: Workload = { fill: 32, rate: 1000, content: 'random' };

/** One guest for all: it is moved twice in vain, and then for good. */
let folder: string;
let source: Guest;
beforeAll(async () => {
  folder = mkdtempSync('/dev/shm/pagelane-verify-');
  source = await start('source');
  await source.waitFor(/READY/, BOOT_TIMEOUT_MS);
}, BOOT_TIMEOUT_MS);
afterAll(async () => {
  await source?.stop();
  rmSync(folder, { recursive: true, force: true });
});

function start(name: string, options: GuestOptions = {}): Promise<Guest> {
  const memoryFile = join(folder, name);
  return startGuest({ memoryMiB: MEMORY_MIB, memoryFile, workload: WORKLOAD, ...options });
}

/** A destination with -S, its memory in a file of its own, and pagelane before it. */
class Attempt implements AsyncDisposable {
  readonly commands = new Commands();
  readonly memoryFile: string;
  readonly #name: string;
  destination!: Guest;
  sender!: RunningProcess;
  receiver!: RunningProcess;

  constructor(name: string) {
    this.#name = name;
    this.memoryFile = join(folder, name);
  }

  /** Lets QEMU begin. */
  async begin({ block = 'memory', parameters = {} } = {}): Promise<void> {
    const { commands } = this;
    this.destination = await start(this.#name, { isIncoming: true, extraWords: ['-S'] });
    await configure({ source, destination: this.destination }, { parameters });
    await listenAt(this.destination, { uri: `unix:${commands.in}` });
    const output = ['--output', 'ndjson'];
    const memory = ['--verify', 'full', '--memory', `${block}=${this.memoryFile}`];
    const { receiver, port } = await commands.receive([...output, ...memory]);
    this.receiver = receiver;
    this.sender = await commands.send(port, output);
    await beginTo(source, { uri: `unix:${commands.out}` });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.commands[Symbol.asyncDispose]();
    await this.destination?.stop();
  }
}

/** Waits until the source QEMU knows that it failed. */
async function untilFailed(since: number): Promise<void> {
  await source.qmp.waitForMigration(['failed'], { since, timeoutMs: BOUND_MS });
}

test('a block that QEMU does not have ends it before the first page', async () => {
  await using attempt = new Attempt('unknown');
  const since = source.qmp.events.length;
  await attempt.begin({ block: 'pc.ram' });
  for (const process of [attempt.sender, attempt.receiver]) {
    const { code, stderr } = await ended(process);
    expect(code).toBe(1);
    const failure = failureOf(stderr);
    expect(failure.code).toBe('ERR_VERIFY_MEMORY');
    expect(failure.message).toContain('QEMU has no RAM block "pc.ram"; it has "memory", ');
  }
  await untilFailed(since);
  await source.waitForCounter(source.counter() + 1, BOUND_MS);
});

test('a flipped bit is found, and the source stays stopped until it is told', async () => {
  await using attempt = new Attempt('flipped');
  const since = source.qmp.events.length;
  await source.qmp.execute('stop');
  await attempt.begin({ parameters: { 'max-bandwidth': 24 * 1024 * 1024 } });
  const page = await flipLoadedPage(attempt.memoryFile);
  const holds = () => /holding the channel/.test(attempt.sender.stderr());
  await waitUntil('send to hold the channel', holds, { timeoutMs: BOUND_MS });
  const destinationEnded = await ended(attempt.receiver);
  const { running } = await attempt.destination.qmp.execute<{ running: boolean }>('query-status');
  expect(running).toBe(false);
  attempt.sender.signal('SIGINT');
  for (const [side, { code, stdout, stderr }] of [
    ['source', await ended(attempt.sender)],
    ['destination', destinationEnded],
  ] as const) {
    expect(code, stderr).toBe(6);
    const failure = failureOf(stderr);
    expect(failure).toMatchObject({ code: 'ERR_VERIFY', side, phase: 'switchover' });
    expect(failure.message).toMatch(/^(Destination: )?1 of \d+ pages .* differ/);
    expect(failure.message).toContain(`first page ${page} of block "memory"`);
    expect(failure.guest).toMatch(/^UNKNOWN/);
    expect(failure.advice).toMatch(/stands still \(-S\), "quit" there/);
    expect(resultOf(stdout).guest).toBe('unknown');
  }
  const { verified } = resultOf(attempt.receiver.stdout());
  expect(verified).toMatchObject({ pages: GUEST_PAGES, differing: 1 });
  await untilFailed(since);
  await source.qmp.execute('cont');
  await source.waitForCounter(source.counter() + 2, BOUND_MS);
  expect(source.complaints()).toEqual([]);
});

test('memory of a running guest is as it was decoded', async () => {
  await using attempt = new Attempt('equal');
  await attempt.begin();
  const sent = await ended(attempt.sender);
  const received = await ended(attempt.receiver);
  expect([sent.code, received.code], received.stderr).toEqual([0, 0]);
  const { verified, guest } = resultOf(received.stdout);
  expect(guest).toBe('destination');
  // What lies outside of the file: firmware, tables.
  expect(verified).toMatchObject({ pages: GUEST_PAGES, differing: 0 });
  expect(verified!.unverified).toBeGreaterThan(0);
  await attempt.destination.qmp.execute('cont');
  await attempt.destination.waitForCounter(source.counter() + 2, BOUND_MS);
  await attempt.destination.verifyMemory();
});

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

/*
 * Captures the migration streams of test/fixtures again.
 *
 *   1. start      a small guest, stopped before its first instruction or running a boot sector
 *   2. migrate    to a socket of ours: the stream as a destination would read it
 *   3. end        tell a return path that all is well
 *   4. compress   with Brotli, whose window holds a whole stream: firmware is in it twice
 *
 * Memory is 16 MiB of zeros, but for the firmware and some pages of noise and text.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { brotliCompressSync, constants } from 'node:zlib';
import { TailWatcher } from '../src/stream/tail.ts';
import { type QemuBinary, qemuBinaries, repositoryRoot } from '../test/support/lab/binaries.ts';
import { startProcess, waitUntil, within } from '../test/support/lab/processes.ts';
import { Qmp } from '../test/support/lab/qmp.ts';
import { createPrng, exactRandomBytes } from '../test/support/prng.ts';

const TIMEOUT_MS = 60_000;
const MEMORY_MIB = 16;
const PAGE_BYTES = 4096;
const PAGES_ADDRESS = 0x40_0000;
const ROUNDS = 4;

interface Case {
  readonly name: string;
  readonly machine: string;
  readonly capabilities?: readonly string[];
  /** The guest rewrites pages while it migrates, so that there are rounds. */
  readonly isRunning?: boolean;
}

const CASES: readonly Case[] = [
  { name: 'pc', machine: 'pc' },
  { name: 'microvm', machine: 'microvm' },
  { name: 'return-path', machine: 'microvm', capabilities: ['return-path', 'validate-uuid'] },
  { name: 'xbzrle', machine: 'pc', capabilities: ['xbzrle'], isRunning: true },
];

/** Adds 1 to the first byte of each of the 16 pages from 128 KiB on, for ever. */
const BOOT_SECTOR: Uint8Array = Uint8Array.from([
  ...[0xfa], //                   cli
  ...[0xb8, 0x00, 0x20], //       mov ax, 0x2000
  ...[0x8e, 0xd8], //             mov ds, ax         <- page
  ...[0xfe, 0x06, 0x00, 0x00], // inc byte [0]
  ...[0x05, 0x00, 0x01], //       add ax, 0x100
  ...[0x3d, 0x00, 0x30], //       cmp ax, 0x3000
  ...[0x72, 0xf2], //             jb page
  ...[0xeb, 0xed], //             jmp again
  ...new Array<number>(490).fill(0),
  ...[0x55, 0xaa],
]);

const SHUT: Uint8Array = Uint8Array.of(0, 1, 0, 4, 0, 0, 0, 0);

/** Noise, text, and single bytes: pages that the codecs treat differently. */
function memoryPages(): Uint8Array {
  const random = createPrng(16);
  const pages = new Uint8Array(64 * PAGE_BYTES);
  pages.set(exactRandomBytes(random, 4 * PAGE_BYTES), 0);
  for (let page = 8; page < 32; page++) {
    const text = Buffer.from(`page ${page} of a guest that never ran; `);
    Buffer.from(pages.buffer, page * PAGE_BYTES, PAGE_BYTES).fill(text);
  }
  for (let page = 40; page < 64; page++) pages[page * PAGE_BYTES + page * 64] = page;
  return pages;
}

/** What a destination reads; it answers as one that has everything. */
class Destination {
  readonly #server: net.Server;
  readonly #chunks: Buffer[] = [];
  readonly #tail = new TailWatcher();
  #isOver = false;
  readonly #ended: Promise<void>;

  constructor(path: string) {
    let onEnd = (): void => {};
    this.#ended = new Promise((resolve) => {
      onEnd = resolve;
    });
    this.#server = net.createServer((socket) => {
      socket.on('close', onEnd);
      socket.on('data', (chunk) => {
        this.#chunks.push(chunk);
        this.#tail.push(chunk);
        if (!this.#isOver && this.#tail.endsWhole()) {
          this.#isOver = true;
          socket.write(SHUT);
        }
      });
      socket.on('error', () => {});
    });
    this.#server.listen(path);
  }

  /** All that came, once the source has closed its end. */
  async stream(): Promise<Buffer> {
    await within(this.#ended, TIMEOUT_MS, 'the source to close its end');
    this.#server.close();
    return Buffer.concat(this.#chunks);
  }
}

async function capture(qemu: QemuBinary, one: Case): Promise<Buffer> {
  const folder = mkdtempSync(join(tmpdir(), 'pagelane-capture-'));
  const at = (name: string): string => join(folder, name);
  try {
    writeFileSync(at('pages'), memoryPages());
    writeFileSync(at('disk'), Buffer.concat([BOOT_SECTOR, Buffer.alloc(1 << 20)]));
    await using child = startProcess([
      ...qemu.command,
      ...['-accel', 'tcg', '-M', one.machine, '-m', String(MEMORY_MIB), '-nographic'],
      ...['-nodefaults', '-no-user-config', '-serial', 'none', '-monitor', 'none'],
      ...['-device', `loader,file=${at('pages')},addr=${PAGES_ADDRESS},force-raw=on`],
      ...['-qmp', `unix:${at('qmp')},server=on,wait=off`],
      ...(one.isRunning === true ? ['-drive', `file=${at('disk')},format=raw,if=ide`] : ['-S']),
    ]);
    const isAlive = (): boolean => child.isRunning();
    await using qmp = await Qmp.connect(at('qmp'), { timeoutMs: TIMEOUT_MS, isAlive });
    const destination = new Destination(at('stream'));
    await migrate(qmp, one, at('stream'));
    return await destination.stream();
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function migrate(
  qmp: Qmp,
  { capabilities = [], isRunning }: Case,
  to: string,
): Promise<void> {
  const states = ['events', ...capabilities].map((capability) => ({ capability, state: true }));
  await qmp.execute('migrate-set-capabilities', { capabilities: states });
  if (isRunning === true) {
    // Slow enough for some rounds.
    const limits = { 'max-bandwidth': 200_000, 'downtime-limit': 1 };
    await qmp.execute('migrate-set-parameters', limits);
    await waitUntil('the boot sector to run', () => isBooted(qmp), { timeoutMs: TIMEOUT_MS });
  }
  await qmp.execute('migrate', { uri: `unix:${to}` });
  if (isRunning === true) {
    await waitUntil('some rounds', () => hasRounds(qmp), { timeoutMs: TIMEOUT_MS });
    await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 0, 'downtime-limit': 2000 });
  }
  const status = await qmp.waitForMigration(['completed', 'failed'], { timeoutMs: TIMEOUT_MS });
  if (status !== 'completed') throw new Error(`Migration ${status}`);
}

/** The first byte of the boot sector's first page is not zero any more. */
async function isBooted(qmp: Qmp): Promise<boolean> {
  const command = { 'command-line': 'xp /1xb 0x20000' };
  const text = await qmp.execute<string>('human-monitor-command', command);
  return !/0x00\s*$/.test(text);
}

/** Some rounds have passed, or it has converged by itself. */
async function hasRounds(qmp: Qmp): Promise<boolean> {
  const found = await qmp.execute<{ status: string; ram?: Record<string, number> }>(
    'query-migrate',
  );
  return found.status === 'completed' || (found.ram?.['dirty-sync-count'] ?? 0) >= ROUNDS;
}

for (const qemu of qemuBinaries()) {
  for (const one of CASES) {
    const stream = await capture(qemu, one);
    const name = `qemu-${qemu.version.split('.').slice(0, 2).join('.')}-${one.name}.br`;
    const file = brotliCompressSync(stream, { params: { [constants.BROTLI_PARAM_LGWIN]: 24 } });
    writeFileSync(join(repositoryRoot, 'test/fixtures', name), file);
    process.stdout.write(`${name}: ${stream.length} bytes, ${file.length} compressed\n`);
  }
}

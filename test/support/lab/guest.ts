import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  guestKernel,
  mptcpLibrary,
  newestQemu,
  type QemuBinary,
  workloadInitramfs,
} from './binaries.ts';
import { type RunningProcess, startProcess, waitUntil } from './processes.ts';
import { Qmp } from './qmp.ts';

/* Chosen by us */
const START_TIMEOUT_MS = 15_000;

/** What the guest of `workload.c` does; all of it ends up on its kernel's command line. */
export interface Workload {
  /** MiB of memory it fills. @default 64 */
  readonly fill?: number;
  /** What it fills them with. Structured: text-like and pointer-like pages. @default random */
  readonly content?: 'random' | 'text' | 'pointer' | 'structured' | 'zero' | 'mixed';
  /** Pages it rewrites a second. @default 0 */
  readonly rate?: number;
  /** Rewrites stay in the first MiB. @default all that is filled */
  readonly hot?: number;
  /** Rewrite whole pages, or a word of each. @default page */
  readonly write?: 'page' | 'words';
  /** Whether it checks its memory all the time. @default true */
  readonly verify?: boolean;
  /** Milliseconds a sweep over its memory should take. @default 2000 */
  readonly sweep?: number;
}

/** How a guest is started. */
export interface GuestOptions {
  /** @default the newest QEMU of this machine */
  readonly qemu?: QemuBinary;
  /** @default 512 */
  readonly memoryMiB?: number;
  /** @default the workload's own defaults */
  readonly workload?: Workload;
  /** Initramfs and words for its kernel, in place of `workload`. */
  readonly image?: { readonly initramfs: string; readonly kernelWords: string };
  /** Waits for a migration (`-incoming defer`) instead of booting. @default false */
  readonly isIncoming?: boolean;
  /** QEMU's machine type: fix it to migrate between versions. @default q35 */
  readonly machine?: string;
  /** File that holds the guest's memory, shared. @default none */
  readonly memoryFile?: string;
  /** All memory is touched before the guest starts. The same at both ends. @default false */
  readonly isPreallocated?: boolean;
  /** Network namespace QEMU runs in. */
  readonly namespace?: string;
  /** Preloads the library that turns QEMU's TCP sockets into MPTCP ones. @default false */
  readonly preloadsMptcp?: boolean;
  readonly env?: Readonly<Record<string, string>>;
  /** Further words for QEMU's command line. */
  readonly extraWords?: readonly string[];
}

const EXTRA_MONITOR = 'qmp-extra';

/** A QEMU with a guest in it, and its serial port. */
export class Guest implements AsyncDisposable {
  readonly qmp: Qmp;
  readonly qemu: QemuBinary;
  readonly memoryBytes: number;
  /** Folder of its sockets and log, removed when it stops. */
  readonly folder: string;
  readonly #process: RunningProcess;

  constructor(parts: {
    qmp: Qmp;
    qemu: QemuBinary;
    memoryBytes: number;
    folder: string;
    process: RunningProcess;
  }) {
    this.qmp = parts.qmp;
    this.qemu = parts.qemu;
    this.memoryBytes = parts.memoryBytes;
    this.folder = parts.folder;
    this.#process = parts.process;
  }

  /** Socket of a second monitor, for what drives QEMU itself. */
  get extraMonitor(): string {
    return join(this.folder, EXTRA_MONITOR);
  }

  /** Process id of QEMU. */
  get pid(): number {
    return this.#process.pid;
  }

  /** What QEMU itself complained about. */
  stderr(): string {
    return this.#process.stderr();
  }

  /** All that the guest has written on its serial port, in this QEMU. */
  serial(): string {
    return serialText(this.folder);
  }

  /** Waits for text on the serial port. */
  async waitFor(pattern: RegExp, timeoutMs: number): Promise<RegExpExecArray> {
    return waitUntil(
      `${pattern} on the guest's serial port`,
      () => {
        const match = pattern.exec(this.serial());
        if (match !== null) return match;
        if (!this.#process.isRunning()) throw new Error(`QEMU ended: ${this.stderr()}`);
        return undefined;
      },
      { timeoutMs },
    );
  }

  /** The last counter the guest told, -1 before the first. It grows while the guest runs. */
  counter(): number {
    return Number(this.#lastTick()?.[1] ?? -1);
  }

  /** The errors the guest found in its own memory, as far as it told. */
  errors(): number {
    return Number(this.#lastTick()?.[2] ?? 0);
  }

  /** Waits until the counter has passed `counter`. */
  async waitForCounter(counter: number, timeoutMs: number): Promise<void> {
    await waitUntil(`the guest's counter to pass ${counter}`, () => this.counter() > counter, {
      timeoutMs,
    });
  }

  /**
   * Lets the guest check all of its memory, from now on.
   *
   * @throws {Error} If the guest or its kernel complains.
   */
  async verifyMemory(timeoutMs = 30_000): Promise<void> {
    const sweeps = () => [...this.serial().matchAll(/^SWEEP \d+/gm)].length;
    // The sweep that is under way has seen some pages before: the one after it counts.
    const wanted = sweeps() + 2;
    await waitUntil('the guest to check its memory', () => sweeps() >= wanted, { timeoutMs });
    const complaints = this.complaints();
    if (complaints.length > 0) throw new Error(`The guest is damaged: ${complaints.join('; ')}`);
  }

  /** Lines on the serial port that a sound guest does not write. */
  complaints(): readonly string[] {
    const bad = /^.*(?:CORRUPT|SWEEP \d+ bad|FAILED|Oops|BUG:|Call Trace|Kernel panic).*$/gm;
    return [...this.serial().matchAll(bad)].map(([line]) => line);
  }

  /** Ends QEMU and removes its folder. */
  async stop(): Promise<void> {
    await this.qmp[Symbol.asyncDispose]();
    await this.#process.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  #lastTick(): RegExpMatchArray | undefined {
    return [...this.serial().matchAll(/^TICK (\d+) (\d+)\r?\n/gm)].at(-1);
  }
}

/**
 * Starts a guest and connects to its monitor.
 *
 * It boots while this returns: wait for `READY` on its serial port.
 */
export async function startGuest(options: GuestOptions = {}): Promise<Guest> {
  const { qemu = newestQemu(), memoryMiB = 512 } = options;
  const folder = mkdtempSync(join(tmpdir(), 'pagelane-guest-'));
  const preload = options.preloadsMptcp === true ? { LD_PRELOAD: mptcpLibrary() } : {};
  const child = startProcess([...qemu.command, ...qemuWords({ ...options, memoryMiB, folder })], {
    env: { ...preload, ...options.env },
    ...(options.namespace !== undefined && { namespace: options.namespace }),
  });
  try {
    const qmp = await Qmp.connect(join(folder, 'qmp'), {
      timeoutMs: START_TIMEOUT_MS,
      isAlive: () => child.isRunning(),
    });
    return new Guest({ qmp, qemu, folder, process: child, memoryBytes: memoryMiB * 1024 * 1024 });
  } catch (cause) {
    await child.stop();
    rmSync(folder, { recursive: true, force: true });
    throw new Error(`Cannot start a guest: ${child.stderr().trim()}`, { cause });
  }
}

function qemuWords({
  memoryMiB,
  folder,
  workload = {},
  image = { initramfs: workloadInitramfs(), kernelWords: kernelWords(workload) },
  machine = 'q35',
  memoryFile,
  isPreallocated = false,
  isIncoming = false,
  extraWords = [],
}: GuestOptions & { readonly memoryMiB: number; readonly folder: string }): readonly string[] {
  const kind = memoryFile === undefined ? 'ram' : `file,share=on,mem-path=${memoryFile}`;
  const backend = `memory-backend-${kind},id=memory,size=${memoryMiB}M`;
  const hasBackend = memoryFile !== undefined || isPreallocated;
  const memory = hasBackend
    ? ['-object', `${backend},prealloc=${isPreallocated ? 'on' : 'off'}`]
    : [];
  const memoryOption = hasBackend ? ',memory-backend=memory' : '';
  return [
    ...['-accel', 'tcg', '-M', `${machine}${memoryOption}`, '-cpu', 'max', '-m', `${memoryMiB}`],
    ...['-smp', '1', '-nographic', '-nodefaults', '-no-user-config', '-no-reboot', ...memory],
    ...['-kernel', guestKernel(), '-initrd', image.initramfs],
    ...['-append', `console=ttyS0 panic=-1 quiet ${image.kernelWords}`],
    ...['-serial', `file:${join(folder, 'serial')}`, '-monitor', 'none'],
    ...['-qmp', `unix:${join(folder, 'qmp')},server=on,wait=off`],
    ...['-qmp', `unix:${join(folder, EXTRA_MONITOR)},server=on,wait=off`],
    ...(isIncoming ? ['-incoming', 'defer'] : []),
    ...extraWords,
  ];
}

function kernelWords(workload: Workload): string {
  const { verify = true, ...rest } = workload;
  const words = Object.entries({ ...rest, verify: verify ? 1 : 0 });
  return words.map(([name, value]) => `${name}=${value}`).join(' ');
}

function serialText(folder: string): string {
  const path = join(folder, 'serial');
  return existsSync(path) ? readFileSync(path, 'utf8') : '';
}

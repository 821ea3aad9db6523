import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** A QEMU of this machine. */
export interface QemuBinary {
  /** As QEMU says it, such as `10.0.2`. */
  readonly version: string;
  readonly major: number;
  /** Program and the words that let it find its firmware. */
  readonly command: readonly string[];
}

/** The folder of the repository, wherever this file was compiled to. */
export const repositoryRoot: string = findRoot(dirname(fileURLToPath(import.meta.url)));

/** Where `scripts/setup` keeps what it made. */
export function labFolder(): string {
  const caches = process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache');
  return process.env['PAGELANE_LAB'] || join(caches, 'pagelane-lab');
}

let found: readonly QemuBinary[] | undefined;

/**
 * The QEMUs of this machine, oldest first: Debian's, and the private one where that is too old.
 *
 * @throws {Error} If there is none.
 */
export function qemuBinaries(): readonly QemuBinary[] {
  if (found !== undefined) return found;
  const program = 'qemu-system-x86_64';
  const tree = join(labFolder(), 'qemu-backports');
  const share = join(tree, 'usr/share');
  const candidates = [
    [join(folderOf(program), program)],
    [join(tree, 'usr/bin', program), ...['-L', join(share, 'qemu'), '-L', join(share, 'seabios')]],
  ];
  const binaries = candidates.filter(([path]) => existsSync(path!)).map(describe);
  if (binaries.length === 0) throw missing(program);
  found = binaries.sort((one, other) => one.major - other.major);
  return found;
}

/**
 * The newest QEMU here.
 *
 * Before 9.0 QEMU loses dirty pages under TCG in its own migration: a guest that runs while
 * it migrates must not be judged on one.
 *
 * @throws {Error} If it is older than 9.0.
 */
export function newestQemu(): QemuBinary {
  const newest = qemuBinaries().at(-1)!;
  if (newest.major < 9) throw missing(`a QEMU of 9.0 or newer (there is ${newest.version})`);
  return newest;
}

/** The QEMU before 9.0 of this machine, if it has one: for compatibility. */
export function olderQemu(): QemuBinary | undefined {
  return qemuBinaries().find(({ major }) => major < 9);
}

/** The kernel every guest boots. */
export function guestKernel(): string {
  return artifact('vmlinuz');
}

/** The initramfs of the guest that checks its own memory. */
export function workloadInitramfs(): string {
  return artifact(`workload-${sourceHash('workload.c')}.cpio`);
}

/** The initramfs of the guests that compile or serve Redis; `scripts/setup bench` makes it. */
export function realisticInitramfs(): string {
  return artifact(`realistic-${sourceHash('realistic-init.sh')}.cpio`, 'bench');
}

/** The library whose preloading makes a program use MPTCP. */
export function mptcpLibrary(): string {
  return artifact(`mptcp-${sourceHash('mptcp.c')}.so`);
}

function describe(command: readonly string[]): QemuBinary {
  const text = execFileSync(command[0]!, ['--version'], { encoding: 'utf8' });
  const version = /version ([\d.]+)/.exec(text)?.[1];
  if (version === undefined) throw new Error(`Cannot read the version of ${command[0]}: ${text}`);
  return { version, major: Number.parseInt(version, 10), command };
}

/** The first folder of PATH that holds `program`; any, if none does. */
function folderOf(program: string): string {
  const folders = (process.env['PATH'] ?? '').split(':').filter((folder) => folder !== '');
  return folders.find((folder) => existsSync(join(folder, program))) ?? '/usr/bin';
}

function artifact(name: string, part: 'lab' | 'bench' = 'lab'): string {
  const path = join(labFolder(), name);
  if (!existsSync(path)) throw missing(path, part);
  return path;
}

function missing(what: string, part: 'lab' | 'bench' = 'lab'): Error {
  return new Error(`${what} is missing: run scripts/setup ${part}`);
}

/** Names an artifact after its source, as `source_hash` in scripts/lib/common.sh does. */
function sourceHash(source: string): string {
  const path = join(repositoryRoot, 'test/support/lab/guest', source);
  return createHash('sha256').update(readFileSync(path)).digest('hex').slice(0, 12);
}

function findRoot(folder: string): string {
  if (existsSync(join(folder, 'package.json'))) return folder;
  const parent = dirname(folder);
  if (parent === folder) throw new Error('Cannot find the folder of the repository');
  return findRoot(parent);
}
